"""A slow key store keeps nobody waiting beyond the deadline, and its queue has an end.

A store that fails for a moment is asked again, one that keeps failing is left alone, and neither
stalls another one.
"""

from __future__ import annotations

import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import timedelta

import pytest

from keys.algorithms import SPECS
from keys.backends import materials
from keys.backends.base import Backend, Health
from keys.backends.bounded import FIRST_WAIT, LONGEST_WAIT, TRIES, Bounded
from keys.backends.breaker import OPEN_SECONDS, OUTAGES
from keys.backends.software.backend import SoftwareBackend
from keys.backends.views import KeyView
from keys.errors import (
    BackendError,
    BackendRefused,
    BackendUnavailable,
    CannotDecrypt,
    Invalid,
    KeyServiceError,
    StillWaiting,
    Throttled,
    Unsupported,
)
from keys.secret import Secret
from keys.states import KeyState
from tests.backends.clocks import NOON, ByHand
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
    assert inherited == {"inline", "needs_root_key", "protection_with"}


def test_keys_for_others_go_through_a_pool_as_they_are(software: SoftwareBackend) -> None:
    bounded = Bounded(software, workers=2, timeout=60)
    for spec in ("AES_256", "RSA_2048", "X_WING", "X25519", "HMAC_256", "ML_DSA_44"):
        material = bounded.generate(uuid.uuid4(), spec, exportable=True)
        for usage in SPECS[spec].usages:
            check_use(bounded, spec, usage, material)
        out = bounded.export_material(material.handle)
        assert materials.check_value(SPECS[spec], out) == material.check_value
    bounded.close()


# --- what fails for a moment


class Failing(SoftwareBackend):
    """A software key store that raises `errors` first, one a call, whatever is asked of it."""

    def __init__(self) -> None:
        super().__init__(STORE_ID, {}, None)
        self.errors: list[KeyServiceError] = []
        self.calls = 0
        self.ill = ""

    def __getattribute__(self, name: str) -> object:
        found = super().__getattribute__(name)
        if name not in CONTRACT:
            return found

        def call(*arguments: object, **named: object) -> object:
            self.calls += 1
            if self.errors:
                raise self.errors.pop(0)
            return found(*arguments, **named)

        return call

    def health(self) -> Health:
        return Health(not self.ill, self.ill, {"version": "1"})


CONTRACT = {name for name in vars(Backend) if not name.startswith("_")} - {
    "protection_with", "check_settings", "close", "health", "kind", "needs_root_key", "protection"
}  # fmt: skip


@pytest.fixture
def clock() -> ByHand:
    return ByHand()


@pytest.fixture
def failing() -> Failing:
    return Failing()


@pytest.fixture
def bounded(failing: Failing, clock: ByHand) -> Iterator[Bounded]:
    one = Bounded(failing, workers=4, timeout=60, clock=clock)
    yield one
    one.close()


def outages(count: int) -> list[KeyServiceError]:
    return [BackendUnavailable(f"The connection broke ({number}).") for number in range(count)]


