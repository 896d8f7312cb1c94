"""Where a store says something else: the list, the key's panel, and the three ways to settle it."""

from __future__ import annotations

import html

import pytest
from django.test import Client

from keys.models import Approval, Drift, Key
from tests.house import House
from tests.keys.remote import Vendor

REASON = {"reason": "the plan says so"}


def text(client: Client, address: str) -> str:
    answer = client.get(address)
    assert answer.status_code == 200, answer.content.decode()
    return html.unescape(answer.content.decode())


@pytest.fixture
def payroll(house: House, vendor: Vendor) -> Key:
    return house.key("cloud", name="Payroll", alias="payroll")


def compared(client: Client, key: Key) -> list[Drift]:
    """Compare a key by the button on its page; return what is open then."""
    answer = client.post(f"/keys/{key.alias}/compare")
    assert answer["Location"] == f"/keys/{key.alias}"
    return list(Drift.objects.filter(key=key, state="open").order_by("field"))


def panel(page: str) -> str:
    return page.split('id="at-store"')[1].split("</section>")[0]


def test_a_keys_page_shows_what_its_store_says(
    house: House, olga: Client, vendor: Vendor, payroll: Key
) -> None:
    assert "The store was not asked yet" in panel(text(olga, "/keys/payroll"))
    with vendor.editing(vendor.of(payroll)) as row:
        row["facts"] = {"rotations_used": "20", "rotations_limit": "25", "region": "Frankfurt"}
        row["rotation_days"] = 90
    vendor.tag(vendor.of(payroll), team="pay")
    assert compared(olga, payroll) == []
    shown = panel(text(olga, "/keys/payroll"))
    for told in (
        "said what the console believes", "every 90 days", "team=pay", "Frankfurt",
        "20 of 25", 'value="80"', "Plan a new key", vendor.of(payroll), "Version 1",
    ):  # fmt: skip
        assert told in shown, told
    assert 'id="at-store"' not in text(olga, "/keys/invoices")

    vendor.in_trouble("away")
    assert olga.post("/keys/payroll/compare").status_code == 503
    shown = panel(text(olga, "/keys/payroll"))
    assert "The cable is out." in shown and "What stands here is what it said before." in shown


def test_a_key_that_is_not_there_is_told_as_such(
    house: House, olga: Client, vendor: Vendor, payroll: Key
) -> None:
    vendor.remove(vendor.of(payroll))
    (row,) = compared(olga, payroll)
    shown = panel(text(olga, "/keys/payroll"))
    assert "had nothing of this key" in shown and "not there" in shown
    assert f"/drift/{row.id}/do/accept" in shown and f"/drift/{row.id}/do/repair" in shown
    assert f"/drift/{row.id}/do/revert" not in shown
    # Why a way is not possible stands there as text.
    assert "Revert: What is gone" in shown
    accepting = text(olga, f"/drift/{row.id}/do/accept")
    assert "danger" in accepting and "destroyed" in accepting


def test_differences_are_listed_and_narrowed(
    house: House, olga: Client, vendor: Vendor, payroll: Key
) -> None:
    assert "The stores say what the console believes" in text(olga, "/drift")
    other = house.key("cloud", name="Orders", alias="orders")
    for key in (payroll, other):
        assert compared(olga, key) == []
    vendor.disable(vendor.of(payroll))
    vendor.tag(vendor.of(other), team="shop")
    assert [row.field for row in compared(olga, payroll)] == ["key_state"]
    assert [row.field for row in compared(olga, other)] == ["tags"]
    page = text(olga, "/drift")
    assert "Enabled" in page and "Disabled" in page and "team=shop" in page and "no team" in page
    for query, shown, hidden in (
        ("?key=payroll", "Payroll", "Orders"),
        ("?field=tags", "Orders", "Payroll"),
        ("?key_store=cloud&field=key_state", "Payroll", "Orders"),
    ):
        narrowed = text(olga, f"/drift{query}").split('<table class="table')[1]
        assert shown in narrowed and hidden not in narrowed, query
    for query in ("?key=nobody", "?key_store=nowhere", "?state=accepted"):
        assert "No difference is like that" in text(olga, f"/drift{query}"), query
    front = text(olga, "/")
    assert "2 differences between the console and its key stores" in front
    assert "2 open differences" not in front and "open differences" not in text(olga, "/key-stores")
    assert "2 open differences" in text(olga, "/key-stores/cloud")


