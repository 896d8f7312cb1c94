"""Jobs: intents that survive what happens to the process that carries them out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.db import IntegrityError, connections, transaction
from django.db.models import F

from keys import administration, clock, jobs, operations, tasks
from keys.backends.software.models import WrappedMaterial
from keys.errors import BackendError, BackendUnavailable, Conflict, KeyServiceError
from keys.models import Job, Key, KeyVersion
from keys.secret import Secret
from keys.states import GONE, VersionState
from tests.house import House
from tests.keys import stores
from tests.processes import Process, eventually, script

S = VersionState


def expire_leases() -> None:
    """What waiting for the lease's end does, without the waiting."""
    Job.objects.filter(state="running").update(lease_until=clock.now() - timedelta(seconds=1))


def material_is_exactly_what_versions_need() -> None:
    wanted = KeyVersion.objects.exclude(state__in=GONE).values_list("id", flat=True)
    assert sorted(WrappedMaterial.objects.values_list("label", flat=True)) == sorted(wanted)


def states(key: Key) -> list[tuple[int, str, bool]]:
    return [(v.number, v.state, v.primary) for v in key.versions.order_by("number")]


ROTATED = [(1, S.DEACTIVATED, False), (2, S.ACTIVE, True)]


def off(house: House, off: bool) -> None:
    administration.update_key_store(house.ada, "watched", enabled=not off)


# --- once and no more


@pytest.mark.each_database
def test_a_job_that_is_run_again_does_nothing(house: House) -> None:
    job = administration.rotate_key(house.olga, "invoices")
    entries = len(house.entries())
    for _ in range(3):
        assert jobs.run(job.id).attempts == 1
    assert states(house.invoices) == ROTATED
    assert len(house.entries()) == entries
    assert jobs.due() == []


@pytest.mark.each_database
def test_of_two_workers_one_gets_the_job(house: House, watched: dict[str, Any]) -> None:
    off(house, True)
    job = administration.rotate_key(house.olga, "watched")
    off(house, False)
    Job.objects.update(run_after=clock.now())
    made, gate = [], threading.Barrier(4)
    watched["before generate"] = lambda: made.append(1)

    def work() -> None:
        try:
            gate.wait()
            jobs.run(job.id)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [1]
    assert jobs.run(job.id).state == "succeeded"
    assert states(Key.objects.get(alias="watched")) == ROTATED
    material_is_exactly_what_versions_need()


@pytest.mark.each_database
def test_who_was_too_slow_for_its_lease_changes_nothing_any_more(
    house: House, watched: dict[str, Any]
) -> None:
    def lose_the_lease() -> None:
        watched.clear()
        expire_leases()
        (other,) = jobs.due()
        assert jobs.run(other).state == "succeeded"
        entries.extend(house.entries())

    entries: list[Any] = []
    watched["after generate"] = lose_the_lease
    job = administration.rotate_key(house.olga, "watched")
    assert (job.state, job.attempts) == ("succeeded", 2)
    assert states(Key.objects.get(alias="watched")) == ROTATED
    material_is_exactly_what_versions_need()
    assert stores.WatchedBackend.calls.count("before generate") == 2, "the key's own and one more"


@pytest.mark.each_database
def test_the_database_holds_one_open_job_for_a_key_and_kind(house: House) -> None:
    administration.schedule_destruction(house.olga, "invoices")
    job = Job.objects.get(kind="destroy")
    job.pk = None
    job._state.adding = True
    with pytest.raises(IntegrityError), transaction.atomic():
        Job.objects.create(
            kind="destroy",
            key=job.key,
            requested_by=job.requested_by,
            created_at=clock.now(),
            run_after=clock.now(),
        )


def test_a_key_is_not_rotated_while_a_rotation_is_under_way(
    house: House, watched: dict[str, Any]
) -> None:
    off(house, True)
    administration.rotate_key(house.olga, "watched")
    with pytest.raises(Conflict):
        administration.rotate_key(house.olga, "watched")
    assert Job.objects.filter(kind="rotate").count() == 1


