"""Entries that go to storage outside and come back; every proof is the same meanwhile."""

from __future__ import annotations

import gzip
import uuid
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from django.db import DatabaseError, IntegrityError, connection, transaction

from audit import proofs, retention, tiles
from audit.errors import ArchiveFault, AuditError
from audit.merkle import leaf_hash, verify_inclusion
from audit.models import Archive, Checkpoint, Entry, LegalHold
from audit.retention import bundles
from tests.audit.helpers import write_many
from tests.audit.test_places import _bucket, _client, _object
from tests.databases import Database
from tests.peers.peer import Peer

SAYS = "the audit log is append-only"
FAR = datetime(2100, 1, 1, tzinfo=UTC)
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


@pytest.fixture
def archive_folder(settings: Any, tmp_path: Path) -> Path:
    folder = tmp_path / "archive"
    folder.mkdir()
    settings.AUDIT_ARCHIVE = folder.as_uri()
    return folder


def sign() -> Checkpoint:
    """Write a checkpoint of the log as it is, as far as retention looks at it."""
    size = Entry.objects.order_by("-index").values_list("index", flat=True)[0] + 1
    root = proofs.root_at(size)
    note = f"a.example/log\n{size}\n{b64encode(root).decode()}\n\n— a.example/log AAAA\n"
    return Checkpoint.objects.create(
        size=size, root=root, origin="a.example/log", note=note, signed_at=datetime.now(UTC)
    )


def log_of(count: int) -> None:
    write_many(count)
    tiles.build()
    sign()


def archive(count: int = retention.ENTRIES) -> Archive:
    found = retention.next_range(count)
    assert found is not None
    written = retention.write_bundle(*found)
    with transaction.atomic():
        return retention.register(written, datetime.now(UTC))


def drop(row: Archive) -> int:
    row.dropped_at = datetime.now(UTC)
    row.save(update_fields=["dropped_at"])
    return retention.delete_rows(row)


def restore(row: Archive) -> int:
    count = retention.bring_back(row)
    row.dropped_at, row.restored_at = None, datetime.now(UTC)
    row.save(update_fields=["dropped_at", "restored_at"])
    return count


def place(since: datetime = LONG_AGO, until: datetime | None = None) -> LegalHold:
    return LegalHold.objects.create(
        name=f"case {uuid.uuid4()}",
        reason="a court asked",
        since=since,
        until=until,
        placed_by=uuid.uuid4(),
        placed_at=datetime.now(UTC),
    )


def everything() -> list[tuple[Any, ...]]:
    return list(Entry.objects.order_by("index").values_list())


@pytest.mark.each_database(fast="postgresql")
def test_entries_are_archived_dropped_and_brought_back(
    database: Database, archive_folder: Path
) -> None:
    log_of(1000)
    before = everything()
    proof, root = proofs.inclusion(300, 1000), proofs.root_at(1000)
    row = archive(512)
    assert (row.start, row.end) == (0, 512)
    assert drop(row) == 512
    assert [e[0] for e in everything()] == list(range(512, 1000))
    proofs_after = proofs.inclusion(300, 1000)
    assert proofs_after == proof
    assert proofs.root_at(1000) == root
    assert verify_inclusion(leaf_hash(bytes(before[300][4])), 300, 1000, proof, root)
    write_many(3)
    assert proofs.consistency(1000, 1003)
    assert retention.archived(511) == row
    assert retention.archived(512) is None
    assert restore(row) == 512
    assert everything()[:1000] == before
    assert drop(row) == 512
    assert restore(row) == 512
    assert everything()[:1000] == before


def test_bundles_follow_each_other_and_leave_the_newest_entries(
    database: Database, archive_folder: Path
) -> None:
    log_of(1100)
    rows = [archive(256), archive(512)]
    assert [(row.start, row.end) for row in rows] == [(0, 256), (256, 768)]
    assert retention.next_range(256) is None  # 768..1023 would reach into the newest 256
    write_many(500)
    assert retention.next_range() == (768, 1024)  # no more is in tiles, or signed
    tiles.build()
    assert retention.next_range() == (768, 1024)
    sign()
    assert retention.next_range() == (768, 1280)


def test_the_same_range_gives_the_same_bytes_and_opens_with_common_tools(
    database: Database, archive_folder: Path, tmp_path: Path
) -> None:
    log_of(600)
    checkpoint = Checkpoint.objects.get()
    for name in ("one", "two"):
        bundles.make(tmp_path / name, 0, 256, checkpoint)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    header, *lines = gzip.decompress((tmp_path / "one").read_bytes()).splitlines()
    assert b'"format":"kms-console-archive/1"' in header
    assert lines == [bytes(body) for body in Entry.objects.values_list("body", flat=True)[:256]]


