"""Finding entries: by the index where it covers them, by looking at each where it doesn't yet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from django.db import connections
from django.db.models import QuerySet

from audit.index import building, postings
from audit.index.filters import Filters, Plan, plan
from audit.index.postings import BLOCK
from audit.index.walking import Range, Walk, dropped, missing, span
from audit.models import Entry
from audit.store import read_head

__all__ = ["PAGE_LIMIT", "Filters", "check", "count", "matching", "newest", "oldest", "search"]

PAGE_LIMIT = 1000
# Entries read for one page beyond what is still missing on it: hits are nearly always right.
_SPARE = 8


def check(filters: Filters, using: str = "default") -> None:
    """Raise UnclearSearch where these filters can't be looked for."""
    plan(filters, using)


def search(
    filters: Filters, *, before: int | None = None, limit: int = 50, using: str = "default"
) -> list[Entry]:
    """Return up to `limit` matching entries, newest first, of those with an index below `before`.

    The next page is `before=` the last one's index. Raises UnclearSearch.
    """
    limit = max(1, min(limit, PAGE_LIMIT))
    rows = Entry.objects.using(using).order_by("-index")
    if filters.anything:
        return list((rows if before is None else rows.filter(index__lt=before))[:limit])
    wanted = plan(filters, using)
    found: list[Entry] = []
    for entry in _down(wanted, before, limit, using):
        found.append(entry)
        if len(found) == limit:
            break
    return found


def newest(filters: Filters, *, using: str = "default") -> Iterator[Entry]:
    """Yield all matching entries, newest first, as they are asked for. Raises UnclearSearch."""
    before = None
    while page := search(filters, before=before, limit=100, using=using):
        yield from page
        before = page[-1].index


def oldest(
    filters: Filters, *, after: int = -1, until: int | None = None, using: str = "default"
) -> Iterator[Entry]:
    """Yield the matching entries with after < index < until, oldest first. Raises UnclearSearch."""
    wanted = plan(filters, using)
    for some in matching(filters, after=after, until=until, using=using):
        for start in range(0, len(some), 100):
            yield from _checked(wanted, some[start : start + 100], using)


def matching(
    filters: Filters, *, after: int = -1, until: int | None = None, using: str = "default"
) -> Iterator[list[int]]:
    """Yield the indices of matching entries, ascending, a block's at a time; after < index < until.

    Without `until`: up to the log's end as it is when the first is asked for. The entries may have
    been dropped since. Raises UnclearSearch.
    """
    wanted = plan(filters, using)
    for number, bits in _up(wanted, after + 1, until, using):
        yield [number * BLOCK + offset for offset in postings.offsets(bits)]


def count(filters: Filters, until: int | None = None, *, using: str = "default") -> int:
    """Return how many entries match, of those with an index below `until`. Raises UnclearSearch."""
    wanted = plan(filters, using)
    return sum(bits.bit_count() for _, bits in _up(wanted, 0, until, using))


def _down(wanted: Plan, before: int | None, limit: int, using: str) -> Iterator[Entry]:
    """Yield matching entries, newest first."""
    batch: list[int] = []
    size = limit + _SPARE
    for number, bits in _blocks_down(wanted, before, using):
        batch += [number * BLOCK + offset for offset in reversed(postings.offsets(bits))]
        while len(batch) >= size:
            yield from _checked(wanted, batch[:size], using, down=True)
            batch = batch[size:]
    yield from _checked(wanted, batch, using, down=True)


def _blocks_down(wanted: Plan, before: int | None, using: str) -> Iterator[tuple[int, int]]:
    """Yield (block, bitmap of its matching entries), the newest first: the tail, then the index."""
    # In this order: what is indexed only grows, so no entry is between the two.
    covered = building.indexed(using)
    end = read_head(connections[using]).size
    end = end if before is None else min(end, before)
    gone = dropped(using)
    for number in reversed(range(covered // BLOCK, (end + BLOCK - 1) // BLOCK)):
        bits = _looked_at(wanted, covered, end, number, gone, using)
        if bits:
            yield number, bits
    yield from Walk(wanted, 0, min(end, covered), using, gone).down()


def _up(wanted: Plan, start: int, until: int | None, using: str) -> Iterator[tuple[int, int]]:
    """Yield (block, bitmap of its matching entries) from `start` on, ascending."""
    covered = building.indexed(using)
    end = read_head(connections[using]).size
    end = end if until is None else min(until, end)
    gone = dropped(using)
    yield from Walk(wanted, start, min(end, covered), using, gone).up()
    for number in range(max(covered, start) // BLOCK, (end + BLOCK - 1) // BLOCK):
        bits = _looked_at(wanted, max(covered, start), end, number, gone, using)
        if bits:
            yield number, bits


def _looked_at(
    wanted: Plan, start: int, end: int, number: int, gone: list[Range], using: str
) -> int:
    """Return which entries of a block that isn't indexed match."""
    first, last = max(start, number * BLOCK), min(end, (number + 1) * BLOCK)
    if not (wanted.groups or wanted.timed):
        lacking = missing(gone, number, number + 1, using)
        return span(first, last, number) & ~lacking.get(number, 0)
    rows = Entry.objects.using(using).filter(index__gte=first, index__lt=last)
    return postings.bitmap(
        index % BLOCK
        for index, data in wanted.narrow(rows).values_list("index", "body")
        if not wanted.looked_for or wanted.fits(bytes(data))
    )


def _checked(
    wanted: Plan, indices: Iterable[int], using: str, *, down: bool = False
) -> Iterator[Entry]:
    """Yield those of the entries that are there and are what is looked for."""
    rows = Entry.objects.using(using).filter(index__in=list(indices))
    yield from _right(wanted, rows.order_by("-index" if down else "index"))


def _right(wanted: Plan, rows: QuerySet[Entry]) -> Iterator[Entry]:
    return (entry for entry in rows if wanted.fits(bytes(entry.body)))