def test_a_job_is_not_run_before_its_time(house: House) -> None:
    administration.schedule_destruction(house.olga, "invoices")
    job = Job.objects.get(kind="destroy")
    assert jobs.run(job.id).state == "pending"
    Job.objects.update(run_after=clock.now())
    assert jobs.run(job.id).state == "failed", "the key's own date is checked, too"
    assert house.invoices.state == "pending_destruction"
    administration.cancel_destruction(house.olga, "invoices")
    assert house.invoices.state == "disabled"


# --- a store that is away, or errs


@pytest.mark.each_database
def test_a_store_that_is_away_makes_the_job_wait_and_it_recovers(
    house: House, watched: dict[str, Any]
) -> None:
    def away() -> None:
        raise BackendUnavailable("The cable is out.")

    watched["before generate"] = away
    job = administration.rotate_key(house.olga, "watched")
    assert (job.state, job.error) == ("pending", "The cable is out.")
    assert job.run_after > clock.now()
    entry = house.last_entry()
    assert (entry["action"], entry["outcome"], entry["reason"]) == (
        "rotate_key",
        "failed",
        "backend_unavailable",
    )
    assert operations.encrypt(house.billing, "watched", b"x").version == 1
    watched.clear()
    house.let_days_pass(1)
    (job,) = house.run_due_jobs()
    assert (job.state, job.attempts, job.error) == ("succeeded", 2, "")
    assert states(Key.objects.get(alias="watched")) == ROTATED


@pytest.mark.parametrize("place", ["before generate", "after generate", "after encrypt"])
def test_an_error_of_the_store_ends_the_job_and_takes_back_what_it_made(
    house: House, watched: dict[str, Any], place: str
) -> None:
    def err() -> None:
        raise BackendError("The module says CKR_GENERAL_ERROR.")

    watched[place] = err
    with pytest.raises(BackendError, match="CKR_GENERAL_ERROR"):
        administration.rotate_key(house.olga, "watched")
    assert states(Key.objects.get(alias="watched")) == [
        (1, S.ACTIVE, True),
        (2, S.DESTROYED, False),
    ]
    material_is_exactly_what_versions_need()
    assert house.last_entry()["outcome"] == "failed"
    watched.clear()
    administration.rotate_key(house.olga, "watched")
    assert states(Key.objects.get(alias="watched"))[2] == (3, S.ACTIVE, True)


def test_a_bug_in_a_store_ends_the_job_too(house: House, watched: dict[str, Any]) -> None:
    watched["after generate"] = lambda: 1 // 0  # type: ignore[assignment,return-value]
    with pytest.raises(BackendError):
        administration.rotate_key(house.olga, "watched")
    assert jobs.due() == []
    material_is_exactly_what_versions_need()


def test_a_destruction_that_was_begun_is_tried_until_it_is_done(
    house: House, watched: dict[str, Any]
) -> None:
    def err() -> None:
        raise BackendError("Object busy.")

    administration.rotate_key(house.olga, "watched")
    administration.schedule_destruction(house.olga, "watched")
    house.let_days_pass(31)
    watched["after destroy"] = err
    (job,) = house.run_due_jobs()
    assert (job.state, job.error) == ("pending", "Object busy.")
    with pytest.raises(Conflict, match="too late"):
        administration.cancel_destruction(house.olga, "watched")
    watched.clear()
    house.let_days_pass(1)
    (job,) = house.run_due_jobs()
    assert job.state == "succeeded"
    assert Key.objects.get(alias="watched").state == "destroyed"
    material_is_exactly_what_versions_need()


@pytest.mark.each_database
def test_a_key_is_created_later_where_its_store_is_away(
    house: House, watched: dict[str, Any]
) -> None:
    def away() -> None:
        raise BackendUnavailable

    watched["before generate"] = away
    key = house.key("watched")
    assert states(key) == [(1, S.PRE_ACTIVE, False)]
    watched.clear()
    house.let_days_pass(1)
    house.run_due_jobs()
    assert states(key) == [(1, S.ACTIVE, True)]


# --- killed at any point

