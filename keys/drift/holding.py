"""What a store is brought in line with while some of its differences are still to be decided.

Whatever is changed here asks the store to follow, and that must not quietly undo what somebody did
at the store: whether that is accepted or reverted is decided, by votes where the policy asks for
them. So what differs, and nobody decided on, is left as it is there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from keys.backends.views import KeyView, VersionView
from keys.drift import beliefs
from keys.drift.plain import moment, written
from keys.models import Drift, Key, StoreView
from keys.models.drift import DriftField, DriftState
from keys.states import GONE, KeyState, VersionState


def to_align(key: Key) -> KeyView:
    """Return what the console believes of a key, except where an open difference waits for a decision.

    A difference is held only where the console still believes what it believed when that was found:
    who changes the very thing here has decided.
    """
    wanted = beliefs.wanted(key)
    undecided = Drift.objects.filter(key=key, state=DriftState.OPEN, decided_at=None)
    for drift in undecided.order_by("found_at"):
        hold = HOLDERS.get(DriftField(drift.field))
        if hold is not None:
            wanted = hold(wanted, drift)
    return wanted


def _key_missing(wanted: KeyView, drift: Drift) -> KeyView:
    """There is nothing to bring in line until somebody says what becomes of the key."""
    return replace(wanted, versions=())


def _key_state(wanted: KeyView, drift: Drift) -> KeyView:
    if wanted.state != drift.believed or drift.observed == KeyState.DESTROYED:
        return wanted
    at = None
    if drift.observed == KeyState.PENDING_DESTRUCTION:
        row = StoreView.objects.filter(key=drift.key_id).first()
        at = moment(row.seen.get("destroy_at")) if row else None
    return replace(wanted, state=KeyState(str(drift.observed)), destroy_at=at)


def _destruction(wanted: KeyView, drift: Drift) -> KeyView:
    if written(wanted.destroy_at) != drift.believed:
        return wanted
    return replace(wanted, destroy_at=moment(drift.observed))


def _version(wanted: KeyView, drift: Drift) -> KeyView:
    """Hold a version's state or date; leave out one that is not there, or is another key now."""
    versions = (
        _held(version, drift) if version.handle == drift.handle else version
        for version in wanted.versions
    )
    return replace(wanted, versions=tuple(version for version in versions if version))


def _held(version: VersionView, drift: Drift) -> VersionView | None:
    if drift.field in (DriftField.VERSION_MISSING, DriftField.MATERIAL):
        return None
    if drift.field == DriftField.VERSION_DESTRUCTION:
        same = written(version.destroy_at) == drift.believed
        return replace(version, destroy_at=moment(drift.observed)) if same else version
    if version.state != drift.believed:
        return version
    return (
        None
        if drift.observed in GONE
        else replace(version, state=VersionState(str(drift.observed)))
    )


def _primary(wanted: KeyView, drift: Drift) -> KeyView:
    serving = next((version.handle for version in wanted.versions if version.primary), None)
    if serving != drift.believed:
        return wanted
    versions = (
        replace(version, primary=version.handle == drift.observed) for version in wanted.versions
    )
    return replace(wanted, versions=tuple(versions))


def _rotation(wanted: KeyView, drift: Drift) -> KeyView:
    return replace(wanted, rotation_days=drift.observed)


def _tags(wanted: KeyView, drift: Drift) -> KeyView:
    differ = drift.observed or {}
    kept = {name: value for name, value in wanted.tags.items() if name not in differ}
    return replace(wanted, tags=kept)


HOLDERS: dict[DriftField, Callable[[KeyView, Drift], KeyView]] = {
    DriftField.KEY_MISSING: _key_missing,
    DriftField.KEY_STATE: _key_state,
    DriftField.DESTRUCTION: _destruction,
    DriftField.VERSION_MISSING: _version,
    DriftField.VERSION_STATE: _version,
    DriftField.VERSION_DESTRUCTION: _version,
    DriftField.MATERIAL: _version,
    DriftField.PRIMARY: _primary,
    DriftField.ROTATION: _rotation,
    DriftField.TAGS: _tags,
}
