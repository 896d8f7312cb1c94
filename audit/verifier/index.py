"""Does the search index say what the entries say? Whoever edits it hides entries from searching."""

from __future__ import annotations

import random
from collections.abc import Sequence

from audit import index
from audit.index import BLOCK, building
from audit.models import Archive, Block, Entry, Posting
from audit.verifier.report import Findings
from audit.verifier.rows import as_bytes

# Blocks that are compared where not all of them are asked for; each takes some 0.2 s.
SAMPLE = 4


def check_index(using: str, findings: Findings, *, whole: bool) -> None:
    """Compare the index with the entries: every block, or a few that nobody can foresee.

    Blocks that reach into what was dropped from the database are left out.
    """
    if fault := index.fault(using):
        findings.add(None, f"The search index: {fault}")
    known = Block.objects.using(using).values("number")
    if Posting.objects.using(using).exclude(block__in=known).exists():
        findings.add(None, "The search index has rows of blocks that are not there.")
    numbers = range(index.indexed(using) // BLOCK)
    chosen = numbers if whole else sorted(random.SystemRandom().sample(numbers, _few(numbers)))
    compared = 0
    for number in chosen:
        compared += _compare(using, number, findings)
    findings.checked.append(
        f"{compared} of {len(numbers)} blocks of the search index, each with what the entries give."
    )


def _few(numbers: range) -> int:
    return min(len(numbers), SAMPLE)


def _compare(using: str, number: int, findings: Findings) -> bool:
    """Compare one block; False where some of its entries are not in the database."""
    first = number * BLOCK
    rows = Entry.objects.using(using).filter(index__gte=first, index__lt=first + BLOCK)
    if rows.count() < BLOCK and _dropped(using, first):
        return False
    postings = Posting.objects.using(using).filter(block=number)
    stored = {term: as_bytes(data) for term, data in postings.values_list("term", "entries")}
    expected = building.rows_of(number, using)
    if stored != expected:
        different = sorted(
            term for term in stored.keys() | expected if stored.get(term) != expected.get(term)
        )
        findings.add(
            first,
            f"The search index differs from the entries {first}..{first + BLOCK - 1}, in"
            f" {len(different)} of {len(expected)} rows: run “manage.py trail --once --rebuild”.",
        )
    times = Block.objects.using(using).filter(number=number).values_list("first_at", "last_at")
    if not _spans(list(times), sorted(rows.values_list("at", flat=True))):
        findings.add(first, f"The search index has other times than the entries from {first} on.")
    return True


def _spans(said: Sequence[tuple[object, object]], times: Sequence[object]) -> bool:
    return bool(times) and said == [(times[0], times[-1])]


def _dropped(using: str, first: int) -> bool:
    rows = Archive.objects.using(using).filter(dropped_at__isnull=False)
    return rows.filter(start__lt=first + BLOCK, end__gt=first).exists()
