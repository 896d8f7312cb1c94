"""Using a key: decide on values in memory, compute in the backend, record before anything leaves.

An operation is written once, as a plain function of an admitted `Use`. `operation(caller, key, …)`
performs it for doors that may wait; `await operation.aio(caller, key, …)` for an event loop;
`operation.batch(caller, key, items)` for many items under one decision and one entry.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial, update_wrapper
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from django.conf import settings
from django.db import Error as DatabaseError

from audit.errors import Superseded
from audit.events import Event, Outcome
from keys import clock, limits, policy, snapshot
from keys.actions import Action
from keys.callers import Caller
from keys.errors import Busy, Invalid, KeyServiceError, RateLimited, TooLarge, Unavailable
from keys.gate import batches, pools, record
from keys.gate.batches import Batch, Done, Item
from keys.gate.pools import LOADING, LOOP, Offload, Place
from keys.gate.uses import Refused, Use, admit, subject_of
from keys.limits import Paid
from keys.policy import Standing
from keys.snapshot import Miss, StoreFacts

P = ParamSpec("P")
R = TypeVar("R")

# How often a use is decided again because something it rests on changed meanwhile.
TRIES = 8
# How many items of a batch an event loop computes itself: some milliseconds for the slowest inline key.
LOOP_ITEMS = 16
# How long a batch may compute; what is left of it then fails. RSA pairs take a second each.
BATCH_SECONDS = 10.0
# How often one try is handed on: to load, to the key's store, to long work; and for want of room.
HOPS = 8


@dataclass(slots=True)
class _Attempt(Generic[R]):
    """One try: the entries it leaves, what it rests on, and what the caller gets once they are durable."""

    events: tuple[Event, ...]
    epoch: int
    subjects: frozenset[str]
    result: R | None = None
    error: Exception | None = None

    def outcome(self) -> R:
        if self.error is not None:
            if isinstance(self.error, KeyServiceError):
                self.error.recorded = True
            raise self.error
        return self.result  # type: ignore[return-value]


_Try = Callable[[Place], _Attempt[R]]


class Operation(Generic[P, R]):
    """A use behind the gate. Call it, or await its `aio`; `batch` and `batch_aio` take many items."""

    def __init__(self, action: Action, compute: Callable[Concatenate[Use, P], R]) -> None:
        self.action = action
        self._compute = compute
        update_wrapper(self, compute)

    def __call__(self, caller: Caller, key: str, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Perform the operation and return its result once its entry is durable.

        Raises the errors of keys.errors; whatever is raised has left an entry, LogUnavailable excepted.
        """
        return _perform(partial(self._attempt, caller, key, args, kwargs, Paid()))

    async def aio(self, caller: Caller, key: str, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Do the same from an event loop, which never waits for a database or a slow key store."""
        return await _perform_aio(partial(self._attempt, caller, key, args, kwargs, Paid()))

    def batch(self, caller: Caller, key: str, items: Sequence[Item]) -> Batch[R]:
        """Perform the operation on each item, under one decision and one entry.

        An item that fails has its own error and stops no other. Raises what concerns the whole: no
        such key, no permission, too many items, no log.
        """
        return _perform(partial(self._attempt_batch, caller, key, items, Paid()))

    async def batch_aio(self, caller: Caller, key: str, items: Sequence[Item]) -> Batch[R]:
        """Do the same from an event loop; what would hold it for long goes to a thread."""
        attempt = partial(self._attempt_batch, caller, key, items, Paid())
        return await _perform_aio(attempt, key if len(items) > LOOP_ITEMS else None)

    def _attempt(
        self, caller: Caller, reference: str, args: Any, kwargs: Any, paid: Paid, place: Place
    ) -> _Attempt[R]:
        """Decide and compute. Raises Miss or Offload where it may not wait, Unavailable without a database."""
        epoch, use = _decided_on(caller, self.action, reference, place)
        ending: _Ending[R] = _Ending(use, reference)
        with ending:
            use.context = _context(kwargs)
            admit(use, reference)
            if place.full:
                raise Busy(pools.TOO_MANY)
            if use.standing is not None and use.standing.limits is not None:
                _pay(use, use.standing, 1, paid)
            _check_context(kwargs)
            ending.result = self._compute(use, *args, **kwargs)
        return ending.attempt(epoch)

    def _attempt_batch(
        self, caller: Caller, reference: str, items: Sequence[Item], paid: Paid, place: Place
    ) -> _Attempt[Batch[R]]:
        """Decide once, compute each. A grant that asks for a context is asked of each item's own.

        An error outside our hierarchy ends the batch: it is our fault, and no item's.
        """
        epoch, use = _decided_on(caller, self.action, reference, place)
        use.facts["items"] = len(items)
        ending: _Ending[Batch[R]] = _Ending(use, reference)
        with ending:
            use.context = _context(items[0].kwargs) if items else {}
            decision = admit(use, reference, by_context=True)
            if place.full:
                raise Busy(pools.TOO_MANY)
            _check_count(items)
            if use.standing is not None and use.standing.limits is not None:
                _pay(use, use.standing, len(items), paid)
            until = time.monotonic() + BATCH_SECONDS
            ended = [self._one(use, item, decision, reference, until) for item in items]
            ending.result = batches.gathered(use, ended)
        attempt = ending.attempt(epoch)
        if attempt.result is not None:
            attempt.result = replace(attempt.result, entry=attempt.events[0].uuid)
        return attempt

    def _one(
        self, whole: Use, item: Item, decision: policy.Decision, reference: str, until: float
    ) -> tuple[Use, Done[R]]:
        """Compute one item as a use of its own, so that it leaves nothing behind in the next one."""
        use = whole.another(_context(item.kwargs))
        result: R | None = None
        error: KeyServiceError | None = None
        try:
            if time.monotonic() > until:
                raise Busy("The batch took too long; send fewer such items at a time.")
            if decision.conditional:
                admit(use, reference)
            _check_context(item.kwargs)
            result = self._compute(use, *item.args, **item.kwargs)
        except Refused as refused:
            error = refused.error
        except KeyServiceError as problem:
            error = problem
        return use, Done(result, error, use.number, use.evidence)


def _perform(attempt_once: _Try[R]) -> R:
    """Try until the entry is durable, and return what the caller gets."""
    for _ in range(TRIES):
        place = Place()
        try:
            attempt = attempt_once(place)
        finally:
            place.leave()
        with contextlib.suppress(Superseded):
            record.wait(attempt.events, attempt.epoch, attempt.subjects)
            return attempt.outcome()
    record.wait(record.given_up(attempt.events))
    raise Busy("The key is changing too quickly; try again.")


async def _perform_aio(attempt_once: _Try[R], many_of: str | None = None) -> R:
    """Do the same on an event loop. `many_of`: the key, where it would hold the loop for long."""
    for _ in range(TRIES):
        attempt = await _attempted(attempt_once, many_of)
        with contextlib.suppress(Superseded):
            await record.wait_aio(attempt.events, attempt.epoch, attempt.subjects)
            return attempt.outcome()
    await record.wait_aio(record.given_up(attempt.events))
    raise Busy("The key is changing too quickly; try again.")


async def _attempted(attempt_once: _Try[R], many_of: str | None) -> _Attempt[R]:
    """Try once, on the loop or where it may wait for what it needs. Raises Busy where it can't be decided."""
    place, store = LOOP, None
    if many_of is not None:
        place, store = _room_of(many_of)
    elif snapshot.cache.cold:
        place = LOADING
    for _ in range(HOPS):
        try:
            if place.on_loop:
                return attempt_once(place)
            return await pools.run(place, store, attempt_once)
        except Miss:
            place, store = LOADING, None
        except Offload as elsewhere:
            place, store = elsewhere.place, elsewhere.store
        except Busy:
            place, store = pools.FULL, None
    raise Busy(pools.TOO_MANY)


def _room_of(reference: str) -> tuple[Place, StoreFacts | None]:
    """Return where a use of this key may take long: with its store, or where it is found out."""
    try:
        key = snapshot.key(reference, load=False) if reference else None
    except Miss:
        key = None
    return (LOADING, None) if key is None else (Place(store=key.store.id), key.store)


def _decided_on(caller: Caller, action: Action, reference: str, place: Place) -> tuple[int, Use]:
    """Return the epoch and what is known as of it. Raises Miss on a loop, Unavailable."""
    load = not place.on_loop
    try:
        epoch = snapshot.cache.epoch
        standing = snapshot.standing(caller.principal_id, caller.credential_id, load=load)
        key = snapshot.key(reference, load=load) if reference else None
    except DatabaseError:
        raise Unavailable("The database can't be reached now.") from None
    return epoch, Use(caller, action, key, {}, clock.now(), place, standing)


class _Ending(Generic[R]):
    """How a use ends: with a result, or with an error that leaves an entry and is raised after it."""

    def __init__(self, use: Use, reference: str) -> None:
        self._use, self._reference = use, reference
        self._outcome, self._reason = Outcome.SUCCESS, ""
        self.result: R | None = None
        self._error: Exception | None = None

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, raised: BaseException | None, traceback: object) -> bool:
        if raised is None:
            return False
        if isinstance(raised, Miss | Offload) or not isinstance(raised, Exception):
            return False
        if isinstance(raised, Refused):
            self._error, self._outcome, self._reason = raised.error, Outcome.DENIED, raised.reason
        else:  # an unknown error leaves an entry too
            self._error = raised
            self._outcome, self._reason = record.failure(raised)
        return True

    def attempt(self, epoch: int) -> _Attempt[R]:
        use = self._use
        events: tuple[Event, ...] = (self._event(use, self._reference),)
        if use.others:
            others = use.others.items()
            events += tuple(self._event(other, reference) for (reference, _), other in others)
        return _Attempt(events, epoch, use.rests_on(), self.result, self._error)

    def _event(self, use: Use, reference: str) -> Event:
        outcome, reason = self._outcome, self._reason
        if outcome is Outcome.SUCCESS and "items_root" in use.facts:
            outcome, reason = batches.outcome_of(use)
        return record.event(
            use.caller,
            use.action,
            subject_of(use, reference),
            outcome,
            reason=reason,
            facts=use.told(),
        )