def test_accepting_says_what_it_does_and_lets_the_console_follow(
    house: House, olga: Client, vendor: Vendor, payroll: Key
) -> None:
    vendor.disable(vendor.of(payroll))
    (row,) = compared(olga, payroll)
    asked = text(olga, f"/drift/{row.id}/do/accept")
    assert "The key, enabled here, becomes disabled." in asked
    assert "Nothing is changed at Cloud" in asked and "officers besides you" not in asked
    before = vendor.keys
    assert olga.post(f"/drift/{row.id}/do/accept").status_code == 400  # without a reason
    done = olga.post(f"/drift/{row.id}/do/accept", REASON)
    assert done["Location"] == "/keys/payroll"
    payroll.refresh_from_db()
    assert payroll.state == "disabled" and vendor.keys == before
    settled = text(olga, "/drift?state=accepted")
    assert "Accepted" in settled and "by Olga" in settled and REASON["reason"] in settled


@pytest.mark.exhaustive
def test_an_unknown_version_is_told_with_all_that_accepting_it_takes_over(
    olga: Client, vendor: Vendor, payroll: Key
) -> None:
    vendor.rotate(vendor.of(payroll))
    rows = {row.field: row for row in compared(olga, payroll)}
    row = rows["version_unknown"]
    assert "active, protects new data" in text(olga, f"/keys/{payroll.alias}")
    assert "so it takes over here, too" in text(olga, f"/drift/{row.id}/do/accept")


def test_reverting_puts_the_store_back(
    house: House, olga: Client, vendor: Vendor, payroll: Key
) -> None:
    vendor.disable(vendor.of(payroll))
    (row,) = compared(olga, payroll)
    asked = text(olga, f"/drift/{row.id}/do/revert")
    assert "the key becomes enabled there again" in asked
    assert "other open differences stay as they are" in asked
    assert olga.post(f"/drift/{row.id}/do/revert", REASON).status_code == 302
    house.run_due_jobs()
    assert vendor.keys[vendor.of(payroll)]["state"] == "enabled"
    assert compared(olga, payroll) == []
    row.refresh_from_db()
    assert row.state == "reverted"


def test_repairing_replaces_what_was_lost(
    house: House, olga: Client, vendor: Vendor, payroll: Key
) -> None:
    vendor.set_version(vendor.of(payroll), 1, state="destroyed", primary=False)
    rows = {row.field: row for row in compared(olga, payroll)}
    (lost,) = [row for name, row in rows.items() if name.startswith("version")]
    asked = text(olga, f"/drift/{lost.id}/do/repair")
    assert "A new version is made in Cloud and takes over" in asked
    assert olga.post(f"/drift/{lost.id}/do/repair", REASON).status_code == 302
    house.run_due_jobs()
    assert payroll.versions.get(primary=True).number == 2


def test_officers_see_which_difference_they_vote_on(
    house: House, olga: Client, vendor: Vendor
) -> None:
    key = house.key("voted", name="Ledger", alias="ledger")
    vendor.disable(vendor.of(key))
    (row,) = compared(olga, key)
    assert "2 officers besides you must agree first" in text(olga, f"/drift/{row.id}/do/accept")
    asked = olga.post(f"/drift/{row.id}/do/accept", REASON)
    request = Approval.objects.get()
    assert asked["Location"] == f"/approvals/{request.id}"
    page = text(olga, f"/approvals/{request.id}")
    assert "The key, enabled here, becomes disabled." in page and "What differs" in page
    house.approve(str(request.id))
    key.refresh_from_db()
    assert key.state == "disabled"


def test_who_may_not_settle_it_is_offered_nothing(
    house: House, olga: Client, udo: Client, ada: Client, vendor: Vendor, payroll: Key
) -> None:
    vendor.disable(vendor.of(payroll))
    (row,) = compared(olga, payroll)
    for client in (udo, ada):
        assert "/do/" not in text(client, "/drift")
        for way in ("accept", "revert", "repair"):
            assert client.get(f"/drift/{row.id}/do/{way}").status_code == 403
            assert client.post(f"/drift/{row.id}/do/{way}", REASON).status_code == 403
    # An auditor may ask the store: that changes nothing of it.
    assert len(compared(udo, payroll)) == 1
    assert olga.get(f"/drift/{row.id}/do/walk").status_code == 404
