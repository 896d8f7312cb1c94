"""Rotation: a new version takes over; the old one still processes what it protected.

The next version may be made ahead, so that its public key is known before it signs anything.
"""

from __future__ import annotations

from keys import due, gate, jobs, lifecycle, parameters, targets
from keys.actions import Action
from keys.administration.intents import bring_in_line, check_ours, intend, locked, raised
from keys.errors import Conflict, StateForbids
from keys.gate.changes import Change
from keys.models import Job, Key, KeyVersion
from keys.models.job import JobKind, JobState
from keys.models.key import Origin
from keys.services import SCHEDULER_ID
from keys.states import KeyState


@gate.change(Action.ROTATE_KEY, on=targets.key)
def rotate_key(change: Change[Key], *, activate: bool = True, reason: str = "") -> Job:
    """Make a new version and let it take over; the old one still decrypts and verifies.

    Where the next version waits already, made ahead, that one takes over. `activate=False` makes one
    that stays pre-active, to be activated later. Returns the job: done, or waiting for a store that
    can't be reached. Raises StateForbids or Conflict.
    """
    key = locked(change)
    if _scheduled(change) and not due.keys_to_rotate(change.now).filter(pk=key.pk).exists():
        raise Conflict("The key is not due any more.")
    _check_enabled(key, "rotated")
    parameters.yes_or_no(activate, "activate")
    _check_generated(key)
    if due.open_makings().filter(key=key).exists():
        raise Conflict("A rotation of this key is under way.")
    waiting = due.waiting_versions().filter(key=key).first()
    if activate and waiting is not None:
        return _take_over(change, key, waiting)
    job = intend(change, key, JobKind.ROTATE, activate=activate)
    change.after(lambda: raised(jobs.run(job.id)))
    return job


@gate.change(Action.PREPARE_VERSION, on=targets.key)
def prepare_version(change: Change[Key], *, reason: str = "") -> Job:
    """Make the next version ahead of its rotation: pre-active, its public key to be published.

    It protects nothing until a rotation lets it take over. One waits at a time. Returns the job:
    done, or waiting for a store that can't be reached. Raises StateForbids or Conflict.
    """
    key = locked(change)
    if _scheduled(change) and not due.keys_to_publish(change.now).filter(pk=key.pk).exists():
        raise Conflict("The key's next version is not due any more.")
    _check_enabled(key, "given a next version")
    _check_generated(key)
    if due.open_makings().filter(key=key).exists():
        raise Conflict("A version of this key is being made.")
    waiting = due.waiting_versions().filter(key=key).first()
    if waiting is not None:
        raise Conflict(f"Version {waiting.number} waits already.")
    job = intend(change, key, JobKind.PREPARE, activate=False)
    change.after(lambda: raised(jobs.run(job.id)))
    return job


def _scheduled(change: Change[Key]) -> bool:
    return change.caller.principal_id == SCHEDULER_ID


def _check_enabled(key: Key, done: str) -> None:
    if key.state != KeyState.ENABLED:
        raise StateForbids(
            f"Only an enabled key is {done}; this one is {KeyState(key.state).label.lower()}."
        )


def _check_generated(key: Key) -> None:
    """Whose material is brought gets its next version so, too: nothing else may take its place unseen."""
    check_ours(key)
    if key.origin == Origin.IMPORTED:
        raise StateForbids(
            f"The material of {key.alias} is brought from outside: import the next version's material instead."
        )


def _take_over(change: Change[Key], key: Key, version: KeyVersion) -> Job:
    """Let a version that was made and proved ahead take over: nothing is asked of the store.

    The job tells of it as of every rotation, and is done at once.
    """
    job = Job.objects.create(
        kind=JobKind.ROTATE,
        key=key,
        version=version,
        target_version=version.number,
        state=JobState.SUCCEEDED,
        approval=change.approval,
        requested_by_id=change.caller.principal_id,
        reason=change.reason,
        created_at=change.now,
        run_after=change.now,
        finished_at=change.now,
    )
    lifecycle.make_primary(version, key.classification, change.now)
    bring_in_line(change, key)
    Key.objects.filter(pk=key.pk).update(rotate_at=lifecycle.rotation_date(key, version))
    change.about = change.target.subject(version.number)
    change.facts |= {"job": str(job.id), "prepared": True}
    change.touch("key", key.id)
    return job