KILL = """
import json, os, signal, sys
from pathlib import Path
from django.conf import settings
from keys import administration, jobs
from keys.callers import Caller, Door, Kind, Method, Role
from keys.models import Principal
from keys.secret import Secret
from tests.databases import connected_to
from tests.keys import stores

UNTIL = "2199-01-01T00:00:00Z"

def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)

def after(function):
    def wrapped(*args, **kwargs):
        function(*args, **kwargs)
        die()
    return wrapped

def run(change, key, point):
    stores.register({point: die})
    if point == "before claim":
        jobs.claim = die
    elif point == "after claim":
        jobs.claim = after(jobs.claim)
    elif point == "before finish":
        jobs._finish = die
    elif point == "after finish":
        jobs._finish = after(jobs._finish)
    row = Principal.objects.get(name="Olga")
    olga = Caller(row.id, Kind.PERSON, row.name, Role.OFFICER, Method.SESSION, Door.CONSOLE)
    if change == "rotate":
        administration.rotate_key(olga, key)
    elif change == "create":
        administration.create_key(olga, "watched", name="Second", spec="AES_256")
    elif change == "import":
        administration.import_key(olga, key, material=Secret(bytes(range(32))), expires_at=UNTIL)
    elif change == "return":
        administration.import_key(
            olga, key, material=Secret(bytes(range(32))), number=1, expires_at=UNTIL
        )
    elif change == "remove":
        administration.delete_material(olga, key, number=1)
    else:
        for job in jobs.due():
            jobs.run(job)

# Each change is made by a fork, which is killed; Django is loaded once.
for line in sys.stdin:
    url, material_url, root_key, change, key, point = json.loads(line)
    child = os.fork()
    if child == 0:
        settings.ROOT_KEY_FILE = Path(root_key)
        with connected_to(url, material_url):
            run(change, key, point)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    print("ended by", os.waitstatus_to_exitcode(status), flush=True)
"""


