"""What a finished job means for its key and versions: rows only, within the transaction of its entry."""

from __future__ import annotations

from datetime import datetime

from keys import lifecycle
from keys.drift import beliefs, holding
from keys.errors import BackendError, BackendUnavailable, Conflict
from keys.imports.ceremonies import end_of
from keys.jobs import aligning
from keys.jobs.work import MAKES_A_VERSION
from keys.models import Job, Key, KeyVersion, StoreView
from keys.models.job import JobKind
from keys.secret import same
from keys.states import GONE, SERVING, Condition, KeyState, VersionState


def settle(job: Job, made: dict[str, str] | None, now: datetime) -> None:
    """Write what a job that succeeded did. Raises Conflict where the key is no longer in use."""
    key, version = job.key, job.version
    if job.kind == JobKind.DESTROY:
        for each in key.versions.exclude(state__in=GONE):
            _walk_to_destruction(each, now, job.reason)
        lifecycle.move_key(key, KeyState.DESTROYED)
        Key.objects.filter(pk=key.pk).update(rotate_at=None)
    elif job.kind == JobKind.ALIGN:
        _confirm(key, made)
    elif version is None:
        return
    elif job.kind in MAKES_A_VERSION and made is not None:
        _install(job, version, made, now)
    elif job.kind == JobKind.REMOVE_MATERIAL:
        lifecycle.set_condition(version, Condition.UNAVAILABLE, handle="")
    elif job.kind == JobKind.DESTROY_VERSION:
        _walk_to_destruction(version, now, job.reason)


def fail(job: Job, now: datetime) -> None:
    """Write that a job failed for good: a version that never came to be is marked destroyed."""
    version = job.version
    if version is not None and version.condition == Condition.CREATING:
        lifecycle.move_version(version, VersionState.DESTROYED, now, "creation failed")


def _install(job: Job, version: KeyVersion, made: dict[str, str], now: datetime) -> None:
    key = job.key
    if key.state not in (KeyState.ENABLED, KeyState.DISABLED, KeyState.PENDING_IMPORT):
        raise Conflict("The key is no longer in use.")
    returns = version.condition == Condition.UNAVAILABLE
    if returns and not same(version.check_value, made["check_value"]):
        raise BackendError("The store holds other material than the version had.")
    lifecycle.set_condition(
        version,
        None,
        handle=made["handle"],
        check_value=made["check_value"],
        public_key=bytes.fromhex(made["public_key"]) or None,
    )
    if aligning.follows(key):
        StoreView.objects.get_or_create(key=key, defaults={"look_at": now})
    if job.kind == JobKind.IMPORT:
        end_of(key, made["check_value"], now)
    if returns or not job.activate:
        aligning.intend(key, job.requested_by_id, now)
        return
    lifecycle.make_primary(version, key.classification, now)
    aligning.intend(key, job.requested_by_id, now)
    if key.state == KeyState.PENDING_IMPORT:
        lifecycle.move_key(key, KeyState.ENABLED)
    Key.objects.filter(pk=key.pk).update(rotate_at=lifecycle.rotation_date(key, version))


def _confirm(key: Key, made: dict[str, str] | None) -> None:
    """Check that what the store was brought in line with still holds. Raises where it doesn't."""
    fresh = Key.objects.select_related("classification", "key_store").get(pk=key.pk)
    if made is None or beliefs.digest(holding.to_align(fresh)) != made["digest"]:
        raise BackendUnavailable("The key changed meanwhile; the store is brought in line again.")


def _walk_to_destruction(version: KeyVersion, now: datetime, reason: str) -> None:
    """Walk legal edges only: whatever still serves is deactivated first."""
    if version.state in SERVING:
        lifecycle.move_version(version, VersionState.DEACTIVATED, now, reason)
    compromised = version.state == VersionState.COMPROMISED
    lifecycle.move_version(
        version,
        VersionState.DESTROYED_COMPROMISED if compromised else VersionState.DESTROYED,
        now,
        reason,
    )
