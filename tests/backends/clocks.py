"""A clock that only a test moves: nobody sleeps."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

from keys.backends.breaker import Breaker, Clock

NOON = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


class ByHand(Clock):
    """Sleeping moves it. `luck` is what chance says, `slept` each wait in seconds."""

    def __init__(self) -> None:
        self.passed = 0.0
        self.luck = 1.0
        self.slept: list[float] = []
        self._lock = threading.Lock()

    def monotonic(self) -> float:
        return self.passed

    def now(self) -> datetime:
        return NOON + timedelta(seconds=self.passed)

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self.slept.append(seconds)
            self.passed += seconds

    def chance(self) -> float:
        return self.luck

    def until(self, breaker: Breaker) -> float:
        """How many seconds a breaker stays open from now."""
        return breaker._until - self.passed
