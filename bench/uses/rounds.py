"""The rounds: all systems take turns with the same work, one at a time, the others held still."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench import parts
from bench.uses import machine, plan
from bench.uses.load import Loader, Missing
from bench.uses.plan import Arrangement, Plan
from bench.uses.systems import System, console, drf, moto, openbao, plain
from bench.uses.work import Work


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement. Waits and processor times are milliseconds, the latter for a request."""

    arrangement: str
    system: str
    work: str
    connections: int
    round: int
    rate: float  # requests a second
    p50: float
    p99: float
    p999: float
    server: float
    database: float
    load: float  # of the load generator, as a part of one core
    errors: int
    first_error: str = ""


@dataclass(frozen=True, slots=True)
class Memory:
    """MB: what the server had at most, and what its database's processes had at the end."""

    arrangement: str
    system: str
    server: float
    database: float


@dataclass(slots=True)
class Measured:
    """What came of a run; `missing` says why a system was not measured."""

    samples: list[Sample] = field(default_factory=list)
    memory: list[Memory] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)


def measure(wanted: Plan, say: Callable[[str], None]) -> Measured:
    """Run the whole plan. Raises Missing without the load generator, RuntimeError without ours."""
    made = Measured()
    with tempfile.TemporaryDirectory(prefix="kms-uses-", dir=parts._folder()) as folder:
        for number, one in enumerate(wanted.arrangements):
            if not one.cells:
                continue
            every = machine.cores()
            if one.pinned and len(every) < 2:
                made.missing[one.name] = "there is one core only"
                continue
            place = Path(folder) / str(number)
            place.mkdir()
            theirs, others = ([every[0]], every[1:]) if one.pinned else (every, every)
            begun = time.monotonic()
            with contextlib.ExitStack() as stack:
                loader = Loader(_within(place, "requests"))
                with machine.on(theirs):
                    systems = _start(stack, wanted, one, place, made.missing)
                with machine.on(others):
                    say(f"{one.name}: started in {time.monotonic() - begun:.0f} s")
                    _rounds(wanted, one, systems, loader, made, say)
    return made


def _within(folder: Path, name: str) -> Path:
    made = folder / name
    made.mkdir()
    return made


def _start(
    stack: contextlib.ExitStack,
    wanted: Plan,
    one: Arrangement,
    place: Path,
    missing: dict[str, str],
) -> list[System]:
    """Start every system that has something to do, and note those that can't be had."""
    starts: dict[str, Callable[[Path], contextlib.AbstractContextManager[System]]] = {
        openbao.NAME: openbao.running,
        plain.NAME: lambda folder: plain.running(folder, synced=False),
        plain.SYNCED: lambda folder: plain.running(folder, synced=True),
        moto.NAME: moto.running,
        drf.NAME: drf.running,
    }
    systems = list(_ours(stack, wanted, one, _within(place, "ours")))
    for name, start in starts.items():
        if wanted.wants(name):
            try:
                systems.append(stack.enter_context(start(_within(place, name.replace(" ", "-")))))
            except Missing as error:
                missing[name] = f"needs {error}"
            except RuntimeError as error:
                missing[name] = str(error)
    return systems


def _ours(
    stack: contextlib.ExitStack, wanted: Plan, one: Arrangement, place: Path
) -> Iterator[System]:
    """Start our web processes: one, one without its record, and several, all on one house."""
    if not wanted.wants(plan.OURS):
        return
    house = stack.enter_context(console.house(place))
    yield stack.enter_context(console.console(house, plan.OURS))
    if any(cell.takes(plan.SILENT) for cell in one.cells):
        application = console.SILENT
        yield stack.enter_context(console.console(house, plan.SILENT, application=application))
    name = plan.several(wanted.processes)
    if not one.pinned and wanted.processes > 1:
        yield stack.enter_context(console.console(house, name, processes=wanted.processes))


def _rounds(
    wanted: Plan,
    one: Arrangement,
    systems: Sequence[System],
    loader: Loader,
    made: Measured,
    say: Callable[[str], None],
) -> None:
    every = [pid for system in systems for pid in system.roots]
    for system in systems:
        loader.keep(system.name, system.requests)
    try:
        machine.pause(every)
        for number in range(wanted.rounds):
            begun = time.monotonic()
            # Each round begins with another system, so that no one always follows the same one.
            at = number % max(len(systems), 1)
            for cell in one.cells:
                for system in (*systems[at:], *systems[:at]):
                    if cell.takes(system.name) and cell.work in system.requests:
                        sample = _sample(loader, system, one.name, cell, number)
                        made.samples.append(sample)
                        if sample.errors:
                            say(f"{system.name}, {cell.work}: {sample.first_error}")
            say(f"{one.name}: round {number + 1} took {time.monotonic() - begun:.0f} s")
        for system in systems:
            server = sum(machine.peak(pid) for pid in system.parts["server"])
            database = machine.memory(system.parts.get("database", ()))
            made.memory.append(Memory(one.name, system.name, server, database))
    finally:
        machine.resume(every)


def _sample(
    loader: Loader, system: System, arrangement: str, cell: plan.Cell, number: int
) -> Sample:
    machine.resume(system.roots)
    try:
        before = {part: machine.processor(pids) for part, pids in system.parts.items()}
        came = loader(system.name, system.addresses, cell.work, cell.connections, cell.seconds)
        used = {
            part: (machine.processor(pids) - before[part]) * 1000 / max(came.served, 1)
            for part, pids in system.parts.items()
        }
    finally:
        machine.pause(system.roots)
    return Sample(
        arrangement=arrangement,
        system=system.name,
        work=Work(cell.work).value,
        connections=cell.connections,
        round=number,
        rate=came.requests / came.seconds,
        p50=came.p50,
        p99=came.p99,
        p999=came.p999,
        server=used["server"],
        database=used.get("database", 0.0),
        load=came.processor,
        errors=came.errors,
        first_error=came.first_error,
    )
