"""A circuit breaker: a key store that fails again and again is left alone for a while.

Closed, calls pass. After a number of outages in a row it opens: for a while, longer each time,
callers are answered at once that the store can't be reached. Then it is half open: one call goes
through, and what comes of it closes the circuit or opens it again (M. Nygard, Release It!, 5.2).

An outage is a store that did not answer, or said that it can't: a timeout, a broken connection, a
5xx. A store that asks for fewer calls or refuses the console is there. An answer that may have come
from this process (a signature verified here, a request found wrong) tells nothing of the store.
"""

from __future__ import annotations

import secrets
import threading
import time
import weakref
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from keys.errors import BackendRefused, BackendUnavailable, StillWaiting, Throttled

# Outages in a row that open the circuit.
OUTAGES = 5
# Outages further apart than this, in seconds, are not in a row.
APART_SECONDS = 60.0
# How long it stays open at first, and at the most, in seconds; each failed try doubles it.
OPEN_SECONDS = 5.0
LONGEST_SECONDS = 60.0

# The circuits of this process that are not closed, to be told by /readyz.
_broken: weakref.WeakSet[Breaker] = weakref.WeakSet()
_broken_lock = threading.Lock()


class Clock:
    """The time, waiting and chance, so that a test can bring its own."""

    def monotonic(self) -> float:
        """Return seconds that never run backwards."""
        return time.monotonic()

    def now(self) -> datetime:
        """Return the present time, aware, in UTC."""
        return datetime.now(UTC)

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def chance(self) -> float:
        """Return a random number, 0 <= x < 1."""
        return secrets.randbelow(1 << 32) / (1 << 32)


class Circuit(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half open"


def is_outage(error: BaseException) -> bool:
    """Whether an error means that the store itself is not there now."""
    there = (Throttled, BackendRefused, StillWaiting)
    return isinstance(error, BackendUnavailable) and not isinstance(error, there)


def broken_circuits() -> int:
    """Return how many key stores this process leaves alone now, after outages."""
    with _broken_lock:
        return len(_broken)


class Breaker:
    """The circuit to one key store. Every method may be called from several threads.

    Who calls the store asks `admit()` first, and then reports with `answered()`, `failed()` or
    `undecided()`.
    """

    def __init__(self, clock: Clock | None = None, *, outages: int = OUTAGES) -> None:
        self._clock = clock or Clock()
        self._outages = outages
        self._lock = threading.Lock()
        self._state = Circuit.CLOSED
        self._in_a_row = 0
        self._last = 0.0  # when the last outage was, of the monotonic clock
        self._openings = 0  # since it was closed
        self._until = 0.0  # of the monotonic clock
        self._until_date: datetime | None = None

    def admit(self) -> bool:
        """Let a call through; True where it is the one that tries a circuit which was open.

        Raises BackendUnavailable, saying until when, where the circuit is open.
        """
        with self._lock:
            if self._state is Circuit.CLOSED:
                return False
            now = self._clock.monotonic()
            if now >= self._until:
                self._state = Circuit.HALF_OPEN
                # Should the trial never report, the next one goes at this time.
                self._until = now + LONGEST_SECONDS
                return True
            raise self._refusal()

    def _refusal(self) -> BackendUnavailable:
        if self._state is Circuit.HALF_OPEN or self._until_date is None:
            return BackendUnavailable("The key store is just being tried again after outages.")
        return BackendUnavailable(
            f"The key store failed {self._in_a_row} times in a row; "
            f"it is left alone until {_written(self._until_date)}.",
            retry_at=self._until_date.isoformat(timespec="seconds"),
        )

    def answered(self) -> None:
        """The store did answer: the circuit is closed."""
        with self._lock:
            self._in_a_row = self._openings = 0
            if self._state is not Circuit.CLOSED:
                self._state, self._until_date = Circuit.CLOSED, None
                self._tell(False)

    def failed(self, *, trial: bool = False) -> None:
        """The store did not answer. `trial`: what admit() returned, or a check of its health."""
        with self._lock:
            if self._state is Circuit.CLOSED:
                now = self._clock.monotonic()
                if now - self._last > APART_SECONDS:
                    self._in_a_row = 0
                self._last = now
                self._in_a_row += 1
                if self._in_a_row >= self._outages:
                    self._open()
            elif trial and self._due():
                self._in_a_row += 1
                self._open()

    def undecided(self, *, trial: bool) -> None:
        """The call told nothing of the store. After a trial, the next call is another one."""
        with self._lock:
            if trial and self._state is Circuit.HALF_OPEN:
                self._state, self._until = Circuit.OPEN, self._clock.monotonic()

    def _due(self) -> bool:
        # Somebody who went in before it opened, or asks early, doesn't make the wait longer.
        return self._state is Circuit.HALF_OPEN or self._clock.monotonic() >= self._until

    def _open(self) -> None:
        longest = min(LONGEST_SECONDS, OPEN_SECONDS * 2.0 ** min(self._openings, 10))
        # At least half of it, the rest by chance: processes that opened together try apart.
        seconds = longest * (1 + self._clock.chance()) / 2
        self._openings += 1
        self._state = Circuit.OPEN
        self._until = self._clock.monotonic() + seconds
        self._until_date = self._clock.now() + timedelta(seconds=seconds)
        self._tell(True)

    def _tell(self, broken: bool) -> None:
        with _broken_lock:
            (_broken.add if broken else _broken.discard)(self)

    def close(self) -> None:
        """The store is not used from here any more."""
        self._tell(False)

    @property
    def state(self) -> Circuit:
        with self._lock:
            return self._state

    def told(self) -> str:
        """Return the state in a few words for a person: "closed", or "open until ..."."""
        with self._lock:
            if self._state is Circuit.OPEN and self._until_date is not None:
                return f"open until {_written(self._until_date)}"
            return str(self._state)


def _written(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
