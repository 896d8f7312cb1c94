"""Legal holds: placed at once, released by officers; nothing goes under one."""

from __future__ import annotations

import itertools
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import time_machine
from django.db import connection, connections

from audit import keeper, proofs, retention, tiles
from audit.events import Subject
from audit.models import Archive, Entry, LegalHold
from audit.search import Filters
from keys import administration, sweep, trail
from keys.administration import retention as keeping
from keys.errors import (
    AlreadyExists,
    Conflict,
    Denied,
    Invalid,
    NotFound,
    PendingApproval,
    Unavailable,
)
from keys.services import operator, scheduler
from keys.trail import retention as trail_retention
from kms_console import health
from tests.audit.helpers import use, write
from tests.audit.test_retention import sign
from tests.house import House

EVER = "2000-01-01T00:00:00Z"


@pytest.fixture
def archive_folder(settings: Any, tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "archive"
    folder.mkdir()
    settings.AUDIT_ARCHIVE = folder.as_uri()
    keeping._rest_until = None
    keeping._resting.clear()
    yield folder
    keeping._rest_until = None
    keeping._resting.clear()


def filled(house: House, count: int = 600) -> None:
    """Let the log have so many entries, in tiles and signed."""
    have = Entry.objects.count()
    write(*(use(object=Subject("key", f"key-{n}", "", 1)) for n in range(count - have)))
    tiles.build()
    sign()


def place(house: House, name: str = "Case 7", **more: Any) -> LegalHold:
    asked = {"since": EVER, "reason": "A court asked.", **more}
    return administration.place_hold(house.udo, name=name, **asked)


def release(house: House, hold: LegalHold) -> LegalHold:
    request = house.pending(
        administration.release_hold, house.olga, str(hold.id), reason="The case is closed."
    )
    house.approve(str(request.id))
    hold.refresh_from_db()
    return hold


@pytest.mark.each_database(fast="sqlite")
def test_a_hold_is_placed_at_once_and_released_by_officers(house: House) -> None:
    hold = place(house)
    assert retention.active_holds() == [hold]
    told = house.last_entry(action="place_hold")
    assert told["object"]["name"] == "Case 7"
    assert told["facts"]["reason"] == "A court asked."
    assert release(house, hold).released_at is not None
    assert retention.active_holds() == []
    told = house.last_entry(action="release_hold", outcome="success")
    assert len(told["approvals"]) == 1
    with pytest.raises(Conflict, match="released already"):
        administration.release_hold(house.olga, str(hold.id))


def test_who_may_place_and_release(house: House) -> None:
    for caller in (house.udo, house.olga, operator()):
        administration.place_hold(
            caller, name=f"of {caller.name}", since=EVER, reason="A court asked."
        )
    for caller in (house.ada, house.billing, scheduler()):
        with pytest.raises(Denied):
            administration.place_hold(caller, name="x", since=EVER, reason="A court asked.")
    hold = LegalHold.objects.first()
    assert hold is not None
    for caller in (house.ada, house.udo, operator(), scheduler()):
        with pytest.raises(Denied):
            administration.release_hold(caller, str(hold.id))
    with pytest.raises(PendingApproval):
        administration.release_hold(house.olga, str(hold.id))
    assert retention.held()


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        ({"name": ""}, Invalid),
        ({"name": "x" * 200}, Invalid),
        ({"since": ""}, Invalid),
        ({"since": "yesterday"}, Invalid),
        ({"since": "2020-01-01"}, Invalid),
        ({"until": "1999-01-01T00:00:00Z"}, Invalid),
        ({"until": EVER}, Invalid),
        ({"reason": ""}, Invalid),
        ({"name": "Case 7"}, AlreadyExists),
    ],
)
def test_what_a_hold_can_t_be(house: House, asked: dict[str, Any], error: type[Exception]) -> None:
    place(house)
    with pytest.raises(error):
        place(house, **({"name": "Case 8"} | asked))
    assert LegalHold.objects.count() == 1
    assert house.last_entry(action="place_hold")["outcome"] == "failed"


