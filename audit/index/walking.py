"""Walking the blocks of the index: which entries of each are what a plan looks for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Q

from audit.index import postings
from audit.index.filters import Plan
from audit.index.postings import BLOCK, EVERYTHING
from audit.models import Archive, Block, Entry, Posting

# Blocks that one query reads: few at first, since a page is often full soon.
FIRST_BLOCKS = 8
MOST_BLOCKS = 256

# (start, end): entries start..end-1.
Range = tuple[int, int]


def dropped(using: str = "default") -> list[Range]:
    """Return the ranges of entries that are said to be archived and no longer in the database.

    `missing` tells which of them the database really lacks: rows decide, not what is said of them.
    """
    rows = Archive.objects.using(using).filter(dropped_at__isnull=False).order_by("start")
    joined: list[Range] = []
    for start, end in rows.values_list("start", "end"):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


def missing(gone: Sequence[Range], lower: int, upper: int, using: str) -> dict[int, int]:
    """Return for the blocks lower..upper-1 as bitmaps which entries the database lacks.

    Looked for only where a range of `gone` reaches into them.
    """
    first, last = lower * BLOCK, upper * BLOCK
    ranges = [(max(a, first), min(b, last)) for a, b in gone if a < last and b > first]
    if not ranges:
        return {}
    found: dict[int, int] = {}
    said = Q()
    for start, end in ranges:
        said |= Q(index__gte=start, index__lt=end)
        for number in range(start // BLOCK, (end - 1) // BLOCK + 1):
            found[number] = found.get(number, 0) | span(start, end, number)
    rows = Entry.objects.using(using).filter(said).values_list("index", flat=True)
    there: dict[int, list[int]] = defaultdict(list)
    for index in rows.iterator():
        there[index // BLOCK].append(index % BLOCK)
    return {n: bits & ~postings.bitmap(there.get(n, ())) for n, bits in found.items()}


def span(start: int, end: int, number: int) -> int:
    """Return as a bitmap which entries of block `number` are among start..end-1."""
    first = min(max(start - number * BLOCK, 0), BLOCK)
    last = min(max(end - number * BLOCK, 0), BLOCK)
    return ((1 << last) - 1) & ~((1 << first) - 1)


@dataclass(slots=True)
class Walk:
    """One walk over the indexed entries start..end-1; `end` lies within the index."""

    plan: Plan
    start: int
    end: int
    using: str
    gone: list[Range]

    def down(self) -> Iterator[tuple[int, int]]:
        """Yield (block, bitmap of the entries in it), the newest block first; none is empty."""
        upper, count = (self.end - 1) // BLOCK + 1, FIRST_BLOCKS
        while upper * BLOCK > self.start and upper > 0:
            lower = max(upper - count, self.start // BLOCK)
            yield from reversed(self._chunk(lower, upper))
            upper, count = lower, min(2 * count, MOST_BLOCKS)

    def up(self) -> Iterator[tuple[int, int]]:
        """Do the same from the oldest block on."""
        lower = self.start // BLOCK
        while lower * BLOCK < self.end:
            upper = min(lower + MOST_BLOCKS, (self.end - 1) // BLOCK + 1)
            yield from self._chunk(lower, upper)
            lower = upper

    def _chunk(self, lower: int, upper: int) -> list[tuple[int, int]]:
        """Return the blocks lower..upper-1 in which something is found, ascending."""
        times = self._times(lower, upper)
        gone = missing(self.gone, lower, upper, self.using)
        present = {
            number: bits
            for number in range(lower, upper)
            if (not self.plan.timed or number in times)
            and (bits := span(self.start, self.end, number) & ~gone.get(number, 0))
        }
        if not present:
            return []
        rows = self._rows(min(present), max(present) + 1)
        found = []
        for number, bits in present.items():
            bits &= self._holding(rows.get(number, {}))
            if bits and not times.get(number, True):
                bits &= self._in_time(number)
            if bits:
                found.append((number, bits))
        return found

    def _holding(self, row: dict[str, bytes]) -> int:
        """Return which entries of a block hold one term of every group."""
        found = EVERYTHING
        for group in self.plan.groups:
            some = 0
            for term in group:
                if term.bucket in row:
                    some |= term.within(row[term.bucket])
            found &= some
            if not found:
                break
        return found

    def _rows(self, lower: int, upper: int) -> dict[int, dict[str, bytes]]:
        buckets = self.plan.buckets
        if not buckets:
            return {}
        rows = Posting.objects.using(self.using).filter(
            term__in=buckets, block__gte=lower, block__lt=upper
        )
        found: dict[int, dict[str, bytes]] = {}
        for block, bucket, data in rows.values_list("block", "term", "entries"):
            found.setdefault(block, {})[bucket] = bytes(data)
        return found

    def _times(self, lower: int, upper: int) -> dict[int, bool]:
        """Return the blocks that have entries in time, and whether all of theirs are."""
        if not self.plan.timed:
            return {}
        rows = Block.objects.using(self.using).filter(number__gte=lower, number__lt=upper)
        if self.plan.since:
            rows = rows.filter(last_at__gte=self.plan.since)
        if self.plan.until:
            rows = rows.filter(first_at__lt=self.plan.until)
        return {
            number: self._all_in_time(first_at, last_at)
            for number, first_at, last_at in rows.values_list("number", "first_at", "last_at")
        }

    def _all_in_time(self, first_at: datetime, last_at: datetime) -> bool:
        since, until = self.plan.since, self.plan.until
        return (since is None or first_at >= since) and (until is None or last_at < until)

    def _in_time(self, number: int) -> int:
        """Return which entries of a block that is only partly in time are."""
        conditions: dict[str, Any] = {}
        if self.plan.since:
            conditions["at__gte"] = self.plan.since
        if self.plan.until:
            conditions["at__lt"] = self.plan.until
        rows = Entry.objects.using(self.using).filter(
            index__gte=number * BLOCK, index__lt=(number + 1) * BLOCK, **conditions
        )
        return postings.bitmap(index % BLOCK for index in rows.values_list("index", flat=True))
