"""What is measured, how often and how long: under twenty minutes as a whole."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.uses.work import Work

BUSY = 16
CONNECTIONS = (1, BUSY, 64)
ONE_CORE, FREE = "one core", "all cores"
OURS, SILENT = "KMS Console", "KMS Console, audit off"
SINGLE = (Work.DECRYPT, Work.DATA_KEY, Work.SIGN_P256, Work.SIGN_ED25519)
BATCHES = (Work.BATCH_1K, Work.BATCH_100)
PLAIN_GCM = (Work.BATCH_1K_GCM, Work.BATCH_100_GCM)


def several(processes: int) -> str:
    """Return the name of ours with several web processes on one database."""
    return f"{OURS}, {processes} processes"


@dataclass(frozen=True, slots=True)
class Cell:
    """One measurement of a round, for each system that can do the work and is not left out."""

    work: Work
    connections: int
    seconds: float
    without: frozenset[str] = frozenset()

    def takes(self, system: str) -> bool:
        return system not in self.without


@dataclass(frozen=True, slots=True)
class Arrangement:
    """Who gets which cores, and what is measured then."""

    name: str
    pinned: bool
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole run. `systems` and `works` narrow it down, for trying."""

    rounds: int
    processes: int
    arrangements: tuple[Arrangement, ...]
    systems: tuple[str, ...] = ()
    write: bool = False
    again: bool = False
    arguments: Sequence[str] = field(default=())

    def wants(self, system: str) -> bool:
        return not self.systems or any(part in system.lower() for part in self.systems)


def read(arguments: Sequence[str]) -> Plan:
    """Return the plan that a command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m bench uses")
    parser.add_argument("--quick", action="store_true", help="two rounds of a second each")
    parser.add_argument("--rounds", type=int, help="five where not told")
    parser.add_argument("--processes", type=int, default=2, help="web processes on one database")
    parser.add_argument("--systems", default="", help="parts of names: console,openbao,go,drf,moto")
    parser.add_argument("--works", default="", help="parts of names: encrypt,data key,sign")
    parser.add_argument("--write", action="store_true", help="write the page docs/benchmarks.md")
    parser.add_argument(
        "--again", action="store_true", help="tell of the last run; measure nothing"
    )
    options = parser.parse_args(arguments)
    arrangements = _quick(options.processes) if options.quick else _whole(options.processes)
    if wanted := _words(options.works):
        arrangements = tuple(_only(one, wanted) for one in arrangements)
    return Plan(
        rounds=options.rounds or (2 if options.quick else 5),
        processes=options.processes,
        arrangements=arrangements,
        systems=_words(options.systems),
        write=options.write,
        again=options.again,
        arguments=arguments,
    )


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip().lower() for word in text.split(",") if word.strip())


def _only(one: Arrangement, wanted: Sequence[str]) -> Arrangement:
    cells = tuple(
        cell for cell in one.cells if any(word in cell.work.value.lower() for word in wanted)
    )
    return Arrangement(one.name, one.pinned, cells)


def _whole(processes: int) -> tuple[Arrangement, ...]:
    loud, crowd = frozenset({SILENT}), frozenset({several(processes)})
    one = [Cell(Work.ENCRYPT, number, 1.6, _but(number, loud)) for number in CONNECTIONS]
    for work in (*SINGLE, *BATCHES):
        for number in CONNECTIONS:
            seconds = 1.0 if number == BUSY else 0.6
            beside = _but(number, loud) if work is Work.BATCH_1K else loud
            one.append(Cell(work, number, seconds, beside))
    one += [Cell(work, BUSY, 1.0, loud) for work in PLAIN_GCM]
    free = [
        Cell(Work.ENCRYPT, 1, 1.2, loud | crowd),
        Cell(Work.ENCRYPT, BUSY, 1.2),
        Cell(Work.ENCRYPT, 64, 1.2, loud),
        Cell(Work.BATCH_1K, BUSY, 1.0, crowd),
    ]
    free += [Cell(work, BUSY, 1.0, loud | crowd) for work in (Work.BATCH_100, *PLAIN_GCM)]
    return (Arrangement(ONE_CORE, True, tuple(one)), Arrangement(FREE, False, tuple(free)))


def _but(connections: int, others: frozenset[str]) -> frozenset[str]:
    """Return who is left out: nobody at the number of connections that all is compared at."""
    return frozenset() if connections == BUSY else others


def _quick(processes: int) -> tuple[Arrangement, ...]:
    loud, crowd = frozenset({SILENT}), frozenset({several(processes)})
    one = [Cell(Work.ENCRYPT, number, 1.0, loud) for number in (1, 64)]
    one += [Cell(work, BUSY, 1.0) for work in (Work.ENCRYPT, Work.BATCH_1K)]
    one += [Cell(work, BUSY, 1.0, loud) for work in (*SINGLE, Work.BATCH_100, *PLAIN_GCM)]
    free = [Cell(Work.ENCRYPT, 1, 1.0, loud | crowd), Cell(Work.ENCRYPT, BUSY, 1.0, loud)]
    free += [Cell(Work.BATCH_100, BUSY, 1.0, loud | crowd)]
    return (Arrangement(ONE_CORE, True, tuple(one)), Arrangement(FREE, False, tuple(free)))