def _context(kwargs: Mapping[str, Any]) -> Mapping[str, str]:
    """Return the context that an operation is asked with; empty where it is no object."""
    given = kwargs.get("context")
    if given is None or type(given) is dict:
        return given or {}
    return given if isinstance(given, Mapping) else {}


def _check_context(kwargs: Mapping[str, Any]) -> None:
    """Raise Invalid where the context is no object: after the decision, since whoever was refused is told that."""
    given = kwargs.get("context")
    if given and type(given) is not dict and not isinstance(given, Mapping):
        raise Invalid("The context must be an object of text pairs.", field="context")


def _pay(use: Use, standing: Standing, count: int, paid: Paid) -> None:
    """Take what the use costs of what its caller may do. Raises Refused, and Offload on a loop."""
    try:
        limits.take(standing, count, paid, wait=not use.on_loop)
    except limits.Later:
        raise Offload from None
    except RateLimited as error:
        raise Refused(error, error.code) from None


def _check_count(items: Sequence[Item]) -> None:
    if not items:
        raise Invalid("A batch has at least one item.", field="items")
    if len(items) > settings.BATCH_LIMIT:
        raise TooLarge(f"A batch has at most {settings.BATCH_LIMIT} items.", field="items")


def use(action: Action) -> Callable[[Callable[Concatenate[Use, P], R]], Operation[P, R]]:
    """Put a function of an admitted `Use` behind the gate, as an Operation."""

    def behind_the_gate(compute: Callable[Concatenate[Use, P], R]) -> Operation[P, R]:
        return Operation(action, compute)

    return behind_the_gate
