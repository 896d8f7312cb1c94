"""The databases themselves refuse to change the log: every trigger, on both."""

from __future__ import annotations

import pytest
from django.db import DatabaseError, IntegrityError, connection, transaction

from audit.models import Entry
from audit.verifier import verify
from audit.writer import head, prune_changes
from tests.audit.helpers import use, write, write_many
from tests.databases import Database

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
