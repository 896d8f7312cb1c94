"""Jobs: intents that survive a kill at any point. Due, claim, run, finish.

A job is committed before the store is asked; the store knows it by its version's id. Whoever claims
a job that was tried before looks first what the earlier try left (`Backend.find`), so nothing is
ever made twice. Jobs are carried out by the scheduler principal on behalf of who asked.
"""

from __future__ import annotations

import logging
import os
import socket
import uuid
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import DatabaseError
from django.db.models import F, Q, QuerySet

from audit.events import Outcome, Subject
from keys import approvals, clock, gate, lifecycle, targets
from keys.actions import Action
from keys.algorithms import Usage
from keys.backends.base import Backend, Material
from keys.backends.proof import check_material
from keys.callers import Caller
from keys.errors import BackendError, BackendUnavailable, Conflict, KeyServiceError, Unavailable
from keys.gate.changes import Change, Changer
from keys.models import Job, Key, KeyVersion
from keys.models.job import OPEN_STATES, JobKind, JobState
from keys.secret import Secret
from keys.services import scheduler
from keys.states import GONE, SERVING, Condition, KeyState, VersionState
from keys.stores import backend_of

logger = logging.getLogger(__name__)

ACTION_OF = {
    JobKind.CREATE: Action.CREATE_KEY,
    JobKind.ROTATE: Action.ROTATE_KEY,
    JobKind.PREPARE: Action.PREPARE_VERSION,
    JobKind.IMPORT: Action.IMPORT_KEY,
    JobKind.DESTROY: Action.SCHEDULE_DESTRUCTION,
    JobKind.DESTROY_VERSION: Action.DESTROY_VERSION,
}
MAKES_A_VERSION = (JobKind.CREATE, JobKind.ROTATE, JobKind.PREPARE, JobKind.IMPORT)
# A store that stays away this often is given up on; a person can ask again.
MOST_ATTEMPTS = 50


def due(limit: int = 1000) -> list[uuid.UUID]:
    """Return the ids of jobs whose time has come and that nobody holds, oldest first."""
    return list(_free().order_by("run_after").values_list("id", flat=True)[:limit])


def is_due(job_id: uuid.UUID) -> bool:
    """Whether a job is there, due and free; a message about any other does nothing."""
    return _free().filter(pk=job_id).exists()


def claim(job_id: uuid.UUID) -> Job | None:
    """Take a job for the length of a lease, by compare-and-set; None where somebody else holds it."""
    token = f"{socket.gethostname()[:60]}:{os.getpid()}:{uuid.uuid4().hex[:12]}"
    waiting = _free().filter(pk=job_id)
    taken = waiting.update(
        state=JobState.RUNNING,
        claimed_by=token,
        lease_until=_lease_end(),
        attempts=F("attempts") + 1,
    )
    if not taken:
        return None
    return Job.objects.select_related(
        "key__key_store", "key__classification", "version", "approval"
    ).get(pk=job_id)


def _free() -> QuerySet[Job]:
    """Return the jobs whose time has come and that nobody holds."""
    now = clock.now()
    unclaimed = Q(state=JobState.PENDING) | Q(state=JobState.RUNNING, lease_until__lt=now)
    return Job.objects.filter(unclaimed, run_after__lte=now)


def _lease_end() -> datetime:
    return clock.now() + timedelta(seconds=settings.JOB_LEASE_SECONDS)


def run(job_id: uuid.UUID) -> Job:
    """Claim and carry out a job; return it as it stands afterwards. Safe to call at any time, any number of times.

    A store that can't be reached leaves the job waiting for its next try. Errors are told by the
    job's state and its entry, not raised; LogUnavailable and Unavailable excepted.
    """
    job = claim(job_id)
    if job is not None:
        try:
            _HANDLERS[JobKind(job.kind)](job, scheduler_for(job))
        except (BackendUnavailable, Unavailable) as error:
            _postpone(job, error)
        except KeyServiceError as error:
            _give_up(job, error)
        except DatabaseError:
            # Nothing can be written now. The lease runs out, and the next run looks what was done.
            raise
        except Exception as error:
            logger.exception("A job met an error of its own: %s", job.kind)
            _give_up(job, BackendError(f"Unexpected: {type(error).__name__}; see the log."))
    return Job.objects.select_related("key", "version").get(pk=job_id)


