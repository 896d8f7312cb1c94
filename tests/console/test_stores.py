"""Key stores in the console: added by their own settings, looked at, listed, adopted from."""

from __future__ import annotations

import re

from django.test import Client

from keys import discovery
from keys.models import Classification, Key, KeyStore, Listing
from tests.console.conftest import signed_in_client
from tests.house import House
from tests.keys import remote
from tests.keys.remote import Vendor

REASON = {"reason": "the plan says so"}


def text(client: Client, address: str, status: int = 200) -> str:
    answer = client.get(address)
    assert answer.status_code == status, answer.content.decode()
    return answer.content.decode()


def listed(client: Client) -> Listing:
    """List the store by its button, let the worker do it, and return the listing."""
    answer = client.post("/key-stores/cloud/discover")
    row = Listing.objects.latest("created_at")
    assert answer["Location"] == f"/listings/{row.id}"
    return discovery.run(row.id)


# --- adding one


def test_a_store_is_added_by_its_kinds_own_settings(house: House, ada: Client) -> None:
    choice = text(ada, "/key-stores/-/new")
    assert "AWS KMS" in choice and "?kind=vault" in choice
    for kind, labels in {
        "aws": ("Region", "Role", "secret_access_key"),
        "pkcs11": ("Token label", "the user PIN."),
    }.items():
        form = text(ada, f"/key-stores/-/new?kind={kind}")
        assert all(label in form for label in labels), kind
        assert "JSON object" not in form
    assert "credentials" not in text(ada, "/key-stores/-/new?kind=software")

    remote.register()
    address = "/key-stores/-/new?kind=remote"
    wanted = {"title": "Cloud", "name": "cloud", **REASON}
    missing = ada.post(address, {**wanted, "setting_file": ""})
    assert missing.status_code == 400 and not KeyStore.objects.filter(name="cloud").exists()
    added = ada.post(address, {**wanted, "setting_file": str(house.folder / "cloud.json")})
    assert added["Location"] == "/key-stores/cloud"
    assert KeyStore.objects.get(name="cloud").settings == {"file": str(house.folder / "cloud.json")}
    assert house.last_entry(action="create_key_store")["facts"]["reason"] == REASON["reason"]
    # Without a kind there is nothing to fill in.
    assert ada.post("/key-stores/-/new", wanted).status_code == 400


def test_a_fault_in_a_setting_is_told_at_that_setting(house: House, ada: Client) -> None:
    form = {"title": "HSM", "name": "hsm", "credentials": "env:PIN"}
    form |= {"setting_module": "/etc/passwd", "setting_token_label": "kms"}
    page = ada.post("/key-stores/-/new?kind=pkcs11", {**form, **REASON})
    assert page.status_code == 400
    field = re.search(
        r'for="id_setting_module".*?class="errorlist".*?</ul>', page.content.decode(), re.S
    )
    assert field, page.content.decode()
    credential = ada.post("/key-stores/-/new?kind=pkcs11", {**form, **REASON, "credentials": ""})
    assert credential.status_code == 400


def test_how_a_store_is_reached_can_be_changed(
    house: House, ada: Client, olga: Client, vendor: Vendor
) -> None:
    form = text(ada, "/key-stores/cloud/edit")
    assert 'value="Cloud"' in form and "remote.json" in form and 'name="name"' not in form
    changed = {"title": "Frankfurt", "setting_file": str(house.folder / "other.json")}
    assert ada.post("/key-stores/cloud/edit", changed).status_code == 400
    assert ada.post("/key-stores/cloud/edit", {**changed, **REASON}).status_code == 302
    row = KeyStore.objects.get(name="cloud")
    assert (row.title, row.settings["file"]) == ("Frankfurt", changed["setting_file"])
    assert olga.get("/key-stores/cloud/edit").status_code == 403


# --- looking at one


