"""Guessing is slowed down: after too many failures, a user name from one address must wait.

Kept in memory, so each process counts for itself; every failure also stands in the trail.
"""

from __future__ import annotations

import threading
import time
from collections import deque

FAILURES = 10
SECONDS = 15 * 60
# Beyond so many pairs of name and address the oldest are forgotten: nobody fills the memory.
PAIRS = 10_000

_lock = threading.Lock()
_failures: dict[tuple[str, str], deque[float]] = {}


def blocked(username: str, source: str, now: float | None = None) -> bool:
    """Whether this name has failed too often from this address; `now` is in seconds."""
    now = time.monotonic() if now is None else now
    with _lock:
        times = _failures.get(_pair(username, source))
        if times is None:
            return False
        while times and now - times[0] > SECONDS:
            times.popleft()
        return len(times) >= FAILURES


def failed(username: str, source: str, now: float | None = None) -> None:
    """Count one failure."""
    now = time.monotonic() if now is None else now
    with _lock:
        pair = _pair(username, source)
        times = _failures.pop(pair, None) or deque(maxlen=FAILURES)
        times.append(now)
        _failures[pair] = times
        while len(_failures) > PAIRS:
            _failures.pop(next(iter(_failures)))


def succeeded(username: str, source: str) -> None:
    """Forget the failures of a name that was proved."""
    with _lock:
        _failures.pop(_pair(username, source), None)


def forget() -> None:
    """Forget everything: for tests."""
    with _lock:
        _failures.clear()


def _pair(username: str, source: str) -> tuple[str, str]:
    return username.casefold()[:150], source
