"""Archiving when something is wrong: forged rows, storage that fails, two people at once, a full disk."""

from __future__ import annotations

import tempfile
import threading
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import IntegrityError, connection, connections, transaction

from audit import retention
from audit.errors import ArchiveFault, PlaceError, PlaceUnavailable
from audit.models import Archive, Entry
from tests.audit.test_places import _bucket
from tests.audit.test_retention import archive, archive_folder, drop, log_of, place, restore
from tests.databases import Database
from tests.peers.peer import Peer

__all__ = ["archive_folder"]


def forge(**values: Any) -> None:
    """Change a bundle's row as one can who may switch triggers off."""
    with connection.cursor() as cursor:
        cursor.execute("DROP TRIGGER audit_archive_fixed")
    Archive.objects.update(**values)


def test_only_places_of_the_configuration_are_asked(
    database: Database, archive_folder: Path, tmp_path: Path, settings: Any
) -> None:
    log_of(600)
    row = archive(256)
    elsewhere = tmp_path / "elsewhere"
    archive_folder.rename(elsewhere)
    settings.AUDIT_ARCHIVE = elsewhere.as_uri()
    for ask in (retention.check, retention.check_kept, retention.bring_back):
        with pytest.raises(ArchiveFault, match="not configured"):
            ask(row)
    elsewhere.rename(archive_folder)
    settings.AUDIT_ARCHIVE_FORMER = [row.place]
    assert retention.check(row) == 256
    settings.AUDIT_ARCHIVE_FORMER, settings.AUDIT_ARCHIVE = [], ""
    with pytest.raises(ArchiveFault, match="not configured"):
        retention.check(row)


@pytest.mark.parametrize("column", ["first_at", "last_at"])
def test_a_row_with_other_times_than_its_entries_is_found_out(
    database: Database, archive_folder: Path, column: str
) -> None:
    log_of(600)
    row = archive(256)
    forge(**{column: getattr(row, column) + timedelta(microseconds=1)})
    with pytest.raises(ArchiveFault, match="times"):
        retention.check(Archive.objects.get())


def test_what_is_to_be_retained_must_lie_where_it_is(
    database: Database, archive_folder: Path, settings: Any
) -> None:
    log_of(600)
    settings.AUDIT_RETAIN_DAYS = 30
    row = archive(256)
    assert row.retain_until is None  # a folder promises nothing
    with pytest.raises(ArchiveFault, match="KMS_AUDIT_RETAIN_DAYS"):
        retention.check_kept(row)
    settings.AUDIT_RETAIN_DAYS = 0
    retention.check_kept(row)


@pytest.mark.exhaustive
def test_the_storage_s_lock_is_looked_at_before_the_only_other_copy_goes(
    database: Database,
    archive_folder: Path,
    moto: Peer,
    monkeypatch: pytest.MonkeyPatch,
    settings: Any,
) -> None:
    settings.AUDIT_ARCHIVE = _bucket(moto, monkeypatch, locked=True)
    settings.AUDIT_RETAIN_DAYS = 30
    log_of(1000)
    row = archive(256)
    retention.check_kept(row)
    settings.AUDIT_RETAIN_DAYS = 0
    loose = archive(256)
    retention.check_kept(loose)  # nobody asked for a lock
    until = datetime.now(UTC) + timedelta(days=30)
    for one in (row, loose):
        one.retain_until = until + timedelta(days=1)
        one.save(update_fields=["retain_until"])
        with pytest.raises(PlaceError, match="retain"):
            retention.check_kept(one)


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_dropping_and_bringing_back_at_once_lose_nothing(
    database: Database, archive_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention.archives, "CHUNK", 64)
    log_of(600)
    row = archive(256)
    row.dropped_at = datetime.now(UTC)
    row.save(update_fields=["dropped_at"])
    told: list[object] = []

    def say_all_is_back() -> None:
        try:
            mine = Archive.objects.get()
            mine.dropped_at = None
            mine.save(update_fields=["dropped_at"])
            told.append("back")
        except IntegrityError as error:
            told.append(error)
        finally:
            connections.close_all()

    restorer = threading.Thread(target=say_all_is_back)

    def between(execute: Any, sql: str, *rest: Any) -> Any:
        result = execute(sql, *rest)
        if sql.startswith("DELETE FROM audit_entry") and restorer.ident is None:
            # The first chunk is gone and not committed: whoever counts now counts all.
            restorer.start()
            restorer.join(0.5)
            assert not told
        return result

    with connection.execute_wrapper(between):
        assert retention.delete_rows(row) == 256
    restorer.join()
    assert isinstance(told[0], IntegrityError)
    row.refresh_from_db()
    assert row.dropped_at is not None
    assert restore(row) == 256
    assert Entry.objects.count() == 600


