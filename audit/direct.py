"""The busiest statements on PostgreSQL, straight to libpq: two round trips less for each commit.

For the appender alone, whose transactions hold nothing else: BEGIN travels with the lock on the head,
and COMMIT with the head's move. What may go wrong is raised as the driver raises it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg import OperationalError, errors
from psycopg.pq import ConnStatus, ExecStatus

from audit.errors import LogWriteFailed
from audit.store import LogHead

_TAKE = (
    b"BEGIN; SELECT size, epoch, root, frontier, updated_at FROM audit_head WHERE id = 1 FOR UPDATE"
)
# Without exactly one row that fits, 1 / 0 ends the transaction before its COMMIT.
_MOVE = (
    "WITH moved AS (UPDATE audit_head SET size = {size}, epoch = {epoch}, root = '\\x{root}',"
    " frontier = '\\x{frontier}', updated_at = '{time}' WHERE id = 1 AND size = {old_size}"
    " AND epoch = {old_epoch} RETURNING 1) SELECT 1 / count(*) FROM moved; COMMIT"
)


def take_head(connection: BaseDatabaseWrapper) -> LogHead:
    """Begin the transaction, lock the head and return it; within a fresh transaction.atomic()."""
    result = _run(connection, _TAKE)
    if result.ntuples != 1:
        raise LogWriteFailed("the log has no head: the database is not migrated")
    size, epoch, root, frontier, time = (result.get_value(0, at) for at in range(5))
    return LogHead(
        int(size),
        int(epoch),
        bytes.fromhex(root[2:].decode()),
        bytes.fromhex(frontier[2:].decode()),
        datetime.fromisoformat(time.decode()),
    )


def move_head(connection: BaseDatabaseWrapper, before: LogHead, after: LogHead) -> None:
    """Move the head and commit. Raises LogWriteFailed where it is no longer what `before` says."""
    statement = _MOVE.format(
        size=after.size,
        epoch=after.epoch,
        root=after.root.hex(),
        frontier=after.frontier.hex(),
        time=after.updated_at.isoformat(),
        old_size=before.size,
        old_epoch=before.epoch,
    )
    try:
        _run(connection, statement.encode())
    except errors.DivisionByZero:
        raise LogWriteFailed("the log's head moved under a writer that holds it") from None


def _run(connection: BaseDatabaseWrapper, statement: bytes) -> Any:
    connection.ensure_connection()
    driver: Any = connection.connection
    with connection.wrap_database_errors:
        result = driver.pgconn.exec_(statement)
        if driver.pgconn.status == ConnStatus.BAD:
            raise OperationalError("the connection to the log's database was lost")
        if result.status not in (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK):
            raise errors.error_from_result(result)
    return result
