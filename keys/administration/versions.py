"""A single version's life: one function, one table, every edge."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from audit.events import Outcome
from keys import gate, jobs, lifecycle, parameters, targets
from keys.actions import Action
from keys.administration.intents import add_job, bring_in_line, check_ours
from keys.errors import Conflict, NotFound, StateForbids
from keys.gate.changes import Change
from keys.jobs import aligning
from keys.models import Key, KeyVersion
from keys.models.job import JobKind
from keys.states import GONE, Condition, KeyState, VersionState
from keys.stores import backend_of

ACTION_TO = {
    # Nothing returns to pre-active; asking for it is asking for an activation that can't be.
    VersionState.PRE_ACTIVE: Action.ACTIVATE_VERSION,
    VersionState.ACTIVE: Action.ACTIVATE_VERSION,
    VersionState.SUSPENDED: Action.SUSPEND_VERSION,
    VersionState.DEACTIVATED: Action.DEACTIVATE_VERSION,
    VersionState.COMPROMISED: Action.REVOKE_VERSION,
    VersionState.DESTROYED: Action.DESTROY_VERSION,
    VersionState.DESTROYED_COMPROMISED: Action.DESTROY_VERSION,
}


def _action(arguments: dict[str, Any]) -> Action:
    to = arguments.get("to")
    return ACTION_TO[VersionState(to)] if to in VersionState.values else Action.ACTIVATE_VERSION


@gate.change(_action, on=targets.key)
def transition_version(
    change: Change[Key], *, number: int, to: str, days: int | None = None, reason: str = ""
) -> KeyVersion:
    """Move one version to another state of states.VERSION_EDGES.

    Destruction waits for the classification's window (`days`: a longer one); a job walks the last
    edge then. Raises IllegalTransition, NotFound, Invalid.
    """
    key = change.row
    target = VersionState(parameters.one_of(to, "to", VersionState.values))
    check_ours(key)
    version = find_version(key, number)
    lifecycle.check_version_edge(version, target)
    if key.state == KeyState.DESTROYED and target != VersionState.DESTROYED_COMPROMISED:
        raise StateForbids("The key is destroyed.")
    if version.condition == Condition.CREATING:
        raise Conflict("The version is being created; wait for its job.")
    if version.condition == Condition.PENDING_DESTRUCTION and target == VersionState.ACTIVE:
        raise Conflict("The version waits for its destruction; cancel that first.")
    change.touch("key", key.id)
    change.facts["from"] = version.state
    ends = target in GONE and version.state != VersionState.DESTROYED
    if ends:
        return _schedule(change, version, days)
    if target == VersionState.ACTIVE:
        _activate(change, version)
    else:
        served = version.primary
        lifecycle.move_version(version, target, change.now, change.reason)
        if served and target == VersionState.COMPROMISED:
            # Nothing protects new data until a new version does: the next sweep rotates, or asks to.
            Key.objects.filter(pk=key.pk).update(rotate_at=change.now)
    if aligning.follows(key):
        bring_in_line(change, key)
    else:
        change.after(lambda: _mirror(key, version, target))
    return version


@gate.change(Action.CANCEL_VERSION_DESTRUCTION, on=targets.key)
def cancel_version_destruction(change: Change[Key], *, number: int, reason: str = "") -> KeyVersion:
    """Take a version's scheduled destruction back, as long as it is not being carried out."""
    check_ours(change.row)
    version = find_version(change.row, number)
    if version.condition != Condition.PENDING_DESTRUCTION:
        raise StateForbids("The version is not waiting for destruction.")
    jobs.cancel(change.row, JobKind.DESTROY_VERSION, version.number, change.now)
    # Imported material that was removed meanwhile, or before, is not back.
    gone = bool(version.check_value) and not version.handle
    lifecycle.set_condition(version, Condition.UNAVAILABLE if gone else None, destroy_at=None)
    change.touch("key", change.row.id)
    bring_in_line(change, change.row)
    return version


def find_version(key: Key, number: Any) -> KeyVersion:
    """Return a key's version by number. Raises Invalid or NotFound."""
    wanted = parameters.whole(number, "number", 1, 2**31 - 1)
    version = key.versions.filter(number=wanted).first()
    if version is None:
        raise NotFound(f"The key {key.alias} has no version {wanted}.")
    return version


def _schedule(change: Change[Key], version: KeyVersion, days: int | None) -> KeyVersion:
    if version.condition == Condition.PENDING_DESTRUCTION:
        raise Conflict("The version waits for its destruction already.")
    if version.handle:
        handles = change.row.versions.exclude(state__in=GONE).exclude(handle="")
        among = list(handles.order_by("number").values_list("handle", flat=True))
        backend_of(change.row).check_destroyable(version.handle, among)
    least = change.row.classification.destruction_days
    window = least if days is None else parameters.whole(days, "days", least, 120)
    at = change.now + timedelta(days=window)
    lifecycle.set_condition(version, Condition.PENDING_DESTRUCTION, destroy_at=at)
    add_job(change, change.row, JobKind.DESTROY_VERSION, version=version, run_after=at)
    change.outcome = Outcome.STARTED
    change.facts["destroy_at"] = at.isoformat()
    bring_in_line(change, change.row)
    return version


def _activate(change: Change[Key], version: KeyVersion) -> None:
    """Activate a pre-active version, which takes over, or resume a suspended one, which goes on."""
    if version.state == VersionState.SUSPENDED:
        lifecycle.move_version(version, VersionState.ACTIVE, change.now, change.reason)
        return
    lifecycle.make_primary(version, change.row.classification, change.now)
    Key.objects.filter(pk=change.row.pk).update(
        rotate_at=lifecycle.rotation_date(change.row, version)
    )


def _mirror(key: Key, version: KeyVersion, to: VersionState) -> KeyVersion:
    """Let the store refuse, too, what the console refuses already. Its trouble changes nothing here."""
    backend = backend_of(key)
    step = {
        VersionState.ACTIVE: backend.resume,
        VersionState.SUSPENDED: backend.suspend,
        VersionState.DEACTIVATED: backend.deactivate,
    }.get(to)
    if step is not None and version.handle:
        jobs.try_at_store(step, version.handle)
    return version
