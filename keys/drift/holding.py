"""What a store is brought in line with while some of its differences are still to be decided.

Whatever is changed here asks the store to follow, and that must not quietly undo what somebody did
at the store: whether that is accepted or reverted is decided, by votes where the policy asks for
them. So what differs, and nobody decided on, is left as it is there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from django.db.models import QuerySet

from keys.backends.views import KeyView, VersionView
from keys.drift import beliefs, ways
from keys.drift.plain import moment, written
from keys.models import Drift, Job, Key, StoreView
from keys.models.drift import DriftField, DriftState
from keys.models.job import JobKind
from keys.states import GONE, SERVING, KeyState, VersionState


def to_align(key: Key) -> KeyView:
    """Return what the console believes of a key, except where an open difference waits for a decision.

    A difference is held only where the console still believes what it believed when that was found:
    who changes the very thing here has decided. Two are held all the same, since undoing them is
    what votes are for: a destruction that was scheduled there, and a version that was disabled there
    and has only been replaced since.
    """
    wanted = beliefs.wanted(key)
    for drift in undecided(key).order_by("found_at"):
        hold = HOLDERS.get(DriftField(drift.field))
        if hold is not None:
            wanted = hold(wanted, drift)
    return wanted


def undecided(key: Key) -> QuerySet[Drift]:
    """Return what differs, and nobody has decided on."""
    return Drift.objects.filter(key=key, state=DriftState.OPEN, decided_at=None)


def in_the_way(job: Job) -> bool:
    """Whether a destruction has to wait: what it destroys may have been saved at the store.

    So it is while an undecided difference says so of the state or the destruction of that key or
    version. One that is outdated, or that nobody can decide on, holds nothing up.
    """
    rows = undecided(job.key).filter(field__in=_LIVES).select_related("key")
    if job.kind == JobKind.DESTROY_VERSION:
        handle = job.version.handle if job.version else ""
        rows = rows.filter(handle__in=["", handle])
    return any(_is_of_now(row) and not all(ways.ways(row).values()) for row in rows)


_LIVES = (
    DriftField.KEY_STATE,
    DriftField.DESTRUCTION,
    DriftField.VERSION_STATE,
    DriftField.VERSION_DESTRUCTION,
)


def _is_of_now(drift: Drift) -> bool:
    """Whether the console still believes what it did when the difference was found."""
    if drift.field == DriftField.KEY_STATE:
        return bool(drift.key.state == drift.believed)
    if drift.field == DriftField.VERSION_STATE:
        version = ways.version_of(drift.key, drift.handle)
        return version is not None and version.state == drift.believed
    return True


def _key_missing(wanted: KeyView, drift: Drift) -> KeyView:
    """There is nothing to bring in line until somebody says what becomes of the key."""
    return replace(wanted, versions=())


def _key_state(wanted: KeyView, drift: Drift) -> KeyView:
    if drift.observed == KeyState.DESTROYED:
        return wanted
    scheduled = drift.observed == KeyState.PENDING_DESTRUCTION
    # Whatever else is decided here about the key does not cancel its destruction there.
    if wanted.state != drift.believed and (
        not scheduled or wanted.state == KeyState.PENDING_DESTRUCTION
    ):
        return wanted
    at = None
    if scheduled:
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
    if version.state != drift.believed and not _only_replaced(version, drift):
        return version
    return (
        None
        if drift.observed in GONE
        else replace(version, state=VersionState(str(drift.observed)))
    )


def _only_replaced(version: VersionView, drift: Drift) -> bool:
    """Whether a version that was disabled at the store, in an emergency say, was deactivated here since."""
    return (
        drift.observed == VersionState.SUSPENDED
        and drift.believed in SERVING
        and version.state == VersionState.DEACTIVATED
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
