"""Rotation: a new version takes over; the old one still processes what it protected."""

from __future__ import annotations

from keys import gate, jobs, parameters, targets
from keys.actions import Action
from keys.administration.intents import intend, raised
from keys.errors import Conflict, StateForbids
from keys.gate.changes import Change
from keys.models import Job, Key
from keys.models.job import OPEN_STATES, JobKind
from keys.services import SCHEDULER_ID
from keys.states import KeyState


@gate.change(Action.ROTATE_KEY, on=targets.key)
def rotate_key(change: Change[Key], *, activate: bool = True, reason: str = "") -> Job:
    """Make a new version and let it take over; the old one still decrypts and verifies.

    `activate=False` leaves it pre-active, to be activated later. Returns the job: done, or waiting
    for a store that can't be reached. Raises StateForbids or Conflict.
    """
    # Locked and read anew: of two who found it due, the second must see what the first did.
    rows = Key.objects.select_for_update(of=("self",)).select_related("classification", "key_store")
    key = rows.get(pk=change.row.pk)
    scheduled = change.caller.principal_id == SCHEDULER_ID
    if scheduled and (key.rotate_at is None or key.rotate_at > change.now):
        raise Conflict("The key is not due any more.")
    if key.state != KeyState.ENABLED:
        raise StateForbids(
            f"Only an enabled key is rotated; this one is {KeyState(key.state).label.lower()}."
        )
    parameters.yes_or_no(activate, "activate")
    if Job.objects.filter(
        key=key, kind__in=[JobKind.CREATE, JobKind.ROTATE], state__in=OPEN_STATES
    ).exists():
        raise Conflict("A rotation of this key is under way.")
    job = intend(change, key, JobKind.ROTATE, activate=activate)
    change.after(lambda: raised(jobs.run(job.id)))
    return job