def run_import(job_id: uuid.UUID, material: Secret, check_value: str) -> Job:
    """Carry out an import in the process that holds the material; it is never kept or queued.

    Raises what the store refuses it with; the key then waits for its import as before.
    """
    job = claim(job_id)
    if job is None:
        raise Conflict("The import is being carried out already.")
    version, caller = _version(job), scheduler_for(job)
    try:
        _check_votes(job)
        backend = backend_of(job.key)
        brought = backend.import_material(
            version.id,
            job.key.spec,
            material,
            usage=Usage(job.key.usage),
            exportable=job.key.exportable,
        )
        if brought.check_value != check_value:
            raise BackendError("The store holds other material than was brought.")
        prove(backend, brought, job.key)
        _finish(caller, str(job.id), claim=job.claimed_by, material=material_facts(brought))
    except KeyServiceError as error:
        _give_up(job, error)
        raise
    return Job.objects.select_related("key", "version").get(pk=job_id)


def scheduler_for(job: Job) -> Caller:
    """Return the scheduler as the caller of one job; the job's id links its entries."""
    return scheduler(request_id=str(job.id))


# --- handlers: what each kind does at the store. No transaction is open here.


def _make_version(job: Job, caller: Caller) -> None:
    """Create and rotate: material under the version's label, a round trip, then it takes over."""
    _check_votes(job)
    version, backend = _version(job), backend_of(job.key)
    if version.condition != Condition.CREATING:
        raise Conflict("The version is no longer wanted.")  # its key was destroyed meanwhile
    material = backend.find(version.id) if job.attempts > 1 else None
    if material is None:
        material = backend.generate(
            version.id,
            job.key.spec,
            usage=Usage(job.key.usage),
            exportable=job.key.exportable,
        )
    prove(backend, material, job.key)
    _finish(caller, str(job.id), claim=job.claimed_by, material=material_facts(material))


def _adopt_import(job: Job, caller: Caller) -> None:
    """An import whose process died: what it left is taken, or the caller must bring the material again."""
    _check_votes(job)
    version, backend = _version(job), backend_of(job.key)
    material = backend.find(version.id)
    if material is None:
        raise BackendError("The material did not arrive; import it again.")
    if job.approval and material.check_value != job.approval.parameters.get("check_value"):
        raise BackendError("What arrived is not the material that officers agreed to.")
    prove(backend, material, job.key)
    _finish(caller, str(job.id), claim=job.claimed_by, material=material_facts(material))


def _destroy(job: Job, caller: Caller) -> None:
    """Destroy every version's material once the window is over by the database's clock, too."""
    _check_votes(job)
    key = job.key
    if (
        key.state != KeyState.PENDING_DESTRUCTION
        or key.destroy_at is None
        or clock.database_now() < key.destroy_at
    ):
        raise Conflict("The key is not waiting for this destruction.")
    backend = backend_of(key)
    for version in key.versions.exclude(state__in=GONE):
        _destroy_material(backend, version)
    _finish(caller, str(job.id), claim=job.claimed_by)


def _destroy_version(job: Job, caller: Caller) -> None:
    _check_votes(job)
    version = _version(job)
    waiting = version.condition == Condition.PENDING_DESTRUCTION and version.destroy_at is not None
    if not waiting or clock.database_now() < version.destroy_at:  # type: ignore[operator]
        raise Conflict("The version is not waiting for this destruction.")
    _destroy_material(backend_of(job.key), version)
    _finish(caller, str(job.id), claim=job.claimed_by)


_HANDLERS: dict[JobKind, Callable[[Job, Caller], None]] = {
    JobKind.CREATE: _make_version,
    JobKind.ROTATE: _make_version,
    JobKind.PREPARE: _make_version,
    JobKind.IMPORT: _adopt_import,
    JobKind.DESTROY: _destroy,
    JobKind.DESTROY_VERSION: _destroy_version,
}


