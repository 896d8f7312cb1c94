"""How much an application may use keys: so many times a second, and so many times a day.

The rate is a bucket of tokens in memory, one for each application and process, which has its share
of what the house allows. The quota is kept in the database: a process takes a block of the day's
uses from it, durably, before it serves the first of them, as keys.counters does. So all processes
together never serve more than the quota; what a process that died had not used is lost for the day.

Nothing here is decided twice for one request: `Paid` goes with it through all its attempts.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from datetime import time as time_of_day

from django.conf import settings
from django.db import Error as DatabaseError
from django.db import transaction

from keys import clock, snapshot
from keys.errors import QuotaUsedUp, RateLimited, Unavailable
from keys.models import Principal, QuotaCount
from keys.policy import LimitFacts, Standing

# No block is more than so small a part of the quota, or one process alone would use up a small one.
LEAST_BLOCKS = 64
# Who is refused is looked up again so often, in seconds: nothing that is appended tells this process
# of a limit that was raised, since refusals are only counted.
LOOK_SECONDS = 1.0
_ROUNDING = 1e-9
NEVER = datetime.min.replace(tzinfo=UTC)

# The clock of the buckets, in seconds; tests turn it by hand.
monotonic: Callable[[], float] = time.monotonic


class Later(Exception):
    """The database has to be asked; the caller tries again where it may wait."""


class Paid:
    """What one request has taken, and of which limits: trying it again takes nothing more.

    Where the limits were changed meanwhile, it gives back and takes anew.
    """

    rate: tuple[int, int | None] | None = None
    quota: int | None = None


@dataclass(slots=True)
class _Account:
    """What this process holds of one application's limits."""

    # Tokens in the bucket, below zero after a batch larger than it; None: it was never looked into.
    level: float | None = None
    at: float = 0.0
    # Uses that were leased and not yet made, of which quota and day; `until` by this process's clock.
    held: int = 0
    quota: int = 0
    day: date | None = None
    until: datetime = NEVER
    # Whether the database had nothing left when it was asked last.
    empty: bool = False
    looked: float | None = None


_accounts: dict[uuid.UUID, _Account] = {}
_lock = threading.Lock()
# One thread leases at a time; the others find what it brought. Else each would take a block.
_leasing = threading.Lock()


def take(standing: Standing, count: int, paid: Paid, *, wait: bool = True) -> None:
    """Take `count` uses of what an application may do, before they are made.

    Raises RateLimited or QuotaUsedUp, Later with `wait=False` where the database has to be asked,
    Unavailable where it can't be, RuntimeError where a lease is needed inside a transaction.
    """
    limits = standing.limits
    if limits is None:
        return
    account = _accounts.get(standing.principal_id)
    if account is None:
        with _lock:
            account = _accounts.setdefault(standing.principal_id, _Account())
    try:
        _take(account, standing.principal_id, limits, count, paid, wait)
    except RateLimited:
        fresh = _look(account, standing.principal_id, limits, wait)
        if fresh == limits:
            raise
        if fresh is not None:
            _take(account, standing.principal_id, fresh, count, paid, wait)


def handed_out(principal_id: uuid.UUID) -> int:
    """Return how many of today's uses (UTC) were handed out to processes: never less than were made."""
    row = QuotaCount.objects.filter(pk=principal_id, day=clock.now().date()).first()
    return row.leased if row is not None else 0


def look_again(principal_id: uuid.UUID) -> None:
    """Let this process see at once that limits were changed."""
    with _lock:
        account = _accounts.get(principal_id)
        if account is not None:
            account.looked = None


def forget() -> None:
    """Let go of what this process holds: after a fork, and for tests, which change databases."""
    global _lock, _leasing
    _lock, _leasing = threading.Lock(), threading.Lock()
    _accounts.clear()


# A fork must not share its parent's block, nor wait for a lock that a thread of its parent holds.
os.register_at_fork(after_in_child=forget)


def _take(
    account: _Account,
    principal_id: uuid.UUID,
    limits: LimitFacts,
    count: int,
    paid: Paid,
    wait: bool,
) -> None:
    if limits.rate is not None and paid.rate != (limits.rate, limits.burst):
        with _lock:
            if paid.rate is not None and account.level is not None:
                account.level, paid.rate = account.level + count, None
            _take_tokens(account, limits.rate, limits.burst, count)
        paid.rate = (limits.rate, limits.burst)
    if limits.quota is not None and paid.quota != limits.quota:
        with _lock:
            if paid.quota is not None and paid.quota == account.quota:
                account.held += count
            paid.quota = None
        _take_uses(account, principal_id, limits.quota, count, wait)
        paid.quota = limits.quota


