"""A key store that fails again and again is left alone for a while, then tried by one call."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from keys.backends.breaker import (
    APART_SECONDS,
    LONGEST_SECONDS,
    OPEN_SECONDS,
    OUTAGES,
    Breaker,
    Circuit,
    broken_circuits,
    is_outage,
)
from keys.errors import (
    BackendError,
    BackendRefused,
    BackendUnavailable,
    CannotDecrypt,
    StillWaiting,
    Throttled,
)
from tests.backends.clocks import NOON, ByHand


@pytest.fixture
def clock() -> ByHand:
    return ByHand()


def opened(breaker: Breaker) -> Breaker:
    for _ in range(OUTAGES):
        assert not breaker.admit()
        breaker.failed()
    return breaker


def refusal(breaker: Breaker) -> BackendUnavailable:
    with pytest.raises(BackendUnavailable) as caught:
        breaker.admit()
    return caught.value


def test_only_a_store_that_is_not_there_counts() -> None:
    assert is_outage(BackendUnavailable())
    answers = (Throttled(), BackendRefused(), StillWaiting(until=datetime.now(UTC)))
    for error in (*answers, BackendError(), CannotDecrypt(), ValueError()):
        assert not is_outage(error), error


def test_it_opens_after_outages_in_a_row_and_says_until_when(clock: ByHand) -> None:
    breaker = Breaker(clock)
    for _ in range(OUTAGES - 1):
        breaker.failed()
    breaker.answered()  # not in a row
    for _ in range(OUTAGES - 1):
        breaker.failed()
    assert not breaker.admit()
    assert breaker.state is Circuit.CLOSED
    breaker.failed()
    assert breaker.state is Circuit.OPEN
    told = refusal(breaker)
    assert f"failed {OUTAGES} times in a row" in told.detail
    assert "2026-03-01 12:00:05 UTC" in told.detail
    assert told.extra == {"retry_at": "2026-03-01T12:00:05+00:00"}
    assert breaker.told() == "open until 2026-03-01 12:00:05 UTC"


def test_one_call_tries_it_and_the_others_wait_for_what_comes_of_it(clock: ByHand) -> None:
    breaker = opened(Breaker(clock))
    clock.sleep(OPEN_SECONDS - 0.01)
    refusal(breaker)
    clock.sleep(0.01)
    gate = threading.Barrier(8)

    def admitted(_: int) -> bool:
        gate.wait()
        try:
            return breaker.admit()
        except BackendUnavailable as error:
            assert "just being tried" in error.detail
            return False

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(admitted, range(8))) == [False] * 7 + [True]
    assert breaker.told() == "half open"
    breaker.answered()
    assert breaker.told() == "closed"
    assert not breaker.admit()


def test_each_failed_trial_makes_the_wait_longer_to_a_limit(clock: ByHand) -> None:
    breaker = opened(Breaker(clock))
    waits = [clock.until(breaker)]
    for _ in range(6):
        clock.sleep(clock.until(breaker))
        assert breaker.admit()
        breaker.failed(trial=True)
        waits.append(clock.until(breaker))
    assert waits == [5, 10, 20, 40, 60, 60, 60]
    clock.sleep(LONGEST_SECONDS)
    assert breaker.admit()
    breaker.answered()
    assert clock.until(opened(breaker)) == 5, "it begins anew"


def test_chance_takes_up_to_half_of_the_wait_off(clock: ByHand) -> None:
    clock.luck = 0.0
    assert clock.until(opened(Breaker(clock))) == OPEN_SECONDS / 2
    clock.luck = 0.5
    assert clock.until(opened(Breaker(clock))) == OPEN_SECONDS * 3 / 4


def test_who_was_inside_when_it_opened_makes_the_wait_no_longer(clock: ByHand) -> None:
    breaker = opened(Breaker(clock))
    breaker.failed()
    breaker.failed(trial=True)  # a check of its health, too early
    assert clock.until(breaker) == OPEN_SECONDS
    clock.sleep(OPEN_SECONDS)
    assert breaker.admit()
    breaker.failed()  # somebody late; not the trial
    assert breaker.state is Circuit.HALF_OPEN
    breaker.answered()  # one late answer is an answer
    assert breaker.state is Circuit.CLOSED


def test_a_trial_that_never_reports_does_not_close_the_door_for_ever(clock: ByHand) -> None:
    breaker = opened(Breaker(clock))
    clock.sleep(OPEN_SECONDS)
    assert breaker.admit()
    clock.sleep(LONGEST_SECONDS - 1)
    refusal(breaker)
    clock.sleep(1)
    assert breaker.admit()


def test_outages_far_apart_are_not_in_a_row(clock: ByHand) -> None:
    breaker = Breaker(clock)
    for _ in range(OUTAGES * 3):
        clock.sleep(APART_SECONDS + 1)
        breaker.failed()
    assert breaker.state is Circuit.CLOSED
    for _ in range(OUTAGES - 1):
        clock.sleep(APART_SECONDS)
        breaker.failed()
    assert breaker.state is Circuit.OPEN


def test_a_call_that_tells_nothing_changes_nothing_and_a_trial_is_made_again(
    clock: ByHand,
) -> None:
    breaker = Breaker(clock)
    for _ in range(OUTAGES - 1):
        breaker.failed()
        breaker.undecided(trial=False)
    breaker.failed()
    assert breaker.state is Circuit.OPEN
    clock.sleep(OPEN_SECONDS)
    assert breaker.admit()
    breaker.undecided(trial=False)  # somebody else
    refusal(breaker)
    breaker.undecided(trial=True)
    assert breaker.admit(), "the next one tries it"


def test_the_open_circuits_of_a_process_are_counted(clock: ByHand) -> None:
    before = broken_circuits()
    one, other = opened(Breaker(clock)), opened(Breaker(clock))
    assert broken_circuits() == before + 2
    clock.sleep(OPEN_SECONDS)
    assert one.admit()
    assert broken_circuits() == before + 2, "half open is not closed"
    one.answered()
    other.close()
    assert broken_circuits() == before
    assert NOON + timedelta(seconds=OPEN_SECONDS) == clock.now()
