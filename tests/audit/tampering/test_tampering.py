"""Fourteen ways to tamper with a log, each from many seeds: all are found. Sound logs raise no alarm."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.audit.tampering.logs import Log, make
from tests.audit.tampering.mutations import MUTATIONS, tampered
from tests.audit.tampering.placing import InDatabase, InFolder
from tests.databases import Database

FEW, MANY, CHUNK, CLEAN = 12, 1000, 250, 10_000
LIVE = 4  # the evidence of every log is verified, and each fourth log in a database too


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
        if not differs(sound, log):
            continue
        assert seed % LIVE or not live.verify(log).ok, f"{name} {seed} is not found in the database"
        found = folder.verify(log)
        assert found.exit_code == 1, f"{name} {seed} is not found in the evidence"
        assert found.findings


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