def _look(
    account: _Account, principal_id: uuid.UUID, known: LimitFacts | None, wait: bool
) -> LimitFacts | None:
    """Return the limits as the database has them now; `known` where it was asked a moment ago."""
    now = monotonic()
    with _lock:
        if account.looked is not None and now < account.looked + LOOK_SECONDS:
            return known
        if not wait:
            raise Later
        account.looked = now
    try:
        row = Principal.objects.select_related("limit").filter(pk=principal_id).first()
    except DatabaseError:
        return known
    return snapshot.limits_of(row) if row is not None else known


# --- so many a second


def _take_tokens(account: _Account, rate: int, burst: int | None, count: int) -> None:
    """Take tokens from the bucket. Raises RateLimited.

    A batch of more items than the bucket holds waits until it is full, and leaves a debt: else it
    could never be sent at all.
    """
    shares = settings.WEB_PROCESSES * settings.WEB_HOSTS
    speed, capacity = rate / shares, max((burst or rate) / shares, 1.0)
    now, level = monotonic(), account.level
    level = capacity if level is None else min(level + (now - account.at) * speed, capacity)
    account.at, account.level = now, level
    missing = min(count, capacity) - level
    if missing > _ROUNDING:
        raise RateLimited(
            f"This application may use keys {rate} times a second; try again a little later.",
            retry_after=missing / speed,
        )
    account.level = level - count


# --- so many a day


@dataclass(frozen=True, slots=True)
class _Lease:
    day: date
    block: int
    left: int
    # How long the day still is.
    rest: timedelta


def _take_uses(
    account: _Account, principal_id: uuid.UUID, quota: int, count: int, wait: bool
) -> None:
    """Take uses of the day's quota, leasing where this process holds too few. Raises QuotaUsedUp."""
    now = clock.now()
    if _take_held(account, quota, count, now):
        return
    if not wait:
        raise Later
    with _leasing:
        if _take_held(account, quota, count, now):
            return  # another thread was quicker
        with _lock:
            # What was leased of another quota goes back, so that lowering one does not use it up.
            back = account.held if account.quota != quota else 0
            day, more = account.day, count
            if back or now >= account.until:
                account.held = 0
            more -= account.held
        lease = _lease(principal_id, quota, more, back, day)
        with _lock:
            account.held += lease.block
            account.quota, account.day, account.empty = quota, lease.day, not lease.left
            account.until = clock.now() + lease.rest
            if account.held < count:
                raise _nothing_left(account, quota, count, now)
            account.held -= count


def _take_held(account: _Account, quota: int, count: int, now: datetime) -> bool:
    """Take from what this process holds. Raises QuotaUsedUp where it is known that there is no more."""
    with _lock:
        if account.quota != quota or now >= account.until:
            return False
        if account.held >= count:
            account.held -= count
            return True
        if account.empty:
            raise _nothing_left(account, quota, count, now)
    return False


def _nothing_left(account: _Account, quota: int, count: int, now: datetime) -> QuotaUsedUp:
    told = f"This application may use keys {quota} times a day (UTC)"
    if account.held:
        told += f", and of today only {account.held} are left here, not {count}."
    else:
        told += ", and has done so today."
    return QuotaUsedUp(told, retry_after=max((account.until - now).total_seconds(), 1.0))


def _lease(
    principal_id: uuid.UUID, quota: int, need: int, back: int, back_day: date | None
) -> _Lease:
    """Take a block of at least `need` uses, or what is left, the row locked. Raises Unavailable."""
    try:
        with transaction.atomic(durable=True):
            QuotaCount.objects.get_or_create(
                principal_id=principal_id, defaults={"day": clock.database_now().date()}
            )
            row = QuotaCount.objects.select_for_update(of=("self",)).get(pk=principal_id)
            # The database's clock, which all processes share: none begins the next day before it.
            now = clock.database_now()
            if row.day < now.date():
                row.day, row.leased = now.date(), 0
            elif back and back_day == row.day:
                row.leased = max(row.leased - back, 0)
            left = max(quota - row.leased, 0)
            block = min(max(min(settings.COUNTER_BLOCK, quota // LEAST_BLOCKS), need, 1), left)
            row.leased += block
            row.save(update_fields=["day", "leased"])
    except DatabaseError:
        raise Unavailable("The database can't be reached now.") from None
    midnight = datetime.combine(row.day + timedelta(days=1), time_of_day.min, UTC)
    return _Lease(row.day, block, left - block, midnight - now)
