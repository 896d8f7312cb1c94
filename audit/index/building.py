"""Building the index: block after block, each in one transaction, beside the log that grows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from django.db import IntegrityError, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Max, Min

from audit import entries
from audit.index import postings
from audit.index.postings import BLOCK
from audit.index.words import VALUES, WHOLE, Body, decoded, values, words_of_facts
from audit.index.words import words as words_of_text
from audit.models import Block, Posting
from audit.store import read_head

_INSERT = "INSERT INTO audit_posting (term, block, entries) VALUES (?, ?, ?)"
_COPY = "COPY audit_posting (term, block, entries) FROM STDIN"

# Offsets in a block, by term.
Offsets = dict[str, list[int]]


def indexed(using: str = "default") -> int:
    """Return how many entries the index covers: those of the full blocks 0, 1, 2 ... up to a gap.

    A row beyond the log's full blocks says nothing.
    """
    full = read_head(connections[using]).size // BLOCK
    rows = Block.objects.using(using).filter(number__gte=0, number__lt=full)
    count = rows.count()
    if count < full and rows.filter(number__lt=count).count() < count:
        count = _first_gap(rows.order_by("number").values_list("number", flat=True))
    return count * BLOCK


def _first_gap(numbers: Iterable[int]) -> int:
    expected = 0
    for number in numbers:
        if number != expected:
            break
        expected += 1
    return expected


def behind(using: str = "default") -> int:
    """Return how many entries of the log the index doesn't cover yet."""
    return max(read_head(connections[using]).size - indexed(using), 0)


def build(using: str = "default", limit_blocks: int = 16) -> int:
    """Index up to `limit_blocks` full blocks that aren't yet; return how many were done here.

    Several processes may do so at once: of two at one block the second leaves it to the first.
    Raises django.db.Error where the database can't be reached; what was done stays.
    """
    done = 0
    _forget_ahead(using)
    size = read_head(connections[using]).size
    number = indexed(using) // BLOCK
    for _ in range(limit_blocks):
        if (number + 1) * BLOCK > size:
            break
        if _write(connections[using], number, _read(connections[using], number)):
            done += 1
            number += 1
        else:
            number = indexed(using) // BLOCK
    return done


def fault(using: str = "default") -> str:
    """Return in a sentence where the index says more than the log, or lacks blocks in between; or ""."""
    if _ahead(using):
        return "It says more than the log has: run “manage.py trail --once --rebuild”."
    # In this order: a block that is written in between counts as covered.
    last = Block.objects.using(using).aggregate(last=Max("number"))["last"]
    if last is not None and last * BLOCK >= indexed(using):
        return "It has gaps, so that searching is slow until “manage.py trail” has filled them."
    return ""


def _ahead(using: str) -> list[int]:
    """Return the numbers of blocks that the log has not, or not in full."""
    rows = Block.objects.using(using)
    ends = rows.aggregate(first=Min("number"), last=Max("number"))
    # Read after them, since the log only grows: a block of now is never taken for one ahead.
    full = read_head(connections[using]).size // BLOCK
    if ends["last"] is None or (ends["first"] >= 0 and ends["last"] < full):
        return []
    return list(rows.exclude(number__gte=0, number__lt=full).values_list("number", flat=True))


def _forget_ahead(using: str) -> None:
    """Drop blocks that the log has not: once it has grown they would hide what is in it."""
    if ahead := _ahead(using):
        _forget_blocks(ahead, using)


def _forget_blocks(numbers: Sequence[int], using: str) -> None:
    with transaction.atomic(using=using):
        for at in range(0, len(numbers), 500):
            some = numbers[at : at + 500]
            Posting.objects.using(using).filter(block__in=some).delete()
            Block.objects.using(using).filter(number__in=some).delete()


def forget(using: str = "default") -> None:
    """Drop the whole index, so that it is built anew from the entries."""
    with transaction.atomic(using=using):
        Block.objects.using(using).all().delete()
        Posting.objects.using(using).all().delete()


def _read(connection: BaseDatabaseWrapper, number: int) -> dict[int, Body]:
    """Return what a block's entries say, by offset. Those that were archived and dropped are not there."""
    with connection.cursor() as cursor:
        cursor.execute(
            'SELECT "index", body FROM audit_entry WHERE "index" >= %s AND "index" < %s'
            ' ORDER BY "index"',
            [number * BLOCK, (number + 1) * BLOCK],
        )
        bodies = ((index % BLOCK, decoded(bytes(data))) for index, data in cursor.fetchall())
        return {offset: body for offset, body in bodies if body is not None}


def rows_of(number: int, using: str = "default") -> dict[str, bytes]:
    """Return what the index must hold of a block, by bucket, from its entries: for who verifies it."""
    return dict(_postings(_read(connections[using], number)))


