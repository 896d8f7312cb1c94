"""Jobs: intents that survive a kill at any point. Due, claim, run, finish.

A job is committed before the store is asked; the store knows it by its version's id. Whoever claims
a job that was tried before looks first what the earlier try left (`Backend.find`), so nothing is
ever made twice. Jobs are carried out by the scheduler principal on behalf of who asked.
"""

from __future__ import annotations

import logging
import math
import os
import socket
import uuid
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import DatabaseError
from django.db.models import F, Q, QuerySet, Value
from django.db.models.functions import Least

from audit.events import Outcome
from keys import clock, gate, targets
from keys.actions import Action
from keys.callers import Caller
from keys.errors import (
    BackendError,
    BackendUnavailable,
    Conflict,
    KeyServiceError,
    StillWaiting,
    Throttled,
    Unavailable,
)
from keys.gate.changes import Change, Changer
from keys.jobs import outcomes, work
from keys.models import Job, Key
from keys.models.job import OPEN_STATES, JobKind, JobState
from keys.secret import Secret
from keys.services import scheduler

logger = logging.getLogger(__name__)

# A store that stays away this often is given up on; a person can ask again.
MOST_ATTEMPTS = 50
# What the column holds, with room; a destruction that can't end is tried for years.
MOST_COUNTED = 30_000


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
        attempts=Least(F("attempts") + 1, Value(MOST_COUNTED)),
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
            _done(job, work.HANDLERS[JobKind(job.kind)](job))
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
        if job.kind in work.MAKES_A_VERSION:
            _follow(job.key)
    return Job.objects.select_related("key", "version").get(pk=job_id)


def _follow(key: Key) -> None:
    """Carry out at once what a version just made asks of the store; otherwise the next sweep does."""
    after = _free().filter(key=key, kind=JobKind.ALIGN).values_list("id", flat=True).first()
    if after is not None:
        run(after)


def run_import(job_id: uuid.UUID, material: Secret, check_value: str) -> Job:
    """Carry out an import in the process that holds the material; it is never kept or queued.

    Raises what the store refuses it with; the key then waits for its import as before.
    """
    job = claim(job_id)
    if job is None:
        raise Conflict("The import is being carried out already.")
    try:
        _done(job, work.bring_material(job, material, check_value))
    except KeyServiceError as error:
        _give_up(job, error)
        raise
    _follow(job.key)
    return Job.objects.select_related("key", "version").get(pk=job_id)


def _done(job: Job, made: work.Made) -> None:
    _finish(scheduler_for(job), str(job.id), claim=job.claimed_by, made=made)


def scheduler_for(job: Job) -> Caller:
    """Return the scheduler as the caller of one job; the job's id links its entries."""
    return scheduler(request_id=str(job.id))


# --- finishing: the result, its entry and the epoch commit together.


@gate.change(Action.RUN_JOB, on=targets.job)
def _finish(change: Change[Job], *, claim: str, made: dict[str, str] | None = None) -> None:
    """Write a job's result, where the claim still holds."""
    job = Job.objects.select_related("key__classification", "version").get(pk=change.row.pk)
    _describe(change, job)
    _end(job, claim, JobState.SUCCEEDED, change.now)
    outcomes.settle(job, made, change.now)
    change.touch("key", job.key_id)


@gate.change(Action.RUN_JOB, on=targets.job)
def _fail(change: Change[Job], *, claim: str, error: str, code: str) -> None:
    """Write that a job failed for good; a version that never came to be is marked destroyed."""
    job = Job.objects.select_related("key", "version").get(pk=change.row.pk)
    _describe(change, job)
    change.outcome, change.why = Outcome.FAILED, code
    _end(job, claim, JobState.FAILED, change.now, error)
    outcomes.fail(job, change.now)
    change.touch("key", job.key_id)


@gate.change(Action.RUN_JOB, on=targets.job)
def _wait(change: Change[Job], *, claim: str, error: str, code: str, after: int = 0) -> None:
    """Put a job back until the store can be reached again, or has come to a date of its own.

    `after`: seconds that the store asked to wait.
    """
    job = Job.objects.select_related("key", "version").get(pk=change.row.pk)
    _describe(change, job)
    change.outcome, change.why = Outcome.FAILED, code
    pause = timedelta(seconds=max(after, min(5 * 2 ** min(job.attempts, 7), 600)))
    updated = Job.objects.filter(pk=job.pk, state=JobState.RUNNING, claimed_by=claim).update(
        state=JobState.PENDING, run_after=change.now + pause, error=error[:500], lease_until=None
    )
    if not updated:
        raise Conflict("Somebody else holds the job.")


def _describe(change: Change[Job], job: Job) -> None:
    """Make the entry speak of the key, under the action that was asked for."""
    version = job.version
    change.record_as = work.ACTION_OF[JobKind(job.kind)]
    change.about = targets.key_subject(job.key, version.number if version else None)
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
    after = _asked_to_wait(error)
    if job.attempts >= MOST_ATTEMPTS:
        after = max(after, 86_400)  # a person has to look; until then it is tried once a day
    _tell(_wait, job, error, after=after)


def _asked_to_wait(error: KeyServiceError) -> int:
    """Return the seconds that a store itself asked to wait, at most a day."""
    seconds = 0.0
    if isinstance(error, StillWaiting) and error.until is not None:
        seconds = (error.until - clock.now()).total_seconds()
    elif isinstance(error, Throttled):
        seconds = error.retry_after or 0.0
    return math.ceil(min(max(seconds, 0.0), 86_400.0))


def _tell(end: Changer[Job, Any, None], job: Job, error: KeyServiceError, **more: int) -> None:
    """Write how a job goes on after an error. One whose claim is lost is somebody else's business."""
    with suppress(Conflict):
        end(
            scheduler_for(job),
            str(job.id),
            claim=job.claimed_by,
            error=error.detail,
            code=error.code,
            **more,
        )


def _give_up(job: Job, error: KeyServiceError) -> None:
    """End a job for good, and take back what it made. A lost claim is somebody else's business."""
    # The lease begins anew: nobody may find the job free, and adopt what is being taken back.
    held = Job.objects.filter(pk=job.pk, state=JobState.RUNNING, claimed_by=job.claimed_by)
    if not held.update(lease_until=_lease_end()):
        return
    if job.kind in work.REMOVES and not isinstance(error, Conflict):
        # A destruction that was begun must end: some of the material may be gone already.
        _put_back(job, error)
        return
    try:
        work.take_back(job)
    except (BackendUnavailable, Unavailable) as trouble:
        _put_back(job, trouble)
        return
    except KeyServiceError as left:
        # A store may be unable to remove one version alone. What stays shows as a difference.
        error = BackendError(f"{error.detail} What was made stays at the key store: {left.detail}")
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
