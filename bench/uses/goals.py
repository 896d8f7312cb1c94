"""What was to be reached, and the figures that are compared with it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from bench.uses import plan
from bench.uses.results import Results
from bench.uses.systems import drf, moto, openbao, plain
from bench.uses.work import Work

# Name, value, unit, goal as bench.__main__.Figure compares it.
Line = tuple[str, float, str, str]


def lines(results: Results) -> list[Line]:
    """Return a line for each goal whose figure was measured, and for what is told beside it."""
    found = [*_rates(results), *_ratios(results), *_batches(results), *_waits(results)]
    return [line for line in found if not math.isnan(line[1])]


def _rates(results: Results) -> Iterator[Line]:
    for arrangement in (plan.FREE, plan.ONE_CORE):
        goal = ">= 8,000" if arrangement == plan.FREE else ""
        came = results.medians(arrangement, plan.OURS, Work.ENCRYPT, plan.BUSY)
        if came is not None:
            yield f"encrypt, {plan.BUSY} connections, {arrangement}", came.rate, "requests/s", goal
            what = f"encrypt, {plan.BUSY} connections, {arrangement}: processor time"
            yield f"{what}, server", came.server, "ms/request", "<= 0.12"
            yield f"{what}, PostgreSQL", came.database, "ms/request", ""


def _ratios(results: Results) -> Iterator[Line]:
    for theirs, goal in (
        (openbao.NAME, ">= 1.0"),
        (moto.NAME, ">= 20"),
        (drf.NAME, ">= 30"),
        (plain.NAME, ""),
        (plain.SYNCED, ""),
    ):
        for arrangement in (plan.ONE_CORE, plan.FREE):
            ratio = results.ratio(arrangement, plan.OURS, theirs, Work.ENCRYPT, plan.BUSY)
            told = goal if arrangement == plan.ONE_CORE else ""
            yield (
                f"encrypt, {plan.BUSY} connections, {arrangement}: to {theirs}",
                ratio,
                "times",
                told,
            )
    for work in (Work.ENCRYPT, Work.BATCH_1K):
        for arrangement in (plan.ONE_CORE, plan.FREE):
            ratio = results.ratio(arrangement, plan.OURS, plan.SILENT, work, plan.BUSY)
            goal = ">= 0.6" if arrangement == plan.ONE_CORE else ""
            yield f"{work}, {arrangement}: audit on to off", ratio, "times", goal
    for several in (name for name in results.systems if name.endswith(" processes")):
        for connections in results.connections(plan.FREE, Work.ENCRYPT):
            ratio = results.ratio(plan.FREE, several, plan.OURS, Work.ENCRYPT, connections)
            yield f"encrypt, {_connections(connections)}: {several} to one", ratio, "times", ""


def _batches(results: Results) -> Iterator[Line]:
    for arrangement in (plan.FREE, plan.ONE_CORE):
        for work in (Work.BATCH_1K, Work.BATCH_100, *plan.PLAIN_GCM):
            came = results.medians(arrangement, plan.OURS, work, plan.BUSY)
            if came is None:
                continue
            judged = arrangement == plan.FREE and work in plan.BATCHES
            goal = ">= 60,000" if judged else ""
            yield f"{work}, {arrangement}", came.rate * work.items, "items/s", goal
    for arrangement in (plan.ONE_CORE, plan.FREE):
        for work in plan.BATCHES:
            ratio = results.ratio(arrangement, plan.OURS, openbao.NAME, work, plan.BUSY)
            goal = ">= 2.0" if arrangement == plan.ONE_CORE else ""
            yield f"{work}, {arrangement}: to {openbao.NAME}", ratio, "times", goal


def _waits(results: Results) -> Iterator[Line]:
    wanted: tuple[tuple[int, str, Callable[..., float], str], ...] = (
        (1, "p50", lambda came: came.p50, "< 0.6"),
        (plan.BUSY, "p99", lambda came: came.p99, "< 10"),
    )
    for connections, name, of, goal in wanted:
        for arrangement in (plan.FREE, plan.ONE_CORE):
            came = results.medians(arrangement, plan.OURS, Work.ENCRYPT, connections)
            if came is not None:
                what = f"encrypt, {_connections(connections)}, {arrangement}: {name}"
                yield what, of(came), "ms", goal


def _connections(number: int) -> str:
    return "1 connection" if number == 1 else f"{number} connections"
