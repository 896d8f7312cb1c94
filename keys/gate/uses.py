"""Using a key: decide on values in memory, compute in the backend, record before anything leaves.

An operation is written once, as a plain function of an admitted `Use`. `operation(caller, key, …)`
performs it for doors that may wait; `await operation.aio(caller, key, …)` for an event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial, update_wrapper
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from django.db import Error as DatabaseError
from django.db import close_old_connections

from audit.errors import Superseded
from audit.events import Event, Outcome, Subject
from keys import clock, lifecycle, policy, snapshot, stores, targets
from keys.actions import Action
from keys.algorithms import Usage
from keys.backends.base import Backend
from keys.callers import Caller
from keys.errors import (
    Busy,
    Denied,
    Invalid,
    KeyServiceError,
    NotFound,
    StateForbids,
    Unauthenticated,
    Unavailable,
    Unsupported,
)
from keys.gate import record
from keys.policy import Standing
from keys.snapshot import KeyFacts, Miss, VersionFacts

P = ParamSpec("P")
R = TypeVar("R")

# How often a use is decided again because something it rests on changed meanwhile.
TRIES = 8
_threads = ThreadPoolExecutor(max_workers=16, thread_name_prefix="use")


class Offload(Exception):
    """This use would wait; an event loop hands it to a thread."""


@dataclass(slots=True)
class Use:
    """An admitted use: what the operation works with."""

    caller: Caller
    action: Action
    key: KeyFacts | None
    context: Mapping[str, str]
    now: datetime
    on_loop: bool
    facts: dict[str, Any] = field(default_factory=dict)
    number: int | None = None

    def version(self, number: int | None = None) -> VersionFacts:
        """Return the version this use works with: the primary, or the one named.

        Raises NotFound where there is no such version, StateForbids where its state does not allow
        this use.
        """
        key, direction = self._key(), self.action.row.direction
        assert direction is not None
        found = key.primary if number is None else key.versions.get(number)
        if found is None:
            if number is None:
                raise StateForbids(
                    "The key has no active version; rotate it or wait for its creation."
                )
            raise NotFound(f"The key has no version {number}.")
        self.number = found.number
        lifecycle.check_use(
            key_state=key.state,
            version_state=found.state,
            condition=found.condition,
            direction=direction,
            primary=found.primary,
            suspended_processes=key.suspended_processes,
            protect_until=found.protect_until,
            process_until=found.process_until,
            now=self.now,
        )
        return found

    def backend(self, version: VersionFacts | None = None) -> Backend:
        """Return the key's store. Raises Unavailable where it is switched off."""
        backend = stores.backend(self._key().store)
        if self.on_loop and version is not None and not backend.inline(version.handle):
            raise Offload
        return backend

    def told(self) -> dict[str, Any]:
        """Return the facts of the entry. Of the context only the names: its values may be about a person."""
        if not self.context:
            return self.facts
        named = sorted(record.printable(str(name)) for name in self.context)[:32]
        return self.facts | {"context": named}

    def rests_on(self) -> frozenset[str]:
        """Return the subjects whose change makes this use to be decided again."""
        subjects = {f"principal:{self.caller.principal_id}"}
        if self.key is not None:
            subjects |= {
                f"key:{self.key.id}",
                f"classification:{self.key.classification_id}",
                f"key_store:{self.key.store.id}",
            }
        return frozenset(subjects)

    def _key(self) -> KeyFacts:
        assert self.key is not None
        return self.key


@dataclass(slots=True)
class _Attempt(Generic[R]):
    """One try: the entry it leaves, what it rests on, and what the caller gets once that is durable."""

    event: Event
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


