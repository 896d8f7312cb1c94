"""What each kind of job does at its key store. No transaction is open here.

keys.jobs claims a job, hands it to one of these, and writes what came of it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from django.db.models import F

from keys import approvals, clock, targets
from keys.actions import Action
from keys.algorithms import Usage
from keys.backends.base import Backend, Material
from keys.backends.proof import check_material
from keys.drift import beliefs, holding
from keys.errors import BackendError, Conflict, StillWaiting
from keys.jobs import watching
from keys.models import Approval, Drift, Job, Key, KeyVersion
from keys.models.job import JobKind, JobState
from keys.models.key import ManagementModel
from keys.secret import Secret, same
from keys.states import GONE, Condition, KeyState
from keys.stores import backend_of

# Plain values that say what the store made; None where nothing was made.
Made = dict[str, str] | None

ACTION_OF = {
    JobKind.CREATE: Action.CREATE_KEY,
    JobKind.ROTATE: Action.ROTATE_KEY,
    JobKind.PREPARE: Action.PREPARE_VERSION,
    JobKind.IMPORT: Action.IMPORT_KEY,
    JobKind.ALIGN: Action.ALIGN_KEY,
    JobKind.REMOVE_MATERIAL: Action.DELETE_MATERIAL,
    JobKind.DESTROY: Action.SCHEDULE_DESTRUCTION,
    JobKind.DESTROY_VERSION: Action.DESTROY_VERSION,
}
MAKES_A_VERSION = (JobKind.CREATE, JobKind.ROTATE, JobKind.PREPARE, JobKind.IMPORT)
# What was begun has to end: some of the material may be gone already.
REMOVES = (JobKind.REMOVE_MATERIAL, JobKind.DESTROY, JobKind.DESTROY_VERSION)


def make_version(job: Job) -> Made:
    """Create, rotate, prepare: material under the version's label, then a round trip."""
    check_votes(job)
    version, backend = version_of(job), backend_of(job.key)
    if version.condition != Condition.CREATING:
        raise Conflict("The version is no longer wanted.")  # its key was destroyed meanwhile
    of = beliefs.parent(job.key)
    material = backend.find(version.id, of) if job.attempts > 1 else None
    if material is None:
        material = backend.generate(
            version.id,
            job.key.spec,
            usage=Usage(job.key.usage),
            exportable=job.key.exportable,
            parent=of,
        )
    prove(backend, material, job.key)
    return told(material)


def bring_material(job: Job, material: Secret, check_value: str) -> Made:
    """Import what a caller holds. Raises what the store refuses it with."""
    check_votes(job)
    version, backend = version_of(job), backend_of(job.key)
    _check_wanted(version)
    brought = backend.import_material(
        version.id,
        job.key.spec,
        material,
        usage=Usage(job.key.usage),
        exportable=job.key.exportable,
        parent=beliefs.parent(job.key),
    )
    if not same(brought.check_value, check_value):
        raise BackendError("The store holds other material than was brought.")
    prove(backend, brought, job.key)
    return told(brought)


def adopt_import(job: Job) -> Made:
    """An import whose process died: what it left is taken, or the caller must bring the material again."""
    check_votes(job)
    version, backend = version_of(job), backend_of(job.key)
    _check_wanted(version)
    material = backend.find(version.id, beliefs.parent(job.key))
    if material is None:
        raise BackendError("The material did not arrive; import it again.")
    if not material.check_value:
        raise BackendError("The store can't tell what arrived; import the material again.")
    if job.approval and not same(
        material.check_value, job.approval.parameters.get("check_value") or ""
    ):
        raise BackendError("What arrived is not the material that officers agreed to.")
    if version.check_value and not same(material.check_value, version.check_value):
        raise BackendError("What arrived is not the material that the version had.")
    prove(backend, material, job.key)
    return told(material)


def remove_material(job: Job) -> Made:
    """Remove imported material from the store; the version keeps its state, and can get it back."""
    check_votes(job)
    version = version_of(job)
    if version.condition != Condition.UNAVAILABLE:
        raise Conflict("The version's material is not to be removed any more.")
    handle = _handle_of(backend_of(job.key), job.key, version)
    if handle:
        backend_of(job.key).remove(handle)
    return None


def destroy_key(job: Job) -> Made:
    """Destroy every version's material once the window is over by the database's clock, too."""
    key = job.key
    _check_time(key.state == KeyState.PENDING_DESTRUCTION, key.destroy_at, "key")
    if _by_the_store(job):
        return None
    backend = backend_of(key)
    living = key.versions.exclude(state__in=GONE).order_by("number")
    handles = [_handle_of(backend, key, version) for version in living]
    backend.destroy_all([handle for handle in handles if handle])
    return None


def destroy_version(job: Job) -> Made:
    """Destroy one version's material, as destroy_key() does."""
    version = version_of(job)
    waits = version.condition == Condition.PENDING_DESTRUCTION
    _check_time(waits, version.destroy_at, "version")
    if _by_the_store(job):
        return None
    destroy_material(backend_of(job.key), job.key, version)
    return None


