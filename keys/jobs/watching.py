"""Destructions that a key store carries out by itself: the job only sees that it did.

They were scheduled at the store, and the console found them there: by an adoption, or by a
difference that was accepted. Until the store has done it, its own console may still cancel it, and
then the material is saved: nothing here may destroy it all the same.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from keys import clock
from keys.backends.views import KeyView
from keys.drift import beliefs
from keys.errors import KeyServiceError, StillWaiting, Throttled, Unavailable
from keys.models import Job
from keys.models.job import JobKind
from keys.states import GONE, KeyState
from keys.stores import backend_of

# How long until a job looks again, where the store names no date.
AN_HOUR = timedelta(hours=1)


def only_watches(job: Job) -> bool:
    """Whether a destruction is the store's own: the job waits for its end, and destroys nothing."""
    return job.kind in (JobKind.DESTROY, JobKind.DESTROY_VERSION) and not job.activate


def later(why: str, until: datetime | None = None) -> StillWaiting:
    """Return the error that puts a job back, for an hour or until the store's own date."""
    soon = clock.now() + AN_HOUR
    return StillWaiting(why, until=max(until, soon) if until else soon)


def check_gone(job: Job) -> None:
    """Raise StillWaiting until what a job watches is gone at its store. Nothing is changed there.

    A store that can't be asked, or was made to keep it, is waited for: the next comparison shows the
    difference, and once that is accepted the job is cancelled.
    """
    wanted = beliefs.wanted(job.key)
    if not wanted.versions:
        return  # nothing of the key is there, by all that is known
    try:
        seen = backend_of(job.key).observe(wanted)
    except (KeyServiceError, Unavailable) as error:
        pause = error.retry_after if isinstance(error, Throttled) else None
        raise later(error.detail, clock.now() + timedelta(seconds=pause or 0)) from error
    if _gone(job, seen):
        return
    assert seen is not None
    version = seen.version(job.version.handle) if job.version else None
    raise later(
        "The key store has not destroyed it yet.",
        version.destroy_at if version else seen.destroy_at,
    )


def _gone(job: Job, seen: KeyView | None) -> bool:
    if seen is None or seen.state == KeyState.DESTROYED:
        return True
    if job.version is not None:
        version = seen.version(job.version.handle)
        return version is None or version.state in GONE
    return all(version.state in GONE for version in seen.versions)
