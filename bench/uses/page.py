"""What was measured, as the part of docs/benchmarks.md between two marks; the rest is written by hand."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.uses import machine, plan
from bench.uses.results import Medians, Results
from bench.uses.rounds import Measured
from bench.uses.work import Work

PAGE = machine.ROOT / "docs" / "benchmarks.md"
BEGIN = "<!-- measured by `python -m bench uses`: begin -->"
END = "<!-- measured by `python -m bench uses`: end -->"
# Name, value, unit, goal, verdict: as people read them.
Row = Sequence[str]


def text(measured: Measured, figures: Sequence[Row], where: Sequence[str]) -> str:
    """Return the measured part. `figures` are the goals' rows, `where` lines about the machine."""
    results = Results(measured.samples)
    blocks = [*_where(results, where), *_goals(figures)]
    for arrangement in (plan.ONE_CORE, plan.FREE):
        works = [work for work in Work if results.connections(arrangement, work)]
        if works:
            blocks += _arrangement(results, arrangement, works)
    blocks += _memory(measured)
    blocks += _missing(measured)
    return "\n\n".join(blocks)


def write(content: str, page: Path = PAGE) -> None:
    """Put the measured part into the page. Raises ValueError where its marks are gone."""
    before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page.name} has lost its marks {BEGIN!r} and {END!r}")
    page.write_text(f"{before}{BEGIN}\n\n{content}\n\n{END}{after}", encoding="utf-8")


def _where(results: Results, where: Sequence[str]) -> Iterator[str]:
    yield "\n".join(f"- {line}" for line in where)
    yield (
        f"Medians of {results.rounds} rounds. The load generator took at most "
        f"{results.load:.0%} of a core; near 100 % a rate would be its own, not the server's."
    )


def _goals(figures: Sequence[Row]) -> Iterator[str]:
    yield "### Goals"
    yield _table(("", "measured", "unit", "goal", ""), figures)


def _arrangement(results: Results, arrangement: str, works: Sequence[Work]) -> Iterator[str]:
    yield f"### {arrangement[0].upper()}{arrangement[1:]}"
    yield f"Requests a second at {plan.BUSY} connections; a batch is one request of 100 items."
    systems = [
        name
        for name in results.systems
        if any(_came(results, arrangement, name, work, plan.BUSY) for work in works)
    ]
    rows = [
        (work, *(_rate(_came(results, arrangement, name, work, plan.BUSY)) for name in systems))
        for work in works
    ]
    yield _table(("", *systems), rows)
    yield f"How many times the other's rate ours is, at {plan.BUSY} connections (median of the rounds' ratios)."
    others = [name for name in systems if name != plan.OURS]
    rows = [
        (
            work,
            *(
                _times(results.ratio(arrangement, plan.OURS, name, work, plan.BUSY))
                for name in others
            ),
        )
        for work in works
    ]
    yield _table(("", *others), [row for row in rows if any(cell != "—" for cell in row[1:])])
    for work in works:
        yield from _work(results, arrangement, work)


def _work(results: Results, arrangement: str, work: Work) -> Iterator[str]:
    head = ("", "connections", "requests/s", "slowest – fastest round", "p50 ms", "p99 ms",
            "p99.9 ms", "server ms", "database ms", "errors")  # fmt: skip
    rows = []
    for name in results.systems:
        for connections in results.connections(arrangement, work):
            came = results.medians(arrangement, name, work, connections)
            if came is not None:
                rows.append((name, str(connections), *_cells(came)))
    yield f"**{work[0].upper()}{work[1:]}** (processor time is for one request)"
    yield _table(head, rows)


def _cells(came: Medians) -> tuple[str, ...]:
    return (
        f"{came.rate:,.0f}",
        f"{came.slowest:,.0f} – {came.fastest:,.0f}",
        _three(came.p50),
        _three(came.p99),
        _three(came.p999),
        _three(came.server),
        _three(came.database) if came.database else "—",
        str(came.errors),
    )


def _memory(measured: Measured) -> Iterator[str]:
    if not measured.memory:
        return
    yield "### Memory"
    rows = [
        (
            one.system,
            one.arrangement,
            f"{one.server:,.0f}",
            f"{one.database:,.0f}" if one.database else "—",
        )
        for one in measured.memory
    ]
    yield _table(("", "", "server's peak, MB", "database's processes, MB"), rows)


def _missing(measured: Measured) -> Iterator[str]:
    if measured.missing:
        yield "### Not measured"
        yield "\n".join(f"- {name}: {why}" for name, why in measured.missing.items())


def _came(
    results: Results, arrangement: str, system: str, work: Work, connections: int
) -> Medians | None:
    return results.medians(arrangement, system, work, connections)


def _rate(came: Medians | None) -> str:
    return f"{came.rate:,.0f}" if came is not None else "—"


def _times(ratio: float) -> str:
    return "—" if math.isnan(ratio) else _three(ratio)


def _three(value: float) -> str:
    """Return a number with three digits that count."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _table(head: Sequence[str], rows: Sequence[Row]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
