"""Intents: the next version, not yet there, and the job that will make it, committed before the store is asked."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from audit.events import Outcome
from keys import jobs, lifecycle, targets
from keys.errors import BackendError, StateForbids
from keys.gate.changes import Change
from keys.jobs import aligning
from keys.models import Job, Key, KeyVersion
from keys.models.job import JobKind, JobState
from keys.models.key import ManagementModel
from keys.states import Condition, VersionState


def locked(change: Change[Key]) -> Key:
    """Return the key locked and read anew: of two who found it so, the second must see what the first did."""
    rows = Key.objects.select_for_update(of=("self",)).select_related("classification", "key_store")
    return rows.get(pk=change.row.pk)


def intend(
    change: Change[Any],
    key: Key,
    kind: JobKind,
    *,
    activate: bool = True,
    originated_at: datetime | None = None,
    material_expires_at: datetime | None = None,
) -> Job:
    """Write the intent: the next version, not yet there, and the job that will make it."""
    last = key.versions.order_by("-number").first()
    version = KeyVersion.objects.create(
        id=uuid.uuid4(),
        key=key,
        number=last.number + 1 if last else 1,
        state=VersionState.PRE_ACTIVE,
        condition=Condition.CREATING,
        originated_at=originated_at,
        material_expires_at=material_expires_at,
        created_at=change.now,
        created_by_id=change.caller.principal_id,
    )
    change.outcome = Outcome.STARTED
    change.about = targets.key_subject(key, version.number)
    change.touch("key", key.id)
    return add_job(change, key, kind, version=version, activate=activate)


def intend_return(
    change: Change[Any], key: Key, version: KeyVersion, material_expires_at: datetime | None
) -> Job:
    """Write the intent to bring a version's own material back; its state stays what it is."""
    KeyVersion.objects.filter(pk=version.pk).update(material_expires_at=material_expires_at)
    change.about = targets.key_subject(key, version.number)
    change.touch("key", key.id)
    change.outcome = Outcome.STARTED
    return add_job(change, key, JobKind.IMPORT, version=version, activate=False)


def intend_removal(change: Change[Any], key: Key, version: KeyVersion) -> Job:
    """Refuse every use of a version's imported material from now on; the job removes it at the store."""
    lifecycle.set_condition(version, Condition.UNAVAILABLE)
    change.about = targets.key_subject(key, version.number)
    change.touch("key", key.id)
    change.outcome = Outcome.STARTED
    return add_job(change, key, JobKind.REMOVE_MATERIAL, version=version, activate=False)


def add_job(
    change: Change[Any],
    key: Key,
    kind: JobKind,
    *,
    version: KeyVersion | None = None,
    activate: bool = True,
    run_after: datetime | None = None,
) -> Job:
    job = Job.objects.create(
        kind=kind,
        key=key,
        version=version,
        target_version=version.number if version else 0,
        activate=activate,
        approval=change.approval,
        requested_by_id=change.caller.principal_id,
        reason=change.reason,
        created_at=change.now,
        run_after=run_after or change.now,
    )
    change.facts["job"] = str(job.id)
    return job


def watch_end(
    change: Change[Any], key: Key, at: datetime, *, version: KeyVersion | None = None
) -> Job:
    """Write the intent to see, from `at` on, that the store destroyed a key or a version by itself.

    For a destruction that was scheduled there, past the console: whoever cancels it there in time
    has saved the material, so the job destroys nothing, and needs no votes.
    """
    kind = JobKind.DESTROY_VERSION if version else JobKind.DESTROY
    return add_job(change, key, kind, version=version, activate=False, run_after=at)


def bring_in_line(change: Change[Any], key: Key) -> None:
    """Ask the key's store to follow a change of state, right after it is committed and until it does."""
    job = aligning.intend(key, change.caller.principal_id, change.now, change.reason)
    if job is not None:
        change.facts["align"] = str(job.id)
        change.also(lambda: jobs.run(job.id))


def check_ours(key: Key) -> None:
    """Raise StateForbids for a key that its provider manages: only its use is decided here."""
    if key.model == ManagementModel.PROVIDER_MANAGED:
        raise StateForbids(
            f"{key.alias} is managed by its provider: it can be used and disabled here, not changed."
        )


def raised(job: Job) -> Job:
    """Return a job that is done or waits; raise what a failed one failed with."""
    if job.state == JobState.FAILED:
        raise BackendError(job.error or "The key store reported an error.", job=str(job.id))
    return job


def settled(key: Key, job: Job) -> Key:
    raised(job)
    return Key.objects.select_related("classification", "key_store").get(pk=key.pk)
