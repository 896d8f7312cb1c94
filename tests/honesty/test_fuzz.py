"""A million malformed inputs: an answer or an error of ours, never anything else.

`make test` runs some thousands of them; the million, the operations with their entries and the real
API in larger numbers are marked exhaustive, in parts that spread over processes. A failure prints
its seed, and the same seed gives the same input.
"""

from __future__ import annotations

import uuid
import warnings
from collections.abc import Iterator

import pytest

from keys.algorithms import ALGORITHMS
from keys.backends.software.backend import SoftwareBackend, offers
from tests.databases import Database
from tests.honesty import fuzz
from tests.honesty.targets import Bench, words

MILLION, CHUNKS = 1_000_000, 40
STORE = uuid.UUID("5f0c6f5e-0d0b-4f4e-9f55-3a0f0a5c0003")


@pytest.fixture
def bench(database: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setenv("KMS_ROOT_KEY", "22" * 32)
    backend = SoftwareBackend(STORE, {}, None)
    with warnings.catch_warnings():
        # A library that warns of odd input only warns where the service runs.
        warnings.simplefilter("ignore")
        yield Bench(backend)
    backend.close()


def test_some_thousand_malformed_inputs(bench: Bench) -> None:
    counts = fuzz.run([*bench.targets(), *words()], 4_000, seed=1)
    assert sum(counts.values()) >= 4_000
    reached = {name.split()[1] for name in counts if name.split()[0] in ("decrypt", "verify")}
    able = {name for names in offers().values() for name in names}
    encrypting = {n for n in able if ALGORITHMS[n].usages[0] in ("ENCRYPT_DECRYPT", "SIGN_VERIFY")}
    assert encrypting <= reached


@pytest.mark.exhaustive
@pytest.mark.parametrize(("chunk", "count"), fuzz.chunks(MILLION, CHUNKS))
def test_a_million_malformed_inputs(bench: Bench, chunk: int, count: int) -> None:
    counts = fuzz.run([*bench.targets(), *words()], count, seed=1000 + chunk)
    assert sum(counts.values()) >= count


def test_a_seed_gives_the_same_input_again() -> None:
    for make in (fuzz.noise, fuzz.text, fuzz.name, fuzz.context, fuzz.value):
        first, again = (repr([make(fuzz.Rng(seed)) for seed in range(50)]) for _ in range(2))
        assert first == again
    goods = [bytes(range(100)), b"good"]
    first, again = ([fuzz.mutated(fuzz.Rng(seed), goods) for seed in range(500)] for _ in range(2))
    assert first == again
    assert 300 < len(set(first)) < 500
