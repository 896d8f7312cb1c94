"""Entries: how what happened at the gate becomes an event, and how the log's own trouble is told."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from functools import lru_cache
from typing import Any
from uuid import UUID

from msgspec.structs import replace

from audit import refusals, writer
from audit.errors import AuditError, LogRolledBack, QueueFull, Superseded
from audit.events import Actor, Event, Outcome, Personal, Subject, Told
from audit.waiting import WAIT_SECONDS
from keys import names, policy
from keys.actions import Action
from keys.callers import Caller, Kind
from keys.errors import (
    Busy,
    Denied,
    KeyServiceError,
    LogUnavailable,
    NotFound,
    QuotaUsedUp,
    RateLimited,
)

Events = tuple[Event, ...]

NO_SUBJECTS: frozenset[str] = frozenset()
TOO_MUCH = "The audit log has too much waiting; try again."
TOO_SLOW = "The audit log did not answer in time."
# Refusals by a limit: an application that is refused once is refused as fast as it can ask.
LIMITED = frozenset({RateLimited.code, QuotaUsedUp.code})
# Whose refusal was told in which minute: (account, credential, reason).
TOLD_LIMIT = 10_000
_told: dict[tuple[str, str, str], int] = {}
_lock = threading.Lock()


def event(
    caller: Caller,
    action: Action,
    subject: Subject,
    outcome: Outcome,
    *,
    reason: str = "",
    facts: Mapping[str, Any] | None = None,
    approvals: Iterable[object] = (),
) -> Event:
    """Return the event of one outcome. `reason` is a stable code, never a secret."""
    told = dict(facts) if facts else {}
    if caller.credential_id is not None:
        told["credential"] = names.text_of(caller.credential_id)
    if caller.role:
        told["role"] = caller.role.value
    if caller.demo:
        told["demo"] = True
    source: Told = caller.source
    if source and caller.kind is Kind.PERSON:
        source = Personal(caller.source, names.text_of(caller.principal_id))
    # `_value_` is what `.value` returns, at a fifth of its time: every use of a key comes here.
    return Event(
        actor=_actor(caller.kind, caller.principal_id, caller.name),
        method=caller.method._value_,
        door=caller.door._value_,
        action=action._value_,
        object=subject,
        outcome=outcome,
        reason=reason,
        source=source,
        request_id=caller.request_id,
        approvals=tuple(str(approval) for approval in approvals) if approvals else (),
        facts=told,
    )


@lru_cache(maxsize=10_000)
def _actor(kind: Kind, identity: UUID, name: str) -> Actor:
    """Return who acted. A server's name is nobody's; a person's, and an address, can be erased later."""
    who = names.text_of(identity)
    return Actor(kind.value, who, Personal(name, who) if kind is Kind.PERSON else name)


def given_up(events: Events) -> Events:
    """Return the events of a use that was decided again too often: its result never left."""
    return tuple(replace(one, outcome=Outcome.FAILED, reason=Busy.code) for one in events)


def _only_counted(event: Event) -> bool:
    """Whether this is one more refusal of a dead credential, or by a limit, within a minute.

    The first is an entry of its own. The others are counted: who holds a revoked token is outside
    the house, like who has none, and nobody outside may fill the log; nor may an application whose
    uses are limited.
    """
    dead, limited = event.reason.startswith(policy.DEAD), event.reason in LIMITED
    if not (dead or limited):
        return False
    credential = "" if limited else str(event.facts.get("credential", ""))
    refusal = (event.actor.id, credential, event.reason)
    minute = event.at // 60_000_000
    with _lock:
        if len(_told) >= TOLD_LIMIT:
            _told.clear()
        repeated = _told.get(refusal) == minute
        _told[refusal] = minute
    if repeated and limited:
        refusals.note_known(event.actor, event.method, event.door, event.reason)
    elif repeated:
        refusals.note(source_of(event), event.door, event.reason)
    return repeated


def source_of(event: Event) -> str:
    """Return the address that an event came from, in the clear."""
    return event.source.value if isinstance(event.source, Personal) else event.source


def forget() -> None:
    """Begin anew to tell whose credentials are dead: for tests, which share a minute and a cast."""
    with _lock:
        _told.clear()


def submit(events: Events, epoch: int, subjects: frozenset[str]) -> Future[int]:
    """Hand events to group commit, all or none. Raises Busy where too much waits already."""
    if _only_counted(events[0]):
        done: Future[int] = Future()
        done.set_result(-1)
        return done
    try:
        return writer.appender().submit(*events, epoch=epoch, subjects=subjects)
    except QueueFull:
        raise Busy(TOO_MUCH) from None


def wait(told: Event | Events, epoch: int = 0, subjects: frozenset[str] = NO_SUBJECTS) -> int:
    """Make one event or several durable together and return the first one's index.

    Raises audit.errors.Superseded where a subject changed since `epoch`, LogUnavailable where the
    entry could not be made durable.
    """
    try:
        return submit(_several(told), epoch, subjects).result(WAIT_SECONDS)
    except AuditError as error:
        raise translated(error) from None
    except TimeoutError:
        raise LogUnavailable(TOO_SLOW) from None


async def wait_aio(
    told: Event | Events, epoch: int = 0, subjects: frozenset[str] = NO_SUBJECTS
) -> int:
    """Do the same on an event loop."""
    events = _several(told)
    if _only_counted(events[0]):
        return -1
    try:
        return await writer.appender().submit_aio(*events, epoch=epoch, subjects=subjects)
    except QueueFull:
        raise Busy(TOO_MUCH) from None
    except AuditError as error:
        raise translated(error) from None


def _several(told: Event | Events) -> Events:
    return (told,) if isinstance(told, Event) else told


def translated(error: AuditError) -> Exception:
    """Return the log's trouble as ours; Superseded stays what it is, for the gate to try again."""
    if isinstance(error, Superseded):
        return error
    why = f" {error}" if isinstance(error, LogRolledBack) else ""
    return LogUnavailable("The audit log can't be written now." + why)


def in_transaction(event: Event, subjects: Iterable[str]) -> int:
    """Append within the caller's transaction, so that the change and its entry commit together."""
    return writer.append([event], subjects=subjects)[0]


def failure(error: BaseException) -> tuple[Outcome, str]:
    """Return outcome and reason code of an error."""
    if isinstance(error, Denied | NotFound):
        return Outcome.DENIED, error.code
    return Outcome.FAILED, error.code if isinstance(error, KeyServiceError) else "internal_error"


def printable(text: str) -> str:
    """Return what a caller sent as a name, cut and cleaned so that it can stand in an entry."""
    return "".join(character if character.isprintable() else "?" for character in text[:128])
