"""Appending: how many entries a second one process makes durable, and what one more costs later."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import statistics
import time
from dataclasses import dataclass
from typing import Any

from django.db import connections, transaction

from audit import store
from bench import parts
from keys.gate import record

WRITERS = 64
SECONDS = 4.0
BATCH = 20_000
GOALS = {"postgresql": ">= 15,000", "sqlite": ">= 20,000"}
SMALL, LARGE = (10_000, 100_000), (10_000, 100_000, 1_000_000, 10_000_000)


@dataclass(frozen=True, slots=True)
class Round:
    """What writers that each wait for their entry got done: seconds, and entries a second."""

    rate: float
    median: float
    p99: float
    processor: float  # of this process, for one entry
    event: float  # of that, making the event


async def _write(uses: parts.Uses, until: float, waits: list[float]) -> None:
    while (start := time.perf_counter()) < until:
        await record.wait_aio(uses.make())
        waits.append(time.perf_counter() - start)


async def _many(uses: parts.Uses, seconds: float) -> list[float]:
    waits: list[float] = []
    until = time.perf_counter() + seconds
    await asyncio.gather(*(_write(uses, until, waits) for _ in range(WRITERS)))
    return waits


def closed_loop(seconds: float = SECONDS) -> Round:
    """Have 64 writers on one event loop each wait for an entry to be durable, then make the next."""
    uses = parts.Uses()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_many(uses, 0.3))
        start, used = time.perf_counter(), time.process_time()
        waits = runner.run(_many(uses, seconds))
        took, used = time.perf_counter() - start, time.process_time() - used
    waits.sort()
    count = len(waits)
    return Round(
        count / took, waits[count // 2], waits[count * 99 // 100], used / count, _event(uses)
    )


def _loop_factory() -> Any:
    """Return what the web server's loop is made by."""
    with contextlib.suppress(ImportError):
        import uvloop

        return uvloop.new_event_loop
    return None


def _event(uses: parts.Uses) -> float:
    start = time.process_time()
    for _ in range(5000):
        uses.make()
    return (time.process_time() - start) / 5000


def fill(until: int) -> None:
    """Append in batches until the log has `until` entries."""
    connection = connections["default"]
    uses = parts.Uses()
    while True:
        with transaction.atomic():
            head = store.read_head(connection, lock=True)
            count = min(BATCH, until - head.size)
            if count <= 0:
                return
            store.extend(connection, head, [uses.make() for _ in range(count)], epoch=head.epoch)


def cost(batches: int = 30, size: int = 200) -> tuple[float, float]:
    """Return what one entry costs in batches of `size`: median seconds, processor seconds of ours."""
    connection = connections["default"]
    uses = parts.Uses(seed=2)
    walls, used = [], 0.0
    for _ in range(batches):
        events = [uses.make() for _ in range(size)]
        start, before = time.perf_counter(), time.process_time()
        with transaction.atomic():
            head = store.read_head(connection, lock=True)
            store.extend(connection, head, events, epoch=head.epoch)
        walls.append((time.perf_counter() - start) / size)
        used += time.process_time() - before
    return statistics.median(walls), used / (batches * size)


def run(report: Any) -> None:
    """Measure on both databases; `report.large` goes on to 10 million entries."""
    for vendor, made in parts.DATABASES.items():
        with made():
            rounds = [closed_loop() for _ in range(3)]
            best = max(rounds, key=lambda one: one.rate)
            what = f"append, {vendor}, {WRITERS} writers"
            report(what, best.rate, "entries/s", GOALS[vendor])
            report(f"{what}, worst of three", min(one.rate for one in rounds), "entries/s")
            report(f"{what}, median wait", best.median * 1000, "ms")
            report(f"{what}, p99 wait", best.p99 * 1000, "ms", "< 20")
            report(f"{what}, processor time", best.processor * 1e6, "us/entry")
            report(f"{what}, of that the event", best.event * 1e6, "us/entry")
            record.writer.close_appender()
        with made():
            _growth(report, vendor)
    report(
        "append, memory at the end", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "MB"
    )


def _growth(report: Any, vendor: str) -> None:
    costs = []
    for size in LARGE if report.large else SMALL:
        begun = time.perf_counter()
        fill(size)
        built = time.perf_counter() - begun
        wall, used = cost()
        costs.append((wall, used))
        what = f"append, {vendor}, after {size:,} entries"
        report(what, wall * 1e6, "us/entry")
        report(f"{what}, processor time", used * 1e6, "us/entry")
        if built > 1:
            report(f"{what}, built in", built, "s")
    first, last = costs[0], costs[-1]
    report(f"append, {vendor}, last / first", last[0] / first[0], "times", "< 1.5")
    report(f"append, {vendor}, last / first, processor", last[1] / first[1], "times", "< 1.5")
