"""The databases themselves refuse to change the log: every trigger, on both."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

import pytest
from django.db import DatabaseError, IntegrityError, connection, transaction
from django.db.models import Max, Min

from audit import tiles
from audit.models import Archive, Checkpoint, Entry, LegalHold, PersonalValue, Tile
from audit.verifier import verify
from audit.writer import head, prune_changes
from tests.audit.helpers import use, write, write_many
from tests.databases import Database

LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
SAYS = "the audit log is append-only"
COPY_LAST = (
    "SELECT {index}, {uuid}, at, leaf_hash, body, actor_kind, actor_id, actor_name, method, door,"
    " action, object_kind, object_id, object_name, object_version, outcome, reason, request_id,"
    ' source FROM audit_entry WHERE "index" = 2'
)
NAMES = (
    '("index", uuid, at, leaf_hash, body, actor_kind, actor_id, actor_name, method, door, action,'
    " object_kind, object_id, object_name, object_version, outcome, reason, request_id, source)"
)
FORBIDDEN = {
    "updating an entry": "UPDATE audit_entry SET reason = 'x' WHERE \"index\" = 1",
    "updating every entry": "UPDATE audit_entry SET door = 'x'",
    "renumbering an entry": 'UPDATE audit_entry SET "index" = 99 WHERE "index" = 1',
    "deleting an entry": 'DELETE FROM audit_entry WHERE "index" = 1',
    "deleting the last entry": 'DELETE FROM audit_entry WHERE "index" = 2',
    "deleting every entry": "DELETE FROM audit_entry",
    "deleting the head": "DELETE FROM audit_head",
    "shrinking the head": "UPDATE audit_head SET size = size - 1",
    "moving the head beyond the entries": "UPDATE audit_head SET size = size + 1",
    "taking the epoch back": "UPDATE audit_head SET epoch = epoch - 1",
    "another root for the same size": "UPDATE audit_head SET root = frontier",
    "another frontier for the same size": "UPDATE audit_head SET frontier = root",
    "renaming the head": "UPDATE audit_head SET id = 2",
    "a second head": (
        "INSERT INTO audit_head (id, size, frontier, root, epoch, updated_at)"
        " SELECT 2, size, frontier, root, epoch, updated_at FROM audit_head"
    ),
}
ON_SQLITE = {
    "replacing an entry": "INSERT OR REPLACE INTO audit_entry "
    + NAMES
    + COPY_LAST.format(index=1, uuid="'00'"),
    "replacing the last entry": "REPLACE INTO audit_entry "
    + NAMES
    + COPY_LAST.format(index=2, uuid="uuid"),
    "replacing by the uuid": "INSERT OR REPLACE INTO audit_entry "
    + NAMES
    + COPY_LAST.format(index=3, uuid="uuid"),
    "replacing by the row id": "INSERT OR REPLACE INTO audit_entry "
    + NAMES.replace('("index",', "(rowid,")
    + COPY_LAST.format(index=1, uuid="'00'"),
    "updating in place of a refused insert": "INSERT INTO audit_entry "
    + NAMES
    + COPY_LAST.format(index=1, uuid="'00'")
    + " ON CONFLICT (\"index\") DO UPDATE SET reason = 'x'",
    "leaving a gap": "INSERT INTO audit_entry " + NAMES + COPY_LAST.format(index=4, uuid="'00'"),
    "a negative index": "INSERT INTO audit_entry "
    + NAMES
    + COPY_LAST.format(index=-1, uuid="'00'"),
    "replacing the head": (
        "INSERT OR REPLACE INTO audit_head (id, size, frontier, root, epoch, updated_at)"
        " SELECT 1, 0, x'', root, 0, updated_at FROM audit_head"
    ),
    "updating or replacing": 'UPDATE OR REPLACE audit_entry SET "index" = 0 WHERE "index" = 1',
}
ON_POSTGRESQL = {
    "truncating the entries": "TRUNCATE audit_entry",
    "truncating the head": "TRUNCATE audit_head",
    "truncating by way of everything": "TRUNCATE audit_entry, audit_head, audit_change CASCADE",
    "updating in place of a refused insert": "INSERT INTO audit_entry "
    + NAMES
    + COPY_LAST.format(index=1, uuid="gen_random_uuid()")
    + " ON CONFLICT (\"index\") DO UPDATE SET reason = 'x'",
    "updating as a replica": (
        "SET session_replication_role = replica; UPDATE audit_entry SET reason = 'x'"
    ),
    "truncating as a replica": "SET session_replication_role = replica; TRUNCATE audit_entry",
    "shrinking the head as a replica": (
        "SET session_replication_role = replica; UPDATE audit_head SET size = 0"
    ),
}


def refuse(sql: str) -> None:
    write_many(2)
    write(use(), subjects=("a",))
    before, rows = head(), list(Entry.objects.values_list())
    with pytest.raises(IntegrityError, match=SAYS), transaction.atomic():
        connection.cursor().execute(sql)
    connection.close()
    assert head() == before
    assert list(Entry.objects.values_list()) == rows
    assert verify().ok


@pytest.mark.each_database
@pytest.mark.parametrize("sql", FORBIDDEN.values(), ids=FORBIDDEN)
def test_the_database_refuses(database: Database, sql: str) -> None:
    refuse(sql)


@pytest.mark.parametrize("sql", ON_SQLITE.values(), ids=ON_SQLITE)
def test_sqlite_refuses(database: Database, sql: str) -> None:
    refuse(sql)


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
@pytest.mark.parametrize("sql", ON_POSTGRESQL.values(), ids=ON_POSTGRESQL)
def test_postgresql_refuses(database: Database, sql: str) -> None:
    refuse(sql)


@pytest.mark.each_database
def test_the_orm_can_not_save_or_delete_an_entry(database: Database) -> None:
    write_many(2)
    entry = Entry.objects.get(index=1)
    entry.reason = "x"
    with pytest.raises(TypeError):
        entry.save()
    for forbidden in (
        entry.delete,
        Entry.objects.all().delete,
        lambda: Entry.objects.update(reason="x"),
        lambda: Entry.objects.bulk_update([entry], ["reason"]),
        lambda: Entry.objects.bulk_create(
            [entry], update_conflicts=True, unique_fields=["index"], update_fields=["reason"]
        ),
    ):
        with pytest.raises(DatabaseError, match=SAYS):
            forbidden()
    assert verify().ok


@pytest.mark.each_database
def test_old_changes_may_be_pruned(database: Database) -> None:
    for name in ("a", "b", "c"):
        write(use(), subjects=(name, "all"))
    assert prune_changes(keep=1) == 4
    assert prune_changes(keep=1) == 0
    assert prune_changes(keep=0) == 2
    assert head().epoch == 3
    with pytest.raises(ValueError):
        prune_changes(keep=-1)


# What stands beside the log; each table has one row when these are tried.
BESIDE = {
    "changing a tile": "UPDATE audit_tile SET hashes = root",
    "renumbering a tile": "UPDATE audit_tile SET number = 7",
    "deleting a tile": "DELETE FROM audit_tile",
    "changing a checkpoint": "UPDATE audit_checkpoint SET size = 1",
    "deleting a checkpoint": "DELETE FROM audit_checkpoint",
    "moving a bundle": "UPDATE audit_archive SET place = 'file:///elsewhere'",
    "renaming a bundle": "UPDATE audit_archive SET name = 'x'",
    "widening a bundle": 'UPDATE audit_archive SET "end" = 512',
    "another digest": "UPDATE audit_archive SET sha256 = 'x'",
    "dropping before verifying": "UPDATE audit_archive SET dropped_at = archived_at",
    "deleting a bundle": "DELETE FROM audit_archive",
    "narrowing a hold": "UPDATE audit_legalhold SET since = placed_at",
    "ending a hold": "UPDATE audit_legalhold SET until = placed_at",
    "releasing by nobody": "UPDATE audit_legalhold SET released_at = placed_at",
    "deleting a hold": "DELETE FROM audit_legalhold",
    "another commitment": "UPDATE audit_personalvalue SET commitment = 'x'",
    "another value": "UPDATE audit_personalvalue SET value = 'x'",
    "erasing under a hold": (
        "UPDATE audit_personalvalue SET value = NULL, salt = NULL, erased_at = created_at"
    ),
    "deleting a value": "DELETE FROM audit_personalvalue",
}
BESIDE_ON_SQLITE = {
    f"replacing in {table}": f"INSERT OR REPLACE INTO {table} SELECT * FROM {table}"
    for table in ("audit_tile", "audit_checkpoint", "audit_archive", "audit_legalhold")
} | {
    "replacing a hold by its name": (
        "INSERT OR REPLACE INTO audit_legalhold SELECT 'x', name, reason, since, until, placed_by,"
        " placed_at, released_by, released_at FROM audit_legalhold"
    ),
    "updating or replacing a tile": "UPDATE OR REPLACE audit_tile SET number = 0",
    "updating in place of a refused insert": (
        "INSERT INTO audit_legalhold SELECT * FROM audit_legalhold WHERE true"
        " ON CONFLICT DO UPDATE SET until = placed_at"
    ),
}
BESIDE_ON_POSTGRESQL = {
    f"truncating {table}": f"TRUNCATE {table}"
    for table in (
        "audit_tile",
        "audit_checkpoint",
        "audit_archive",
        "audit_legalhold",
        "audit_personalvalue",
    )
} | {
    "changing a tile as a replica": (
        "SET session_replication_role = replica; UPDATE audit_tile SET number = 7"
    ),
    "deleting a hold as a replica": (
        "SET session_replication_role = replica; DELETE FROM audit_legalhold"
    ),
    "updating a hold in place of a refused insert": (
        "INSERT INTO audit_legalhold SELECT * FROM audit_legalhold"
        " ON CONFLICT (id) DO UPDATE SET until = audit_legalhold.placed_at"
    ),
    "a temporary table in the archive's place": (
        'CREATE TEMPORARY TABLE audit_archive AS SELECT 0 AS start, 9 AS "end",'
        " now() AS verified_at, now() AS dropped_at, now() AS first_at, now() AS last_at;"
        " CREATE TEMPORARY TABLE audit_legalhold (since timestamptz, until timestamptz,"
        ' released_at timestamptz); DELETE FROM public.audit_entry WHERE "index" = 1'
    ),
    "a temporary table in the entries' place": (
        'CREATE TEMPORARY TABLE audit_entry ("index" bigint); UPDATE public.audit_head SET size = 0'
    ),
    "an operator of one's own": (
        "CREATE SCHEMA mine; CREATE FUNCTION mine.never(bigint, bigint) RETURNS boolean"
        " LANGUAGE sql AS 'SELECT false'; CREATE OPERATOR mine.< (LEFTARG = bigint,"
        " RIGHTARG = bigint, FUNCTION = mine.never); SET search_path = mine, pg_catalog, public;"
        " UPDATE audit_head SET size = size - 1"
    ),
}


def furnish() -> None:
    """Put one row into each table beside the log."""
    write_many(256)
    tiles.build()
    root = bytes(Tile.objects.get().root)
    now = datetime.now(UTC)
    Checkpoint.objects.create(size=256, root=root, origin="a", note="a", signed_at=now)
    times = Entry.objects.aggregate(first_at=Min("at"), last_at=Max("at"))
    Archive.objects.create(
        start=0,
        end=256,
        **times,
        place="p",
        name="n",
        sha256="s",
        archived_at=now,
    )
    LegalHold.objects.create(
        name="Case 7", reason="r", since=LONG_AGO, placed_by=uuid.uuid4(), placed_at=now
    )
    PersonalValue.objects.create(
        commitment="c", subject="s", value="v", salt=b"s" * 32, created_at=now
    )


def refuse_beside(sql: str) -> None:
    furnish()
    tables = (Tile, Checkpoint, Archive, LegalHold, PersonalValue)
    before = [list(table.objects.values_list()) for table in tables]
    with pytest.raises(IntegrityError, match=SAYS), transaction.atomic():
        connection.cursor().execute(sql)
    connection.close()
    assert [list(table.objects.values_list()) for table in tables] == before
    assert head().size == Entry.objects.count() == 256


@pytest.mark.each_database(fast="sqlite")
@pytest.mark.parametrize("sql", BESIDE.values(), ids=BESIDE)
def test_the_database_refuses_beside_the_log(database: Database, sql: str) -> None:
    refuse_beside(sql)


@pytest.mark.parametrize("sql", BESIDE_ON_SQLITE.values(), ids=BESIDE_ON_SQLITE)
def test_sqlite_refuses_beside_the_log(database: Database, sql: str) -> None:
    refuse_beside(sql)


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
@pytest.mark.parametrize("sql", BESIDE_ON_POSTGRESQL.values(), ids=BESIDE_ON_POSTGRESQL)
def test_postgresql_refuses_beside_the_log(database: Database, sql: str) -> None:
    refuse_beside(sql)
