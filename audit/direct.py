"""The busiest statements on PostgreSQL, straight to libpq: three round trips less for each commit.

For the appender alone, whose transactions hold nothing else: BEGIN travels with the lock on the head,
and COMMIT with the rows and the head's move. What may go wrong is raised as the driver raises it.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from datetime import datetime
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg import OperationalError, errors
from psycopg.generators import fetch_many
from psycopg.pq import ConnStatus, ExecStatus
from psycopg.waiting import Ready, Wait

from audit import rows
from audit.errors import LogWriteFailed
from audit.rows import Made
from audit.store import LogHead

_TAKE = (
    b"BEGIN; SELECT size, epoch, root, frontier, updated_at FROM audit_head WHERE id = 1 FOR UPDATE"
)
# Without exactly one row that fits, 1 / 0 ends the transaction before its COMMIT.
_WRITE = (
    "{copy}; WITH moved AS (UPDATE audit_head SET size = {size}, epoch = {epoch}, root = '\\x{root}',"
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


def write(
    connection: BaseDatabaseWrapper, made: Sequence[Made], before: LogHead, after: LogHead
) -> None:
    """Add rows, move the head and commit, in one message; see store.Write.

    Raises LogWriteFailed where the head is no longer what `before` says.
    """
    statement = _WRITE.format(
        copy=rows.COPY,
        size=after.size,
        epoch=after.epoch,
        root=after.root.hex(),
        frontier=after.frontier.hex(),
        time=after.updated_at.isoformat(),
        old_size=before.size,
        old_epoch=before.epoch,
    )
    lines = rows.copy_lines(made)
    driver: Any = connection.connection
    with connection.wrap_database_errors:
        _expect(driver, driver.pgconn.exec_(statement.encode()), ExecStatus.COPY_IN)
        try:
            for result in driver.wait(_copied(driver.pgconn, lines)):
                _expect(driver, result, ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK)
        except errors.DivisionByZero:
            raise LogWriteFailed("the log's head moved under a writer that holds it") from None


def _copied(pgconn: Any, lines: bytes) -> Generator[Wait, Ready, Sequence[Any]]:
    """Send what COPY waits for; return the results of it and of the statements behind it."""
    pgconn.put_copy_data(lines)
    pgconn.put_copy_end()
    while pgconn.flush():  # the driver's connections don't block: more than fits stays behind
        yield Wait.W
    results: Sequence[Any] = yield from fetch_many(pgconn)
    return results


def _run(connection: BaseDatabaseWrapper, statement: bytes) -> Any:
    connection.ensure_connection()
    driver: Any = connection.connection
    with connection.wrap_database_errors:
        result = driver.pgconn.exec_(statement)
        _expect(driver, result, ExecStatus.TUPLES_OK)
    return result


def _expect(driver: Any, result: Any, *statuses: ExecStatus) -> None:
    """Raise what a result of another status means."""
    if driver.pgconn.status == ConnStatus.BAD:
        raise OperationalError("the connection to the log's database was lost")
    if result.status not in statuses:
        raise errors.error_from_result(result)
