"""Reading the log's entries in order, and comparing each with what is stored beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from uuid import UUID

import msgspec

from audit import entries, tiles
from audit.evidence import verify as rules
from audit.merkle import leaf_hash
from audit.models import Archive, Entry, Tile
from audit.tiles import WIDTH
from audit.verifier.report import Bad

CHUNK = 1000  # rows that are read at once
TILES_AT_ONCE = 16

# What databases give bytes as; SQLite keeps a column's value as whatever type it was written.
BINARY = (bytes, bytearray, memoryview)


def as_bytes(value: object) -> bytes:
    """Return what a column of bytes holds; nothing where it is something else."""
    return bytes(value) if isinstance(value, BINARY) else b""


# index, leaf hash, the entry's row where it is to be looked at as a whole
Step = tuple[int, bytes, tuple[Any, ...] | None]


def walk(using: str, size: int, start: int) -> Iterator[Step]:
    """Yield every entry below `size` in order; those before `start` by their hashes alone.

    An entry that was dropped after it had been archived comes from its tile. Raises Bad at the first
    one that is missing.
    """
    expected = 0
    for row in _rows(using, size, min(start, size)):
        index = row[0]
        if index < expected:
            raise Bad(index, f"There is an entry {index}, which no log has.")
        if index > expected:
            yield from _dropped(using, expected, index)
        if not isinstance(row[1], BINARY) or (len(row) > 2 and not isinstance(row[2], BINARY)):
            raise Bad(index, f"Entry {index} is not kept as bytes.")
        yield index, bytes(row[1]), row if len(row) > 2 else None
        expected = index + 1
    if expected < size:
        yield from _dropped(using, expected, size)


def _rows(using: str, size: int, start: int) -> Iterator[tuple[Any, ...]]:
    """Yield index and leaf hash, from `start` on also body and columns, page by page."""
    table = Entry.objects.using(using).order_by("index")
    hashes = table.filter(index__lt=start).values_list("index", "leaf_hash")
    whole = table.filter(index__lt=size).values_list(
        "index", "leaf_hash", "body", *entries.COLUMNS[1:]
    )
    for rows, first in ((hashes, None), (whole, start or None)):
        page = rows if first is None else rows.filter(index__gte=first)
        while found := list(page[:CHUNK]):
            yield from found
            page = rows.filter(index__gt=found[-1][0])


def _dropped(using: str, first: int, end: int) -> Iterator[Step]:
    """Yield the leaf hashes of entries that lie in archives. Raises Bad for one that does not."""
    covered = first
    rows = Archive.objects.using(using).filter(
        dropped_at__isnull=False, start__lt=end, end__gt=first
    )
    for archive in rows.order_by("start").iterator():
        if archive.start > covered:
            break
        covered = max(covered, min(archive.end, end))
    at = first
    while at < covered:
        number = at // WIDTH
        page = Tile.objects.using(using).filter(
            level=0, number__gte=number, number__lt=number + TILES_AT_ONCE
        )
        known = dict(page.values_list("number", "hashes"))
        if number not in known:
            break
        last = min(covered, (number + TILES_AT_ONCE) * WIDTH)
        while at < last and at // WIDTH in known:
            for leaf in tiles.split(as_bytes(known[at // WIDTH]))[at % WIDTH :]:
                if at < last:
                    yield at, leaf, None
                    at += 1
    if at < end:
        raise Bad(at, f"Entry {at} is missing.")


def look(row: tuple[Any, ...], expected: int) -> Mapping[str, Any]:
    """Return the body of an entry that is as it was written, in its place. Raises Bad."""
    data = bytes(row[2])
    if leaf_hash(data) != bytes(row[1]):
        raise Bad(expected, f"Entry {expected} does not match its hash.")
    try:
        said, body = rules.look(data)
    except rules.Malformed as problem:
        raise Bad(expected, f"Entry {expected} {problem}.") from None
    if said != expected:
        raise Bad(expected, f"Entry {expected} says that it is entry {said}.")
    if body is None:
        body = msgspec.json.decode(data)
    if differing := _columns_differ(row, body):
        raise Bad(expected, f"Entry {expected}: {differing}")
    return body


def _columns_differ(row: tuple[Any, ...], body: Mapping[str, Any]) -> str:
    """Return what differs between the columns and the body they were taken from, or nothing."""
    try:
        said = list(entries.columns(body))
        said[1], said[2] = UUID(said[1]), entries.moment(said[2])
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return "a member is missing or of the wrong type."
    if said[1:] == list(row[3:]):
        return ""
    names = zip(entries.COLUMNS[1:], said[1:], row[3:], strict=True)
    name = next(name for name, ours, theirs in names if ours != theirs)
    return f"the column {name} differs from the entry's body."