def test_a_stores_page_says_how_it_is_and_what_it_can_do(
    house: House, ada: Client, vendor: Vendor
) -> None:
    house.key("cloud", name="Payroll", alias="payroll")
    page = text(ada, "/key-stores/cloud")
    for told in ("Not checked yet", "remote.json", "Payroll", "Nobody has listed it yet"):
        assert told in page, told
    # It is asked only once the page is there, so that a dead store stalls nobody.
    assert vendor.calls == (calls := vendor.calls) and "AES-256" not in page.split("Keys of the")[0]
    asked = text(ada, "/key-stores/cloud?ask=offers")
    assert "the store waits 1 to 30 days" in asked and "ECDSA" in asked
    assert vendor.calls > calls

    assert ada.post("/key-stores/cloud/check")["Location"] == "/key-stores/cloud"
    assert "Working" in text(ada, "/key-stores/cloud")
    vendor.in_trouble("refused")
    ada.post("/key-stores/cloud/check")
    page = text(ada, "/key-stores/cloud?ask=offers")
    assert "Not reachable" in page and page.count("The credential has expired.") >= 2


def test_a_store_that_is_switched_off_is_not_asked(
    house: House, ada: Client, vendor: Vendor
) -> None:
    assert ada.post("/key-stores/cloud/off", REASON)["Location"] == "/key-stores/cloud"
    calls = vendor.calls
    page = text(ada, "/key-stores/cloud?ask=offers")
    assert "It is switched off" in page and "List what is in it" not in page
    assert vendor.calls == calls


# --- listing what is in it


def test_a_listing_shows_its_progress_and_then_what_it_found(
    house: House, olga: Client, vendor: Vendor
) -> None:
    for number in range(12):
        vendor.create(f"theirs-{number:02}")
    house.key("cloud", name="Payroll", alias="payroll")
    begun = olga.post("/key-stores/cloud/discover")
    row = Listing.objects.get()
    address = f"/listings/{row.id}"
    assert begun["Location"] == address
    page = text(olga, address)
    # How many there are is not known yet: the bar has no length, and the page looks again.
    assert re.search(r"<progress id=\"progress\">", page) and f'hx-get="{address}?look=1"' in page
    Listing.objects.update(found=10, total=13, pages=1)
    page = text(olga, address)
    assert '<progress id="progress" max="13" value="10">' in page
    assert "<strong>10</strong> of 13 keys on 1 page" in page
    # It ends its looking by itself, and shows what there is.
    page = text(olga, f"{address}?look=30")
    assert "hx-get" not in page.split('id="listing"')[1].split(">")[0] and "Look again" in page

    Listing.objects.update(found=0, total=None, pages=0)
    discovery.run(row.id)
    page = text(olga, address)
    assert "Complete" in page and "<progress" not in page
    assert all(f"theirs-{number:02}" in page for number in range(12))
    assert page.count("Choose </span><strong>theirs") == 12
    assert '<a href="/keys/payroll">Payroll</a>' in page and "Choose </span><strong>kms" not in page
    assert "13 found in all" in page
    assert str(row.id) in text(olga, "/key-stores/cloud")


def test_what_was_found_can_be_narrowed(house: House, olga: Client, vendor: Vendor) -> None:
    vendor.create("orders", tags={"team": "shop"})
    vendor.create("odd", problem="Its type is unknown here.", provider_managed=True)
    house.key("cloud", name="Payroll", alias="payroll")
    address = f"/listings/{listed(olga).id}"
    for query, there in {
        "": {"orders", "odd", "Payroll"},
        "?only=new": {"orders"},
        "?only=ours": {"Payroll"},
        "?only=problem": {"odd"},
        "?text=ORD": {"orders"},
        "?only=nonsense&text=": {"orders", "odd", "Payroll"},
        "?text=nothing-like-it": set(),
    }.items():
        page = text(olga, address + query).split('id="found"')[1]
        shown = {name for name in ("orders", "odd", "Payroll") if f">{name}<" in page}
        assert shown == there, query
    assert "No key is like that" in text(olga, f"{address}?text=nothing-like-it")
    page = text(olga, address)
    assert "Its type is unknown here." in page and "provider-managed" in page
    assert "team=shop" in page


