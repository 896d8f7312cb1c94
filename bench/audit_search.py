"""Searching a long log: the slowest of every kind of question, and how fast the index is built.

`--large` asks 10 million entries on PostgreSQL, else 200,000 on both databases.
"""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

from django.db import connections, transaction

from audit import entries, index, search, store
from audit.events import Actor, Event, Outcome, Subject
from audit.keeper import GC_THRESHOLD
from audit.models import Block
from audit.search import Filters
from bench import parts

SMALL, LARGE = 200_000, 10_000_000
CHUNK = 20_000
KEYS, ACTORS, ACTIONS = 1000, 200, 30
START = 1_767_225_600_000_000  # 2026, in microseconds
STEP = 3_000_000
RARE_EVERY = 333_333
WORDS = [
    "invoices",
    "payroll",
    "patient",
    "claims",
    "archive",
    "billing",
    "courier",
    "ledger",
    "export",
    "tenant",
]
# Two that are each in thousands of entries and in none together.
LEFT, RIGHT = "sinistral", "dextral"
GOAL = "< 1"


class Made:
    """Events of a busy house, the same each time."""

    def __init__(self) -> None:
        self.random = random.Random(5)
        self.keys = [self._key(number) for number in range(KEYS)]
        self.actors = [(self._id(), f"application {number:03d}") for number in range(ACTORS)]
        self.actions = [f"{verb}_{word}" for verb in ("use", "change", "read") for word in WORDS]
        self.grants = [self._id() for _ in range(KEYS)]

    def _id(self) -> str:
        digits = f"{self.random.getrandbits(128):032x}"
        return f"{digits[:8]}-{digits[8:12]}-7{digits[13:16]}-8{digits[17:20]}-{digits[20:]}"

    def _key(self, number: int) -> tuple[str, str]:
        return self._id(), f"{WORDS[number % len(WORDS)]}-{number}"

    def events(self, start: int, count: int) -> Iterator[Event]:
        """Yield what becomes the entries from `start` on."""
        pick = self.random.random
        applications = [Actor("application", *one) for one in self.actors]
        for number in range(start, start + count):
            key = int(KEYS * pick() ** 2)
            actor = int(ACTORS * pick())
            denied = number % 50 == 0
            context = LEFT if number % 40 == 1 else RIGHT if number % 40 == 2 else "plain"
            if number % RARE_EVERY == 77:
                context = f"aardvark{number}"
            yield Event(
                at=START + number * STEP,
                actor=applications[actor],
                method="bearer",
                door="rest" if number % 7 else "vault",
                action=self.actions[int(ACTIONS * pick())],
                object=Subject("key", *self.keys[key], 1, "secret" if key % 5 else "internal"),
                outcome=Outcome.DENIED if denied else Outcome.SUCCESS,
                reason="no_grant" if denied else "",
                source=f"10.{actor % 4}.{key % 8}.{number % 250}",
                request_id=f"{number * 2654435761 % 2**64:016x}",
                facts={"context": [context], "grant": self.grants[key]},
            )


def fill(size: int, made: Made) -> float:
    """Write a log of `size` entries; return the seconds it took."""
    connection, began = connections["default"], time.perf_counter()
    for start in range(0, size, CHUNK):
        with transaction.atomic():
            head = store.read_head(connection, lock=True)
            events = list(made.events(start, min(CHUNK, size - start)))
            store.extend(connection, head, events, epoch=head.epoch)
    return time.perf_counter() - began


