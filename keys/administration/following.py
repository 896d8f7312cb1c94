"""Letting the console's rows say what a key's store says, along the edges of keys.states.

Called inside the transaction that accepts or repairs a difference; a difference that can't be
followed was refused before (keys.drift.ways).
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from keys import jobs, lifecycle, stores
from keys.administration.intents import bring_in_line, watch_end
from keys.backends.materials import check_value_of_public_key
from keys.backends.views import KeyView, VersionView
from keys.drift.comparing import Difference
from keys.drift.looking import Looked
from keys.drift.plain import moment
from keys.drift.ways import steps_of_key, steps_of_version, version_of
from keys.errors import Conflict
from keys.gate.changes import Change
from keys.models import Drift, Job, Key, KeyStore, KeyVersion, StoreView
from keys.models.drift import DriftField
from keys.models.job import OPEN_STATES, JobKind
from keys.models.key import ManagementModel, Origin
from keys.states import GONE, SERVING, Condition, KeyState, VersionState

# A version whose period is over when it is adopted can be used so long: to rotate, to re-encrypt.
GRACE = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Deciding:
    """A difference that is decided on, its key, and what the store said a moment ago, where it was asked."""

    drift: Drift
    key: Key
    looked: Looked | None = None

    @property
    def seen(self) -> KeyView | None:
        return self.looked.seen if self.looked else None


def follow(change: Change[Deciding], d: Difference) -> None:
    """Carry out what accepting a difference means. Raises Conflict where something is in the way."""
    FOLLOWERS[d.field](change, d)


def lose(change: Change[Deciding], d: Difference) -> None:
    """Write that material is gone, without a replacement yet: what repairing begins with.

    Handles are kept, though the next version is the first of a new key there (beliefs.standing): a
    compromised version that comes back is known by its handle.
    """
    key = change.row.key
    if d.field == DriftField.KEY_MISSING:
        for version in key.versions.exclude(state__in=GONE):
            lose_version(change, version)
        return
    lost = version_of(key, d.handle)
    if lost is not None and lost.state not in GONE:
        lose_version(change, lost)


# --- the key


def _key_missing(change: Change[Deciding], d: Difference) -> None:
    key = change.row.key
    for version in key.versions.exclude(state__in=GONE):
        lose_version(change, version, for_good=True)
    _cancel(change, key, JobKind.DESTROY, 0)
    for step in steps_of_key(KeyState(key.state), KeyState.DESTROYED):
        at = change.now if step == KeyState.PENDING_DESTRUCTION else None
        lifecycle.move_key(key, step, **({"destroy_at": at} if at else {}))
    Key.objects.filter(pk=key.pk).update(rotate_at=None)


def _key_state(change: Change[Deciding], d: Difference) -> None:
    key, to = change.row.key, KeyState(d.observed)
    if to == KeyState.DESTROYED:
        _key_missing(change, d)
        return
    if to == KeyState.PENDING_IMPORT:
        for version in key.versions.exclude(state__in=GONE).exclude(handle=""):
            lose_version(change, version)
        return
    if key.state == KeyState.PENDING_DESTRUCTION:
        _cancel(change, key, JobKind.DESTROY, 0)
    for step in steps_of_key(KeyState(key.state), to):
        columns = {}
        if step == KeyState.PENDING_DESTRUCTION:
            columns["destroy_at"] = _their_date(change) or change.now + timedelta(
                days=key.classification.destruction_days
            )
            watch_end(change, key, columns["destroy_at"])
        lifecycle.move_key(key, step, **columns)


def _destruction(change: Change[Deciding], d: Difference) -> None:
    key, at = change.row.key, moment(d.observed)
    if at is None or key.state != KeyState.PENDING_DESTRUCTION:
        raise Conflict("The key is not waiting for its destruction any more.")
    waiting = Job.objects.filter(key=key, kind=JobKind.DESTROY, state__in=OPEN_STATES, attempts=0)
    if not waiting.update(run_after=at):
        raise Conflict("The destruction is being carried out.")
    Key.objects.filter(pk=key.pk).update(destroy_at=at)


def _rotation(change: Change[Deciding], d: Difference) -> None:
    StoreView.objects.filter(key=change.row.key).update(rotation_days=d.observed)


def _tags(change: Change[Deciding], d: Difference) -> None:
    seen = change.row.seen
    tags = dict(sorted(seen.tags.items())) if seen else {}
    StoreView.objects.filter(key=change.row.key).update(tags=tags)


# --- one version


def _version_missing(change: Change[Deciding], d: Difference) -> None:
    lose_version(change, _known(change, d.handle))


def _version_unknown(change: Change[Deciding], d: Difference) -> None:
    key, view = change.row.key, _their_version(change, d.handle)
    last = key.versions.order_by("-number").first()
    number = last.number + 1 if last else 1
    if known_as_compromised(key.key_store, view):
        view = as_compromised(view)
    # What was voted on says whether it serves there (comparing.told_of).
    serves = view.primary and view.state in SERVING
    if serves:
        # It begins as any next version does; taking over is what deactivates the one before.
        view = replace(view, primary=False, state=VersionState.PRE_ACTIVE)
    version = new_version(key, view, number, change.now, change.caller.principal_id)
    version.save(force_insert=True)
    if serves:
        _take_over(change, version)
        if _their_version(change, d.handle).state == VersionState.SUSPENDED:
            lifecycle.move_version(version, VersionState.SUSPENDED, change.now, change.reason)
    if version.condition == Condition.PENDING_DESTRUCTION:
        watch_end(change, key, version.destroy_at or change.now, version=version)


def _version_state(change: Change[Deciding], d: Difference) -> None:
    version, to = _known(change, d.handle), VersionState(d.observed)
    if to in GONE:
        lose_version(change, version)
        return
    served = version.primary
    # Active, and no more: whether it serves is a difference of its own, with votes of its own.
    for step in steps_of_version(VersionState(version.state), to):
        lifecycle.move_version(version, step, change.now, change.reason)
    if served and not version.primary:
        _rotate_now(change, version)


def _version_destruction(change: Change[Deciding], d: Difference) -> None:
    version, at = _known(change, d.handle), moment(d.observed)
    _cancel(change, version.key, JobKind.DESTROY_VERSION, version.number)
    if at is None:
        lifecycle.set_condition(version, None, destroy_at=None)
        return
    if version.state in SERVING:
        served = version.primary
        lifecycle.move_version(version, VersionState.DEACTIVATED, change.now, change.reason)
        if served:
            _rotate_now(change, version)
    lifecycle.set_condition(version, Condition.PENDING_DESTRUCTION, destroy_at=at)
    watch_end(change, version.key, at, version=version)


def _primary(change: Change[Deciding], d: Difference) -> None:
    _take_over(change, _known(change, d.observed))


FOLLOWERS: dict[DriftField, Callable[[Change[Deciding], Difference], None]] = {
    DriftField.KEY_MISSING: _key_missing,
    DriftField.KEY_STATE: _key_state,
    DriftField.DESTRUCTION: _destruction,
    DriftField.VERSION_MISSING: _version_missing,
    DriftField.VERSION_UNKNOWN: _version_unknown,
    DriftField.VERSION_STATE: _version_state,
    DriftField.VERSION_DESTRUCTION: _version_destruction,
    DriftField.PRIMARY: _primary,
    DriftField.ROTATION: _rotation,
    DriftField.TAGS: _tags,
}


# --- the parts


def new_version(
    key: Key, view: VersionView, number: int, now: datetime, created_by: uuid.UUID
) -> KeyVersion:
    """Return a row, not yet saved, for a version that is at its store already.

    Its usage periods count from the day when its material was made; one that is over by then, or
    nearly, ends GRACE from now instead, so that what it protects can be brought to a newer version.
    """
    origin, rules = view.created_at or now, key.classification
    served = view.state != VersionState.PRE_ACTIVE
    return KeyVersion(
        id=uuid.uuid4(),
        key=key,
        number=number,
        state=view.state,
        condition=Condition.PENDING_DESTRUCTION if view.destroy_at else "",
        primary=view.primary and view.state in SERVING,
        handle=view.handle,
        check_value=check_value_of_public_key(view.public_key) if view.public_key else "",
        public_key=view.public_key,
        created_at=now,
        created_by_id=created_by,
        originated_at=origin,
        activated_at=origin if served else None,
        protect_until=max(origin + timedelta(days=rules.originator_days), now + GRACE)
        if served
        else None,
        process_until=max(origin + timedelta(days=rules.recipient_days), now + GRACE)
        if served
        else None,
        compromised_at=now if view.state == VersionState.COMPROMISED else None,
        destroy_at=view.destroy_at,
    )


def known_as_compromised(store: KeyStore, view: VersionView) -> bool:
    """Whether a version at a store is one that the console knows as compromised, by its handle there.

    Not where both public keys are known and differ: a store may give a handle to another key.
    """
    rows = KeyVersion.objects.filter(
        handle=view.handle,
        state__in=[VersionState.COMPROMISED, VersionState.DESTROYED_COMPROMISED],
        key__key_store__in=stores.places_like(store),
    )
    keys = rows.values_list("public_key", flat=True)
    return any(not (view.public_key and known) or bytes(known) == view.public_key for known in keys)


def as_compromised(view: VersionView) -> VersionView:
    """Return a version as it is taken in that was compromised before: nobody comes back from that."""
    return replace(view, state=VersionState.COMPROMISED, primary=False)


def lose_version(change: Change[Any], version: KeyVersion, *, for_good: bool = False) -> None:
    """Write that a version's material is gone: destroyed, or where it can be imported again, away.

    `for_good`: its key is gone, too, and nothing can be imported into it.
    """
    key, served = version.key, version.primary
    _cancel(change, key, JobKind.DESTROY_VERSION, version.number)
    if version.condition == Condition.CREATING:
        raise Conflict("A version of the key is being made; wait for its job.")
    if key.origin == Origin.IMPORTED and version.check_value and not for_good:
        # Should a compromised one come back by another way, it is known by its handle.
        handle = version.handle if version.state == VersionState.COMPROMISED else ""
        lifecycle.set_condition(version, Condition.UNAVAILABLE, handle=handle, destroy_at=None)
        return
    for step in steps_of_version(VersionState(version.state), VersionState.DESTROYED):
        lifecycle.move_version(version, step, change.now, change.reason or "gone at its store")
    if served:
        _rotate_now(change, version)


def _take_over(change: Change[Deciding], version: KeyVersion) -> None:
    """Let a version protect new data here as it does at the store; the one before is deactivated."""
    key = change.row.key
    if version.state == VersionState.ACTIVE:
        # The table has no edge from active to active: it takes over by way of a suspension.
        lifecycle.move_version(version, VersionState.SUSPENDED, change.now)
    lifecycle.make_primary(version, key.classification, change.now)
    due = lifecycle.rotation_date(key, version)
    Key.objects.filter(pk=key.pk).update(rotate_at=due)
    # What deactivates the old version here is the console's own rule: the store is told of it.
    bring_in_line(change, key)


def _rotate_now(change: Change[Any], version: KeyVersion) -> None:
    """Nothing protects new data until a new version does: the next sweep rotates, or asks to."""
    if version.key.model != ManagementModel.PROVIDER_MANAGED:
        Key.objects.filter(pk=version.key_id).update(rotate_at=change.now)


def _cancel(change: Change[Any], key: Key, kind: JobKind, target: int) -> None:
    """Cancel a destruction that waits for its date, where one does."""
    if Job.objects.filter(key=key, kind=kind, target_version=target, state__in=OPEN_STATES):
        jobs.cancel(key, kind, target, change.now)


def _known(change: Change[Deciding], handle: str) -> KeyVersion:
    version = version_of(change.row.key, handle)
    if version is None:
        raise Conflict("The console doesn't know that version any more.")
    return version


def _their_version(change: Change[Deciding], handle: str) -> VersionView:
    seen = change.row.seen
    view = seen.version(handle) if seen else None
    if view is None:
        raise Conflict("The version is not there any more; look again.")
    return view


def _their_date(change: Change[Deciding]) -> datetime | None:
    return change.row.seen.destroy_at if change.row.seen else None