def test_a_damaged_bundle_is_told_from_a_sound_one(
    database: Database, archive_folder: Path
) -> None:
    log_of(600)
    row = archive(256)
    assert retention.check(row) == 256
    path = archive_folder / row.name
    sound = path.read_bytes()
    lines = gzip.decompress(sound).splitlines(keepends=True)
    path.chmod(0o600)
    damaged = {
        "cut off": sound[:-20],
        "something behind": sound + b"x",
        "not gzip": b"hello",
        "a bit": sound[:500] + bytes([sound[500] ^ 1]) + sound[501:],
        "packed otherwise": gzip.compress(b"".join(lines), 1),
        "another word": gzip.compress(b"".join(lines).replace(b"encrypt", b"decrypt", 1)),
        "an entry less": gzip.compress(b"".join(lines[:-1])),
        "an entry more": gzip.compress(b"".join([*lines, lines[-1]])),
        "two swapped": gzip.compress(b"".join([lines[0], lines[2], lines[1], *lines[3:]])),
        "no header": gzip.compress(b"".join(lines[1:])),
        "another range": gzip.compress(b"".join(lines).replace(b'"start":0', b'"start":256', 1)),
        "nothing": b"",
    }
    for how, data in damaged.items():
        path.write_bytes(data)
        with pytest.raises(AuditError):
            retention.check(row)
            pytest.fail(how)
    path.write_bytes(sound)
    assert retention.check(row) == 256


@pytest.mark.parametrize("count", [1, 255, 256, 257, 513, 1000])
def test_subtrees_cover_a_range_once(count: int) -> None:
    covered: list[int] = []
    for start, height in bundles.subtrees(256, 256 + count):
        assert start % (1 << height) == 0
        covered += range(start, start + (1 << height))
    assert covered == list(range(256, 256 + count))


def refused(sql: str) -> None:
    with pytest.raises(IntegrityError, match=SAYS), transaction.atomic():
        connection.cursor().execute(sql)


@pytest.mark.each_database(fast="postgresql")
def test_the_database_lets_only_archived_entries_go(
    database: Database, archive_folder: Path
) -> None:
    log_of(1000)
    delete = 'DELETE FROM audit_entry WHERE "index" = 3'
    refused(delete)  # in no bundle
    row = archive(512)
    refused(delete)  # the bundle isn't to be dropped
    row.dropped_at = datetime.now(UTC)
    row.save(update_fields=["dropped_at"])
    hold = place()
    refused(delete)  # under legal hold
    with pytest.raises(ArchiveFault, match="hold"):
        retention.delete_rows(row)
    hold.released_at, hold.released_by = datetime.now(UTC), hold.placed_by
    hold.save()
    refused('DELETE FROM audit_entry WHERE "index" = 512')  # in no bundle
    with connection.cursor() as cursor:
        cursor.execute(delete)
        assert cursor.rowcount == 1
    refused("UPDATE audit_archive SET dropped_at = NULL")  # one entry is not there
    assert retention.delete_rows(row) == 511
    assert retention.rows_left(row) == 0


@pytest.mark.each_database(fast="postgresql")
def test_the_database_takes_back_only_what_the_tree_has(
    database: Database, archive_folder: Path
) -> None:
    log_of(1000)
    row = archive(512)
    names = [f'"{field.column}"' for field in Entry._meta.concrete_fields]
    copy = f"INSERT INTO audit_entry ({', '.join(names)}) SELECT " + ", ".join(names)
    other = "'11111111222233334444555555555555'"
    drop(row)
    forged = copy.replace('SELECT "index", "uuid"', f"SELECT 3, {other}")
    refused(forged + ' FROM audit_entry WHERE "index" = 600')
    gap = copy.replace('SELECT "index", "uuid"', f"SELECT 1005, {other}")
    refused(gap + ' FROM audit_entry WHERE "index" = 600')
    negative = copy.replace('SELECT "index", "uuid"', f"SELECT -1, {other}")
    refused(negative + ' FROM audit_entry WHERE "index" = 600')
    assert restore(row) == 512


def test_a_hold_keeps_what_its_time_reaches(database: Database, archive_folder: Path) -> None:
    log_of(600)
    row = archive(256)
    assert retention.active_holds() == []
    assert not retention.held()
    old = place(until=LONG_AGO + timedelta(days=1))
    assert retention.reaching(row.first_at, row.last_at) == []
    assert retention.held(LONG_AGO)
    assert not retention.held(datetime.now(UTC))
    open_end = place(since=LONG_AGO)
    assert retention.held(datetime.now(UTC))
    assert retention.reaching(row.first_at, row.last_at) == [open_end]
    assert retention.active_holds() == [old, open_end]


