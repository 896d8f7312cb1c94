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
from collections.abc import Iterable
from dataclasses import dataclass

from django.conf import settings
from django.db import Error as DatabaseError
from django.db import transaction
from django.db.models import F

from keys.algorithms import ALGORITHMS
from keys.errors import StateForbids, Unavailable
from keys.models import MessageCount

# A key is rotated once three quarters of its version's budget are handed out.
LOW_NUMERATOR, LOW_DENOMINATOR = 3, 4
# No block is more than so small a part of the budget, or one process alone would use up a small one.
LEAST_BLOCKS = 64
# Held back from every version for the proofs that its material works: one each time it is made,
# adopted after a crash, or brought again (keys/backends/proof.py). They happen before the version
# serves, in whichever process carries out the job; a lease for each would waste a block.
RESERVED = 65_536

# What this process still holds of each version's budget, in messages, and which are used up for good.
_held: dict[uuid.UUID, int] = {}
_used_up: set[uuid.UUID] = set()
_lock = threading.Lock()
# One thread leases at a time; the others find what it brought. Else each would take a block.
_leasing = threading.Lock()


class Empty(Exception):
    """This process holds nothing of the budget; the caller takes a block where it may wait."""


@dataclass(frozen=True, slots=True)
class Budget:
    """How much of a version's budget is handed out, in messages. `low`: the key has to be rotated."""

    used: int
    limit: int
    low: bool = False

    @property
    def left(self) -> int:
        return max(self.limit - self.used, 0)

    @property
    def share(self) -> int:
        """Return what is handed out in percent, rounded up, 100 at most."""
        return min(-(-100 * self.used // self.limit), 100)


def limit_of(algorithm: str) -> int | None:
    """Return how many messages one version may protect with an algorithm; None for no limit."""
    limit = ALGORITHMS[algorithm].message_limit
    return None if limit is None else min(limit - RESERVED, settings.MESSAGE_LIMIT)


def take(version_id: uuid.UUID, algorithm: str, *, wait: bool = True) -> None:
    """Count one message, before it is protected.

    Raises StateForbids where the budget is used up, Empty with `wait=False` where the database has
    to be asked, Unavailable where it can't be, RuntimeError where a lease is needed inside a
    transaction: rolled back, it would have counted too little.
    """
    limit = limit_of(algorithm)
    if limit is None or _take_held(version_id):
        return
    if not wait:
        raise Empty
    with _leasing:
        if _take_held(version_id):
            return  # another thread was quicker
        block = _lease(version_id, limit)
        with _lock:
            if not block:
                _used_up.add(version_id)
                raise _nothing_left()
            _held[version_id] = block - 1


def budget(version_id: uuid.UUID, algorithm: str) -> Budget | None:
    """Return where a version's budget stands; None where its algorithm needs none."""
    return budgets([(version_id, algorithm)]).get(version_id)


def budgets(versions: Iterable[tuple[uuid.UUID, str]]) -> dict[uuid.UUID, Budget]:
    """Return where the budgets of many versions, each with its algorithm, stand: one query.

    A version whose algorithm needs no budget is left out.
    """
    limits = {identity: limit_of(algorithm) for identity, algorithm in versions}
    limited = {identity: limit for identity, limit in limits.items() if limit is not None}
    rows = MessageCount.objects.in_bulk(limited) if limited else {}
    found = {}
    for identity, limit in limited.items():
        row = rows.get(identity)
        found[identity] = (
            Budget(row.leased, min(limit, row.limit), row.low) if row else Budget(0, limit)
        )
    return found


def forget() -> None:
    """Let go of what this process holds: after a fork, and for tests, which change databases."""
    global _lock, _leasing
    _lock, _leasing = threading.Lock(), threading.Lock()
    _held.clear()
    _used_up.clear()


# A fork must not share its parent's block, nor wait for a lock that a thread of its parent holds.
os.register_at_fork(after_in_child=forget)


def _take_held(version_id: uuid.UUID) -> bool:
    """Take a message from what this process holds. Raises StateForbids where the budget is used up."""
    with _lock:
        held = _held.get(version_id, 0)
        if held:
            _held[version_id] = held - 1
            return True
        if version_id in _used_up:
            raise _nothing_left()
    return False


def _nothing_left() -> StateForbids:
    return StateForbids(
        "The version has protected as many messages as its algorithm allows; rotate the key.",
        state="budget_used_up",
    )


def _lease(version_id: uuid.UUID, limit: int) -> int:
    """Take a block, or what is left, the row locked; return how many messages it has, 0 for none."""
    try:
        with transaction.atomic(durable=True):
            return _block(version_id, limit)
    except DatabaseError:
        raise Unavailable("The database can't be reached now.") from None


def _block(version_id: uuid.UUID, limit: int) -> int:
    MessageCount.objects.get_or_create(version_id=version_id, defaults={"limit": limit})
    row = MessageCount.objects.select_for_update(of=("self",)).get(version_id=version_id)
    ceiling = min(limit, row.limit)
    most = min(settings.COUNTER_BLOCK, max(ceiling // LEAST_BLOCKS, 1))
    block = max(min(most, ceiling - row.leased), 0)
    low = (row.leased + block) * LOW_DENOMINATOR >= ceiling * LOW_NUMERATOR
    MessageCount.objects.filter(version_id=version_id).update(leased=F("leased") + block, low=low)
    return block