@pytest.fixture(scope="session")
def killer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A process whose forks make changes and are killed at a point."""
    folder = tmp_path_factory.mktemp("killer")
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "kms_console.settings",
        "KMS_DATA": str(folder),
        "SECRET_KEY": settings.SECRET_KEY,
    }
    command = [sys.executable, "-c", "import django; django.setup()\n" + KILL]
    process = Process(command, environment, folder / "output", stdin=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()


@pytest.fixture
def kill(house: House, killer: Process, root_key: Path) -> Callable[[str, Key, str], None]:
    """Return a function that makes a change in a process that is killed (SIGKILL) at a point."""

    def made(change: str, key: Key, point: str) -> None:
        connections.close_all()
        before = len(killer.text.splitlines())
        places = [house.database.url, house.database.material_url, str(root_key)]
        killer.tell(json.dumps([*places, change, str(key.id), point]) + "\n")
        eventually(lambda: killer.text.splitlines()[before:] or killer.popen.poll() is not None)
        assert killer.text.splitlines()[-1] == "ended by -9", killer.text

    return made


Kill = Callable[[str, Key, str], None]
POINTS = [
    "before claim",
    "after claim",
    "before generate",
    "after generate",
    "before finish",
    "after finish",
]


def _reconciled_rotation(house: House, kill: Kill, point: str) -> None:
    key = Key.objects.get(alias="watched")
    kill("rotate", key, point)
    if point != "after finish":
        assert states(key)[0] == (1, S.ACTIVE, True), "what is half done disturbs nobody"
        assert operations.encrypt(house.billing, "watched", b"x").version == 1
    if point not in ("before claim", "after finish"):
        assert jobs.due() == [], "the lease still holds"
    expire_leases()
    for job in house.run_due_jobs():
        assert job.state == "succeeded", job.error
    assert Job.objects.get(kind="rotate").state == "succeeded"
    assert states(key) == ROTATED
    material_is_exactly_what_versions_need()
    results = [e["outcome"] for e in house.entries(action="rotate_key", object_id=str(key.id))]
    assert results == ["started", "success"]


@pytest.mark.parametrize("point", POINTS)
def test_a_rotation_that_is_killed_anywhere_is_finished_once(
    house: House, watched: dict[str, Any], kill: Kill, point: str
) -> None:
    _reconciled_rotation(house, kill, point)


@pytest.mark.each_database
def test_it_is_the_same_on_each_database(house: House, watched: dict[str, Any], kill: Kill) -> None:
    _reconciled_rotation(house, kill, "after generate")


def test_a_creation_that_is_killed_is_finished(
    house: House, watched: dict[str, Any], kill: Kill
) -> None:
    kill("create", house.invoices, "after generate")
    expire_leases()
    house.run_due_jobs()
    assert states(Key.objects.get(alias="second")) == [(1, S.ACTIVE, True)]
    material_is_exactly_what_versions_need()


@pytest.mark.parametrize("point", ["before import", "after import"])
def test_an_import_that_is_killed_is_taken_over_or_asked_for_again(
    house: House, watched: dict[str, Any], kill: Kill, point: str
) -> None:
    key = house.key("watched", origin="imported")
    kill("import", key, point)
    expire_leases()
    (job,) = house.run_due_jobs()
    key.refresh_from_db()
    if point == "after import":
        assert (job.state, key.state) == ("succeeded", "enabled")
    else:
        assert (job.state, key.state) == ("failed", "pending_import")
        administration.import_key(house.olga, str(key.id), material=Secret(bytes(range(32))))
        assert key.versions.filter(primary=True).count() == 1
        return
    assert key.versions.get(primary=True).material_expires_at.year == 2199
    assert key.versions.filter(primary=True).count() == 1
    material_is_exactly_what_versions_need()


@pytest.mark.parametrize("point", ["before import", "after import", "before finish"])
def test_material_that_was_on_its_way_back_when_its_process_was_killed(
    house: House, watched: dict[str, Any], kill: Kill, point: str
) -> None:
    key = house.key("watched", origin="imported")
    administration.import_key(house.olga, str(key.id), material=Secret(bytes(range(32))))
    administration.delete_material(house.olga, str(key.id), number=1)
    kill("return", key, point)
    version = key.versions.get()
    assert (version.state, version.condition) == (S.ACTIVE, "unavailable")
    expire_leases()
    (job,) = house.run_due_jobs()
    version.refresh_from_db()
    if point == "before import":
        assert (job.state, version.condition) == ("failed", "unavailable")
        administration.import_key(
            house.olga, str(key.id), material=Secret(bytes(range(32))), number=1
        )
    else:
        assert (job.state, version.condition) == ("succeeded", "")
        assert version.material_expires_at is not None
    assert states(key) == [(1, S.ACTIVE, True)]
    material_is_exactly_what_versions_need()


@pytest.mark.parametrize("point", ["before destroy", "after destroy", "before finish"])
def test_a_removal_that_is_killed_is_finished(
    house: House, watched: dict[str, Any], kill: Kill, point: str
) -> None:
    key = house.key("watched", origin="imported")
    administration.import_key(house.olga, str(key.id), material=Secret(bytes(range(32))))
    kill("remove", key, point)
    version = key.versions.get()
    assert version.condition == "unavailable", "no use is allowed from the first moment"
    expire_leases()
    (job,) = house.run_due_jobs()
    version.refresh_from_db()
    assert (job.state, version.condition, version.handle) == ("succeeded", "unavailable", "")
    assert not WrappedMaterial.objects.filter(label=version.id).exists()
    administration.import_key(house.olga, str(key.id), material=Secret(bytes(range(32))), number=1)
    material_is_exactly_what_versions_need()


@pytest.mark.parametrize("point", ["before destroy", "after destroy", "before finish"])
def test_a_destruction_that_is_killed_is_finished(
    house: House, watched: dict[str, Any], kill: Kill, point: str
) -> None:
    administration.rotate_key(house.olga, "watched")
    key = administration.schedule_destruction(house.olga, "watched")
    house.let_days_pass(31)
    kill("due", key, point)
    expire_leases()
    with pytest.raises(Conflict, match="too late"):
        administration.cancel_destruction(house.olga, "watched")
    (job,) = house.run_due_jobs()
    assert job.state == "succeeded"
    assert {state for _, state, _ in states(key)} == {S.DESTROYED}
    material_is_exactly_what_versions_need()


# --- real workers

KILLER = """
import os, signal
from tests.keys import stores
stores.register({"after generate": lambda: os.kill(os.getpid(), signal.SIGKILL)})
from kms_console.celery import app
app.worker_main(["worker", "--pool", "threads", "--concurrency", "1", "--without-gossip",
    "--without-mingle", "--without-heartbeat", "--hostname", "killed@tests"])