def _check_time(waits: bool, at: datetime | None, what: str) -> None:
    if not waits or at is None or clock.database_now() < at:
        raise Conflict(f"The {what} is not waiting for this destruction.")


def _by_the_store(job: Job) -> bool:
    """Whether the store has destroyed by itself what is to go; False: the job has to do it, and may.

    Raises StillWaiting while it is not yet to be done. Such a try changed nothing, so it doesn't
    count: the destruction can be cancelled until one has.
    """
    try:
        if holding.in_the_way(job):
            raise watching.later("What differs at the key store is to be decided first.")
        if watching.only_watches(job):
            watching.check_gone(job)
            return True
    except StillWaiting:
        held = Job.objects.filter(pk=job.pk, state=JobState.RUNNING, claimed_by=job.claimed_by)
        held.filter(attempts__gt=0).update(attempts=F("attempts") - 1)
        raise
    if job.key.model == ManagementModel.PROVIDER_MANAGED:
        raise Conflict("The provider manages this key; nothing of it is destroyed from here.")
    check_votes(job)
    return False


def align(job: Job) -> Made:
    """Bring the store in line with what the console believes of the key now."""
    check_votes(job)
    wanted = holding.to_align(job.key)
    if wanted.provider_managed:
        raise Conflict("The provider manages this key; nothing of it is changed from here.")
    if wanted.versions:
        backend_of(job.key).conform(wanted)
    return {"digest": beliefs.digest(wanted)}


HANDLERS: dict[JobKind, Callable[[Job], Made]] = {
    JobKind.CREATE: make_version,
    JobKind.ROTATE: make_version,
    JobKind.PREPARE: make_version,
    JobKind.IMPORT: adopt_import,
    JobKind.ALIGN: align,
    JobKind.REMOVE_MATERIAL: remove_material,
    JobKind.DESTROY: destroy_key,
    JobKind.DESTROY_VERSION: destroy_version,
}


def take_back(job: Job) -> None:
    """Remove what a job that failed for good may have made. Raises what the store refuses with."""
    version = job.version
    if version is None:
        return
    begun = version.condition == Condition.CREATING
    returning = job.kind == JobKind.IMPORT and version.condition == Condition.UNAVAILABLE
    if begun:
        destroy_material(backend_of(job.key), job.key, version)
    elif returning:
        # Only the material: the key at the store is what old ciphertexts need, once it comes back.
        handle = _handle_of(backend_of(job.key), job.key, version)
        if handle:
            backend_of(job.key).remove(handle)


def version_of(job: Job) -> KeyVersion:
    assert job.version is not None
    return job.version


def _check_wanted(version: KeyVersion) -> None:
    """A version takes material while it is being created, or where its own was removed."""
    if version.condition not in (Condition.CREATING, Condition.UNAVAILABLE):
        raise Conflict("The version is no longer wanted.")


def destroy_material(backend: Backend, key: Key, version: KeyVersion) -> None:
    """Destroy by handle, and by label where a crash left the handle unwritten."""
    handle = _handle_of(backend, key, version)
    if handle:
        backend.destroy(handle)


def _handle_of(backend: Backend, key: Key, version: KeyVersion) -> str:
    if version.handle:
        return version.handle
    found = backend.find(version.id, beliefs.parent(key))
    return found.handle if found else ""


def check_votes(job: Job) -> None:
    """Verify the votes again, here where it is done, not where it was asked for."""
    action, approval = ACTION_OF[JobKind(job.kind)], job.approval
    if approval is None:
        if _expired(job):
            return
        if approvals.rule_for(action, targets.key(str(job.key_id), {})) is not None:
            raise Conflict("This needs officers' votes now, and has none.")
        return
    fault = approvals.votes_fault(approval)
    if not fault and not _is_about(approval, action, job):
        fault = "they are for something else"
    if fault:
        raise Conflict(f"The votes don't hold: {fault}.")


def _is_about(approval: Approval, action: Action, job: Job) -> bool:
    """Whether votes are for what a job does: asked for itself, or the new version that repairs a key."""
    if (approval.action, approval.subject_id) == (action, str(job.key_id)):
        return True
    repairs = approval.action == Action.REPAIR_DRIFT and job.kind == JobKind.ROTATE
    return repairs and Drift.objects.filter(pk=approval.subject_id, key=job.key_id).exists()


def _expired(job: Job) -> bool:
    """Whether the job removes material at the time that was set, and voted on, when it was imported."""
    if job.kind != JobKind.REMOVE_MATERIAL:
        return False
    until = version_of(job).material_expires_at
    return until is not None and clock.database_now() >= until


def prove(backend: Backend, material: Material, key: Key) -> None:
    """Prove by a round trip that a key's new material works. Raises BackendError where it doesn't."""
    check_material(backend, material, key.spec, key.usage, key.algorithm)


def told(material: Material) -> dict[str, str]:
    """Return what the store says of material as plain values; none of it is secret."""
    public = material.public_key.hex() if material.public_key else ""
    return {"handle": material.handle, "check_value": material.check_value, "public_key": public}
