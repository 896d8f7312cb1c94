"""Reading: decided like everything else; what is refused leaves an entry, and so does what leaves the house."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from audit.events import Event, Outcome, Subject
from keys import clock, policy, snapshot, targets
from keys.actions import Action
from keys.callers import Caller
from keys.errors import KeyServiceError, NotFound
from keys.gate import record
from keys.gate.uses import not_there, refusal
from keys.policy import Standing


def read(
    caller: Caller,
    action: Action,
    subject: Subject | None = None,
    *,
    key: Any = None,
    facts: Mapping[str, Any] | None = None,
) -> Standing:
    """Admit a read and return the caller's standing, by which lists are narrowed.

    `key` is the keys.models.Key that is read, where one is. Raises Denied or NotFound.
    """
    standing, _ = snapshot.load_standing(caller.principal_id, caller.credential_id)
    decision = policy.decide(
        caller,
        standing,
        action,
        now=clock.now(),
        key_id=key.id if key is not None else None,
        classification_id=key.classification_id if key is not None else None,
    )
    about = subject or (targets.key_subject(key) if key is not None else Subject("house", "house"))
    if not decision.allowed or standing is None:
        record.wait(record.event(caller, action, about, Outcome.DENIED, reason=decision.reason))
        raise _recorded(refusal(decision, missing=False))
    if action.row.recorded:
        record.wait(record.event(caller, action, about, Outcome.SUCCESS, facts=facts))
    return standing


def not_found(
    caller: Caller, action: Action, kind: str, reference: str, missing: NotFound
) -> KeyServiceError:
    """Leave the entry of a request for something that isn't there; return the error to raise."""
    subject = Subject(kind, record.printable(reference))
    standing, _ = snapshot.load_standing(caller.principal_id, caller.credential_id)
    error, reason = not_there(caller, standing, action, subject, missing)
    record.wait(record.event(caller, action, subject, Outcome.DENIED, reason=reason))
    return _recorded(error)


def refused(caller: Caller, address: str, error: KeyServiceError) -> None:
    """Leave the entry of a request that its door refused: unreadable, forged, or not for this role."""
    record.wait(_refused(caller, address, error))


async def refused_aio(caller: Caller, address: str, error: KeyServiceError) -> None:
    """Do the same from an event loop."""
    await record.wait_aio(_refused(caller, address, error))


def _refused(caller: Caller, address: str, error: KeyServiceError) -> Event:
    subject = Subject("address", record.printable(address))
    outcome, reason = record.failure(error)
    return record.event(caller, Action.REFUSED_REQUEST, subject, outcome, reason=reason)


def _recorded(error: KeyServiceError) -> KeyServiceError:
    error.recorded = True
    return error