"""
HEIR = KILLER.replace("killed@", "heir@").replace(
    '{"after generate": lambda: os.kill(os.getpid(), signal.SIGKILL)}', "{}"
)


def test_what_a_killed_worker_left_another_finishes_once(
    house: House, watched: dict[str, Any], broker: Any, tmp_path: Path
) -> None:
    from keys import queue

    house.environment["KMS_JOB_LEASE_SECONDS"] = "1"
    off(house, True)
    job = administration.rotate_key(house.olga, "watched")
    off(house, False)
    Job.objects.update(run_after=F("run_after") - timedelta(days=1))
    connections.close_all()
    assert queue.send(queue.RUN_JOBS, [str(job.id)])
    first = script(house, KILLER, tmp_path / "killed")
    assert first.wait() == -9, first.text
    job.refresh_from_db()
    assert job.state == "running"
    key = Key.objects.get(alias="watched")
    assert states(key) == [(1, S.ACTIVE, True), (2, S.PRE_ACTIVE, False)]

    second = script(house, HEIR, tmp_path / "heir")
    try:
        second.wait_for("ready")

        def done() -> bool:
            queue.send(queue.RUN_JOBS, [str(job.id)] * 3)
            job.refresh_from_db()
            return job.state == "succeeded"

        eventually(done)
    finally:
        second.stop()
    assert states(key) == ROTATED
    material_is_exactly_what_versions_need()


@pytest.mark.each_database
def test_who_takes_back_what_it_made_takes_nothing_from_who_went_on(
    house: House, watched: dict[str, Any]
) -> None:
    """A worker's lease runs out while it takes its material back; another finds the job due."""
    key = Key.objects.get(alias="watched")

    def err_late() -> None:
        past = clock.now() - timedelta(seconds=1)
        Job.objects.filter(key=key, kind="rotate").update(lease_until=past)
        raise BackendError("The module says CKR_GENERAL_ERROR.")

    def another_worker() -> None:
        watched.clear()
        for job in Job.objects.filter(key=key, kind="rotate"):
            jobs.run(job.id)

    watched["after encrypt"] = err_late
    watched["before destroy"] = another_worker
    with pytest.raises(BackendError):
        administration.rotate_key(house.olga, "watched")
    watched.clear()
    assert operations.encrypt(house.billing, "watched", b"x").version in (1, 2)
    material_is_exactly_what_versions_need()


@pytest.mark.each_database
def test_a_key_is_imported_once_at_a_time(house: House, watched: dict[str, Any]) -> None:
    key = house.key("watched", name="Brought", origin="imported")
    second: list[Exception] = []

    def meanwhile() -> None:
        watched.clear()
        try:
            administration.import_key(house.otto, str(key.id), material=Secret(b"2" * 32))
        except Conflict as error:
            second.append(error)

    watched["before import"] = meanwhile
    administration.import_key(house.olga, str(key.id), material=Secret(b"1" * 32))
    assert len(second) == 1
    assert states(key) == [(1, S.ACTIVE, True)]


@pytest.mark.parametrize("error", [BackendUnavailable, BackendError])
def test_who_lost_its_claim_and_then_fails_leaves_the_rest_to_who_has_it(
    house: House, watched: dict[str, Any], error: type[KeyServiceError]
) -> None:
    """Its own trouble is no news any more, and stops no other job of the same message."""
    house.key("watched", alias="other")
    off(house, True)
    for alias in ("watched", "other"):
        administration.rotate_key(house.olga, alias)
    off(house, False)
    house.let_days_pass(1)
    first, second = Job.objects.filter(kind="rotate", state="pending")

    def too_slow() -> None:
        watched.clear()
        expire_leases()
        assert jobs.run(first.id).state == "succeeded"
        raise error("Too late.")

    watched["after generate"] = too_slow
    tasks.run_jobs([str(first.id), str(second.id)])
    assert set(Job.objects.filter(kind="rotate").values_list("state", flat=True)) == {"succeeded"}
    material_is_exactly_what_versions_need()