BELIEF = KeyView("", "invoices", KeyState.ENABLED)
# Every use of the contract that goes to the store, and how it is called. None of these would find
# anything there: it is only counted how often they ask.
REPEATED: dict[str, Callable[[Backend], object]] = {
    "capabilities": lambda store: store.capabilities(),
    "find": lambda store: store.find(uuid.uuid4()),
    "export_material": lambda store: store.export_material("x"),
    "destroy": lambda store: store.destroy("x"),
    "destroy_all": lambda store: store.destroy_all(["x"]),
    "remove": lambda store: store.remove("x"),
    "suspend": lambda store: store.suspend("x"),
    "resume": lambda store: store.resume("x"),
    "deactivate": lambda store: store.deactivate("x"),
    "discover": lambda store: store.discover(),
    "inspect": lambda store: store.inspect("x"),
    "observe": lambda store: store.observe(BELIEF),
    "conform": lambda store: store.conform(BELIEF),
    "encrypt": lambda store: store.encrypt("x", "AES_256_GCM", b"", b""),
    "decrypt": lambda store: store.decrypt("x", "AES_256_GCM", b"", b""),
    "sign": lambda store: store.sign("x", "ECDSA_SHA_256", b""),
    "verify": lambda store: store.verify("x", "ECDSA_SHA_256", b"", b""),
    "mac": lambda store: store.mac("x", "HMAC_SHA_256", b""),
    "verify_mac": lambda store: store.verify_mac("x", "HMAC_SHA_256", b"", b""),
    "wrap": lambda store: store.wrap("x", "AES_KWP", bytes(16)),
    "unwrap": lambda store: store.unwrap("x", "AES_KWP", bytes(24)),
    "agree": lambda store: store.agree("x", "ECDH", b""),
    "decapsulate": lambda store: store.decapsulate("x", "ML_KEM", b""),
    "derive": lambda store: store.derive("x", "HKDF_SHA_256", salt=b"", info=b"", length=16),
    "random": lambda store: store.random(1),
}
ONCE: dict[str, Callable[[Backend], object]] = {
    "generate": lambda store: store.generate(uuid.uuid4(), "AES_256"),
    "import_material": lambda store: store.import_material(
        uuid.uuid4(), "AES_256", Secret(bytes(range(32)))
    ),
}
# They reach for nothing at the store.
LOCAL = {"check_destroyable", "expressed", "inline"}


def test_each_use_of_the_contract_is_either_repeated_or_not() -> None:
    assert set(REPEATED) | set(ONCE) | LOCAL == CONTRACT


@pytest.mark.parametrize("name", REPEATED)
def test_what_is_safe_to_repeat_is_tried_again(
    name: str, bounded: Bounded, failing: Failing
) -> None:
    failing.errors = outages(TRIES)
    with pytest.raises(BackendUnavailable, match=f"broke .{TRIES - 1}."):
        REPEATED[name](bounded)
    assert failing.calls == TRIES


@pytest.mark.parametrize("name", ONCE)
def test_what_makes_material_is_asked_for_once(
    name: str, bounded: Bounded, failing: Failing, clock: ByHand
) -> None:
    """It may have been done: only who knows what was intended can find out."""
    for error in (outages(1)[0], Throttled(retry_after=0.1)):
        failing.errors, failing.calls = [error], 0
        with pytest.raises(BackendUnavailable) as caught:
            ONCE[name](bounded)
        assert caught.value is error
        assert (failing.calls, clock.slept) == (1, [])


def test_a_store_that_comes_back_is_not_noticed(
    bounded: Bounded, failing: Failing, clock: ByHand
) -> None:
    failing.errors = outages(TRIES - 1)
    assert len(bounded.random(8)) == 8
    assert failing.calls == TRIES
    assert clock.slept == [FIRST_WAIT, FIRST_WAIT * 2]


def test_the_waits_between_tries_are_by_chance_and_never_long(
    bounded: Bounded, failing: Failing, clock: ByHand
) -> None:
    clock.luck = 0.25
    failing.errors = outages(1)
    bounded.random(8)
    assert clock.slept == [FIRST_WAIT / 4]
    assert max(FIRST_WAIT * 2.0**turn for turn in range(TRIES - 1)) <= LONGEST_WAIT


def test_no_try_begins_beyond_the_callers_deadline(failing: Failing, clock: ByHand) -> None:
    bounded = Bounded(failing, workers=1, timeout=FIRST_WAIT * 2, clock=clock)
    failing.errors = outages(TRIES)
    with pytest.raises(BackendUnavailable):
        bounded.random(8)
    assert failing.calls == 2
    assert sum(clock.slept) < FIRST_WAIT * 2
    bounded.close()