def test_a_listing_that_failed_says_why(house: House, olga: Client, vendor: Vendor) -> None:
    vendor.in_trouble("nonsense")
    page = text(olga, f"/listings/{listed(olga).id}")
    assert "The listing ended before its time" in page and "The answer makes no sense." in page


# --- adopting


def test_chosen_keys_are_adopted_each_on_its_own(
    house: House, olga: Client, vendor: Vendor
) -> None:
    for name in ("orders", "letters", "taken"):
        vendor.create(name)
    row = listed(olga)
    ids = {found.name: found.pk for found in row.keys.all()}
    query = "&".join(f"found={pk}" for pk in ids.values())
    address = f"/listings/{row.id}/adopt?{query}"
    form = text(olga, address)
    assert "Adopt 3 keys" in form and 'value="orders"' in form
    assert '<option value="cloud">' in form and '<option value="internal">' not in form
    values = {"classification": "cloud", "owner": "Shop", **REASON}
    for name, pk in ids.items():
        values |= {f"name_{pk}": name.title(), f"alias_{pk}": f"{name}-2027"}
    assert olga.post(address, {**values, "classification": ""}).status_code == 400
    assert olga.post(address, {**values, "reason": ""}).status_code == 400
    assert not Key.objects.filter(adopted=True).exists()
    house.key("internal", name="Taken", alias="taken-2027")
    before = vendor.keys

    answer = olga.post(address, values)
    page = answer.content.decode()
    assert answer.status_code == 200 and "2 keys adopted" in page and "1 key was refused" in page
    lines = re.findall(r"<tr><td class=\"lead.*?</tr>", page, re.S)
    told = {re.search(r"<strong>(.*?)<", line).group(1): "Adopted" in line for line in lines}  # type: ignore[union-attr]
    assert told == {"orders": True, "letters": True, "taken": False}
    assert "taken-2027" in page
    assert {k.alias: (k.name, k.owner) for k in Key.objects.filter(adopted=True)} == {
        "orders-2027": ("Orders", "Shop"), "letters-2027": ("Letters", "Shop"),
    }  # fmt: skip
    assert vendor.keys == before
    assert len(house.entries(action="adopt_key", outcome="success")) == 2
    assert "adopted from its key store" in text(olga, "/keys/orders-2027")
    # Once more: all are refused, and the page says so.
    again = olga.post(address, values)
    assert again.status_code == 409 and "No key was adopted" in again.content.decode()


def test_only_an_officer_chooses_and_only_from_the_listing(
    house: House, olga: Client, vendor: Vendor
) -> None:
    vendor.create("orders")
    row = listed(olga)
    found = row.keys.get()
    for name in ("ada", "udo"):
        client = signed_in_client(name)
        page = text(client, f"/listings/{row.id}")
        assert "orders" in page and "Adopt the chosen keys" not in page
        assert client.get(f"/listings/{row.id}/adopt?found={found.pk}").status_code == 403
    for query in ("", "?found=999999", "?found=x", "?found=" + "9" * 30):
        assert olga.get(f"/listings/{row.id}/adopt{query}").status_code == 400, query
    many = "&".join(f"found={number}" for number in range(60))
    assert "at most 50" in text(olga, f"/listings/{row.id}/adopt?{many}", 400)


def test_where_no_classification_allows_the_store_the_form_says_so(
    house: House, olga: Client, vendor: Vendor
) -> None:
    vendor.create("orders")
    row = listed(olga)
    for name in ("cloud", "voted"):
        allowed = Classification.objects.get(name=name)
        allowed.key_stores.set(KeyStore.objects.filter(name="software"))
    page = text(olga, f"/listings/{row.id}/adopt?found={row.keys.get().pk}")
    assert "No classification allows this key store" in page