@pytest.mark.each_database(fast="sqlite")
def test_a_hold_between_archiving_and_dropping_stops_the_drop(
    house: House, archive_folder: Path
) -> None:
    filled(house)
    row = administration.archive_audit(operator(), entries=256)
    assert (row.start, row.end) == (0, 256)
    hold = place(house)
    with pytest.raises(Conflict, match="Case 7"):
        administration.drop_audit(operator(), "0")
    assert retention.rows_left(row) == 256
    release(house, hold)
    proof = proofs.inclusion(3, 600)
    administration.drop_audit(operator(), "0")
    assert retention.rows_left(row) == 0
    assert proofs.inclusion(3, 600) == proof
    with pytest.raises(Conflict, match="not in the database"):
        administration.drop_audit(operator(), "0")
    administration.restore_audit(house.udo, "0", reason="An inspection.")
    assert retention.rows_left(row) == 256
    with pytest.raises(Conflict, match="are in the database"):
        administration.restore_audit(house.udo, "0")


def test_what_is_dropped_is_read_at_its_place_once_more(house: House, archive_folder: Path) -> None:
    filled(house)
    row = administration.archive_audit(operator(), entries=256)
    path = archive_folder / row.name
    path.chmod(0o600)
    sound = path.read_bytes()
    path.write_bytes(sound[:-9])
    with pytest.raises(Conflict):
        administration.drop_audit(operator(), "0")
    path.unlink()
    with pytest.raises(Conflict):
        administration.drop_audit(operator(), "0")
    assert retention.rows_left(row) == 256
    assert Archive.objects.get().dropped_at is None
    path.write_bytes(sound)
    administration.drop_audit(operator(), "0")
    path.write_bytes(sound[:-9])
    with pytest.raises(Conflict):
        administration.restore_audit(operator(), "0")
    assert Archive.objects.get().dropped_at is not None
    path.write_bytes(sound)
    administration.restore_audit(operator(), "0")
    assert retention.rows_left(row) == 256


def test_archiving_what_can_t_be(house: House, archive_folder: Path, settings: Any) -> None:
    filled(house)
    for count in (0, 100, 257, 2**40, True):
        with pytest.raises(Invalid):
            administration.archive_audit(operator(), entries=count)
    with pytest.raises(Denied):
        administration.archive_audit(house.udo)
    with pytest.raises(NotFound):
        administration.drop_audit(operator(), "256")
    with pytest.raises(NotFound):
        administration.restore_audit(operator(), "x")
    settings.AUDIT_ARCHIVE = ""
    with pytest.raises(Conflict, match="KMS_AUDIT_ARCHIVE"):
        administration.archive_audit(operator())
    settings.AUDIT_ARCHIVE = "file:///proc/nowhere"
    with pytest.raises((Conflict, Unavailable)):
        administration.archive_audit(operator())
    assert not Archive.objects.exists()
    assert house.last_entry(action="archive_audit")["outcome"] == "failed"


def test_the_sweep_archives_and_drops_what_is_old(
    house: House, archive_folder: Path, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "FEWEST", 256)
    filled(house)
    settings.AUDIT_KEEP_DAYS = 0
    sweep.tidy()
    assert not Archive.objects.exists()  # 0: never
    settings.AUDIT_KEEP_DAYS = 1
    sweep.tidy()
    assert not Archive.objects.exists()  # nothing is a day old
    hold = place(house)
    with time_machine.travel("2100-01-01T00:00:00Z"):
        keeping.keep_trail()
        row = Archive.objects.get()
        assert (row.start, row.end) == (0, 256)
        assert row.dropped_at is None  # a hold is in force
        assert house.last_entry(action="archive_audit")["actor"]["name"] == "scheduler"
    release(house, hold)
    with time_machine.travel("2100-01-01T00:00:00Z"):
        keeping.keep_trail()
        row.refresh_from_db()
        assert row.dropped_at is not None
        before = Entry.objects.count()
        keeping.keep_trail()
        assert Entry.objects.count() == before  # nothing to do leaves no entry


