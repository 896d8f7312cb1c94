"""From samples to medians and ratios."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.uses.rounds import Sample
from bench.uses.work import Work

NOTHING = float("nan")


@dataclass(frozen=True, slots=True)
class Medians:
    """Medians over the rounds of one measurement; the slowest and fastest round's rate beside it."""

    rate: float
    slowest: float
    fastest: float
    p50: float
    p99: float
    p999: float
    server: float
    database: float
    errors: int


class Results:
    """The samples of a run, asked by arrangement, system, work and connections."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self._samples: dict[tuple[str, str, str, int], dict[int, Sample]] = {}
        for one in samples:
            key = (one.arrangement, one.system, one.work, one.connections)
            self._samples.setdefault(key, {})[one.round] = one
        self.systems = list(dict.fromkeys(one.system for one in samples))
        self.load = max((one.load for one in samples), default=0.0)
        self.rounds = len({one.round for one in samples})

    def connections(self, arrangement: str, work: Work) -> list[int]:
        """Return the numbers of connections that something was measured with."""
        found = {key[3] for key in self._samples if (key[0], key[2]) == (arrangement, work.value)}
        return sorted(found)

    def medians(
        self, arrangement: str, system: str, work: Work, connections: int
    ) -> Medians | None:
        """Return the medians, None where it was not measured."""
        found = list(self._samples.get((arrangement, system, work.value, connections), {}).values())
        if not found:
            return None

        def middle(of: Callable[[Sample], float]) -> float:
            return statistics.median(of(one) for one in found)

        return Medians(
            rate=middle(lambda one: one.rate),
            slowest=min(one.rate for one in found),
            fastest=max(one.rate for one in found),
            p50=middle(lambda one: one.p50),
            p99=middle(lambda one: one.p99),
            p999=middle(lambda one: one.p999),
            server=middle(lambda one: one.server),
            database=middle(lambda one: one.database),
            errors=sum(one.errors for one in found),
        )

    def ratio(
        self, arrangement: str, ours: str, theirs: str, work: Work, connections: int
    ) -> float:
        """Return how many times the other's rate ours is: the median of the rounds' own ratios, or NaN."""
        left = self._samples.get((arrangement, ours, work.value, connections), {})
        right = self._samples.get((arrangement, theirs, work.value, connections), {})
        found = [
            left[number].rate / right[number].rate
            for number in sorted(left.keys() & right.keys())
            if right[number].rate
        ]
        return statistics.median(found) if found else NOTHING
