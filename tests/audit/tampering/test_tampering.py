"""Fourteen ways to tamper with a log, each from many seeds: all are found. Sound logs raise no alarm."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.audit.tampering.logs import Log, make
from tests.audit.tampering.mutations import (
    MUTATIONS,
    STRANGE,
    tampered,
    told_as_it_was,
    whole_and_old,
)
from tests.audit.tampering.placing import InDatabase, InFolder
from tests.databases import Database

FEW, MANY, CHUNK, CLEAN = 12, 1000, 250, 10_000
# What the walk over a database finds even for one who kept nothing and knows no keys.
ALONE = {"bit flip", "tile edit", "salt swap"}
LIVE = 4  # the evidence of every log is verified; of each four tampered ones two in a database too


@pytest.fixture
def live(database: Database) -> Iterator[InDatabase]:
    place = InDatabase(database.path)
    yield place
    place.close()


@pytest.fixture
def folder(tmp_path: Path) -> InFolder:
    return InFolder(tmp_path)


def differs(sound: Log, log: Log) -> bool:
    return (sound.bodies, sound.personal, sound.tiles, sound.notes) != (
        log.bodies,
        log.personal,
        log.tiles,
        log.notes,
    )


def all_found(name: str, seeds: range, live: InDatabase, folder: InFolder) -> None:
    for seed in seeds:
        sound, log = tampered(name, seed)
        assert differs(sound, log), f"{name} {seed} is no tampering"
        if not (seed // 2) % (
            LIVE // 2
        ):  # of each four seeds two in a row: one that is even, one odd
            old = whole_and_old(sound, log)
            assert live.verify(log).ok is old, f"{name} {seed} is not found in the database"
            if name in ALONE:
                assert not live.verify_alone(log).ok, f"{name} {seed} is not found without help"
        found = folder.verify(log)
        expected = 0 if told_as_it_was(sound, log) else 1
        assert found.exit_code == expected, f"{name} {seed}: {found.findings} {found.unchecked}"


def none_found(seeds: range, live: InDatabase, folder: InFolder) -> None:
    for seed in seeds:
        log = make(seed, 256 + seed % 30 if seed % 50 == 0 else None)
        if seed % 3 == 0:
            log.chosen = sorted({seed % 7, len(log.bodies) // 2, len(log.bodies) - 1})
        if seed % LIVE == 0:
            report = live.verify(log)
            assert report.ok, f"{seed}: {report.findings}"
        found = folder.verify(log)
        assert found.exit_code == 0, f"{seed}: {found.findings} {found.unchecked}"


def test_there_are_fourteen_classes() -> None:
    assert len(MUTATIONS) == 14


@pytest.mark.parametrize("name", MUTATIONS)
def test_tampering_is_found(name: str, live: InDatabase, folder: InFolder) -> None:
    all_found(name, range(FEW), live, folder)


@pytest.mark.parametrize("statement", STRANGE.values(), ids=STRANGE)
def test_a_strange_row_beside_the_log_is_found(statement: str, live: InDatabase) -> None:
    for seed in range(3):
        log = make(seed)
        assert live.verify_alone(log).ok
        assert not live.verify_alone(log, statement).ok, seed


def test_sound_logs_raise_no_alarm(live: InDatabase, folder: InFolder) -> None:
    none_found(range(24), live, folder)


@pytest.mark.exhaustive
@pytest.mark.parametrize("start", range(0, MANY, CHUNK))
@pytest.mark.parametrize("name", MUTATIONS)
def test_tampering_is_found_from_a_thousand_seeds(
    name: str, start: int, live: InDatabase, folder: InFolder
) -> None:
    all_found(name, range(start, min(start + CHUNK, MANY)), live, folder)


@pytest.mark.exhaustive
@pytest.mark.parametrize("start", range(0, CLEAN, CHUNK * 2))
def test_ten_thousand_sound_logs_raise_no_alarm(
    start: int, live: InDatabase, folder: InFolder
) -> None:
    none_found(range(start, start + CHUNK * 2), live, folder)