def _write(connection: BaseDatabaseWrapper, number: int, bodies: Mapping[int, Body]) -> bool:
    """Write a block and its postings together; False where it is there already."""
    rows = [(bucket, number, data) for bucket, data in _postings(bodies)]
    times = [body.at for body in bodies.values()]
    first = entries.moment(min(times)) if times else datetime.max.replace(tzinfo=UTC)
    last = entries.moment(max(times)) if times else entries.EPOCH
    try:
        with transaction.atomic(using=connection.alias):
            # First, so that of two who index the same block the second waits here, and fails.
            block = Block(number=number, first_at=first, last_at=last)
            block.save(using=connection.alias, force_insert=True)
            _insert(connection, rows)
    except IntegrityError:
        if not Block.objects.using(connection.alias).filter(number=number).exists():
            _forget_blocks([number], connection.alias)  # postings that belong to no block
        return False
    return True


def _insert(connection: BaseDatabaseWrapper, rows: Sequence[tuple[Any, ...]]) -> None:
    """Add postings by the driver's fastest way; errors come as Django's."""
    driver: Any = connection.connection
    with connection.wrap_database_errors:
        if connection.vendor == "postgresql":
            with driver.cursor() as cursor, cursor.copy(_COPY) as copy:
                for row in rows:
                    copy.write_row(row)
        else:
            driver.executemany(_INSERT, rows)


def _postings(bodies: Mapping[int, Body]) -> list[tuple[str, bytes]]:
    """Return the rows of a block: buckets, and their bytes."""
    words, terms = _collected(bodies)
    return [*_rows_of_words(words), *_rows_of_terms(terms)]


def _collected(bodies: Mapping[int, Body]) -> tuple[Offsets, Offsets]:
    """Return the offsets of each word that is found by its beginning, and of each whole term.

    By value first: entries have few different ones, and each is taken apart only once.
    """
    words, terms = _Gathered(), _Gathered()
    columns = _by_value(map(values, bodies.values()), bodies)
    for (field, has_words), column in zip(VALUES, columns, strict=True):
        for value, found in column.items():
            if field and value:
                terms.add(f"{field}={entries.searchable(value)}", found)
            if has_words:
                _gather(words, terms, words_of_text(value), found)
    (facts,) = _by_value(((bytes(body.facts),) for body in bodies.values()), bodies)
    for told, found in facts.items():
        _gather(words, terms, words_of_facts(told), found)
    for offset, body in bodies.items():
        for approval in set(body.approvals):
            _gather(words, terms, words_of_text(approval), [offset])
    return words.offsets(), terms.offsets()


def _by_value(rows: Iterable[Sequence[Any]], places: Iterable[int]) -> list[dict[Any, list[int]]]:
    """Return for each column of `rows` its different values, each with the offsets it stands at."""
    columns = []
    for column in zip(*rows, strict=True):
        found: dict[Any, list[int]] = defaultdict(list)
        for offset, value in zip(places, column, strict=True):
            found[value].append(offset)
        columns.append(found)
    return columns


def _gather(words: _Gathered, terms: _Gathered, some: Iterable[str], found: list[int]) -> None:
    for word in some:
        if len(word) < WHOLE:
            words.add(word, found)
        else:
            terms.add("=" + word, found)


class _Gathered:
    """Offsets by term, from several lists of them."""

    def __init__(self) -> None:
        self._lists: dict[str, list[list[int]]] = defaultdict(list)

    def add(self, term: str, found: list[int]) -> None:
        """Add ascending offsets, of which none is twice."""
        self._lists[term].append(found)

    def offsets(self) -> Offsets:
        """Return the offsets of each term, ascending."""
        return {
            term: lists[0] if len(lists) == 1 else sorted(set().union(*lists))
            for term, lists in self._lists.items()
        }


def _rows_of_words(words: Mapping[str, list[int]]) -> list[tuple[str, bytes]]:
    buckets: dict[str, list[tuple[bytes, bytes]]] = defaultdict(list)
    letters = _Gathered()
    for word, found in words.items():
        letters.add(word[0], found)
        if len(word) > 1:
            buckets[word[:2]].append((word.encode(), postings.pack_set(found)))
    rows = [(bucket, postings.pack_words(sorted(some))) for bucket, some in buckets.items()]
    alike = letters.offsets()
    return rows + [(letter, postings.pack_set(found)) for letter, found in alike.items()]


def _rows_of_terms(terms: Mapping[str, list[int]]) -> list[tuple[str, bytes]]:
    buckets: dict[str, list[tuple[bytes, bytes]]] = defaultdict(list)
    for term, found in terms.items():
        hashed = postings.term_hash(term)
        bucket = postings.bucket_of_term(term, hashed)
        buckets[bucket].append((hashed, postings.pack_set(found)))
    return [(bucket, postings.pack_terms(sorted(some))) for bucket, some in buckets.items()]