def test_a_storage_that_is_away_costs_one_entry_in_a_quarter_of_an_hour(
    house: House, archive_folder: Path, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "FEWEST", 256)
    filled(house)
    settings.AUDIT_KEEP_DAYS = 1
    settings.AUDIT_ARCHIVE = "file:///proc/nowhere"
    with time_machine.travel("2100-01-01T00:00:00Z"):
        for _ in range(3):
            keeping.keep_trail()
    assert len(house.entries(action="archive_audit")) == 1
    settings.AUDIT_ARCHIVE = archive_folder.as_uri()
    with time_machine.travel("2100-01-01T01:00:00Z"):
        keeping.keep_trail()
    assert Archive.objects.exists()


def _until(goal: Callable[[], None], at: int) -> bool:
    """Run `goal` in a process of its own that is killed before its `at`th statement; tell if it ended."""
    connections.close_all()
    child = os.fork()
    if child == 0:
        left = itertools.count(at, -1)

        def execute(run: Any, *asked: Any) -> Any:
            if next(left) == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return run(*asked)

        code = 1
        try:
            with connection.execute_wrapper(execute):
                goal()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) in (0, -signal.SIGKILL)
    return status == 0


def _gone() -> None:
    """Archive and drop the first bundle, going on where somebody ended."""
    if not Archive.objects.exists():
        administration.archive_audit(operator(), entries=256)
    row = Archive.objects.get(start=0)
    if row.dropped_at is None or retention.rows_left(row):
        administration.drop_audit(operator(), "0")


def _back() -> None:
    if Archive.objects.get(start=0).dropped_at is not None:
        administration.restore_audit(operator(), "0")