@pytest.mark.parametrize(
    "error",
    [
        BackendRefused("The token expired."),
        StillWaiting(until=NOON + timedelta(days=7)),
        CannotDecrypt(),
        Unsupported(),
        BackendError(),
    ],
    ids=lambda error: error.code,
)
def test_what_will_not_change_is_not_tried_again(
    bounded: Bounded, failing: Failing, clock: ByHand, error: KeyServiceError
) -> None:
    failing.errors = [error]
    with pytest.raises(KeyServiceError) as caught:
        bounded.random(8)
    assert caught.value is error
    assert (failing.calls, clock.slept) == (1, [])


def test_its_own_deadline_is_not_tried_again(slow: Slow) -> None:
    bounded = Bounded(slow, workers=2, timeout=0.05)
    with pytest.raises(BackendUnavailable, match="not known"):
        bounded.random(1)
    slow.let_go.set()
    bounded._pool.shutdown(wait=True)
    entered = 0
    while slow.entered.acquire(blocking=False):
        entered += 1
    assert entered <= 1
    bounded.close()


def test_a_store_that_asks_for_fewer_calls_is_given_the_time_it_asked_for(
    bounded: Bounded, failing: Failing, clock: ByHand
) -> None:
    clock.luck = 0.5
    failing.errors = [Throttled(retry_after=7), Throttled()]
    assert len(bounded.random(8)) == 8
    assert clock.slept == [7 + FIRST_WAIT / 2, FIRST_WAIT]


def test_a_store_that_asks_for_more_time_than_there_is_is_told_to_the_caller(
    bounded: Bounded, failing: Failing, clock: ByHand
) -> None:
    failing.errors = [Throttled(retry_after=61)]
    with pytest.raises(Throttled) as caught:
        bounded.random(8)
    assert caught.value.retry_after == 61
    assert (failing.calls, clock.slept) == (1, [])


# --- what keeps failing


def broken(bounded: Bounded, failing: Failing) -> None:
    failing.errors = outages(OUTAGES)
    while failing.errors:
        with pytest.raises(BackendUnavailable, match="broke"):
            bounded.random(8)
    failing.calls = 0


def test_a_store_that_keeps_failing_is_left_alone_and_callers_are_answered_at_once(
    bounded: Bounded, failing: Failing, clock: ByHand
) -> None:
    broken(bounded, failing)
    for call in (*REPEATED.values(), *ONCE.values()):
        with pytest.raises(BackendUnavailable, match="left alone until 2026-03-01 12:00:"):
            call(bounded)
    assert failing.calls == 0
    clock.sleep(OPEN_SECONDS)
    assert len(bounded.random(8)) == 8
    assert failing.calls == 1


def test_one_trial_that_fails_is_one_call(
    bounded: Bounded, failing: Failing, clock: ByHand
) -> None:
    broken(bounded, failing)
    clock.sleep(OPEN_SECONDS)
    failing.errors = outages(TRIES)
    with pytest.raises(BackendUnavailable, match="broke"):
        bounded.random(8)
    assert failing.calls == 1, "it opened again: no further try"
    with pytest.raises(BackendUnavailable, match="left alone"):
        bounded.random(8)


def test_refusals_and_wrong_requests_never_open_the_circuit(
    bounded: Bounded, failing: Failing
) -> None:
    for error in (BackendRefused(), Throttled(retry_after=600), CannotDecrypt(), BackendError()):
        for _ in range(OUTAGES * 2):
            failing.errors = [error]
            with pytest.raises(type(error)):
                bounded.random(8)
    assert len(bounded.random(8)) == 8
    assert bounded.health().facts["circuit"] == "closed"