def _version(job: Job) -> KeyVersion:
    assert job.version is not None
    return job.version


def _destroy_material(backend: Backend, version: KeyVersion) -> None:
    """Destroy by handle, and by label where a crash left the handle unwritten."""
    handle = version.handle
    if not handle:
        found = backend.find(version.id)
        handle = found.handle if found else ""
    if handle:
        backend.destroy(handle)


def _check_votes(job: Job) -> None:
    """Verify the votes again, here where it is done, not where it was asked for."""
    action, approval = ACTION_OF[JobKind(job.kind)], job.approval
    if approval is None:
        if approvals.rule_for(action, targets.key(str(job.key_id), {})) is not None:
            raise Conflict("This needs officers' votes now, and has none.")
        return
    fault = approvals.votes_fault(approval)
    if not fault and (approval.action, approval.subject_id) != (action, str(job.key_id)):
        fault = "they are for something else"
    if fault:
        raise Conflict(f"The votes don't hold: {fault}.")


def prove(backend: Backend, material: Material, key: Key) -> None:
    """Prove by a round trip that a key's new material works. Raises BackendError where it doesn't."""
    check_material(backend, material, key.spec, key.usage, key.algorithm)


def material_facts(material: Material) -> dict[str, str]:
    """Return what the store says of material as plain values; none of it is secret."""
    public = material.public_key.hex() if material.public_key else ""
    return {"handle": material.handle, "check_value": material.check_value, "public_key": public}


# --- finishing: the result, its entry and the epoch commit together.


@gate.change(Action.RUN_JOB, on=targets.job)
def _finish(change: Change[Job], *, claim: str, material: dict[str, str] | None = None) -> None:
    """Write a job's result, where the claim still holds."""
    job = Job.objects.select_related("key__classification", "version").get(pk=change.row.pk)
    key, version = job.key, job.version
    _describe(change, job)
    _end(job, claim, JobState.SUCCEEDED, change.now)
    if job.kind in MAKES_A_VERSION and version is not None and material is not None:
        _install(job, version, material, change.now)
    elif job.kind == JobKind.DESTROY:
        for each in key.versions.exclude(state__in=GONE):
            _walk_to_destruction(each, change.now, job.reason)
        lifecycle.move_key(key, KeyState.DESTROYED)
        Key.objects.filter(pk=key.pk).update(rotate_at=None)
    elif version is not None:
        _walk_to_destruction(version, change.now, job.reason)
    change.touch("key", key.id)


def _install(job: Job, version: KeyVersion, material: dict[str, str], now: datetime) -> None:
    key = job.key
    if key.state not in (KeyState.ENABLED, KeyState.DISABLED, KeyState.PENDING_IMPORT):
        raise Conflict("The key is no longer in use.")
    lifecycle.set_condition(
        version,
        None,
        handle=material["handle"],
        check_value=material["check_value"],
        public_key=bytes.fromhex(material["public_key"]) or None,
    )
    if not job.activate:
        return
    lifecycle.make_primary(version, key.classification, now)
    if key.state == KeyState.PENDING_IMPORT:
        lifecycle.move_key(key, KeyState.ENABLED)
    Key.objects.filter(pk=key.pk).update(rotate_at=lifecycle.rotation_date(key, version))


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


@gate.change(Action.RUN_JOB, on=targets.job)
def _fail(change: Change[Job], *, claim: str, error: str, code: str) -> None:
    """Write that a job failed for good; a version that never came to be is marked destroyed."""
    job = Job.objects.select_related("key", "version").get(pk=change.row.pk)
    _describe(change, job)
    change.outcome, change.why = Outcome.FAILED, code
    _end(job, claim, JobState.FAILED, change.now, error)
    version = job.version
    if version is not None and version.condition == Condition.CREATING:
        lifecycle.move_version(version, VersionState.DESTROYED, change.now, "creation failed")
    change.touch("key", job.key_id)


