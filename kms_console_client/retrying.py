"""When a call is tried again, and after how long.

Uses of keys are safe to repeat: none of them changes a key. Each try that reaches the service is a
use of its own, with an entry of its own in the audit trail, and counts against a version's budget of
messages.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from kms_console_client.errors import KmsError, Throttled, Unavailable, Unreachable

_random = random.SystemRandom()


@dataclass(frozen=True, slots=True)
class Retries:
    """How often a call is tried again, at most, and how long is waited before.

    `count` tries after the first. The first wait is up to `first` seconds, each further one up to
    twice as long, none over `most`; how long exactly is chosen at random, so that many clients don't
    come back together. A Retry-After is waited for on top of that, unless it asks for more than
    `patience` seconds: then the call fails at once.
    """

    count: int = 3
    first: float = 0.1
    most: float = 5.0
    patience: float = 30.0

    def __post_init__(self) -> None:
        if self.count < 0 or min(self.first, self.most, self.patience) < 0:
            raise ValueError("Retries are counted from 0, and so are their seconds.")

    def wait(self, error: KmsError, done: int, fraction: float | None = None) -> float | None:
        """Return the seconds until the next try after `done` retries; None: there is none.

        `fraction` (0 to 1) is chosen at random where it is left out.
        """
        if done >= self.count or not repeatable(error):
            return None
        asked = error.retry_after or 0.0
        if asked > self.patience:
            return None
        share = _random.random() if fraction is None else fraction
        return asked + share * min(self.most, self.first * 2.0**done)


def repeatable(error: KmsError) -> bool:
    """Whether the same request may succeed later: no answer, 429, or 503 that names a time."""
    if isinstance(error, Unreachable):
        return not error.final
    if isinstance(error, Unavailable):
        return error.retry_after is not None
    return isinstance(error, Throttled)