def test_a_log_that_is_not_whole_is_not_archived(
    database: Database, archive_folder: Path, settings: Any
) -> None:
    write_many(600)
    assert retention.next_range() is None  # no tile, nothing signed
    tiles.build()
    assert retention.next_range() is None
    sign()
    settings.AUDIT_ARCHIVE = ""
    with pytest.raises(ArchiveFault, match="configured"):
        retention.write_bundle(0, 256)
    settings.AUDIT_ARCHIVE = archive_folder.as_uri()
    checkpoint = Checkpoint.objects.get()
    Checkpoint.objects.create(
        size=600,
        root=b"\x01" * 32,
        origin=checkpoint.origin,
        note=checkpoint.note,
        signed_at=datetime.now(UTC),
    )
    with pytest.raises(ArchiveFault, match="root"):
        retention.write_bundle(0, 256)
    assert not Archive.objects.exists()


def test_only_what_is_old_enough_is_archived(database: Database, archive_folder: Path) -> None:
    log_of(800)
    middle = Entry.objects.get(index=300).at
    assert retention.next_range(before=middle) in ((0, 256), None)
    assert retention.next_range(before=FAR) == (0, 512)
    assert retention.next_range(before=LONG_AGO) is None


@pytest.mark.each_database(fast="postgresql")
def test_a_bundle_s_row_says_for_ever_what_it_said(
    database: Database, archive_folder: Path
) -> None:
    log_of(1000)
    row = archive(512)
    for change in (
        "place = 'file:///elsewhere'",
        "sha256 = 'x'",
        '"end" = 768',
        "verified_at = NULL",
        "start = 256",
    ):
        refused(f"UPDATE audit_archive SET {change}")
    for start, end in ((256, 768), (0, 256), (512, 700)):
        with pytest.raises(DatabaseError), transaction.atomic():
            Archive.objects.create(
                start=start,
                end=end,
                first_at=row.first_at,
                last_at=row.last_at,
                place=row.place,
                name="x",
                sha256="x",
                archived_at=row.archived_at,
            )


def test_a_bucket_with_object_lock_refuses_to_delete_what_is_retained_or_held(
    database: Database,
    archive_folder: Path,
    moto: Peer,
    monkeypatch: pytest.MonkeyPatch,
    settings: Any,
) -> None:
    settings.AUDIT_ARCHIVE_FORMER = [settings.AUDIT_ARCHIVE]
    settings.AUDIT_ARCHIVE = _bucket(moto, monkeypatch, locked=True)
    settings.AUDIT_RETAIN_DAYS = 30
    log_of(1000)
    row = archive(256)
    assert row.retain_until is not None
    client = _client(settings.AUDIT_ARCHIVE)

    def version(one: Archive) -> dict[str, str]:
        where = _object(settings.AUDIT_ARCHIVE, one.name)
        return where | {"VersionId": client.head_object(**where)["VersionId"]}

    def held(one: Archive) -> str:
        where = _object(settings.AUDIT_ARCHIVE, one.name)
        return str(client.head_object(**where).get("ObjectLockLegalHoldStatus", "OFF"))

    with pytest.raises(ClientError, match="AccessDenied"):
        client.delete_object(**version(row))
    hold = place()
    settings.AUDIT_RETAIN_DAYS = 0
    later = archive(256)  # written under a hold that is in force already
    assert later.hold_told
    assert retention.sync_holds() == 1
    assert retention.sync_holds() == 0  # nothing has changed since
    assert (held(row), held(later)) == ("ON", "ON")
    with pytest.raises(ClientError, match="AccessDenied"):
        client.delete_object(**version(later))
    hold.released_at, hold.released_by = datetime.now(UTC), hold.placed_by
    hold.save()
    assert retention.sync_holds() == 2
    assert (held(row), held(later)) == ("OFF", "OFF")
    assert drop(row) == 256
    assert restore(row) == 256


def test_a_storage_that_is_away_is_told_of_a_hold_later(
    database: Database, archive_folder: Path
) -> None:
    log_of(600)
    row = archive(256)
    place()
    hidden = archive_folder.with_name("away")
    archive_folder.rename(hidden)
    assert retention.sync_holds() == 0
    assert retention.trouble()
    hidden.rename(archive_folder)
    assert retention.sync_holds() == 1
    assert retention.trouble() == ""
    assert retention.check(row) == 256