@gate.change(Action.RUN_JOB, on=targets.job)
def _wait(change: Change[Job], *, claim: str, error: str, code: str) -> None:
    """Put a job back until the store can be reached again."""
    job = Job.objects.select_related("key", "version").get(pk=change.row.pk)
    _describe(change, job)
    change.outcome, change.why = Outcome.FAILED, code
    pause = timedelta(seconds=min(5 * 2 ** min(job.attempts, 7), 600))
    updated = Job.objects.filter(pk=job.pk, state=JobState.RUNNING, claimed_by=claim).update(
        state=JobState.PENDING, run_after=change.now + pause, error=error[:500], lease_until=None
    )
    if not updated:
        raise Conflict("Somebody else holds the job.")


def _describe(change: Change[Job], job: Job) -> None:
    """Make the entry speak of the key, under the action that was asked for."""
    version = job.version
    change.record_as = ACTION_OF[JobKind(job.kind)]
    change.about = Subject(
        "key", str(job.key_id), job.key.alias, version.number if version else None
    )
    change.facts |= {
        "job": str(job.id),
        "kind": job.kind,
        "attempt": job.attempts,
        "requested_by": str(job.requested_by_id),
    }
    if job.approval_id:
        change.cited.append(str(job.approval_id))


def _end(job: Job, claim: str, state: JobState, now: datetime, error: str = "") -> None:
    changes = {"state": state, "finished_at": now, "lease_until": None, "error": error[:500]}
    if not Job.objects.filter(pk=job.pk, state=JobState.RUNNING, claimed_by=claim).update(
        **changes
    ):
        raise Conflict("Somebody else holds the job.")


def _postpone(job: Job, error: KeyServiceError) -> None:
    if job.attempts >= MOST_ATTEMPTS:
        _give_up(job, error)
        return
    _put_back(job, error)


def _put_back(job: Job, error: KeyServiceError) -> None:
    _tell(_wait, job, error)


def _tell(end: Changer[Job, Any, None], job: Job, error: KeyServiceError) -> None:
    """Write how a job goes on after an error. One whose claim is lost is somebody else's business."""
    with suppress(Conflict):
        end(
            scheduler_for(job),
            str(job.id),
            claim=job.claimed_by,
            error=error.detail,
            code=error.code,
        )


def _give_up(job: Job, error: KeyServiceError) -> None:
    """End a job for good, and take back what it made. A lost claim is somebody else's business."""
    # The lease begins anew: nobody may find the job free, and adopt what is being taken back.
    held = Job.objects.filter(pk=job.pk, state=JobState.RUNNING, claimed_by=job.claimed_by)
    if not held.update(lease_until=_lease_end()):
        return
    if job.kind in (JobKind.DESTROY, JobKind.DESTROY_VERSION) and not isinstance(error, Conflict):
        # A destruction that was begun must end: some of the material may be gone already.
        _put_back(job, error)
        return
    version = job.version
    if version is not None and version.condition == Condition.CREATING:
        try:
            _destroy_material(backend_of(job.key), version)
        except (BackendUnavailable, Unavailable) as trouble:
            _put_back(job, trouble)
            return
    _tell(_fail, job, error)


def open_jobs(key: Key) -> list[Job]:
    """Return the jobs of a key that are not finished."""
    return list(Job.objects.filter(key=key, state__in=OPEN_STATES))


def cancel(key: Key, kind: JobKind, target: int, now: datetime) -> None:
    """Cancel a waiting job by compare-and-set. Raises Conflict where it was claimed already.

    One that waits for its next try may have destroyed some of the material. One that failed did
    not: it was refused before the store was asked, so there is nothing to cancel.
    """
    rows = Job.objects.filter(key=key, kind=kind, target_version=target)
    waiting = rows.filter(state=JobState.PENDING, attempts=0)
    if waiting.update(state=JobState.CANCELLED, finished_at=now):
        return
    last = rows.order_by("-created_at").first()
    if last is None or last.state != JobState.FAILED:
        raise Conflict("It is too late to cancel: the destruction is being carried out.")


def try_at_store(step: Callable[[str], None], handle: str) -> bool:
    """Ask the store to enforce a state that the console enforces anyway; say in the log where it won't."""
    try:
        step(handle)
    except KeyServiceError as error:
        logger.warning("The key store did not take over a state: %s", error.code)
        return False
    return True
