"""A version's life: all 42 ordered pairs of states, through the function behind every door."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, transaction

from keys import administration, clock, jobs, lifecycle, operations, stores
from keys.errors import Conflict, IllegalTransition, Invalid, NotFound, StateForbids
from keys.models import Approval, Job, Key, KeyVersion
from keys.states import GONE, VERSION_EDGES, Condition, VersionState
from tests.house import ALL_PAIRS, House

S = VersionState
ILLEGAL = [(a, b) for a, b in ALL_PAIRS if b not in VERSION_EDGES[a]]
WAITING = [(a, b) for a, b in ALL_PAIRS if b in VERSION_EDGES[a] and b in GONE and a != S.DESTROYED]
AT_ONCE = [(a, b) for a, b in ALL_PAIRS if b in VERSION_EDGES[a] and (a, b) not in WAITING]
STAMPS = {
    S.ACTIVE: "activated_at",
    S.DEACTIVATED: "deactivated_at",
    S.COMPROMISED: "compromised_at",
    S.DESTROYED: "destroyed_at",
}
ACTION = {
    S.PRE_ACTIVE: "activate_version",
    S.ACTIVE: "activate_version",
    S.SUSPENDED: "suspend_version",
    S.DEACTIVATED: "deactivate_version",
    S.COMPROMISED: "revoke_version",
    S.DESTROYED: "destroy_version",
    S.DESTROYED_COMPROMISED: "destroy_version",
}


def everything(key: Key) -> Any:
    """Return all that is stored of a key, its versions, its jobs and its requests."""
    return [
        list(rows.order_by("pk").values())
        for rows in (
            Key.objects.filter(pk=key.pk),
            KeyVersion.objects.filter(key=key),
            Job.objects.filter(key=key),
            Approval.objects.filter(key=key),
        )
    ]


def names(pairs: list[tuple[S, S]]) -> list[str]:
    return [f"{a.value}-to-{b.value}" for a, b in pairs]


@pytest.mark.each_database(fast="sqlite")
@pytest.mark.parametrize(("before", "after"), AT_ONCE, ids=names(AT_ONCE))
def test_a_legal_change_of_state_is_made_stamped_and_recorded(
    house: House, before: S, after: S
) -> None:
    key, number = house.version_in(before)
    start = clock.now()
    version = house.move(key, number, after, reason="as planned")
    version.refresh_from_db()
    assert version.state == after
    stamp = "compromised_at" if before == S.DESTROYED else STAMPS.get(after)
    if stamp == "activated_at" and before == S.SUSPENDED:
        assert version.activated_at < start, "a resumption keeps the date of the activation"
    elif stamp is not None:
        assert start <= getattr(version, stamp) <= clock.now()
    assert version.primary == (after in (S.ACTIVE, S.SUSPENDED))
    entry = house.last_entry()
    assert (entry["action"], entry["outcome"]) == (ACTION[after], "success")
    assert entry["object"] == {
        "kind": "key",
        "id": str(key.id),
        "name": key.alias,
        "version": number,
        "classification": "internal",
    }
    assert entry["facts"]["from"] == before.value
    assert entry["facts"]["asked"]["to"] == after.value
    assert entry["facts"]["reason"] == "as planned"
    assert entry["actor"]["name"] == "Olga"


@pytest.mark.each_database(fast="sqlite")
@pytest.mark.parametrize(("before", "after"), WAITING, ids=names(WAITING))
def test_destruction_waits_for_its_window_and_is_then_done_by_the_job(
    house: House, before: S, after: S
) -> None:
    key, number = house.version_in(before)
    version = house.move(key, number, after, reason="no longer needed")
    version.refresh_from_db()
    assert (version.state, version.condition) == (before, Condition.PENDING_DESTRUCTION)
    assert version.destroy_at is not None
    assert version.destroy_at - clock.now() > timedelta(days=29, hours=23)
    assert house.last_entry()["outcome"] == "started"
    assert house.run_due_jobs() == []
    handle, backend = version.handle, stores.backend_of(key)
    assert backend.find(version.id) is not None

    house.let_days_pass(31)
    (job,) = house.run_due_jobs()
    assert job.state == "succeeded", job.error
    version.refresh_from_db()
    assert (version.state, version.condition, version.primary) == (after, "", False)
    assert version.destroyed_at is not None
    assert backend.find(version.id) is None, handle
    entry = house.last_entry()
    assert (entry["action"], entry["outcome"]) == ("destroy_version", "success")
    assert (entry["actor"]["name"], entry["object"]["version"]) == ("scheduler", number)


@pytest.mark.parametrize(("before", "after"), ILLEGAL, ids=names(ILLEGAL))
def test_an_illegal_change_of_state_changes_nothing_and_is_recorded(
    house: House, before: S, after: S
) -> None:
    key, number = house.version_in(before)
    seen = everything(key)
    with pytest.raises(IllegalTransition) as refused:
        house.move(key, number, after)
    assert refused.value.extra == {"state": before.value, "to": after.value}
    assert everything(key) == seen
    entry = house.last_entry()
    assert (entry["action"], entry["outcome"]) == (ACTION[after], "failed")
    assert entry["reason"] == "illegal_transition"
    assert entry["object"]["version"] == number


def test_what_can_not_be_is_not_put_to_a_vote(house: House) -> None:
    key = house.key("patient-health")
    seen = everything(key)
    with pytest.raises(IllegalTransition):
        house.move(key, 1, S.DESTROYED)
    assert everything(key) == seen
    assert not Approval.objects.exists()


@pytest.mark.parametrize("state", list(S))
def test_a_version_that_is_in_a_state_can_not_move_to_it(house: House, state: S) -> None:
    key, number = house.version_in(state)
    with pytest.raises(IllegalTransition):
        house.move(key, number, state)


@pytest.mark.parametrize("number", [0, -1, 99, 2**31, 2**60, 2**80])
def test_a_version_that_is_not_there_is_not_found(house: House, number: int) -> None:
    with pytest.raises((NotFound, Invalid)):
        house.move(house.invoices, number, S.SUSPENDED)
    assert house.last_entry()["action"] == "suspend_version"
    assert house.last_entry()["outcome"] in ("denied", "failed")


@pytest.mark.parametrize("number", [True, "1", None, [], {}, "x"])
def test_a_version_number_of_the_wrong_type_is_invalid_and_recorded(
    house: House, number: Any
) -> None:
    before = len(house.entries())
    with pytest.raises(Invalid):
        house.move(house.invoices, number, S.SUSPENDED)
    assert len(house.entries()) == before + 1
    assert house.last_entry()["reason"] == "invalid"


@pytest.mark.parametrize("to", ["", "ACTIVE", "gone", 5, None, [], {}, "active\x00"])
def test_a_state_that_there_is_not_is_invalid_and_recorded(house: House, to: Any) -> None:
    before = len(house.entries())
    with pytest.raises(Invalid):
        administration.transition_version(house.olga, "invoices", number=1, to=to)
    assert len(house.entries()) == before + 1
    assert (house.last_entry()["outcome"], house.last_entry()["reason"]) == ("failed", "invalid")


def test_a_longer_window_can_be_asked_for_and_a_shorter_one_can_not(house: House) -> None:
    key, number = house.version_in(S.DEACTIVATED)
    for days in (29, 0, -1, 121, True, "60"):
        with pytest.raises(Invalid):
            house.move(key, number, S.DESTROYED, days=days)
    version = house.move(key, number, S.DESTROYED, days=60)
    assert version.destroy_at is not None
    assert version.destroy_at - clock.now() > timedelta(days=59, hours=23)


def test_a_version_waits_for_its_destruction_once(house: House) -> None:
    key, number = house.version_in(S.DEACTIVATED)
    house.move(key, number, S.DESTROYED)
    with pytest.raises(Conflict):
        house.move(key, number, S.DESTROYED)
    assert Job.objects.filter(key=key, kind="destroy_version").count() == 1


@pytest.mark.each_database(fast="sqlite")
def test_a_cancelled_destruction_leaves_the_version_as_it_was(house: House) -> None:
    key, number = house.version_in(S.DEACTIVATED)
    house.move(key, number, S.DESTROYED)
    version = administration.cancel_version_destruction(house.olga, str(key.id), number=number)
    version.refresh_from_db()
    assert (version.state, version.condition, version.destroy_at) == (S.DEACTIVATED, "", None)
    house.let_days_pass(60)
    assert all(job.kind != "destroy_version" for job in house.run_due_jobs())
    with pytest.raises(StateForbids):
        administration.cancel_version_destruction(house.olga, str(key.id), number=number)


def test_a_cancellation_comes_too_late_once_the_job_is_claimed(house: House) -> None:
    key, number = house.version_in(S.DEACTIVATED)
    house.move(key, number, S.DESTROYED)
    house.let_days_pass(31)
    job = Job.objects.get(key=key, kind="destroy_version")
    assert jobs.claim(job.id) is not None
    with pytest.raises(Conflict, match="too late"):
        administration.cancel_version_destruction(house.olga, str(key.id), number=number)
    assert house.version(key, number).condition == Condition.PENDING_DESTRUCTION


def test_a_version_that_waits_for_its_destruction_can_not_be_activated(house: House) -> None:
    key, number = house.version_in(S.PRE_ACTIVE)
    house.move(key, number, S.DESTROYED)
    with pytest.raises(Conflict):
        house.move(key, number, S.ACTIVE)
    assert house.version(key, 1).primary
    house.let_days_pass(31)
    house.run_due_jobs()
    assert house.version(key, number).state == S.DESTROYED
    assert house.version(key, 1).state == S.ACTIVE


def test_a_version_that_waits_for_its_destruction_decrypts_no_more_until_that_is_cancelled(
    house: House,
) -> None:
    sealed = operations.encrypt(house.billing, "invoices", b"old").ciphertext
    administration.rotate_key(house.olga, "invoices")
    house.move(house.invoices, 1, S.DESTROYED)
    with pytest.raises(StateForbids, match="waiting for destruction"):
        operations.decrypt(house.billing, "invoices", sealed)
    administration.cancel_version_destruction(house.olga, "invoices", number=1)
    assert operations.decrypt(house.billing, "invoices", sealed).plaintext.reveal() == b"old"


def test_a_version_that_waits_for_its_destruction_can_still_be_revoked(house: House) -> None:
    key, number = house.version_in(S.DEACTIVATED)
    house.move(key, number, S.DESTROYED)
    house.move(key, number, S.COMPROMISED)
    house.let_days_pass(31)
    house.run_due_jobs()
    assert house.version(key, number).state == S.DESTROYED_COMPROMISED


def test_a_version_that_is_being_created_can_not_be_moved(house: House) -> None:
    key = house.key()
    KeyVersion.objects.create(
        key=key,
        number=2,
        state=S.PRE_ACTIVE,
        condition=Condition.CREATING,
        created_at=clock.now(),
        created_by_id=house.olga.principal_id,
    )
    for to in (S.ACTIVE, S.COMPROMISED, S.DESTROYED):
        with pytest.raises(Conflict):
            house.move(key, 2, to)


@pytest.mark.each_database
def test_two_who_look_at_the_same_state_can_not_both_move_it(house: House) -> None:
    key = house.key()
    one, other = house.version(key, 1), house.version(key, 1)
    lifecycle.move_version(one, S.SUSPENDED, clock.now())
    with pytest.raises(Conflict):
        lifecycle.move_version(other, S.COMPROMISED, clock.now())
    assert house.version(key, 1).state == S.SUSPENDED


@pytest.mark.each_database
def test_the_database_itself_allows_one_primary_that_has_served(house: House) -> None:
    key = house.key()
    administration.rotate_key(house.olga, str(key.id))
    for bad in ({"number": 1}, {"number": 2, "state": "pre_active"}):
        number = bad.pop("number")
        with pytest.raises(IntegrityError), transaction.atomic():
            KeyVersion.objects.filter(key=key, number=number).update(primary=True, **bad)


def test_a_suspended_version_that_resumes_is_primary_and_serves_again(house: House) -> None:
    sealed = operations.encrypt(house.billing, "invoices", b"x").ciphertext
    house.move(house.invoices, 1, S.SUSPENDED)
    for use in (
        lambda: operations.encrypt(house.billing, "invoices", b"x"),
        lambda: operations.decrypt(house.billing, "invoices", sealed),
    ):
        with pytest.raises(StateForbids):
            use()
    house.move(house.invoices, 1, S.ACTIVE)
    assert operations.decrypt(house.billing, "invoices", sealed).plaintext.reveal() == b"x"
    assert operations.encrypt(house.billing, "invoices", b"x").version == 1
