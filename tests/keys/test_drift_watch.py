"""Drift under the house's rules: officers' votes, the schedule, the lists."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import connections

from keys import administration, clock, queries_stores, sweep, tasks
from keys.administration import drift as deciding
from keys.callers import Caller
from keys.errors import Conflict, Denied, Unsupported
from keys.models import Drift, Job, Key, StoreView
from tests.house import House
from tests.keys import remote
from tests.keys.differing import adopted, found, look, states, the
from tests.keys.remote import Vendor


@pytest.fixture
def vendor(house: House) -> Iterator[Vendor]:
    with remote.furnished(house) as vendor:
        yield vendor


@pytest.fixture
def payroll(house: House, vendor: Vendor) -> Key:
    return adopted(house, vendor, "payroll")


# --- with officers' votes


@pytest.fixture
def voted(house: House, vendor: Vendor) -> Key:
    return adopted(house, vendor, "patients", "voted")


@pytest.mark.parametrize(
    "decision", ["accept", "repair", pytest.param("revert", marks=pytest.mark.exhaustive)]
)
def test_officers_agree_where_the_classification_asks_for_it(
    house: House, vendor: Vendor, voted: Key, decision: str
) -> None:
    name = vendor.of(voted)
    if decision == "repair":
        vendor.remove_version(name, 1)
    else:
        vendor.schedule_destruction(name)
    look(house, "patients")
    drift = Drift.objects.get(key=voted, state="open")
    change: Any = getattr(administration, f"{decision}_drift")
    wish = house.pending(change, house.olga, str(drift.id), reason="as agreed")
    assert wish.parameters["difference"]["observed"] == drift.observed
    assert Drift.objects.get(pk=drift.pk).state == "open"
    house.approve(str(wish.id))
    drift.refresh_from_db()
    voted.refresh_from_db()
    wish.refresh_from_db()
    assert wish.state == "executed", wish.state_reason
    assert (
        drift.state == {"accept": "accepted", "revert": "reverted", "repair": "repaired"}[decision]
    )
    if decision == "accept":
        assert voted.state == "pending_destruction"
        house.let_days_pass(31)
        vendor.let_days_pass(31)
        assert [job.state for job in house.run_due_jobs()] == ["succeeded"]
        voted.refresh_from_db()
        assert voted.state == "destroyed", "the votes hold for what follows from them"
    elif decision == "revert":
        assert vendor.keys[name]["state"] == "enabled"
    else:
        assert states("patients") == [
            (1, "destroyed", False),
            (2, "deactivated", False),
            (3, "active", True),
        ]


def test_votes_are_for_the_difference_that_was_seen(
    house: House, vendor: Vendor, voted: Key
) -> None:
    name = vendor.of(voted)
    vendor.disable(name)
    look(house, "patients")
    drift = the("key_state", "patients")
    wish = house.pending(administration.accept_drift, house.olga, str(drift.id))
    vendor.schedule_destruction(name)
    house.approve(str(wish.id))
    wish.refresh_from_db()
    voted.refresh_from_db()
    assert (wish.state, voted.state) == ("failed", "enabled")


@pytest.mark.exhaustive
def test_only_officers_decide(house: House, vendor: Vendor, payroll: Key) -> None:
    vendor.disable(vendor.of(payroll))
    look(house)
    drift = str(the("key_state").id)
    for caller in (house.ada, house.udo):
        for change in (
            administration.accept_drift,
            administration.revert_drift,
            administration.repair_drift,
        ):
            with pytest.raises(Denied):
                change(caller, drift)


@pytest.mark.each_database
def test_of_two_who_decide_at_once_one_does(house: House, vendor: Vendor, payroll: Key) -> None:
    vendor.disable("payroll")
    look(house)
    drift = str(the("key_state").id)
    gate, refused = threading.Barrier(3), []

    def work(caller: Caller) -> None:
        try:
            gate.wait()
            administration.accept_drift(caller, drift)
        except Conflict as error:
            refused.append(error)
        finally:
            connections.close_all()

    threads = [
        threading.Thread(target=work, args=[who]) for who in (house.olga, house.otto, house.oona)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 2
    decided = Drift.objects.get()
    assert decided.state == "accepted"
    assert [e["outcome"] for e in house.entries(action="accept_drift")].count("success") == 1


# --- the schedule


def due_now() -> list[Any]:
    StoreView.objects.update(look_at=clock.now())
    return sweep.looks_due(100)


def test_the_sweep_compares_what_is_due_and_tells_only_news(
    house: House, vendor: Vendor, payroll: Key
) -> None:
    assert sweep.looks_due(100) == []
    entries = len(house.entries())
    assert sweep.compare(due_now()) == 1
    assert len(house.entries()) == entries, "that nothing differs is no news"
    vendor.disable(vendor.of(payroll))
    assert sweep.compare(due_now()) == 1
    assert house.last_entry()["action"] == "check_drift"
    assert house.last_entry()["facts"]["opened"] == 1
    assert [field for field, *_ in found()] == ["key_state"]
    entries = len(house.entries())
    sweep.compare(due_now())
    assert len(house.entries()) == entries
    view = StoreView.objects.get(key=payroll)
    assert timedelta(minutes=50) < view.look_at - clock.now() < timedelta(minutes=70)


def test_a_message_compares_only_what_is_due(house: House, vendor: Vendor, payroll: Key) -> None:
    vendor.disable("payroll")
    before = vendor.calls
    tasks.check_drift([str(payroll.id), str(house.invoices.id), "nonsense"])
    assert vendor.calls == before
    due_now()
    tasks.check_drift([str(payroll.id), str(house.invoices.id), "nonsense"])
    assert [field for field, *_ in found()] == ["key_state"]


def test_a_store_that_is_away_is_asked_once_for_all_its_keys(
    house: House, vendor: Vendor, payroll: Key
) -> None:
    for name in ("second", "third"):
        vendor.create(name)
        administration.adopt_key(house.olga, "cloud", key_store="cloud", reference=name)
    due = due_now()
    vendor.in_trouble("away")
    before = vendor.calls
    assert sweep.compare(due) == 0
    assert vendor.calls == before + 1
    assert set(StoreView.objects.values_list("trouble", flat=True)) == {"The cable is out."}
    assert sweep.looks_due(100) == [], "they are tried again a little later"
    vendor.well_again()
    assert sweep.compare(due_now()) == 3
    assert set(StoreView.objects.values_list("trouble", flat=True)) == {""}


@pytest.mark.exhaustive
def test_one_key_that_the_store_refuses_to_show_keeps_no_other_waiting(
    house: House, vendor: Vendor, payroll: Key
) -> None:
    house.key("cloud", name="Other")
    vendor.in_trouble("refused", times=1)
    assert sweep.compare(due_now()) == 1


def test_keys_of_a_store_that_is_switched_off_are_left_alone(
    house: House, vendor: Vendor, payroll: Key
) -> None:
    administration.update_key_store(house.ada, "cloud", enabled=False)
    assert due_now() == []


@pytest.mark.exhaustive
def test_differences_of_a_key_that_is_destroyed_are_over(
    house: House, vendor: Vendor, payroll: Key
) -> None:
    vendor.tag(vendor.of(payroll), a="b")
    look(house)
    administration.schedule_destruction(house.olga, "payroll")
    house.let_days_pass(31)
    vendor.let_days_pass(31)
    house.run_due_jobs()
    payroll.refresh_from_db()
    assert payroll.state == "destroyed"
    assert len(found()) == 1
    sweep.tidy()
    assert found() == []
    assert due_now() == []
    with pytest.raises(Unsupported, match="destroyed"):
        look(house)


# --- reading


def test_differences_are_listed_page_by_page(house: House, vendor: Vendor, payroll: Key) -> None:
    name = vendor.of(payroll)
    vendor.disable(name)
    vendor.tag(name, a="b")
    vendor.set_version(name, 1, state="suspended")
    look(house)
    first = queries_stores.drifts(house.udo, limit=2)
    rest = queries_stores.drifts(house.udo, limit=2, cursor=first.next)
    assert len({*first.rows, *rest.rows}) == 3
    assert rest.next == ""
    by_key = queries_stores.drifts(house.udo, key="payroll", key_store="cloud", field="tags")
    assert [row.field for row in by_key.rows] == ["tags"]
    assert queries_stores.drifts(house.udo, key="invoices").rows == []
    assert queries_stores.drifts(house.udo, state="accepted").rows == []
    found_one = queries_stores.find_drift(house.udo, str(first.rows[0].id))
    assert found_one == first.rows[0]
    with pytest.raises(Denied):
        queries_stores.drifts(house.billing)


def test_a_stores_own_budget_of_rotations_is_read_from_what_it_said(
    house: House, vendor: Vendor, payroll: Key
) -> None:
    assert queries_stores.seen_budget(payroll) is None
    with vendor.editing(vendor.of(payroll)) as key:
        key["facts"] = {"rotations_used": "3", "rotations_limit": "25"}
    look(house)
    assert queries_stores.seen_budget(payroll) == (3, 25)


def test_the_watch_says_nothing_of_a_key_without_material(house: House, vendor: Vendor) -> None:
    key = house.key("cloud", name="Waiting", origin="imported")
    deciding.keep_watch(key)
    with pytest.raises(Unsupported, match="nothing to compare"):
        look(house, "waiting")


def test_when_the_stores_own_window_begins_it_is_brought_in_line_once(
    house: House, payroll: Key
) -> None:
    """A console may wait for 90 days, AWS for 30: on the day between them nobody did anything."""
    administration.schedule_destruction(house.olga, "payroll", days=90)
    look(house)
    passed = 91 - remote.WINDOW[1]
    house.let_days_pass(passed)
    StoreView.objects.update(seen_at=clock.now() - timedelta(days=passed))
    aligned = Job.objects.filter(key=payroll, kind="align")
    before = aligned.count()
    for _ in range(2):
        deciding.keep_watch(Key.objects.select_related("key_store").get(pk=payroll.pk))
        assert aligned.count() == before + 1
    assert aligned.first().state == "succeeded"  # type: ignore[union-attr]
    assert house.last_entry()["action"] in ("align_key", "check_drift")
