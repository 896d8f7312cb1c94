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

from audit import entries, personal
from audit.canonical import encode_checked
from audit.errors import LogWriteFailed
from audit.events import Event
from audit.merkle import Frontier, leaf_hash

_COLUMNS = (*entries.COLUMNS, "leaf_hash", "body")
_NAMES = ", ".join(f'"{name}"' for name in _COLUMNS)
_INSERT = f"INSERT INTO audit_entry ({_NAMES}) VALUES ({', '.join('?' * len(_COLUMNS))})"  # noqa: S608 - constants
_COPY = f"COPY audit_entry ({_NAMES}) FROM STDIN (FORMAT BINARY)"


@dataclass(frozen=True, slots=True)
class LogHead:
    """Where the log ends. `root` is the Merkle tree's root over `size` entries."""

    size: int
    epoch: int
    root: bytes
    frontier: bytes
    updated_at: datetime


# (connection, before, after): moves the head from one to the other, or raises LogWriteFailed.
Move = Callable[[BaseDatabaseWrapper, LogHead, LogHead], None]


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
    move: Move | None = None,
) -> LogHead:
    """Append `events` after `head` and move the head, with `epoch`; return where the log ends then.

    The first event's index is `head.size`. `move` replaces the statement that moves the head.

    Raises LogWriteFailed where the head is no longer what `head` says: size *and* epoch are
    compared by the UPDATE itself.
    """
    frontier = Frontier.from_bytes(head.size, head.frontier)
    rows: list[tuple[Any, ...]] = []
    adapt = _for_postgresql if connection.vendor == "postgresql" else _for_sqlite
    for index, event in enumerate(personal.committed(connection, events), head.size):
        data = encode_checked(entries.body(event, index))
        leaf = leaf_hash(data)
        frontier.append(leaf)
        rows.append((index, *adapt(event), *_texts(event), leaf, data))
    _insert(connection, rows)
    after = LogHead(frontier.size, epoch, frontier.root(), frontier.to_bytes(), datetime.now(UTC))
    (move or _move)(connection, head, after)
    return after


def _texts(event: Event) -> tuple[Any, ...]:
    """Return the columns between `at` and `leaf_hash`: what entries.columns makes of the body."""
    actor, subject = event.actor, event.object
    texts: Sequence[str] = (
        actor.kind,
        actor.id,
        actor.name,
        event.method,
        event.door,
        event.action,
        subject.kind,
        subject.id,
        subject.name,
        subject.classification,
        event.outcome._value_,
        event.reason,
        event.request_id,
        event.source,
    )  # type: ignore[assignment]
    whole = "".join(texts)
    limit = entries.COLUMN_LIMIT
    if "\0" in whole or (len(whole) > limit and max(map(len, texts)) > limit):
        texts = [entries.searchable(text) for text in texts]
    return (*texts[:9], subject.version, *texts[9:])


# PostgreSQL counts microseconds from 2000-01-01, and takes a uuid as its 16 bytes.
_POSTGRESQL_EPOCH = 946_684_800_000_000
_TYPES = ["int8", "bytea", "int8", *["text"] * 9, "int8", *["text"] * 5, "bytea", "bytea"]


def _for_postgresql(event: Event) -> tuple[bytes, int]:
    return bytes.fromhex(event.uuid.replace("-", "")), event.at - _POSTGRESQL_EPOCH


_second: tuple[int, str] = (-1, "")  # the last entry's, and how SQLite has it


def _for_sqlite(event: Event) -> tuple[str, str]:
    """Return uuid and time in the forms that Django's fields read on SQLite."""
    global _second
    second, rest = divmod(event.at, 1_000_000)
    last, text = _second
    if second != last:
        text = entries.moment(second * 1_000_000).isoformat(" ").removesuffix("+00:00")
        _second = (second, text)
    return event.uuid.replace("-", ""), f"{text}.{rest:06d}" if rest else text


def _insert(connection: BaseDatabaseWrapper, rows: Sequence[tuple[Any, ...]]) -> None:
    """Add rows by the driver's fastest way; errors come as Django's."""
    connection.ensure_connection()
    driver: Any = connection.connection
    with connection.wrap_database_errors:
        if connection.vendor == "postgresql":
            with driver.cursor() as cursor, cursor.copy(_COPY) as copy:
                copy.set_types(_TYPES)
                for row in rows:
                    copy.write_row(row)
        else:
            driver.executemany(_INSERT, rows)


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