def questions(size: int, made: Made) -> dict[str, list[Callable[[], object]]]:
    """Return what is asked, by kind."""
    middle, end = size // 2, size

    def at(number: int) -> Any:
        return entries.moment(START + number * STEP)

    def asked(before: int | None = None, **filters: Any) -> Callable[[], object]:
        return lambda: search.search(Filters(**filters), before=before, limit=51)

    request = f"{middle * 2654435761 % 2**64:016x}"
    key, actor = made.keys[KEYS - 1][0], made.actors[17][0]
    return {
        "rare word": [asked(text=f"aardvark{77}"), asked(text="aardvark"), asked(text="nothing")],
        "common word": [asked(text="invoices"), asked(text="success"), asked(text="i")],
        "words that never meet": [
            asked(text=f"{LEFT} {RIGHT}"),
            asked(text="sinist dextr", action=made.actions[3]),
        ],
        "beginning of a word": [
            asked(text="aard"),
            asked(text="pat 10.3.7.24"),
            asked(text="ap nothing"),
            asked(text="1 zz"),
        ],
        "request id": [asked(request_id=request), asked(request_id="none")],
        "id in the text": [asked(text=key), asked(text=made.grants[5])],
        "filters together": [
            asked(actor=actor, object_id=key, outcome="denied"),
            asked(action=",".join(made.actions[:5]), door="vault", outcome="denied,failed"),
            asked(classification="internal", door="vault", text="no grant archive"),
        ],
        "deep page": [
            asked(before=1000, text="invoices"),
            asked(before=middle, actor=actor),
            asked(before=5000, outcome="denied", text="aardvark"),
        ],
        "time range": [
            asked(since=at(middle), until=at(middle + 100)),
            asked(until=at(5000), outcome="denied"),
            asked(since=at(end - 3), text="nothing"),
            asked(since=at(10), until=at(end - 10), text="aardvark"),
        ],
        "no filter": [asked(), asked(before=middle)],
        "count": [
            lambda: search.count(Filters(outcome="denied")),
            lambda: search.count(Filters(text=LEFT, actor=actor)),
            lambda: search.count(Filters(since=at(middle))),
        ],
    }


def _timed(ask: Callable[[], object]) -> float:
    began = time.perf_counter()
    ask()
    return time.perf_counter() - began


def measure(vendor: str, size: int, report: Any) -> None:
    """Make a log, index it, ask."""
    made = Made()
    seconds = fill(size, made)
    report(f"{vendor}: log made", size / seconds, "entries/s")
    began, processor = time.perf_counter(), time.process_time()
    while index.build(limit_blocks=64):
        pass
    covered = index.indexed()
    report(
        f"{vendor}: index built", covered / (time.perf_counter() - began), "entries/s", ">= 15,000"
    )
    spent = (time.process_time() - processor) * 1e6 / covered
    report(f"{vendor}: index built, processor time of the keeper", spent, "us/entry")
    report(f"{vendor}: index size", _size(vendor) / covered, "bytes/entry")
    for kind, asked in questions(size, made).items():
        first = max(map(_timed, asked))
        again = max(map(_timed, asked))
        name = f"{vendor}, {size:,} entries: {kind}, slowest"
        report(f"{name}, first time", first, "s", GOAL)
        report(f"{name}, again", again, "s", GOAL)
    # What isn't indexed yet is looked at entry by entry: at most this much of it is normal.
    Block.objects.filter(number__gte=covered // index.BLOCK - 1).delete()
    report(
        f"{vendor}: two blocks not indexed, a word that is nowhere",
        _timed(lambda: search.search(Filters(text="nothing", since=entries.moment(START)))),
        "s",
        GOAL,
    )


def _size(vendor: str) -> int:
    with connections["default"].cursor() as cursor:
        if vendor == "postgresql":
            cursor.execute("SELECT pg_total_relation_size('audit_posting')")
        else:
            cursor.execute("SELECT sum(length(entries)) FROM audit_posting")
        return int(cursor.fetchone()[0])


def run(report: Any) -> None:
    """Measure on PostgreSQL, and on SQLite where the log is short."""
    gc.set_threshold(GC_THRESHOLD)  # as the keeper's process
    large = getattr(report, "large", False)
    with parts.postgresql():
        measure("postgresql", LARGE if large else SMALL, report)
    if not large:
        with parts.sqlite():
            measure("sqlite", SMALL, report)
