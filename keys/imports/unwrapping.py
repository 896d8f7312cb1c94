"""Unwrapping with a key of the console's own, on behalf of an import."""

from __future__ import annotations

from audit.events import Outcome
from keys import clock, gate, lifecycle, targets
from keys.actions import Action
from keys.algorithms import Usage
from keys.callers import Caller
from keys.errors import CannotDecrypt, Invalid, KeyServiceError, StateForbids
from keys.gate.changes import Change
from keys.imports import results, tickets
from keys.models import Key, KeyVersion
from keys.secret import Secret
from keys.services import scheduler
from keys.states import Direction, VersionState
from keys.stores import backend_of

KWP = "AES_KWP"
# Versions that are tried, newest first: what is wrapped in KWP does not say under which.
TRIED = 10


def unwrap_with(caller: Caller, wrapping_key: str, key: Key, wrapped: Secret) -> tickets.Brought:
    """Unwrap (AES-KWP, RFC 5649) with a console key, for `caller`'s import into `key`.

    Its entry is there before it is used, and another one says how it went. A wrapping key whose
    classification asks for votes serves imports into the same classification only, whose votes then
    cover it. Raises Invalid, NotFound, StateForbids, and what the store refuses with.
    """
    tickets.check_size(wrapped)
    versions = _begun(
        scheduler(request_id=caller.request_id),
        wrapping_key,
        into=key.alias,
        by=str(caller.principal_id),
    )
    about = {"for_import_into": key.alias, "algorithm": KWP}
    try:
        version, found = _unwrapped(versions, wrapped)
    except KeyServiceError as error:
        results.tell(caller, Action.UNWRAP_KEY, versions[0].key, facts=about, error=error)
        raise
    results.tell(caller, Action.UNWRAP_KEY, version.key, number=version.number, facts=about)
    return found


@gate.change(Action.RUN_JOB, on=targets.key)
def _begun(change: Change[Key], *, into: str, by: str) -> list[KeyVersion]:
    """Record that the key is about to be used; return the versions that may unwrap, newest first."""
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
        version.key = key  # the row at hand, with its store and classification
        try:
            _check_processing(version)
        except StateForbids as error:
            refused = error if version.primary else refused
        else:
            able.append(version)
    if not able:
        raise refused
    return able[:TRIED]


def _check_processing(version: KeyVersion) -> None:
    """Raise StateForbids, saying why, where this version may not process what it protected."""
    key = version.key
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


def _unwrapped(versions: list[KeyVersion], wrapped: Secret) -> tuple[KeyVersion, tickets.Brought]:
    backend = backend_of(versions[0].key)
    for version in versions:
        try:
            return version, tickets.Brought(backend.unwrap(version.handle, KWP, wrapped.reveal()))
        except (CannotDecrypt, Invalid):
            continue
    raise tickets.cannot_unwrap()