def test_what_this_process_answers_itself_hides_no_outage(
    software: SoftwareBackend, bounded: Bounded, failing: Failing, clock: ByHand
) -> None:
    """A signature verified here and a request found wrong come between; the store is away all the same."""
    signer = failing.generate(uuid.uuid4(), "ECC_NIST_P256")
    signature = failing.sign(signer.handle, "ECDSA_SHA_256", b"x")
    known = bounded.capabilities()
    failing.calls = 0
    with pytest.raises(BackendUnavailable, match="left alone"):
        while failing.calls < OUTAGES * 10:
            failing.errors = outages(1)
            with pytest.raises(BackendUnavailable, match="broke"):
                bounded.generate(uuid.uuid4(), "AES_256")
            assert bounded.verify(signer.handle, "ECDSA_SHA_256", b"x", signature)
            with pytest.raises(Invalid):
                bounded.random(0)
    assert bounded.capabilities() == known, "as far as it is known"
    clock.sleep(OPEN_SECONDS)
    with pytest.raises(Invalid):
        bounded.random(0)
    failing.errors = outages(1)
    with pytest.raises(BackendUnavailable, match="broke"):
        bounded.random(1)
    with pytest.raises(BackendUnavailable, match="left alone"):
        bounded.random(1)


def test_a_check_of_its_health_always_asks_and_closes_the_circuit(
    bounded: Bounded, failing: Failing, clock: ByHand
) -> None:
    assert bounded.health() == Health(True, "", {"version": "1", "circuit": "closed"})
    broken(bounded, failing)
    failing.ill = "Its disk is full."
    told = bounded.health()
    assert (told.ok, told.detail) == (False, "Its disk is full.")
    assert told.facts["circuit"].startswith("open until 2026-03-01 12:00:")
    clock.sleep(OPEN_SECONDS)
    # Due, and still ill: the wait gets longer.
    assert bounded.health().facts["circuit"] != told.facts["circuit"]
    with pytest.raises(BackendUnavailable, match="left alone"):
        bounded.random(8)
    failing.ill = ""
    assert bounded.health().facts["circuit"] == "closed"
    assert len(bounded.random(8)) == 8


def test_an_ill_store_whose_circuit_is_closed_is_still_asked(
    bounded: Bounded, failing: Failing
) -> None:
    failing.ill = "The token expired."
    for _ in range(OUTAGES * 2):
        assert bounded.health().facts["circuit"] == "closed"
    assert len(bounded.random(8)) == 8


# --- one dead store, and the others


class Remote(SoftwareBackend):
    """A software key store whose random bytes come from a server, over a real connection."""

    def __init__(self, port: int) -> None:
        super().__init__(STORE_ID, {}, None)
        self.port = port

    def random(self, count: int) -> bytes:
        try:
            with socket.create_connection(("127.0.0.1", self.port)) as line:
                if answer := line.recv(count):
                    return answer
        except OSError:
            pass
        raise BackendUnavailable("The connection broke.")


def test_a_store_that_hangs_stalls_no_other(software: SoftwareBackend) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as hanging:  # takes, never answers
        dead = Bounded(Remote(hanging.getsockname()[1]), workers=4, timeout=600)
        alive = Bounded(software, workers=4, timeout=600)
        handle = alive.generate(uuid.uuid4(), "AES_256").handle
        taken: list[socket.socket] = []
        with ThreadPoolExecutor(16) as many, ThreadPoolExecutor(8) as callers:
            stuck = [many.submit(dead.random, 8) for _ in range(16)]
            taken.extend(hanging.accept()[0] for _ in range(4))  # every thread it has is inside

            def work(turn: int) -> bytes:
                sealed = alive.encrypt(handle, "AES_256_GCM", b"%d" % turn, b"")
                return alive.decrypt(handle, "AES_256_GCM", sealed, b"")

            assert list(callers.map(work, range(200))) == [b"%d" % turn for turn in range(200)]
            assert alive.health().ok
            assert not any(one.done() for one in stuck), "the dead one keeps its own callers only"
            hanging.close()
            for line in taken:
                line.close()
            wait(stuck)
        assert {type(one.exception()) for one in stuck} == {BackendUnavailable}
        alive.close()
        dead.close()
