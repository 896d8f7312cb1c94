"""Bringing a key's store in line with what the console believes, as a job of its own.

Whatever changes a state here asks for it in the same transaction. There is one open job a key; it
reads what is believed when it runs, and its end checks that this still holds, so none is missed.
"""

from __future__ import annotations

import uuid
from datetime import datetime

from keys.backends import registry
from keys.models import Job, Key
from keys.models.job import OPEN_STATES, JobKind, JobState
from keys.models.key import ManagementModel


def follows(key: Key) -> bool:
    """Whether a key's store keeps states of its own that the console writes."""
    remote = registry.KINDS[key.key_store.kind].remote
    return remote and key.model != ManagementModel.PROVIDER_MANAGED


def intend(key: Key, requested_by: uuid.UUID, now: datetime, reason: str = "") -> Job | None:
    """Write the intent, or return the one that is open already; None where the store keeps no states."""
    if not follows(key):
        return None
    # Locked: one that is just ending either sees our change, or has ended when we get here.
    rows = Job.objects.select_for_update().filter(key=key, kind=JobKind.ALIGN)
    open_job = rows.filter(state__in=OPEN_STATES).first()
    if open_job is not None:
        rows.filter(pk=open_job.pk, state=JobState.PENDING).update(run_after=now)
        return open_job
    return Job.objects.create(
        kind=JobKind.ALIGN,
        key=key,
        requested_by_id=requested_by,
        reason=reason,
        created_at=now,
        run_after=now,
    )