@pytest.mark.parametrize(
    "step", [13, pytest.param(1, marks=pytest.mark.exhaustive)], ids=["some", "every"]
)
@pytest.mark.each_database(fast="sqlite")
def test_killed_between_any_two_steps_nothing_is_lost(
    house: House, archive_folder: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    monkeypatch.setattr(retention.archives, "CHUNK", 64)
    filled(house)
    before = dict(Entry.objects.filter(index__lt=256).values_list("index", "leaf_hash"))
    kills = 0
    for goal in (_gone, _back):
        at = 1
        while not _until(goal, at):
            kills, at = kills + 1, at + step
            there = set(Entry.objects.filter(index__lt=256).values_list("index", flat=True))
            row = Archive.objects.filter(start=0).first()
            if len(there) < 256:
                assert row is not None
                assert row.dropped_at is not None
                assert retention.check(row) == 256
            connections.close_all()
    assert kills >= 4
    after = dict(Entry.objects.filter(index__lt=256).values_list("index", "leaf_hash"))
    assert {i: bytes(h) for i, h in after.items()} == {i: bytes(h) for i, h in before.items()}


def test_search_verify_and_export_go_on_without_what_was_dropped(
    house: House, archive_folder: Path
) -> None:
    filled(house)
    while keeper.work():
        pass
    administration.archive_audit(operator(), entries=256)
    first = trail.find_entry(house.udo, 20)
    assert trail.verify_audit(house.udo).ok
    administration.drop_audit(operator(), "0")
    assert trail.verify_audit(house.udo).ok
    found = trail.search_audit(house.udo, Filters(action="encrypt"), limit=1000)
    assert found
    assert min(entry.index for entry in found) >= 256
    with pytest.raises(NotFound):
        trail.find_entry(house.udo, 20)
    row = retention.archived(20)
    assert row is not None
    assert (row.start, row.end) == (0, 256)
    assert trail.prove_entry(house.udo, 20).hashes
    administration.restore_audit(house.udo, "0")
    assert trail.find_entry(house.udo, 20).body == first.body
    assert trail.verify_audit(house.udo).ok


def test_the_pages_lists(house: House, archive_folder: Path) -> None:
    filled(house, 1100)
    for _ in range(2):
        administration.archive_audit(operator(), entries=256)
    hold = place(house)
    rows = trail_retention.list_archives(house.udo)
    assert [row.start for row in rows] == [256, 0]
    assert [row.start for row in trail_retention.list_archives(house.udo, after=256)] == [0]
    assert trail_retention.list_holds(house.udo, active=True) == [hold]
    stands = trail_retention.kept(house.udo)
    assert (stands.end, stands.bundles, stands.dropped, stands.to_drop) == (512, 2, 0, False)
    for ask in (trail_retention.list_archives, trail_retention.list_holds, trail_retention.kept):
        with pytest.raises(Denied):
            ask(house.billing)


@pytest.mark.parametrize("bad", ["missing", "unreadable"])
def test_a_drop_that_was_interrupted_is_finished_and_one_bad_bundle_stops_no_other(
    house: House, archive_folder: Path, settings: Any, monkeypatch: pytest.MonkeyPatch, bad: str
) -> None:
    monkeypatch.setattr(keeping, "FEWEST", 256)
    monkeypatch.setattr(keeping, "AT_ONCE", 2)
    filled(house, 1100)
    rows = [administration.archive_audit(operator(), entries=256) for _ in range(3)]
    begun = rows[1]
    begun.dropped_at = datetime(2030, 1, 1, tzinfo=UTC)
    begun.save(update_fields=["dropped_at"])
    assert [row.start for row in keeping.droppable(rows[0].first_at)] == [256]  # however young
    (archive_folder / rows[0].name).unlink()
    if bad == "unreadable":  # a disk's own error, EIO, which may pass
        (archive_folder / rows[0].name).symlink_to("/proc/self/mem")
    settings.AUDIT_KEEP_DAYS = 1
    with time_machine.travel("2100-01-01T00:00:00Z"):
        keeping.keep_trail()
        assert [retention.rows_left(row) for row in rows] == [256, 0, 0]
        before = len(house.entries(action="drop_audit", outcome="failed"))
        keeping.keep_trail()
        assert len(house.entries(action="drop_audit", outcome="failed")) == before == 1


def test_the_sweep_goes_on_after_a_full_disk(
    house: House,
    archive_folder: Path,
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(keeping, "FEWEST", 256)
    filled(house)
    settings.AUDIT_KEEP_DAYS = 1
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with time_machine.travel("2100-01-01T00:00:00Z"):
        sweep.tidy()
    assert not Archive.objects.exists()
    assert house.last_entry(action="archive_audit")["outcome"] == "failed"
    monkeypatch.setattr(tempfile, "tempdir", None)
    with time_machine.travel("2100-01-01T01:00:00Z"):
        sweep.tidy()
    assert retention.rows_left(Archive.objects.get()) == 0


def test_a_request_brings_back_no_more_than_it_has_time_for(
    house: House, archive_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "RESTORED_AT_ONCE", 256)
    filled(house, 1100)
    for entries in (256, 512):
        administration.archive_audit(operator(), entries=entries)
    for start in ("0", "256"):
        administration.drop_audit(operator(), start)
    administration.restore_audit(house.udo, "0")
    with pytest.raises(Conflict, match="archive_audit restore 256"):
        administration.restore_audit(house.udo, "256")
    administration.restore_audit(operator(), "256")
    assert not Archive.objects.exclude(dropped_at=None).exists()


def test_what_is_archived_on_a_folder_is_dropped_only_where_nobody_asked_for_a_lock(
    house: House, archive_folder: Path, settings: Any
) -> None:
    filled(house)
    row = administration.archive_audit(operator(), entries=256)
    settings.AUDIT_RETAIN_DAYS = 30
    with pytest.raises(Conflict, match="KMS_AUDIT_RETAIN_DAYS"):
        administration.drop_audit(operator(), "0")
    assert retention.rows_left(row) == 256


def test_a_storage_that_was_not_told_of_a_hold_shows(house: House, archive_folder: Path) -> None:
    filled(house)
    row = administration.archive_audit(operator(), entries=256)
    place(house)
    (archive_folder / row.name).rename(archive_folder / "away")
    keeping.keep_trail()

    def archive_part() -> health.Part:
        parts = {part.name: part for part in health.Examiner().report().parts}
        return parts["archive"]

    assert archive_part().status == health.FAILED
    assert "legal hold" in archive_part().reason
    (archive_folder / "away").rename(archive_folder / row.name)
    keeping.keep_trail()
    assert archive_part().status == health.OK
