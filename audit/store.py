"""The statements on the log's tables: lock the head, add rows, move the head, read changes.

Plain SQL, because this is the busiest code of the house. All of it runs inside the caller's
transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.db.backends.base.base import BaseDatabaseWrapper

from audit import entries, personal, rows
from audit.canonical import encode_checked
from audit.errors import LogWriteFailed
from audit.events import Event
from audit.merkle import Frontier, leaf_hash
from audit.rows import Made


@dataclass(frozen=True, slots=True)
class LogHead:
    """Where the log ends. `root` is the Merkle tree's root over `size` entries."""

    size: int
    epoch: int
    root: bytes
    frontier: bytes
    updated_at: datetime


# (connection, entries, before, after): adds rows and moves the head from one to the other, or raises
# LogWriteFailed.
Write = Callable[[BaseDatabaseWrapper, Sequence[Made], LogHead, LogHead], None]


def read_head(connection: BaseDatabaseWrapper, *, lock: bool = False) -> LogHead:
    """Return the head; with `lock`, nobody else moves it until this transaction ends.

    SQLite needs no lock: its transactions are IMMEDIATE, there is one writer at a time.
    """
    sql = "SELECT size, epoch, root, frontier, updated_at FROM audit_head WHERE id = 1"
    if lock and connection.vendor == "postgresql":
        sql += " FOR UPDATE"
    with connection.cursor() as cursor:
        cursor.execute(sql)
        row = cursor.fetchone()
    if row is None:
        raise LogWriteFailed("the log has no head: the database is not migrated")
    size, epoch, root, frontier, updated_at = row
    return LogHead(size, epoch, bytes(root), bytes(frontier), _time(updated_at))


def _time(value: datetime | str) -> datetime:
    time = datetime.fromisoformat(value) if isinstance(value, str) else value
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time


def extend(
    connection: BaseDatabaseWrapper,
    head: LogHead,
    events: Sequence[Event],
    *,
    epoch: int,
    write: Write | None = None,
) -> LogHead:
    """Append `events` after `head` and move the head, with `epoch`; return where the log ends then.

    The first event's index is `head.size`. `write` replaces the statements that do it.

    Raises LogWriteFailed where the head is no longer what `head` says: size *and* epoch are
    compared by the UPDATE itself.
    """
    frontier = Frontier.from_bytes(head.size, head.frontier)
    made: list[Made] = []
    for index, event in enumerate(personal.committed(connection, events), head.size):
        data = encode_checked(entries.body(event, index))
        leaf = leaf_hash(data)
        frontier.append(leaf)
        made.append((index, event, leaf, data))
    after = LogHead(frontier.size, epoch, frontier.root(), frontier.to_bytes(), datetime.now(UTC))
    (write or _write)(connection, made, head, after)
    return after


def _write(
    connection: BaseDatabaseWrapper, made: Sequence[Made], before: LogHead, after: LogHead
) -> None:
    _insert(connection, made)
    _move(connection, before, after)


def _insert(connection: BaseDatabaseWrapper, made: Sequence[Made]) -> None:
    """Add rows by the driver's fastest way; errors come as Django's."""
    connection.ensure_connection()
    driver: Any = connection.connection
    with connection.wrap_database_errors:
        if connection.vendor == "postgresql":
            with driver.cursor() as cursor, cursor.copy(rows.COPY) as copy:
                copy.write(rows.copy_lines(made))
        else:
            driver.executemany(rows.INSERT, rows.tuples(made))


def _move(connection: BaseDatabaseWrapper, before: LogHead, after: LogHead) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE audit_head SET size = %s, epoch = %s, root = %s, frontier = %s,"
            " updated_at = %s WHERE id = 1 AND size = %s AND epoch = %s",
            [
                after.size,
                after.epoch,
                after.root,
                after.frontier,
                connection.ops.adapt_datetimefield_value(after.updated_at),
                before.size,
                before.epoch,
            ],
        )
        if cursor.rowcount != 1:
            raise LogWriteFailed("the log's head moved under a writer that holds it")


def add_changes(connection: BaseDatabaseWrapper, epoch: int, subjects: Iterable[str]) -> None:
    """Name the subjects that changed in `epoch`."""
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO audit_change (epoch, subject) VALUES (%s, %s)",
            [(epoch, subject) for subject in sorted(set(subjects))],
        )


def read_changes(
    connection: BaseDatabaseWrapper, after: int, until: int
) -> dict[int, frozenset[str]]:
    """Return the changed subjects of each epoch in (after, until] whose rows are still there."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT epoch, subject FROM audit_change WHERE epoch > %s AND epoch <= %s",
            [after, until],
        )
        subjects: dict[int, set[str]] = {}
        for epoch, subject in cursor.fetchall():
            subjects.setdefault(epoch, set()).add(subject)
    return {epoch: frozenset(names) for epoch, names in subjects.items()}


def drop_changes(connection: BaseDatabaseWrapper, until: int) -> int:
    """Forget the subjects of the epochs up to `until`; return how many rows went."""
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM audit_change WHERE epoch <= %s", [until])
        return int(cursor.rowcount)


def find(connection: BaseDatabaseWrapper, uuids: Collection[str]) -> dict[str, int]:
    """Return the index of each entry among `uuids` that is in the log."""
    found: dict[str, int] = {}
    wanted = [UUID(uuid) for uuid in uuids]
    with connection.cursor() as cursor:
        for start in range(0, len(wanted), 500):
            part = wanted[start : start + 500]
            values = part if connection.vendor == "postgresql" else [uuid.hex for uuid in part]
            marks = ", ".join(["%s"] * len(values))
            cursor.execute(
                f'SELECT uuid, "index" FROM audit_entry WHERE uuid IN ({marks})',  # noqa: S608 - marks
                values,
            )
            for uuid, index in cursor.fetchall():
                found[str(UUID(str(uuid)))] = index
    return found