@pytest.mark.each_database(fast="sqlite")
def test_a_drop_ends_where_somebody_brought_the_bundle_back(
    database: Database, archive_folder: Path
) -> None:
    log_of(600)
    row = archive(256)
    drop(row)
    restore(Archive.objects.get())
    with pytest.raises(ArchiveFault, match="meanwhile"):
        retention.delete_rows(row)
    assert Entry.objects.count() == 600


def test_an_interrupted_drop_is_known_and_one_that_comes_back_now_is_not(
    database: Database, archive_folder: Path
) -> None:
    log_of(600)
    row = archive(256)
    assert list(retention.unfinished()) == []
    row.dropped_at = datetime.now(UTC)
    row.save(update_fields=["dropped_at"])
    assert list(retention.unfinished()) == [row]
    retention.delete_rows(row)
    assert list(retention.unfinished()) == []
    retention.bring_back(row)
    assert list(retention.unfinished()) == []
    Archive.objects.update(restoring_at=datetime.now(UTC) - timedelta(hours=2))
    assert list(retention.unfinished()) == [row]


def test_one_bundle_that_can_t_be_held_stops_no_other(
    database: Database, archive_folder: Path
) -> None:
    log_of(1100)
    first, second, third = archive(256), archive(256), archive(256)
    hold = place()
    missing = archive_folder / first.name
    missing.rename(archive_folder / "away")
    assert retention.trouble() == ""  # nobody tried yet
    assert retention.sync_holds() == 2
    assert retention.trouble()
    told = Archive.objects.filter(hold_told=True)
    assert {row.start for row in told} == {second.start, third.start}
    assert retention.sync_holds() == 0
    (archive_folder / "away").rename(missing)
    assert retention.sync_holds() == 1
    assert retention.trouble() == ""
    hold.released_at, hold.released_by = datetime.now(UTC), hold.placed_by
    hold.save()
    assert retention.sync_holds() == 3
    assert retention.sync_holds() == 0


def test_only_a_flag_that_we_set_is_taken_off(database: Database, archive_folder: Path) -> None:
    log_of(600)
    row = archive(256)
    hold = place()
    hold.released_at, hold.released_by = datetime.now(UTC), hold.placed_by
    hold.save()
    (archive_folder / row.name).unlink()  # telling the storage anything would fail
    assert retention.sync_holds() == 0
    assert retention.trouble() == ""


def test_a_storage_that_is_away_is_not_asked_for_each_bundle(
    database: Database, archive_folder: Path, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention.holds, "AWAY", 1)
    log_of(1100)
    archive(256), archive(256)
    place()
    settings.AUDIT_ARCHIVE_FORMER, settings.AUDIT_ARCHIVE = [], ""
    assert retention.sync_holds() == 0
    assert Archive.objects.exclude(hold_failed_at=None).count() == 2  # each says no by itself
    settings.AUDIT_ARCHIVE = archive_folder.as_uri()
    assert retention.sync_holds() == 2


def test_a_full_disk_is_an_outage_like_any_other(
    database: Database, archive_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_of(600)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(PlaceUnavailable, match="disk"):
        retention.write_bundle(0, 256)
    with pytest.raises(IntegrityError), transaction.atomic():
        Archive.objects.create(
            start=0,
            end=256,
            first_at=datetime.now(UTC),
            last_at=datetime.now(UTC),
            place=str(uuid.uuid4()),
            name="n",
            sha256="s",
            archived_at=datetime.now(UTC),
        )
