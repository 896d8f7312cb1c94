"""The next version ahead of its rotation: made, proved and published, and then it takes over."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, connections
from django.db.models import F
from django.test.utils import CaptureQueriesContext

from keys import administration, clock, due, operations, sweep
from keys.backends.software.models import WrappedMaterial
from keys.errors import BackendUnavailable, Conflict, Denied, StateForbids
from keys.models import Approval, Job, Key
from keys.services import scheduler
from keys.states import VersionState
from tests.house import House
from tests.keys.stores import WatchedBackend
from tests.processes import Broker, Process, eventually

S = VersionState


@pytest.fixture
def key(house: House) -> Key:
    """A signing key that rotates every 30 days and publishes its next version 10 days ahead."""
    made = house.key(spec="ECC_NIST_P256", alias="tokens", rotation_days=30, publish_days=10)
    house.grant("billing", made, "sign", "verify")
    return made


def states(key: Key) -> list[tuple[int, str, bool]]:
    return [(v.number, v.state, v.primary) for v in key.versions.order_by("number")]


BEFORE = [(1, S.ACTIVE, True)]
PUBLISHED = [(1, S.ACTIVE, True), (2, S.PRE_ACTIVE, False)]
ROTATED = [(1, S.DEACTIVATED, False), (2, S.ACTIVE, True)]


@pytest.mark.each_database
def test_the_next_version_is_made_in_time_and_takes_over_in_time(house: House, key: Key) -> None:
    house.let_days_pass(19)
    assert sweep.publications_due(10) == [] and sweep.due().publications == []
    house.let_days_pass(2)
    assert sweep.due().publications == [key.id]
    assert sweep.publish([key.id, key.id]) == 1
    assert states(key) == PUBLISHED
    version = key.versions.get(number=2)
    assert (version.condition, bool(version.public_key)) == ("", True)
    assert sweep.publications_due(10) == [], "one waits"
    signed = operations.sign(house.billing, "tokens", b"x")
    assert signed.version == 1, "it protects nothing yet"
    entry = house.last_entry(action="prepare_version")
    assert (entry["outcome"], entry["object"]["version"]) == ("success", 2)
    house.let_days_pass(9)
    assert sweep.rotations_due(10) == [key.id]
    material = WrappedMaterial.objects.count()
    assert sweep.rotate([key.id]) == 1
    assert states(key) == ROTATED
    assert WrappedMaterial.objects.count() == material, "no other version was made"
    assert operations.sign(house.billing, "tokens", b"x").version == 2
    assert operations.verify(house.billing, "tokens", b"x", signed.signature, version=1).valid
    key.refresh_from_db()
    assert key.rotate_at is not None and key.rotate_at > clock.now() + timedelta(days=29)
    assert sweep.rotations_due(10) == [] and sweep.publications_due(10) == []


@pytest.mark.each_database
def test_the_version_that_takes_over_has_a_job_that_is_done_at_once_and_one_entry(
    house: House, key: Key
) -> None:
    prepared = administration.prepare_version(house.olga, "tokens")
    assert (prepared.kind, prepared.state, prepared.activate) == ("prepare", "succeeded", False)
    before = len(house.entries())
    job = administration.rotate_key(house.olga, "tokens", reason="early")
    assert (job.kind, job.state, job.target_version) == ("rotate", "succeeded", 2)
    assert Job.objects.get(pk=job.id).finished_at is not None
    (entry,) = house.entries()[before:]
    assert (entry["action"], entry["outcome"], entry["object"]["version"]) == (
        "rotate_key",
        "success",
        2,
    )
    assert entry["facts"]["job"] == str(job.id) and entry["facts"]["reason"] == "early"
    assert states(key) == ROTATED
    administration.rotate_key(house.olga, "tokens")
    assert states(key)[2] == (3, S.ACTIVE, True), "and then a new one is made as ever"


def test_one_version_waits_at_a_time(house: House, key: Key) -> None:
    administration.prepare_version(house.olga, "tokens")
    with pytest.raises(Conflict, match="Version 2 waits"):
        administration.prepare_version(house.olga, "tokens")
    assert house.last_entry()["outcome"] == "failed"
    assert states(key) == PUBLISHED


@pytest.mark.each_database(fast="sqlite")
def test_an_officers_own_next_version_takes_over_too_and_another_can_still_be_made(
    house: House, key: Key
) -> None:
    administration.rotate_key(house.olga, "tokens", activate=False)
    assert states(key) == PUBLISHED
    administration.rotate_key(house.olga, "tokens", activate=False)
    assert states(key) == [*PUBLISHED, (3, S.PRE_ACTIVE, False)]
    administration.rotate_key(house.olga, "tokens")
    assert states(key) == [*ROTATED, (3, S.PRE_ACTIVE, False)]
    administration.rotate_key(house.olga, "tokens")
    assert states(key)[2] == (3, S.ACTIVE, True)


@pytest.mark.parametrize("end", ["compromised", "destroyed"])
def test_a_waiting_version_that_is_no_longer_wanted_does_not_take_over(
    house: House, key: Key, end: str
) -> None:
    administration.prepare_version(house.olga, "tokens")
    house.move(key, 2, end, reason="seen in a mail")
    administration.prepare_version(house.olga, "tokens")
    assert states(key)[2] == (3, S.PRE_ACTIVE, False)
    administration.rotate_key(house.olga, "tokens")
    assert states(key)[2] == (3, S.ACTIVE, True)


def test_a_version_that_was_passed_over_does_not_wait_any_more(house: House, key: Key) -> None:
    administration.prepare_version(house.olga, "tokens")
    administration.rotate_key(house.olga, "tokens", activate=False)
    house.move(key, 3, S.ACTIVE)
    assert states(key) == [
        (1, S.DEACTIVATED, False),
        (2, S.PRE_ACTIVE, False),
        (3, S.ACTIVE, True),
    ]
    administration.rotate_key(house.olga, "tokens")
    assert states(key)[3] == (4, S.ACTIVE, True)


def test_after_a_compromise_the_version_that_waits_takes_over(house: House, key: Key) -> None:
    administration.prepare_version(house.olga, "tokens")
    house.move(key, 1, S.COMPROMISED, reason="a laptop was stolen")
    assert sweep.rotate(sweep.rotations_due(10)) == 1
    assert states(key) == [(1, S.COMPROMISED, False), (2, S.ACTIVE, True)]


# --- for which keys, and by whom

NOT_YET: list[tuple[str, Callable[[House, Key], Any]]] = [
    ("nothing to publish", lambda h, k: Key.objects.filter(pk=k.pk).update(publish_days=None)),
    ("brought material", lambda h, k: Key.objects.filter(pk=k.pk).update(origin="imported")),
    ("paused", lambda h, k: administration.pause_rotation(h.ada, "internal", reason="a move")),
    ("disabled", lambda h, k: administration.disable_key(h.olga, "tokens")),
    ("one waits", lambda h, k: administration.rotate_key(h.olga, "tokens", activate=False)),
    ("no date", lambda h, k: Key.objects.filter(pk=k.pk).update(rotate_at=None)),
]


@pytest.mark.each_database(fast="sqlite")
@pytest.mark.parametrize("change", [row[1] for row in NOT_YET], ids=[row[0] for row in NOT_YET])
def test_the_sweep_prepares_nothing_for_a_key_that(
    house: House, key: Key, change: Callable[[House, Key], Any]
) -> None:
    house.let_days_pass(21)
    assert sweep.publications_due(10) == [key.id]
    change(house, key)
    assert sweep.publications_due(10) == []
    versions = key.versions.count()
    with pytest.raises(Conflict, match="not due"):
        administration.prepare_version(scheduler(), "tokens", reason="due")
    assert sweep.publish([key.id]) == 0
    assert key.versions.count() == versions


def test_each_key_has_its_own_number_of_days(house: House, key: Key) -> None:
    keys = [key] + [
        house.key(spec="ECC_NIST_P256", rotation_days=30, publish_days=days) for days in (1, 20, 29)
    ]
    house.let_days_pass(11)
    assert set(sweep.publications_due(10)) == {keys[2].id, keys[3].id}
    house.let_days_pass(10)
    assert set(sweep.publications_due(10)) == {keys[0].id, keys[2].id, keys[3].id}
    assert sweep.publications_due(1) != [] and len(sweep.publications_due(2)) == 2
    assert sweep.publications_due(10, among=[keys[3].id]) == [keys[3].id]
    assert sweep.publications_due(10, among=[]) == []
    with CaptureQueriesContext(connection) as asked:
        sweep.publications_due(10)
    assert len(asked) == 2


def test_who_may_prepare_a_version(house: House, key: Key) -> None:
    for who in (house.ada, house.udo, house.billing):
        with pytest.raises(Denied):
            administration.prepare_version(who, "tokens")
        assert house.last_entry()["outcome"] == "denied"
    administration.disable_key(house.olga, "tokens")
    with pytest.raises(StateForbids):
        administration.prepare_version(house.olga, "tokens")


@pytest.mark.each_database(fast="sqlite")
def test_preparing_needs_no_votes_and_taking_over_does(house: House) -> None:
    made = house.key("patient-health", spec="ECC_NIST_P256", publish_days=10)
    house.let_days_pass(81)
    assert sweep.publish(sweep.publications_due(10)) == 1
    assert states(made) == PUBLISHED
    wish = house.pending(administration.rotate_key, house.olga, str(made.id))
    assert states(made) == PUBLISHED
    house.approve(str(wish.id))
    assert states(made) == ROTATED
    entry = house.last_entry(action="rotate_key")
    assert (entry["outcome"], entry["approvals"]) == ("success", [str(wish.id)])
    assert Job.objects.get(key=made, kind="rotate").approval_id == wish.id


def test_nothing_is_prepared_under_the_votes_on_a_key(house: House) -> None:
    made = house.key("patient-health", spec="ECC_NIST_P256", publish_days=10)
    house.let_days_pass(81)
    wish = house.pending(administration.rotate_key, house.olga, str(made.id))
    assert sweep.publications_due(10) == []
    house.approve(str(wish.id))
    assert states(made) == ROTATED
    assert Approval.objects.get(pk=wish.id).state == "executed"


# --- a store that is away


@pytest.fixture
def watched_key(house: House, watched: dict[str, Any]) -> Key:
    key = Key.objects.get(alias="watched")
    Key.objects.filter(pk=key.pk).update(publish_days=10)
    house.let_days_pass(360)
    return key


@pytest.mark.each_database(fast="sqlite")
def test_a_store_that_is_away_makes_the_preparation_wait_and_a_rotation_too(
    house: House, watched: dict[str, Any], watched_key: Key
) -> None:
    def away() -> None:
        raise BackendUnavailable("The cable is out.")

    watched["before generate"] = away
    assert sweep.publish(sweep.publications_due(10)) == 1
    (job,) = Job.objects.filter(kind="prepare")
    assert job.state == "pending"
    assert sweep.publications_due(10) == []
    house.let_days_pass(10)
    mine = [watched_key.id]
    assert sweep.rotations_due(10, among=mine) == [], "what is being made will take over"
    with pytest.raises(Conflict, match="under way"):
        administration.rotate_key(house.olga, "watched")
    watched.clear()
    assert [job.state for job in house.run_due_jobs()] == ["succeeded"]
    assert states(watched_key) == PUBLISHED
    calls = len(WatchedBackend.calls)
    assert sweep.rotate(sweep.rotations_due(10, among=mine)) == 1
    assert states(watched_key) == ROTATED
    assert len(WatchedBackend.calls) == calls, "taking over asks nothing of the store"


# --- as it runs


@pytest.mark.each_database(fast="postgresql")
def test_beat_and_worker_publish_and_rotate_in_time(
    house: House, broker: Broker, worker: Process, key: Key, request: pytest.FixtureRequest
) -> None:
    others = [house.key(spec="ECC_NIST_P256", rotation_days=30, publish_days=10) for _ in range(5)]
    keys = [key, *others]
    plain = house.key(rotation_days=30)
    _days_pass(21)
    connections.close_all()
    beat: Process = request.getfixturevalue("beat")
    eventually(lambda: all(states(each) == PUBLISHED for each in keys), 120)
    assert states(plain) == BEFORE
    _days_pass(9)
    eventually(lambda: all(states(each) == ROTATED for each in [*keys, plain]), 120)
    eventually(lambda: not due.open_makings().exists())
    assert worker.popen.poll() is None and beat.popen.poll() is None
    assert Job.objects.filter(kind="prepare").count() == len(keys)
    entries = house.entries(action="rotate_key", outcome="success")
    assert len(entries) == len(keys) + 1


def _days_pass(days: int) -> None:
    """Move dates of rotation alone: other processes look at them, too."""
    Key.objects.filter(rotate_at__isnull=False).update(rotate_at=F("rotate_at") - timedelta(days))
