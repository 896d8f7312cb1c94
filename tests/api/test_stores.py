"""Key stores through the API: listed, adopted from, compared with, and every difference settled."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from keys import discovery
from keys.models import Drift, Key, Listing
from tests.api.clients import application, person
from tests.house import House
from tests.keys import remote
from tests.keys.remote import Vendor


@pytest.fixture
def vendor(house: House) -> Iterator[Vendor]:
    with remote.furnished(house) as found:
        yield found


def found_keys(house: House, path: str = "", listing: str = "") -> Any:
    listing = listing or str(Listing.objects.latest("created_at").id)
    return person("olga").get(f"listings/{listing}/keys{path}").json


def differing(house: House, vendor: Vendor) -> tuple[Key, dict[str, Any]]:
    """Return a key that its owner disabled at the store, and the difference as the API shows it."""
    key = house.key("cloud", name="Payroll", alias="payroll")
    vendor.disable(vendor.of(key))
    olga = person("olga")
    assert olga.post("keys/payroll/check-drift").status == 200
    (row,) = olga.get("drift?key=payroll").json["items"]
    return key, row


def test_a_store_is_listed_and_its_listing_tells_how_far_it_is(
    house: House, vendor: Vendor
) -> None:
    for number in range(13):
        vendor.create(f"theirs-{number:02}")
    olga = person("olga")
    begun = olga.post("key-stores/cloud/discover", {"reason": "the inventory"})
    assert begun.status == 202
    listing = begun.json
    assert begun.headers["location"] == f"/api/v1/listings/{listing['id']}"
    assert (listing["state"], listing["found"], listing["total"]) == ("running", 0, None)
    assert listing["key_store"]["name"] == "cloud"
    # There is one at a time: whoever asks meanwhile gets the same.
    assert olga.post("key-stores/cloud/discover").json["id"] == listing["id"]

    discovery.run(Listing.objects.get().id)
    done = olga.get(f"listings/{listing['id']}").json
    assert (done["state"], done["found"], done["total"]) == ("done", 13, 13)
    assert done["finished_at"]
    assert olga.get("key-stores/cloud/listings").json["items"] == [done]
    assert olga.get("key-stores/software/listings").json["items"] == []

    first = found_keys(house, "?limit=10")
    rest = found_keys(house, f"?limit=10&after={first['next']}")
    names = [one["name"] for one in first["items"] + rest["items"]]
    assert names == [f"theirs-{number:02}" for number in range(13)]
    assert rest["next"] is None
    one = first["items"][0]
    assert (one["spec"], one["state"], one["key"], one["problem"]) == (
        "AES_256", "enabled", None, "",
    )  # fmt: skip
    assert [v["state"] for v in one["versions"]] == ["active"]


def test_a_found_key_is_adopted_as_it_is(house: House, vendor: Vendor) -> None:
    vendor.create("orders", versions=2, tags={"team": "shop"})
    vendor.create("odd", problem="Its type is unknown here.")
    olga = person("olga")
    olga.post("key-stores/cloud/discover")
    discovery.run(Listing.objects.get().id)
    assert [k["name"] for k in found_keys(house, "?only=problem")["items"]] == ["odd"]
    assert [k["name"] for k in found_keys(house, "?only=new")["items"]] == ["orders"]
    before = vendor.keys

    wanted = {"classification": "cloud", "reference": "orders", "alias": "orders-2027"}
    made = olga.post("key-stores/cloud/adopt", {**wanted, "reason": "ours now"})
    assert made.status == 201, made.body
    key = made.json
    assert made.headers["location"] == f"/api/v1/keys/{key['id']}"
    assert (key["adopted"], key["alias"], key["model"]) == (
        True, "orders-2027", "customer-managed",
    )  # fmt: skip
    assert [v["state"] for v in olga.get("keys/orders-2027/versions").json["items"]] == [
        "active", "deactivated",
    ]  # fmt: skip
    assert vendor.keys == before, "adopting changed something at the store"
    assert found_keys(house, "?only=ours")["items"][0]["key"]["name"] == "orders-2027"
    assert house.last_entry(action="adopt_key")["facts"]["reason"] == "ours now"

    olga.post("key-stores/cloud/adopt", wanted).problem(409, "already_exists")
    for reference, status in (("odd", 422), ("nowhere", 404)):
        answer = olga.post("key-stores/cloud/adopt", {**wanted, "reference": reference})
        assert answer.status == status, answer.body
    refused = olga.post(
        "key-stores/cloud/adopt", {"classification": "internal", "reference": "orders"}
    )
    assert 400 <= refused.status < 500, refused.body


def test_only_who_may_lists_and_adopts(house: House, vendor: Vendor) -> None:
    vendor.create("orders")
    wanted = {"classification": "cloud", "reference": "orders"}
    person("udo").post("key-stores/cloud/discover").problem(403, "denied")
    person("ada").post("key-stores/cloud/adopt", wanted).problem(403, "denied")
    billing = application(house, "billing")
    billing.post("key-stores/cloud/adopt", wanted).problem(403, "denied")
    billing.get("drift").problem(403, "denied")
    billing.get("key-stores/cloud/listings").problem(403, "denied")
    person("olga").post("key-stores/software/discover").problem(422, "unsupported")
    assert not Listing.objects.exists()


def test_what_a_store_last_said_of_a_key_can_be_read(house: House, vendor: Vendor) -> None:
    key = house.key("cloud", name="Payroll", alias="payroll")
    with vendor.editing(vendor.of(key)) as row:
        row["facts"] = {"rotations_used": "3", "rotations_limit": "25"}
    olga = person("olga")
    assert olga.post("keys/payroll/check-drift", {"reason": "curious"}).json["alias"] == "payroll"
    view = olga.get("keys/payroll/store-view").json
    assert (view["compared"], view["seen"]["state"], view["trouble"]) == (True, "enabled", "")
    assert [v["number"] for v in view["seen"]["versions"]] == [1]
    assert view["rotations"] == {"used": 3, "limit": 25}
    assert view["open_differences"] == 0 and view["seen_at"] and view["look_at"]

    vendor.in_trouble("away")
    olga.post("keys/payroll/check-drift").problem(503, "backend_unavailable")
    view = olga.get("keys/payroll/store-view").json
    assert view["trouble"] == "The cable is out." and view["seen"]["state"] == "enabled"

    assert olga.get("keys/invoices/store-view").json["compared"] is False
    olga.post("keys/invoices/check-drift").problem(422, "unsupported")


def test_a_difference_is_listed_with_what_can_be_done(house: House, vendor: Vendor) -> None:
    key, row = differing(house, vendor)
    assert (row["field"], row["believed"], row["observed"], row["state"]) == (
        "key_state", "enabled", "disabled", "open",
    )  # fmt: skip
    assert row["key"]["id"] == str(key.id) and row["key_store"]["name"] == "cloud"
    olga = person("olga")
    one = olga.get(f"drift/{row['id']}").json
    assert one["ways"]["accept"] == one["ways"]["revert"] == ""
    assert one["ways"]["repair"]
    assert olga.get("drift?field=tags").json["items"] == []
    assert olga.get("drift?key_store=cloud&field=key_state").json["items"] == [row]
    assert olga.get("drift?state=accepted").json["items"] == []
    assert olga.get("keys/payroll/store-view").json["open_differences"] == 1
    person("udo").post(f"drift/{row['id']}/accept").problem(403, "denied")
    olga.post(f"drift/{row['id']}/repair").problem(422, "unsupported")


def test_accepting_lets_the_console_follow(house: House, vendor: Vendor) -> None:
    _, row = differing(house, vendor)
    before = vendor.keys
    olga = person("olga")
    done = olga.post(f"drift/{row['id']}/accept", {"reason": "they are right"})
    assert (done.status, done.json["state"]) == (200, "accepted")
    assert done.json["decided_by"]["name"] == "Olga" and done.json["reason"] == "they are right"
    assert olga.get("keys/payroll").json["state"] == "disabled"
    assert vendor.keys == before
    olga.post(f"drift/{row['id']}/accept").problem(409, "conflict")


def test_reverting_puts_the_store_back(house: House, vendor: Vendor) -> None:
    key, row = differing(house, vendor)
    olga = person("olga")
    assert olga.post(f"drift/{row['id']}/revert", {"reason": "a mistake"}).status == 200
    house.run_due_jobs()
    assert vendor.keys[vendor.of(key)]["state"] == "enabled"
    olga.post("keys/payroll/check-drift")
    assert olga.get(f"drift/{row['id']}").json["state"] == "reverted"


def test_repairing_makes_a_new_version(house: House, vendor: Vendor) -> None:
    key = house.key("cloud", name="Payroll", alias="payroll")
    vendor.rotate(vendor.of(key))
    vendor.remove_version(vendor.of(key), 1)
    olga = person("olga")
    olga.post("keys/payroll/check-drift")
    rows = olga.get("drift?field=version_missing").json["items"]
    assert [(row["version"], row["observed"]) for row in rows] == [(1, None)]
    assert olga.post(f"drift/{rows[0]['id']}/repair").status == 200
    house.run_due_jobs()
    assert olga.get("keys/payroll").json["primary_version"] == 2
    assert Drift.objects.get(pk=rows[0]["id"]).state == "repaired"


def test_where_the_classification_asks_for_it_officers_agree_first(
    house: House, vendor: Vendor
) -> None:
    key = house.key("voted", name="Payroll", alias="payroll")
    vendor.disable(vendor.of(key))
    olga = person("olga")
    olga.post("keys/payroll/check-drift")
    (row,) = olga.get("drift").json["items"]
    asked = olga.post(f"drift/{row['id']}/accept", {"reason": "they are right"})
    assert (asked.status, asked.json["status"]) == (202, "pending_approval")
    assert olga.get("keys/payroll").json["state"] == "enabled"
    house.approve(asked.json["approval_id"])
    assert olga.get(f"drift/{row['id']}").json["state"] == "accepted"
    assert olga.get("keys/payroll").json["state"] == "disabled"
