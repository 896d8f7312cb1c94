"""What somebody did at a key store stands until it is decided on: no change here undoes it on the way."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db.models import F

from keys import administration, clock, discovery, sweep
from keys.errors import AlreadyExists, Conflict, StateForbids
from keys.jobs import watching, work
from keys.models import Classification, Drift, Job, Key, KeyStore, Listing, StoreView
from keys.states import VersionState
from tests.house import House
from tests.keys import remote
from tests.keys.differing import accept, adopted, found, look, repair, revert, states, the
from tests.keys.remote import Vendor


@pytest.fixture
def vendor(house: House) -> Iterator[Vendor]:
    with remote.furnished(house) as vendor:
        yield vendor


@pytest.fixture
def payroll(house: House, vendor: Vendor) -> Key:
    return adopted(house, vendor, "payroll")


def run_waiting(house: House) -> list[Job]:
    """Let what waits for a later try have it now."""
    Job.objects.filter(state="pending").update(run_after=F("created_at"))
    return house.run_due_jobs()


def with_votes(key: Key) -> None:
    """From now on two of three officers must agree about the key."""
    Classification.objects.filter(pk=key.classification_id).update(quorum_m=2, quorum_n=3)


# --- bringing a store in line


def test_a_rotation_here_does_not_enable_a_version_that_was_disabled_there_in_an_emergency(
    house: House, vendor: Vendor, payroll: Key
) -> None:
    vendor.set_version("payroll", 2, state="suspended")
    look(house)
    administration.rotate_key(house.olga, "payroll")
    shown = [(row["state"], row["primary"]) for row in vendor.keys["payroll"]["versions"]]
    assert shown == [("deactivated", False), ("suspended", False), ("active", True)]
    look(house)
    assert found() == [("version_state", "2", "deactivated", "suspended")]
    administration.disable_key(house.olga, "payroll")
    assert vendor.keys["payroll"]["versions"][1]["state"] == "suspended"
    look(house)
    assert revert(house, "version_state").state == "reverted"
    assert vendor.keys["payroll"]["versions"][1]["state"] == "deactivated"


def test_disabling_a_key_does_not_cancel_the_destruction_that_was_scheduled_there(
    house: House, vendor: Vendor, payroll: Key
) -> None:
    vendor.schedule_destruction("payroll")
    look(house)
    administration.disable_key(house.olga, "payroll")
    assert vendor.keys["payroll"]["state"] == "pending_destruction"
    look(house)
    assert found() == [("key_state", "", "disabled", "pending_destruction")]
    administration.enable_key(house.olga, "payroll")
    assert vendor.keys["payroll"]["state"] == "pending_destruction"
    look(house)
    revert(house, "key_state")
    assert vendor.keys["payroll"]["state"] == "enabled"


# --- votes


def test_votes_for_an_unknown_version_are_no_votes_for_letting_it_serve(
    house: House, vendor: Vendor, payroll: Key
) -> None:
    with_votes(payroll)
    with vendor.editing("payroll") as key:
        vendor._add(key, VersionState.ACTIVE, primary=False)
    look(house)
    wish = house.pending(
        administration.accept_drift, house.olga, str(the("version_unknown").id), reason="ours"
    )
    voted = wish.parameters["difference"]["observed"]
    assert voted == {
        "state": "active",
        "primary": False,
        "destroy_at": None,
        "public_key": None,
    }
    vendor.set_version("payroll", 2, primary=False)
    vendor.set_version("payroll", 3, primary=True)
    house.approve(str(wish.id))
    wish.refresh_from_db()
    assert wish.state == "failed"
    assert states() == [(1, "deactivated", False), (2, "active", True)]


@pytest.mark.exhaustive
def test_an_unknown_version_is_voted_on_with_its_date_and_its_public_key(
    house: House, vendor: Vendor
) -> None:
    vendor.create("signer", "ECC_NIST_P256")
    administration.adopt_key(
        house.olga, "cloud", key_store="cloud", reference="signer", alias="signer"
    )
    at = (datetime.now(UTC) + timedelta(days=5)).isoformat()
    with vendor.editing("signer") as key:
        vendor._add(key, VersionState.DEACTIVATED, primary=False)
    vendor.set_version("signer", 2, destroy_at=at)
    look(house, "signer")
    first = the("version_unknown", "signer")
    assert (first.observed["destroy_at"], len(first.observed["public_key"])) == (at, 64)
    vendor.set_version("signer", 2, public_key=vendor.keys["signer"]["versions"][0]["public_key"])
    look(house, "signer")
    assert the("version_unknown", "signer").observed["public_key"] != first.observed["public_key"]


def test_a_version_that_became_active_there_serves_here_only_by_its_own_decision(
    house: House, vendor: Vendor, payroll: Key
) -> None:
    administration.rotate_key(house.olga, "payroll", activate=False)
    vendor.set_version("payroll", 3, state="active", primary=True)
    vendor.set_version("payroll", 2, primary=False)
    look(house)
    assert [field for field, *_ in found()] == ["primary", "version_state"]
    accept(house, "version_state")
    assert states()[1:] == [(2, "active", True), (3, "active", False)]
    accept(house, "primary")
    assert states()[1:] == [(2, "deactivated", False), (3, "active", True)]


# --- destructions


def test_what_the_vendor_saved_is_not_destroyed_by_an_adopted_date(
    house: House, vendor: Vendor
) -> None:
    vendor.create("finance", versions=2)
    at = datetime.now(UTC) + timedelta(days=5)
    vendor.set_version("finance", 1, destroy_at=at.isoformat())
    key = administration.adopt_key(
        house.olga, "cloud", key_store="cloud", reference="finance", alias="payroll"
    )
    with_votes(key)  # who would vote for what the store does by itself?
    vendor.set_version("finance", 1, destroy_at=None)
    house.let_days_pass(6)
    (job,) = house.run_due_jobs()
    assert (job.state, job.attempts) == ("pending", 0)
    assert job.error == "The key store has not destroyed it yet."
    look(house)
    assert [field for field, *_ in found()] == ["version_destruction"]
    (job,) = run_waiting(house)
    assert job.error == "What differs at the key store is to be decided first."
    drift = str(the("version_destruction").id)
    house.approve(str(house.pending(administration.accept_drift, house.olga, drift).id))
    job.refresh_from_db()
    assert job.state == "cancelled"
    assert vendor.keys["finance"]["versions"][0]["state"] == "deactivated"


def test_what_the_store_destroyed_on_the_adopted_date_is_destroyed_here_without_votes(
    house: House, vendor: Vendor
) -> None:
    vendor.create("finance", versions=2)
    at = datetime.now(UTC) + timedelta(days=5)
    vendor.set_version("finance", 1, destroy_at=at.isoformat())
    key = administration.adopt_key(
        house.olga, "cloud", key_store="cloud", reference="finance", alias="payroll"
    )
    with_votes(key)
    house.let_days_pass(6)
    vendor.remove_version("finance", 1)
    (job,) = house.run_due_jobs()
    assert job.state == "succeeded"
    assert states() == [(1, "destroyed", False), (2, "active", True)]
    look(house)
    assert found() == []


@pytest.mark.exhaustive
def test_a_store_that_is_away_when_its_own_destruction_is_due_is_waited_for(
    house: House, vendor: Vendor, payroll: Key
) -> None:
    vendor.schedule_destruction("payroll", days=7)
    look(house)
    accept(house, "key_state")
    house.let_days_pass(8)
    for trouble in ("away", "throttled", "refused", "nonsense"):
        vendor.in_trouble(trouble)
        (job,) = run_waiting(house)
        assert (job.state, job.attempts) == ("pending", 0)
        assert job.run_after > clock.now() + timedelta(minutes=50)
    vendor.well_again()
    vendor.remove("payroll")
    look(house)
    (job,) = run_waiting(house)
    payroll.refresh_from_db()
    assert (job.state, payroll.state) == ("succeeded", "destroyed")


@pytest.mark.exhaustive
def test_a_destruction_that_was_put_back_there_is_seen_to_its_end(
    house: House, vendor: Vendor, payroll: Key
) -> None:
    vendor.schedule_destruction("payroll", days=7)
    look(house)
    accept(house, "key_state")
    vendor.enable("payroll")
    look(house)
    revert(house, "key_state")
    assert vendor.keys["payroll"]["state"] == "pending_destruction"
    house.let_days_pass(31)
    vendor.let_days_pass(31)
    (job,) = house.run_due_jobs()
    payroll.refresh_from_db()
    assert (job.state, payroll.state) == ("succeeded", "destroyed")
    assert not Drift.objects.filter(state="open").exists()


@pytest.mark.parametrize(
    "managed", ["customer", pytest.param("provider", marks=pytest.mark.exhaustive)]
)
def test_a_key_whose_accepted_destruction_was_cancelled_there_is_not_destroyed(
    house: House, vendor: Vendor, managed: str
) -> None:
    vendor.create("finance", versions=1, provider_managed=managed == "provider")
    key = administration.adopt_key(
        house.olga, "cloud", key_store="cloud", reference="finance", alias="payroll"
    )
    vendor.schedule_destruction("finance", days=7)
    look(house)
    accept(house, "key_state")
    vendor.enable("finance")
    house.let_days_pass(8)
    (job,) = house.run_due_jobs()
    assert job.state == "pending"
    assert vendor.keys["finance"]["state"] == "enabled"
    look(house)
    assert found() == [("key_state", "", "pending_destruction", "enabled")]
    run_waiting(house)
    assert vendor.keys["finance"]["state"] == "enabled"
    accept(house, "key_state")
    key.refresh_from_db()
    job.refresh_from_db()
    assert (key.state, job.state) == ("enabled", "cancelled")


def test_a_destruction_that_the_console_scheduled_waits_while_a_difference_speaks_against_it(
    house: House, vendor: Vendor
) -> None:
    key = house.key("cloud", name="Payroll")
    name = vendor.of(key)
    administration.schedule_destruction(house.olga, "payroll")
    vendor.enable(name)
    look(house)
    house.let_days_pass(31)
    (job,) = house.run_due_jobs()
    assert (job.state, job.attempts) == ("pending", 0)
    assert vendor.keys[name]["state"] == "enabled"
    # Put back there, and seen so, nothing speaks against it any more.
    vendor.set_state(name, "pending_destruction", destroy_at=datetime.now(UTC))
    look(house)
    assert found() == []
    (job,) = run_waiting(house)
    key.refresh_from_db()
    assert (job.state, key.state) == ("succeeded", "destroyed")


@pytest.mark.exhaustive
def test_a_version_that_was_saved_there_is_not_destroyed_from_here(
    house: House, vendor: Vendor, payroll: Key
) -> None:
    house.move(payroll, 1, "destroyed")
    vendor.set_version("payroll", 1, destroy_at=None)
    look(house)
    house.let_days_pass(31)
    (job,) = house.run_due_jobs()
    assert job.state == "pending"
    assert vendor.keys["payroll"]["versions"][0]["state"] == "deactivated"
    look(house)  # the dates were moved
    accept(house, "version_destruction")
    job.refresh_from_db()
    assert job.state == "cancelled"


def test_nothing_of_a_key_that_its_provider_manages_is_destroyed_or_saved_from_here(
    house: House, vendor: Vendor
) -> None:
    vendor.create("theirs", versions=2, provider_managed=True)
    at = datetime.now(UTC) + timedelta(days=5)
    vendor.set_version("theirs", 1, destroy_at=at.isoformat())
    key = administration.adopt_key(
        house.olga, "cloud", key_store="cloud", reference="theirs", alias="payroll"
    )
    with pytest.raises(StateForbids, match="managed by its provider"):
        administration.cancel_version_destruction(house.olga, "payroll", number=1)
    vendor.schedule_destruction("theirs", days=7)
    look(house)
    accept(house, "key_state")
    with pytest.raises(StateForbids, match="managed by its provider"):
        administration.cancel_destruction(house.olga, "payroll")
    house.let_days_pass(8)
    for job in Job.objects.filter(key=key).select_related("key__key_store", "version"):
        assert watching.only_watches(job)
        job.activate = True  # had one been written all the same
        with pytest.raises(Conflict, match="provider manages"):
            work.HANDLERS[job.kind](job)
    assert vendor.keys["theirs"]["state"] == "pending_destruction"


# --- compromised, and known elsewhere


def bring_back(vendor: Vendor, saved: dict[str, Any]) -> None:
    saved["state"] = "enabled"
    for row in saved["versions"]:
        row["state"] = "deactivated"
    saved["versions"][-1] |= {"state": "active", "primary": True}
    with vendor.file.changed() as content:
        content["keys"]["payroll"] = saved


@pytest.mark.parametrize("decide", [accept, pytest.param(repair, marks=pytest.mark.exhaustive)])
def test_a_compromised_version_does_not_come_back_as_a_good_one(
    house: House, vendor: Vendor, payroll: Key, decide: Any
) -> None:
    house.move(payroll, 1, "compromised", reason="a laptop was stolen")
    saved = vendor.keys["payroll"]
    vendor.remove("payroll")
    look(house)
    decide(house, "key_missing")
    bring_back(vendor, saved)
    again = administration.adopt_key(
        house.olga, "cloud", key_store="cloud", reference="payroll", alias="again"
    )
    assert states("again") == [(1, "compromised", False), (2, "active", True)]
    assert again.versions.get(number=1).compromised_at is not None
    if decide is repair:
        assert states()[2] == (3, "active", True)
        administration.rotate_key(house.olga, "payroll")
        assert vendor.of(Key.objects.get(alias="again")) == "payroll"
        assert len(vendor.keys["payroll"]["versions"]) == 2, "the new key goes on by itself"


def test_a_second_key_store_of_the_same_place_is_no_way_round_a_keys_policy(
    house: House, vendor: Vendor, payroll: Key
) -> None:
    store = KeyStore.objects.get(name="cloud")
    administration.create_key_store(
        house.ada, name="cloud2", kind=store.kind, settings=store.settings
    )
    administration.create_classification(
        house.ada, name="loose", title="Loose", allowed_specs=["AES_256"], key_stores=["cloud2"]
    )
    with pytest.raises(AlreadyExists, match="payroll"):
        administration.adopt_key(
            house.olga, "loose", key_store="cloud2", reference="payroll", alias="twin"
        )


# --- the watch


def test_a_key_whose_store_answers_nonsense_keeps_no_other_waiting(
    house: House, vendor: Vendor, payroll: Key
) -> None:
    other = adopted(house, vendor, "second")
    with vendor.editing("payroll") as key:
        key["versions"] = "nonsense"
    vendor.disable("second")
    StoreView.objects.update(look_at=clock.now())
    assert sweep.compare([payroll.id, other.id]) == 1
    assert [field for field, *_ in found("second")] == ["key_state"]
    view = StoreView.objects.get(key=payroll)
    assert view.trouble.startswith("Unexpected: ")
    assert view.look_at > clock.now()


def test_what_closes_because_a_key_is_destroyed_leaves_an_entry(
    house: House, vendor: Vendor, payroll: Key
) -> None:
    vendor.tag("payroll", a="b")
    look(house)
    administration.schedule_destruction(house.olga, "payroll")
    house.let_days_pass(31)
    vendor.let_days_pass(31)
    house.run_due_jobs()
    sweep.tidy()
    assert Drift.objects.get().state == "gone"
    entry = house.last_entry(action="check_drift")
    assert (entry["outcome"], entry["facts"]["closed"]) == ("success", 1)
    assert entry["object"]["id"] == str(payroll.id)


def test_old_listings_are_let_go_of_where_new_ones_fail(
    house: House, vendor: Vendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discovery, "KEPT", 2)
    vendor.in_trouble("nonsense")
    for _ in range(3):
        discovery.run(administration.discover_keys(house.olga, "cloud").id)
    assert list(Listing.objects.values_list("state", flat=True)) == ["failed", "failed"]
