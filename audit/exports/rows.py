"""Entries' bodies from the database, in chunks: constant memory, and no read that stays open."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from audit.exports import asked
from audit.exports.errors import EntriesMissing
from audit.search import Filters

# What a chunk holds, in bytes, as far as can be told from the one before.
CHUNK = 2 * 1024 * 1024
ROWS, MOST_ROWS = 1000, 8000


class Rows(NamedTuple):
    """Some entries: their bodies with a newline after each, ascending by index."""

    indices: Sequence[int]
    lines: bytes


def rows(filters: Filters | None, after: int, size: int, using: str = "default") -> Iterator[Rows]:
    """Yield matching entries with after < index < size; None: all of them.

    Raises EntriesMissing where the database lacks one of them.
    """
    found = (
        _ranges(after + 1, size, using) if filters is None else _picked(filters, after, size, using)
    )
    yield from found


def _ranges(start: int, size: int, using: str) -> Iterator[Rows]:
    count = ROWS
    while start < size:
        end = min(start + count, size)
        lines, found = _read(connections[using], start, end)
        if found != end - start:
            raise EntriesMissing(f"the database lacks some of the entries {start} to {end - 1}")
        yield Rows(range(start, end), lines)
        start = end
        count = _next_count(found, len(lines))


def _picked(filters: Filters, after: int, size: int, using: str) -> Iterator[Rows]:
    count, fits = ROWS, asked.deciding(filters, using)
    for indices in asked.matching(filters, after, size, using):
        at = 0
        while at < len(indices):
            some = indices[at : at + count]
            lines, found = _read_some(connections[using], some)
            if found != len(some):
                raise EntriesMissing(
                    f"the database lacks some of the entries {some[0]} to {some[-1]}"
                )
            if (fitting := _fitting(some, lines, fits)).indices:
                yield fitting
            at += len(some)
            count = _next_count(found, len(lines))


def _fitting(indices: Sequence[int], lines: bytes, fits: Callable[[bytes], bool]) -> Rows:
    bodies = lines.split(b"\n")[:-1]
    pairs = [(i, body) for i, body in zip(indices, bodies, strict=True) if fits(body)]
    if len(pairs) == len(bodies):
        return Rows(indices, lines)
    return Rows([i for i, _ in pairs], b"".join(body + b"\n" for _, body in pairs))


def _next_count(found: int, length: int) -> int:
    """Return how many rows of this size make a chunk."""
    return max(20, min(MOST_ROWS, found * CHUNK // max(length, 1)))


_AGGREGATE = (
    "SELECT string_agg(body, '\\x0a'::bytea ORDER BY index), count(*)::bigint"
    " FROM audit_entry WHERE "
)
_PLAIN = 'SELECT body FROM audit_entry WHERE "index" '


def _read(connection: BaseDatabaseWrapper, start: int, end: int) -> tuple[bytes, int]:
    """Return the lines of the entries start..end-1, and how many there are."""
    if connection.vendor == "postgresql":
        return _aggregated(connection, "index >= %s AND index < %s", (start, end))
    with connection.cursor() as cursor:
        cursor.execute(_PLAIN + '>= %s AND "index" < %s ORDER BY "index"', (start, end))
        return _joined(cursor.fetchall())


def _read_some(connection: BaseDatabaseWrapper, indices: Sequence[int]) -> tuple[bytes, int]:
    if connection.vendor == "postgresql":
        return _aggregated(connection, "index = ANY(%s::bigint[])", (list(indices),))
    with connection.cursor() as cursor:
        # Numbers that the search returned; SQLite has no arrays, and a limit on parameters.
        listed = ",".join(str(int(index)) for index in indices)
        cursor.execute(_PLAIN + f'IN ({listed}) ORDER BY "index"')
        return _joined(cursor.fetchall())


def _joined(found: Sequence[tuple[Any]]) -> tuple[bytes, int]:
    if not found:
        return b"", 0
    return b"\n".join([body for (body,) in found]) + b"\n", len(found)


def _aggregated(
    connection: BaseDatabaseWrapper, where: str, values: tuple[Any, ...]
) -> tuple[bytes, int]:
    """Let PostgreSQL join the bodies, and send them as bytes rather than as hexadecimal text."""
    from psycopg import Cursor  # of PostgreSQL only

    connection.ensure_connection()
    # Django's own cursors bind values on this side, and then there are no binary results.
    with connection.wrap_database_errors, Cursor(connection.connection) as cursor:
        cursor.execute(_AGGREGATE + where, values, binary=True)
        ((lines, count),) = cursor.fetchall()
    return (b"", 0) if lines is None else (lines + b"\n", count)
