"""What came of a change once it was committed, where no job tells it: an entry of its own, by the scheduler.

The change's entry says that something was begun; nothing leaves before the entry here says how it
ended. Also the use of a console key on a change's behalf.
"""

from __future__ import annotations

from audit.events import Outcome
from keys import clock, gate, lifecycle, targets
from keys.actions import Action
from keys.algorithms import Usage
from keys.callers import Caller
from keys.errors import CannotDecrypt, Invalid, KeyServiceError, StateForbids
from keys.gate.changes import Change
from keys.imports import tickets
from keys.models import ImportTicket, Key, KeyVersion
from keys.secret import Secret
from keys.services import scheduler
from keys.states import Direction, VersionState
from keys.stores import backend_of

KWP = "AES_KWP"
# Versions that are tried, newest first: what is wrapped in KWP does not say under which.
TRIED = 10


def tell(
    caller: Caller,
    action: Action,
    key: Key,
    *,
    number: int | None = None,
    facts: dict[str, str] | None = None,
    error: KeyServiceError | None = None,
    ticket: ImportTicket | None = None,
) -> None:
    """Leave the entry of how a change that `caller` made has ended; `error`, where it went wrong."""
    _told(
        scheduler(request_id=caller.request_id),
        str(key.id),
        action=action.value,
        number=number,
        by=str(caller.principal_id),
        facts=facts,
        code=error.code if error else "",
        ticket=str(ticket.id) if ticket else "",
    )


@gate.change(Action.RUN_JOB, on=targets.key)
def _told(
    change: Change[Key],
    *,
    action: str,
    number: int | None,
    by: str,
    facts: dict[str, str] | None,
    code: str,
    ticket: str,
) -> None:
    change.record_as = Action(action)
    change.about = change.target.subject(number)
    change.facts |= {**(facts or {}), "requested_by": by}
    if code:
        change.outcome, change.why = Outcome.FAILED, code
    if code and ticket:
        tickets.withdraw(ImportTicket.objects.get(pk=ticket), change.now)


def unwrap_with(caller: Caller, wrapping_key: str, key: Key, wrapped: Secret) -> Secret:
    """Unwrap (AES-KWP, RFC 5649) with a console key, for `caller`'s import into `key`.

    Its entry is there before it is used, and another one says how it went. A wrapping key whose
    classification asks for votes serves imports into the same classification only, whose votes then
    cover it. Raises Invalid, NotFound, StateForbids, and what the store refuses with.
    """
    tickets.check_size(wrapped)
    return _unwrapped(
        scheduler(request_id=caller.request_id),
        wrapping_key,
        into=key.alias,
        by=str(caller.principal_id),
        wrapped=wrapped,
    )


@gate.change(Action.RUN_JOB, on=targets.key)
def _unwrapped(change: Change[Key], *, into: str, by: str, wrapped: Secret) -> Secret:
    key = change.row
    change.record_as, change.about = Action.UNWRAP_KEY, change.target.subject()
    change.outcome = Outcome.STARTED
    change.facts |= {"for_import_into": into, "algorithm": KWP, "requested_by": by}
    if key.usage != Usage.WRAP_UNWRAP or key.algorithm != KWP:
        raise Invalid(f"The key {key.alias} does not wrap with {KWP}.", field="wrapping_key")
    policy = key.classification
    if policy.quorum_m is not None and policy != Key.objects.get(alias=into).classification:
        raise StateForbids(
            f"{policy.title} asks for votes, which this import does not have: its keys unwrap for "
            "keys of the same classification only."
        )
    able, refused = [], StateForbids(f"The key {key.alias} has no version that can unwrap.")
    for version in key.versions.order_by("-number"):
        try:
            check_processing(key, version)
        except StateForbids as error:
            refused = error if version.primary else refused
        else:
            able.append(version)
    if not able:
        raise refused
    # The change's own result is not used: what is done after the commit is what the caller gets.
    about = {"for_import_into": into, "algorithm": KWP}
    change.after(lambda: _try(change.caller, by, about, key, able[:TRIED], wrapped))
    return wrapped


def check_processing(key: Key, version: KeyVersion) -> None:
    """Raise StateForbids, saying why, where this version may not process what it protected."""
    lifecycle.check_use(
        key_state=key.state,
        version_state=VersionState(version.state),
        condition=version.condition,
        direction=Direction.PROCESS,
        primary=version.primary,
        suspended_processes=key.classification.suspended_decrypts,
        protect_until=version.protect_until,
        process_until=version.process_until,
        material_until=version.material_expires_at,
        now=clock.now(),
    )


def _try(
    scheduled: Caller,
    by: str,
    about: dict[str, str],
    key: Key,
    versions: list[KeyVersion],
    wrapped: Secret,
) -> Secret:
    backend, fault = backend_of(key), None
    for version in versions:
        try:
            found = tickets.Brought(backend.unwrap(version.handle, KWP, wrapped.reveal()))
        except (CannotDecrypt, Invalid):
            continue
        except KeyServiceError as error:
            fault = error
            break
        _ended(scheduled, by, about, key, version.number)
        return found
    fault = fault or tickets.cannot_unwrap()
    _ended(scheduled, by, about, key, None, fault.code)
    raise fault


def _ended(
    scheduled: Caller,
    by: str,
    about: dict[str, str],
    key: Key,
    number: int | None,
    code: str = "",
) -> None:
    """Leave the entry of how an unwrapping for an import went."""
    _told(
        scheduled,
        str(key.id),
        action=Action.UNWRAP_KEY.value,
        number=number,
        by=by,
        facts=about,
        code=code,
        ticket="",
    )
