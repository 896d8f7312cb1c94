"""Drift: what somebody changed at the key store is found, and accepted, reverted or repaired."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connections
from django.db.models import F

from keys import administration, clock, operations, queries_stores, sweep
from keys.errors import (
    BackendError,
    BackendUnavailable,
    CannotDecrypt,
    Conflict,
    Denied,
    StateForbids,
    Unsupported,
)
from keys.models import Drift, Job, Key, StoreView
from tests.house import House
from tests.keys import remote
from tests.keys.differing import accept, adopted, found, look, repair, revert, states, the
from tests.keys.remote import RemoteBackend, Vendor


@pytest.fixture
def vendor(house: House) -> Iterator[Vendor]:
    with remote.furnished(house) as vendor:
        yield vendor


@pytest.fixture
def payroll(house: House, vendor: Vendor) -> Key:
    return adopted(house, vendor, "payroll")


@pytest.fixture
def used(house: House, payroll: Key) -> Key:
    """The same, and billing uses it."""
    house.grant("billing", payroll, "encrypt", "decrypt")
    return payroll


# --- looking


def test_a_key_that_nobody_touched_does_not_differ(
    house: House, vendor: Vendor, payroll: Key
) -> None:
    assert found() == []
    view = queries_stores.store_view(house.udo, payroll)
    assert view is not None
    assert (view.trouble, view.tags, view.rotation_days) == ("", {}, None)
    assert view.seen["reference"] == vendor.of(payroll)
    assert view.look_at > clock.now()


@pytest.mark.each_database
def test_everything_that_somebody_changes_there_is_found_and_goes_when_it_is_put_back(
    house: House, vendor: Vendor, payroll: Key
) -> None:
    name = vendor.of(payroll)
    unknown = vendor.rotate(name)
    vendor.disable(name)
    vendor.set_version(name, 1, state="suspended", destroy_at="2031-01-02T00:00:00+00:00")
    vendor.tag(name, team="payroll")
    with vendor.editing(name) as key:
        key["rotation_days"] = 365
    look(house)
    assert found() == [
        ("key_state", "", "enabled", "disabled"),
        ("primary", "", f"{name}/2", unknown),
        ("rotation", "", None, 365),
        ("tags", "", {"team": None}, {"team": "payroll"}),
        ("version_destruction", "1", None, "2031-01-02T00:00:00+00:00"),
        ("version_state", "1", "deactivated", "suspended"),
        ("version_state", "2", "active", "deactivated"),
        (
            "version_unknown",
            "3",
            None,
            {"state": "active", "primary": True, "destroy_at": None, "public_key": None},
        ),
    ]
    assert queries_stores.drift_count(house.olga) == 8
    vendor.enable(name)
    vendor.set_version(name, 1, state="deactivated", destroy_at=None)
    vendor.set_version(name, 2, state="active", primary=True)
    vendor.remove_version(name, 3)
    vendor.tag(name, team=None)
    with vendor.editing(name) as key:
        key["rotation_days"] = None
    look(house)
    assert found() == []
    assert set(Drift.objects.values_list("state", flat=True)) == {"gone"}


def test_a_key_that_is_gone_is_one_difference_and_not_many(
    house: House, vendor: Vendor, payroll: Key
) -> None:
    vendor.remove(vendor.of(payroll))
    look(house)
    assert found() == [("key_missing", "", "enabled", None)]
    assert StoreView.objects.get(key=payroll).seen == {}


def test_a_version_that_is_gone_and_one_that_is_another_key_now(
    house: House, vendor: Vendor
) -> None:
    key = house.key("cloud", "ECC_NIST_P256", name="Signer")
    administration.rotate_key(house.olga, "signer")
    look(house, "signer")
    name = vendor.of(key)
    other = vendor.create("other", "ECC_NIST_P256")
    theirs = vendor.keys[other]["versions"][0]["public_key"]
    ours = bytes(key.versions.get(number=2).public_key or b"").hex()
    vendor.set_version(name, 2, public_key=theirs)
    vendor.remove_version(name, 1)
    look(house, "signer")
    assert found("signer") == [
        ("material", "2", ours, theirs),
        ("version_missing", "1", "deactivated", None),
    ]


@pytest.mark.exhaustive
def test_a_key_of_another_type_under_the_same_name_is_another_key(
    house: House, vendor: Vendor, payroll: Key
) -> None:
    with vendor.editing(vendor.of(payroll)) as there:
        there["spec"] = "AES_128"
    look(house)
    assert [row for row in found() if row[0] != "material"] == []
    assert found()[-1] == ("material", "2", "AES_256", "AES_128")
    assert administration.ways(the_last())["accept"].startswith("It is another key")


def the_last() -> Drift:
    return Drift.objects.filter(field="material", state="open").order_by("handle").last()  # type: ignore[return-value]


def test_a_version_that_was_destroyed_here_and_is_there_again_is_found(
    house: House, vendor: Vendor, payroll: Key
) -> None:
    house.move(payroll, 1, "destroyed")
    house.let_days_pass(31)
    house.run_due_jobs()
    look(house)
    assert found() == [], "a store may show what it destroyed"
    vendor.set_version(vendor.of(payroll), 1, state="active")
    look(house)
    assert found() == [("version_state", "1", "destroyed", "active")]
    why = administration.ways(the("version_state"))
    assert all(why.values()), why


def test_a_state_that_the_store_has_no_word_for_is_no_difference(
    house: House, vendor: Vendor, payroll: Key
) -> None:
    house.move(payroll, 2, "compromised", reason="a laptop was stolen")
    look(house)
    assert found() == []
    vendor.set_version(vendor.of(payroll), 2, state="active", primary=True)
    look(house)
    assert ("version_state", "2", "compromised", "active") in found()
    assert administration.ways(the("version_state"))["accept"], "nobody comes back from that"


def test_a_difference_that_changes_is_another_difference(
    house: House, vendor: Vendor, payroll: Key
) -> None:
    vendor.disable(vendor.of(payroll))
    look(house)
    first = the("key_state")
    look(house)
    assert the("key_state").id == first.id
    assert the("key_state").seen_at > first.seen_at
    vendor.schedule_destruction(vendor.of(payroll))
    look(house)
    assert the("key_state").id != first.id
    first.refresh_from_db()
    assert first.state == "gone"


@pytest.mark.exhaustive
def test_dates_may_differ_as_far_as_the_store_has_a_window_of_its_own(
    house: House, vendor: Vendor, payroll: Key
) -> None:
    key = administration.schedule_destruction(house.olga, "payroll")
    assert key.destroy_at is not None
    for days, differs in [(0.5, False), (20, False), (40, True), (-0.5, False), (-2, True)]:
        at = key.destroy_at + timedelta(days=days)
        vendor.set_state(vendor.of(key), "pending_destruction", destroy_at=at)
        look(house)
        assert bool(found()) is differs, days
        assert not differs or found()[0][0] == "destruction"


def test_what_the_console_is_just_doing_is_no_difference(
    house: House, vendor: Vendor, payroll: Key
) -> None:
    def look_now() -> None:
        RemoteBackend.stops.clear()
        look(house)
        told.append(found())

    told: list[Any] = []
    RemoteBackend.stops["after generate"] = look_now
    administration.rotate_key(house.olga, "payroll")
    RemoteBackend.stops["before conform"] = look_now
    administration.disable_key(house.olga, "payroll")
    assert told == [[], []]
    assert not Drift.objects.exists()


def test_a_store_that_could_not_be_brought_in_line_does_differ(
    house: House, vendor: Vendor, payroll: Key
) -> None:
    vendor.in_trouble("refused", what="conform")
    administration.disable_key(house.olga, "payroll")
    look(house)
    assert found() == [("key_state", "", "disabled", "enabled")]


def test_a_store_that_is_away_is_told_to_a_person_and_written_down(
    house: House, vendor: Vendor, payroll: Key
) -> None:
    vendor.disable(vendor.of(payroll))
    look(house)
    vendor.in_trouble("away")
    with pytest.raises(BackendUnavailable, match="cable"):
        look(house)
    view = StoreView.objects.get(key=payroll)
    assert view.trouble == "The cable is out."
    assert len(found()) == 1, "what was known stays known"
    vendor.in_trouble("nonsense")
    with pytest.raises(BackendError):
        look(house)
    vendor.well_again()
    look(house)
    view.refresh_from_db()
    assert view.trouble == ""


def test_a_key_of_a_store_without_states_of_its_own_is_not_compared(house: House) -> None:
    with pytest.raises(Unsupported, match="keeps no states of its own"):
        administration.check_drift(house.olga, "invoices")
    with pytest.raises(Denied):
        administration.check_drift(house.billing, "invoices")


@pytest.mark.each_database
def test_a_key_that_changes_while_its_store_is_asked_is_looked_at_again(
    house: House, vendor: Vendor, payroll: Key
) -> None:
    def meanwhile() -> None:
        RemoteBackend.stops.clear()
        administration.disable_key(house.olga, "payroll")

    RemoteBackend.stops["after observe"] = meanwhile
    look(house)
    assert found() == [], "the store had said `enabled` of a key that was disabled since"
    assert not Drift.objects.exists()


@pytest.mark.each_database
def test_two_who_look_at_once_find_it_once(house: House, vendor: Vendor, payroll: Key) -> None:
    vendor.disable(vendor.of(payroll))
    vendor.tag(vendor.of(payroll), a="b")
    gate, errors = threading.Barrier(3), []

    def work() -> None:
        try:
            gate.wait()
            look(house)
        except Conflict as error:  # somebody was quicker, and wrote it down
            errors.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [field for field, *_ in found()] == ["key_state", "tags"]
    assert len(errors) < 3


# --- the store is right


def test_a_key_that_was_disabled_there_is_disabled_here(
    house: House, vendor: Vendor, used: Key
) -> None:
    vendor.disable(vendor.of(used))
    look(house)
    drift = accept(house, "key_state")
    assert (drift.state, drift.reason) == ("accepted", "as agreed")
    assert drift.decided_by_id == house.olga.principal_id
    assert all(administration.ways(drift).values()), "what is decided is not decided again"
    used.refresh_from_db()
    assert used.state == "disabled"
    with pytest.raises(StateForbids):
        operations.encrypt(house.billing, "payroll", b"x")
    assert found() == []
    entry = house.last_entry(action="accept_drift")
    assert entry["object"]["id"] == str(used.id)
    assert entry["facts"]["observed"] == "disabled"
    assert not Job.objects.filter(state="pending").exists(), "nothing was asked of the store"


def test_a_destruction_that_was_scheduled_there_waits_here_too(
    house: House, vendor: Vendor, payroll: Key
) -> None:
    name = vendor.of(payroll)
    vendor.schedule_destruction(name, days=9)
    look(house)
    accept(house, "key_state")
    payroll.refresh_from_db()
    assert payroll.state == "pending_destruction"
    assert payroll.destroy_at == datetime.fromisoformat(vendor.keys[name]["destroy_at"])
    job = Job.objects.get(key=payroll, kind="destroy")
    assert job.run_after == payroll.destroy_at
    later = payroll.destroy_at - timedelta(days=3)
    vendor.set_state(name, "pending_destruction", destroy_at=later)
    look(house)
    accept(house, "destruction")
    payroll.refresh_from_db()
    assert payroll.destroy_at == later
    vendor.enable(name)
    look(house)
    accept(house, "key_state")
    payroll.refresh_from_db()
    job.refresh_from_db()
    assert (payroll.state, job.state) == ("enabled", "cancelled")


def test_a_version_that_was_made_there_takes_over_here(
    house: House, vendor: Vendor, used: Key
) -> None:
    vendor.rotate(vendor.of(used))
    look(house)
    accept(house, "version_unknown")
    assert states() == [(1, "deactivated", False), (2, "deactivated", False), (3, "active", True)]
    assert found() == []
    sealed = operations.encrypt(house.billing, "payroll", b"x")
    assert sealed.version == 3
    used.refresh_from_db()
    assert used.rotate_at is not None
    assert used.rotate_at > clock.now() + timedelta(days=300)


@pytest.mark.exhaustive
def test_another_version_that_serves_there_serves_here_where_the_table_has_the_edge(
    house: House, vendor: Vendor, payroll: Key
) -> None:
    administration.rotate_key(house.olga, "payroll", activate=False)
    name = vendor.of(payroll)
    vendor.set_version(name, 3, primary=True, state="active")
    vendor.set_version(name, 2, primary=False, state="deactivated")
    look(house)
    assert [field for field, *_ in found()] == ["primary", "version_state", "version_state"]
    accept(house, "primary")
    assert states()[1:] == [(2, "deactivated", False), (3, "active", True)]
    assert found() == []
    # Back to one that is deactivated here there is no way but the store's.
    vendor.set_version(name, 2, primary=True, state="active")
    vendor.set_version(name, 3, primary=False)
    look(house)
    with pytest.raises(Unsupported, match="can't take over again"):
        accept(house, "primary")


@pytest.mark.exhaustive
def test_a_version_that_was_suspended_or_scheduled_there_is_so_here(
    house: House, vendor: Vendor, payroll: Key
) -> None:
    name = vendor.of(payroll)
    vendor.set_version(name, 2, state="suspended")
    at = (datetime.now(UTC) + timedelta(days=5)).isoformat()
    vendor.set_version(name, 1, destroy_at=at)
    look(house)
    accept(house, "version_state")
    accept(house, "version_destruction")
    assert states() == [(1, "deactivated", False), (2, "suspended", True)]
    first = payroll.versions.get(number=1)
    assert (first.condition, first.destroy_at) == (
        "pending_destruction",
        datetime.fromisoformat(at),
    )
    vendor.set_version(name, 1, destroy_at=None)
    look(house)
    accept(house, "version_destruction")
    first.refresh_from_db()
    assert (first.condition, first.destroy_at) == ("", None)
    assert Job.objects.get(kind="destroy_version").state == "cancelled"
    assert found() == []
    second = payroll.versions.get(number=2)
    vendor.set_version(name, 2, state="active")
    look(house)
    accept(house, "version_state")
    resumed = payroll.versions.get(number=2)
    assert (resumed.state, resumed.primary) == ("active", True)
    assert resumed.protect_until == second.protect_until, "it goes on, it doesn't begin anew"


def test_what_was_destroyed_there_is_destroyed_here(
    house: House, vendor: Vendor, payroll: Key
) -> None:
    name = vendor.of(payroll)
    vendor.remove_version(name, 1)
    look(house)
    accept(house, "version_missing")
    assert states() == [(1, "destroyed", False), (2, "active", True)]
    vendor.set_version(name, 2, state="destroyed", primary=False)
    look(house)
    accept(house, "version_state")
    assert states()[1] == (2, "destroyed", False)
    assert sweep.rotations_due(10) == [payroll.id], "nothing serves: it is rotated now"
    assert sweep.rotate([payroll.id]) == 1
    assert states()[2] == (3, "active", True)


@pytest.mark.exhaustive
def test_a_key_that_is_gone_there_is_destroyed_here(
    house: House, vendor: Vendor, payroll: Key
) -> None:
    vendor.tag(vendor.of(payroll), a="b")
    look(house)
    vendor.remove(vendor.of(payroll))
    look(house)
    accept(house, "key_missing")
    payroll.refresh_from_db()
    assert (payroll.state, payroll.rotate_at) == ("destroyed", None)
    assert [state for _, state, _ in states()] == ["destroyed", "destroyed"]
    assert found() == []


@pytest.mark.exhaustive
def test_imported_material_that_is_gone_there_can_be_brought_again(
    house: House, vendor: Vendor
) -> None:
    from keys.secret import Secret

    key = house.key("cloud", name="Brought", origin="imported")
    administration.import_key(house.olga, "brought", material=Secret(bytes(range(32))))
    look(house, "brought")
    assert found("brought") == []
    vendor.remove_version(vendor.of(key), 1)
    look(house, "brought")
    assert administration.ways(the("version_missing", "brought"))["repair"]
    accept(house, "version_missing", "brought")
    version = key.versions.get()
    assert (version.state, version.condition, version.handle) == ("active", "unavailable", "")
    administration.import_key(house.olga, "brought", material=Secret(bytes(range(32))), number=1)
    version.refresh_from_db()
    assert version.condition == ""


@pytest.mark.exhaustive
def test_tags_and_the_stores_own_rotation_are_taken_as_they_are(
    house: House, vendor: Vendor, payroll: Key
) -> None:
    name = vendor.of(payroll)
    vendor.tag(name, team="payroll")
    with vendor.editing(name) as key:
        key["rotation_days"] = 365
    look(house)
    accept(house, "tags")
    accept(house, "rotation")
    assert found() == []
    view = StoreView.objects.get(key=payroll)
    assert (view.tags, view.rotation_days) == ({"team": "payroll"}, 365)


@pytest.mark.exhaustive
def test_nobody_accepts_what_the_store_no_longer_says(
    house: House, vendor: Vendor, payroll: Key
) -> None:
    vendor.disable(vendor.of(payroll))
    look(house)
    drift = the("key_state")
    vendor.enable(vendor.of(payroll))
    with pytest.raises(Conflict, match="something else by now"):
        administration.accept_drift(house.olga, str(drift.id))
    payroll.refresh_from_db()
    assert payroll.state == "enabled"
    look(house)
    with pytest.raises(Conflict, match="not open any more"):
        administration.accept_drift(house.olga, str(drift.id))


# --- the console is right


def test_a_store_is_put_back(house: House, vendor: Vendor, payroll: Key) -> None:
    name = vendor.of(payroll)
    vendor.tag(name, team="payroll")
    look(house)
    accept(house, "tags")
    vendor.disable(name)
    vendor.tag(name, team="somebody else")
    vendor.set_version(name, 2, state="suspended")
    with vendor.editing(name) as key:
        key["rotation_days"] = 30
    look(house)
    drift = revert(house, "key_state")
    assert drift.state == "reverted"
    assert vendor.keys[name]["state"] == "enabled"
    # What nobody has decided on is left as it is.
    assert [field for field, *_ in found()] == ["rotation", "tags", "version_state"]
    assert vendor.keys[name]["tags"] == {"team": "somebody else"}
    for field in ("rotation", "tags", "version_state"):
        assert revert(house, field).state == "reverted"
    assert vendor.keys[name]["tags"] == {"team": "payroll"}
    assert vendor.keys[name]["rotation_days"] is None
    assert vendor.keys[name]["versions"][1]["state"] == "active"
    assert found() == []


@pytest.mark.exhaustive
def test_the_primary_of_the_console_serves_there_again(
    house: House, vendor: Vendor, payroll: Key
) -> None:
    name = vendor.of(payroll)
    vendor.rotate(name)
    look(house)
    revert(house, "primary")
    assert [row["primary"] for row in vendor.keys[name]["versions"]] == [False, True, False]
    assert [field for field, *_ in found()] == ["version_state", "version_unknown"]
    assert administration.ways(the("version_unknown"))["revert"]


def test_a_revert_waits_for_a_store_that_is_away(
    house: House, vendor: Vendor, payroll: Key
) -> None:
    vendor.disable(vendor.of(payroll))
    look(house)
    vendor.in_trouble("away")
    drift = revert(house, "key_state")
    assert (drift.state, drift.decided_by_id) == ("open", house.olga.principal_id)
    vendor.well_again()
    Job.objects.filter(state="pending").update(run_after=F("created_at"))
    house.run_due_jobs()
    StoreView.objects.update(look_at=clock.now())
    assert sweep.compare(sweep.looks_due(10)) >= 1
    drift.refresh_from_db()
    assert drift.state == "reverted"
    assert vendor.keys[vendor.of(payroll)]["state"] == "enabled"


def test_a_store_that_still_says_otherwise_is_not_said_to_be_put_back(
    house: House, vendor: Vendor, payroll: Key
) -> None:
    name = vendor.of(payroll)
    vendor.disable(name)
    look(house)
    RemoteBackend.stops["after conform"] = lambda: vendor.disable(name)
    with pytest.raises(BackendError, match="still says otherwise"):
        revert(house, "key_state")
    drift = the("key_state")
    assert (drift.decided_at, drift.reason) == (None, "")


def test_an_added_tag_and_a_lost_version_are_not_to_be_put_back(
    house: House, vendor: Vendor, payroll: Key
) -> None:
    vendor.tag(vendor.of(payroll), team="payroll")
    vendor.remove_version(vendor.of(payroll), 1)
    look(house)
    for field in ("tags", "version_missing"):
        with pytest.raises(Unsupported):
            revert(house, field)


def test_a_rotation_by_the_console_does_not_undo_what_nobody_decided_on(
    house: House, vendor: Vendor, payroll: Key
) -> None:
    name = vendor.of(payroll)
    vendor.set_version(name, 1, state="suspended")
    look(house)
    administration.rotate_key(house.olga, "payroll")
    rows = vendor.keys[name]["versions"]
    assert [(row["state"], row["primary"]) for row in rows] == [
        ("suspended", False),
        ("deactivated", False),
        ("active", True),
    ]
    look(house)
    assert [field for field, *_ in found()] == ["version_state"]


def test_a_key_that_is_gone_there_is_not_asked_for_while_nobody_decided(
    house: House, vendor: Vendor, payroll: Key
) -> None:
    vendor.remove("payroll")
    look(house)
    administration.disable_key(house.olga, "payroll")
    assert Job.objects.get(kind="align").state == "succeeded"
    look(house)
    assert found() == [("key_missing", "", "disabled", None)]
    assert "Only an enabled key" in administration.ways(the("key_missing"))["repair"]


# --- neither: what is lost


def test_a_key_whose_serving_version_is_lost_is_made_whole(
    house: House, vendor: Vendor, used: Key
) -> None:
    sealed = operations.encrypt(house.billing, "payroll", b"x").ciphertext
    vendor.remove_version(vendor.of(used), 2)
    look(house)
    assert repair(house, "version_missing").state == "repaired"
    assert states() == [(1, "deactivated", False), (2, "destroyed", False), (3, "active", True)]
    assert operations.encrypt(house.billing, "payroll", b"x").version == 3
    assert found() == []
    with pytest.raises((StateForbids, CannotDecrypt)):
        operations.decrypt(house.billing, "payroll", sealed)


@pytest.mark.exhaustive
def test_a_key_that_is_lost_is_made_anew_at_its_store(
    house: House, vendor: Vendor, used: Key
) -> None:
    vendor.remove(vendor.of(used))
    look(house)
    repair(house, "key_missing")
    assert states()[2] == (3, "active", True)
    assert found() == []
    assert operations.encrypt(house.billing, "payroll", b"x").version == 3


def test_a_version_that_is_another_key_now_is_replaced(house: House, vendor: Vendor) -> None:
    key = house.key("cloud", "ECC_NIST_P256", name="Signer")
    look(house, "signer")
    vendor.create("other", "ECC_NIST_P256")
    other = vendor.keys["other"]["versions"][0]
    vendor.set_version(vendor.of(key), 1, public_key=other["public_key"])
    look(house, "signer")
    with pytest.raises(Unsupported):
        accept(house, "material", "signer")
    repair(house, "material", "signer")
    assert states("signer") == [(1, "destroyed", False), (2, "active", True)]
    assert [field for field, *_ in found("signer")] == ["version_unknown"]


@pytest.mark.exhaustive
def test_what_is_not_lost_is_not_repaired(house: House, vendor: Vendor, payroll: Key) -> None:
    vendor.disable(vendor.of(payroll))
    look(house)
    with pytest.raises(Unsupported, match="Nothing is lost"):
        repair(house, "key_state")
