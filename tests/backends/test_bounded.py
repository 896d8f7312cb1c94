"""A slow key store keeps nobody waiting beyond the deadline, and its queue has an end."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from keys.algorithms import SPECS
from keys.backends import materials
from keys.backends.base import Backend, Health
from keys.backends.bounded import Bounded
from keys.backends.software.backend import SoftwareBackend
from keys.errors import BackendUnavailable, CannotDecrypt
from tests.backends.conftest import STORE_ID
from tests.backends.uses import check_use


class Slow(SoftwareBackend):
    """A software key store whose random generator waits to be let go."""

    def __init__(self) -> None:
        super().__init__(STORE_ID, {}, None)
        self.entered = threading.Semaphore(0)
        self.let_go = threading.Event()

    def random(self, count: int) -> bytes:
        self.entered.release()
        self.let_go.wait()
        return super().random(count)

    def health(self) -> Health:
        self.let_go.wait()
        return Health(True)


@pytest.fixture
def slow() -> Iterator[Slow]:
    backend = Slow()
    yield backend
    backend.let_go.set()


def test_a_call_that_takes_too_long_is_given_up(slow: Slow) -> None:
    bounded = Bounded(slow, workers=1, timeout=0.05)
    with pytest.raises(BackendUnavailable):
        bounded.random(1)
    health = bounded.health()
    assert not health.ok
    assert health.detail
    slow.let_go.set()
    bounded.close()


def test_when_every_place_is_taken_callers_are_refused_at_once(slow: Slow) -> None:
    bounded = Bounded(slow, workers=1, timeout=600, queue=1)
    with ThreadPoolExecutor(2) as callers:
        waiting = [callers.submit(bounded.random, 8)]
        slow.entered.acquire()  # the first is inside
        waiting.append(callers.submit(bounded.random, 8))
        while bounded._places.acquire(blocking=False):  # until the second stands in the queue
            bounded._places.release()
        with pytest.raises(BackendUnavailable, match="Too many"):
            bounded.random(8)
        slow.let_go.set()
        assert [len(one.result()) for one in waiting] == [8, 8]
    assert len(bounded.random(8)) == 8  # the places are free again
    bounded.close()


def test_what_waited_beyond_its_deadline_is_never_started(slow: Slow) -> None:
    bounded = Bounded(slow, workers=1, timeout=0.05)
    entered = False
    while not entered:  # until one call is inside and holds the only thread
        with pytest.raises(BackendUnavailable):
            bounded.random(1)
        entered = slow.entered.acquire(blocking=False)
    for _ in range(3):
        with pytest.raises(BackendUnavailable):
            bounded.random(1)
    slow.let_go.set()
    bounded._pool.shutdown(wait=True)
    assert not slow.entered.acquire(blocking=False)
    bounded.close()


def test_errors_and_answers_pass_through_unchanged(software: SoftwareBackend) -> None:
    bounded = Bounded(software, workers=2, timeout=60)
    assert (bounded.kind, bounded.protection) == (software.kind, software.protection)
    handle = bounded.generate(uuid.uuid4(), "AES_256").handle
    with pytest.raises(CannotDecrypt):
        bounded.decrypt(handle, "XAES_256_GCM", b"nonsense", b"")
    assert not bounded.inline(handle)
    bounded.close()


def test_a_closed_one_is_unavailable(software: SoftwareBackend) -> None:
    bounded = Bounded(software, workers=1, timeout=60)
    bounded.close()
    with pytest.raises(BackendUnavailable, match="closed"):
        bounded.random(1)


def test_every_use_of_the_contract_goes_through_the_pool() -> None:
    """A method that were left to the base class would answer 'not supported', or run unbounded."""
    public = {name for name in vars(Backend) if not name.startswith("_")}
    inherited = {name for name in public if name not in vars(Bounded)}
    # What no store behind a pool can promise, and what the wrapped store itself was made with.
    assert inherited == {"inline", "protection_with"}


def test_keys_for_others_go_through_a_pool_as_they_are(software: SoftwareBackend) -> None:
    bounded = Bounded(software, workers=2, timeout=60)
    for spec in ("AES_256", "RSA_2048", "X_WING", "X25519", "HMAC_256", "ML_DSA_44"):
        material = bounded.generate(uuid.uuid4(), spec, exportable=True)
        for usage in SPECS[spec].usages:
            check_use(bounded, spec, usage, material)
        out = bounded.export_material(material.handle)
        assert materials.check_value(SPECS[spec], out) == material.check_value
    bounded.close()