class Operation(Generic[P, R]):
    """A use behind the gate. Call it, or await its `aio`."""

    def __init__(self, action: Action, compute: Callable[Concatenate[Use, P], R]) -> None:
        self.action = action
        self._compute = compute
        update_wrapper(self, compute)

    def __call__(self, caller: Caller, key: str, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Perform the operation and return its result once its entry is durable.

        Raises the errors of keys.errors; whatever is raised has left an entry, LogUnavailable excepted.
        """
        for _ in range(TRIES):
            attempt = self._attempt(caller, key, False, True, args, kwargs)
            with contextlib.suppress(Superseded):
                record.wait(attempt.event, attempt.epoch, attempt.subjects)
                return attempt.outcome()
        record.wait(record.given_up(attempt.event))
        raise Busy("The key is changing too quickly; try again.")

    async def aio(self, caller: Caller, key: str, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Do the same from an event loop, which never waits for a database or a slow key store."""
        loop = asyncio.get_running_loop()
        for _ in range(TRIES):
            try:
                attempt = self._attempt(caller, key, True, False, args, kwargs)
            except (Miss, Offload):
                work = partial(self._in_thread, caller, key, args, kwargs)
                attempt = await loop.run_in_executor(_threads, work)
            with contextlib.suppress(Superseded):
                await record.wait_aio(attempt.event, attempt.epoch, attempt.subjects)
                return attempt.outcome()
        await record.wait_aio(record.given_up(attempt.event))
        raise Busy("The key is changing too quickly; try again.")

    def _in_thread(self, caller: Caller, key: str, args: Any, kwargs: Any) -> _Attempt[R]:
        close_old_connections()
        try:
            return self._attempt(caller, key, False, True, args, kwargs)
        finally:
            close_old_connections()

    def _attempt(
        self, caller: Caller, reference: str, on_loop: bool, load: bool, args: Any, kwargs: Any
    ) -> _Attempt[R]:
        """Decide and compute. Raises Miss or Offload on a loop, Unavailable without a database."""
        if on_loop and snapshot.cache.cold:
            raise Miss
        try:
            epoch = snapshot.cache.epoch
            standing = snapshot.standing(caller.principal_id, caller.credential_id, load=load)
            key = snapshot.key(reference, load=load) if reference else None
        except DatabaseError:
            raise Unavailable("The database can't be reached now.") from None
        given = kwargs.get("context") or {}
        context: Mapping[str, str] = given if isinstance(given, Mapping) else {}
        use = Use(caller, self.action, key, context, clock.now(), on_loop)
        outcome, reason = Outcome.SUCCESS, ""
        result: R | None = None
        error: Exception | None = None
        try:
            _admit(use, standing, reference)
            if given and not context:
                raise Invalid("The context must be an object of text pairs.", field="context")
            result = self._compute(use, *args, **kwargs)
        except (Miss, Offload):
            raise
        except _Refused as refused:
            error, outcome, reason = refused.error, Outcome.DENIED, refused.reason
        except Exception as problem:  # an unknown error leaves an entry too, and is raised after it
            error = problem
            outcome, reason = record.failure(problem)
        subject = _subject(use, reference)
        event = record.event(caller, self.action, subject, outcome, reason=reason, facts=use.told())
        return _Attempt(event, epoch, use.rests_on(), result, error)


class _Refused(Exception):
    """The decision was no. `reason` is the decision's own code, which the error may hide from the caller."""

    def __init__(self, error: KeyServiceError, reason: str) -> None:
        super().__init__(reason)
        self.error, self.reason = error, reason


def _admit(use: Use, standing: Standing | None, reference: str) -> None:
    """Ask for the decision. Raises _Refused, and Unsupported for a key of another purpose."""
    key = use.key
    decision = policy.decide(
        use.caller,
        standing,
        use.action,
        now=use.now,
        key_id=key.id if key else None,
        classification_id=key.classification_id if key else None,
        context=use.context,
    )
    missing = bool(reference) and key is None
    if missing or not decision.allowed:
        error = refusal(decision, missing)
        raise _Refused(
            error, "not_found" if missing and isinstance(error, NotFound) else decision.reason
        )
    if decision.grant:
        use.facts["grant"] = str(decision.grant)
    _check_usage(use)


def use(action: Action) -> Callable[[Callable[Concatenate[Use, P], R]], Operation[P, R]]:
    """Put a function of an admitted `Use` behind the gate, as an Operation."""

    def behind_the_gate(compute: Callable[Concatenate[Use, P], R]) -> Operation[P, R]:
        return Operation(action, compute)

    return behind_the_gate


def refusal(decision: policy.Decision, missing: bool) -> KeyServiceError:
    """Return the error of a refusal: who may not know of the subject learns nothing of it."""
    if decision.reason.startswith(policy.DEAD):
        # What the caller proved itself with is no longer good: as if it had proved nothing.
        return Unauthenticated(decision.detail)
    if missing or not decision.visible:
        return NotFound(targets.NO_KEY)
    return Denied(decision.detail)


def not_there(
    caller: Caller, standing: Standing | None, action: Action, subject: Subject, error: NotFound
) -> tuple[KeyServiceError, str]:
    """Return error and reason for what isn't there: the same words as if it were, for who may not know."""
    decision = policy.decide(caller, standing, action, now=clock.now())
    refused = refusal(decision, missing=False)
    if decision.allowed or (subject.kind == "key" and isinstance(refused, Denied)):
        return error, "not_found"
    return refused, decision.reason


def _check_usage(use: Use) -> None:
    wanted = use.action.row.usage
    if use.key is None or wanted is None or use.key.usage == wanted:
        return
    raise Unsupported(
        f"This key is for another purpose: {Usage(use.key.usage).label.lower()}.",
        usage=use.key.usage,
    )


def _subject(use: Use, reference: str) -> Subject:
    if use.key is not None:
        return Subject("key", str(use.key.id), use.key.alias, use.number)
    if reference:
        return Subject("key", record.printable(reference))
    return Subject("house", "house")
