"""How many messages a version has protected, for algorithms whose random nonces would run out.

A process takes a block of a version's budget from the database, durably, before it uses the first
message of it; a block that was not used up when the process died stays counted. So the count is
never below what was done, and above it by less than a block for each process.

Source of the limit: NIST SP 800-38D, 8.3.
"""

from __future__ import annotations

import os
import threading
import uuid
from dataclasses import dataclass

from django.conf import settings
from django.db import Error as DatabaseError
from django.db.models import F

from keys.algorithms import ALGORITHMS
from keys.errors import StateForbids, Unavailable
from keys.models import MessageCount

# A key is rotated once three quarters of its version's budget are handed out.
LOW_NUMERATOR, LOW_DENOMINATOR = 3, 4

# What this process still holds: (process, version) -> messages. A fork must not share its parent's.
_held: dict[tuple[int, uuid.UUID], int] = {}
_lock = threading.Lock()


class Empty(Exception):
    """This process holds nothing of the budget; the caller takes a block where it may wait."""


@dataclass(frozen=True, slots=True)
class Budget:
    """How much of a version's budget is handed out, in messages."""

    used: int
    limit: int

    @property
    def share(self) -> int:
        """Return what is handed out in percent, rounded up."""
        return -(-100 * self.used // self.limit)


def limit_of(algorithm: str) -> int | None:
    """Return how many messages one version may protect with an algorithm; None for no limit."""
    limit = ALGORITHMS[algorithm].message_limit
    return None if limit is None else min(limit, settings.MESSAGE_LIMIT)


def take(version_id: uuid.UUID, algorithm: str, *, wait: bool = True) -> None:
    """Count one message, before it is protected.

    Raises StateForbids where the budget is used up, Empty with `wait=False` where the database has
    to be asked, Unavailable where it can't be.
    """
    limit = limit_of(algorithm)
    if limit is None:
        return
    mine = (os.getpid(), version_id)
    with _lock:
        held = _held.get(mine, 0)
        if held:
            _held[mine] = held - 1
            return
    if not wait:
        raise Empty
    taken = _lease(version_id, limit)
    with _lock:
        _held[mine] = _held.get(mine, 0) + taken - 1


def budget(version_id: uuid.UUID, algorithm: str) -> Budget | None:
    """Return where a version's budget stands; None where its algorithm needs none."""
    limit = limit_of(algorithm)
    if limit is None:
        return None
    row = MessageCount.objects.filter(version_id=version_id).first()
    return Budget(row.leased if row else 0, min(limit, row.limit) if row else limit)


def forget() -> None:
    """Let go of what this process holds: for tests, which change databases."""
    with _lock:
        _held.clear()


def _lease(version_id: uuid.UUID, limit: int) -> int:
    """Take a block, or what is left, by compare-and-set; return how many messages it has."""
    try:
        MessageCount.objects.get_or_create(version_id=version_id, defaults={"limit": limit})
        while True:
            row = MessageCount.objects.get(version_id=version_id)
            ceiling = min(limit, row.limit)
            block = min(settings.COUNTER_BLOCK, ceiling - row.leased)
            if block < 1:
                raise StateForbids(
                    "The version has protected as many messages as its algorithm allows; rotate the key.",
                    state="budget_used_up",
                )
            low = (row.leased + block) * LOW_DENOMINATOR >= ceiling * LOW_NUMERATOR
            unchanged = MessageCount.objects.filter(version_id=version_id, leased=row.leased)
            if unchanged.update(leased=F("leased") + block, low=low):
                return block
    except DatabaseError:
        raise Unavailable("The database can't be reached now.") from None
