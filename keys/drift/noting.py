"""Writing down what a look at a store found: the store's view, and a row for each difference."""

from __future__ import annotations

import random
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db.models import Q, QuerySet

from keys import clock
from keys.drift import holding
from keys.drift.comparing import Difference
from keys.drift.looking import Looked
from keys.drift.plain import to_plain
from keys.errors import KeyServiceError, Throttled
from keys.jobs.watching import only_watches
from keys.jobs.work import MAKES_A_VERSION, REMOVES
from keys.models import Drift, Job, Key, KeyVersion, StoreView
from keys.models.drift import DriftField, DriftState
from keys.models.job import OPEN_STATES, JobKind
from keys.states import KeyState

# A store that could not be asked, or a key that is being changed, is looked at again so soon.
SOON = timedelta(minutes=5)
# How many differences of destroyed keys a sweep closes.
LOOK_AT = 200
_dice = random.SystemRandom()


def is_news(looked: Looked) -> bool:
    """Whether a look found what is not written down yet: something opens, closes, or differs anew."""
    if looked.window_opened:
        return True
    written = {_key_of(row): row for row in _open(looked.key)}
    found = {(d.field.value, d.handle): d for d in _told(looked.key, looked.differs)}
    if set(written) - set(found) - _under_way_fields(looked.key, written):
        return True
    return any(
        name not in written or not _same(written[name], difference)
        for name, difference in found.items()
    )


def confirm(looked: Looked) -> None:
    """Write what the store said, where it says nothing new; no entry is needed for that."""
    _keep_view(looked)
    for row in _open(looked.key):
        _seen_again(row, looked.at)


def note(looked: Looked) -> dict[str, int]:
    """Write down what a look found, inside a transaction; return how many opened, closed, and are open.

    What is no longer so closes: as reverted where somebody asked for that, else as gone by itself.
    A difference that changed is a new one: who decides, decides on what was seen.
    """
    _keep_view(looked)
    # One look at a time writes about a key.
    StoreView.objects.select_for_update().get(pk=looked.key.pk)
    written = {_key_of(row): row for row in _open(looked.key)}
    opened = 0
    for difference in _told(looked.key, looked.differs):
        row = written.pop((difference.field.value, difference.handle), None)
        if row is not None and _same(row, difference):
            _seen_again(row, looked.at)
            continue
        if row is not None:
            close(row, DriftState.GONE)
        _open_one(looked.key, difference, looked.at)
        opened += 1
    kept = _under_way_fields(looked.key, written)
    over = [row for name, row in written.items() if name not in kept]
    for row in over:
        close(row, DriftState.REVERTED if row.decided_at else DriftState.GONE)
    return {"opened": opened, "closed": len(over), "open": _open(looked.key).count()}


def close(row: Drift, state: DriftState, **decision: Any) -> bool:
    """End a difference by compare-and-set; False where somebody was quicker."""
    changes = {"state": state, **decision}
    done = Drift.objects.filter(pk=row.pk, state=DriftState.OPEN).update(**changes)
    for column, value in changes.items():
        setattr(row, column, value)
    return bool(done)


def note_trouble(keys: Iterable[Key], error: KeyServiceError) -> None:
    """Write why keys could not be compared now; they are looked at again a little later."""
    pause = SOON
    if isinstance(error, Throttled) and error.retry_after:
        pause = max(pause, timedelta(seconds=min(error.retry_after, 86_400.0)))
    StoreView.objects.filter(key__in=[key.pk for key in keys]).update(
        trouble=error.detail[:500], look_at=_spread(clock.now(), pause)
    )


def note_nothing(key: Key) -> None:
    """Write that there is nothing of a key to compare now, and nothing open about it."""
    StoreView.objects.filter(key=key).update(trouble="", look_at=next_look(clock.now()))


def end_all(key: Key) -> dict[str, int]:
    """Close all that is open about a key of which there is nothing to compare, inside a transaction."""
    StoreView.objects.select_for_update().filter(key=key).first()
    over = [row for row in _open(key) if close(row, DriftState.GONE)]
    return {"opened": 0, "closed": len(over), "open": _open(key).count()}


def any_open(key: Key) -> bool:
    """Whether something that differs of a key is still open."""
    return _open(key).exists()


def over(limit: int = LOOK_AT) -> list[Key]:
    """Return keys that were destroyed while something of them still differed."""
    rows = Drift.objects.filter(state=DriftState.OPEN, key__state=KeyState.DESTROYED)
    ids = rows.order_by("key").values_list("key", flat=True).distinct()[:limit]
    return list(Key.objects.filter(pk__in=list(ids)))


def next_look(now: datetime) -> datetime:
    """Return when a key is to be looked at next: spread, so that keys made together don't stay together."""
    return _spread(now, timedelta(seconds=settings.DRIFT_SECONDS))


def _spread(now: datetime, pause: timedelta) -> datetime:
    return now + pause * _dice.uniform(0.9, 1.1)


def _keep_view(looked: Looked) -> None:
    seen = to_plain(looked.seen) if looked.seen is not None else {}
    busy = bool(_under_way(looked.key))
    values: dict[str, Any] = {
        "seen": seen,
        "seen_at": looked.at,
        "trouble": "",
        "look_at": _spread(looked.at, SOON) if busy else next_look(looked.at),
    }
    row, made = StoreView.objects.get_or_create(key=looked.key, defaults=values)
    if row.tags is None and looked.seen is not None:
        # The first look: what the console has no columns for is taken as it is.
        values |= {"rotation_days": looked.seen.rotation_days, "tags": seen["tags"]}
    elif made:
        return
    StoreView.objects.filter(pk=row.pk).update(**values)


def _open(key: Key) -> QuerySet[Drift]:
    return Drift.objects.filter(key=key, state=DriftState.OPEN)


def _key_of(row: Drift) -> tuple[str, str]:
    return row.field, row.handle


def _same(row: Drift, difference: Difference) -> bool:
    return bool(row.believed == difference.believed and row.observed == difference.observed)


def _seen_again(row: Drift, at: datetime) -> None:
    """Note that it is still so. A revert that is over and changed nothing is a revert no more."""
    changes: dict[str, Any] = {"seen_at": at}
    if row.decided_at is not None and not _aligning(row.key).exists():
        changes |= {"decided_at": None, "decided_by": None, "reason": ""}
    Drift.objects.filter(pk=row.pk).update(**changes)


def _open_one(key: Key, difference: Difference, at: datetime) -> None:
    version = (
        KeyVersion.objects.filter(key=key, handle=difference.handle).first()
        if difference.handle
        else None
    )
    Drift.objects.create(
        key=key,
        field=difference.field,
        handle=difference.handle,
        number=version.number if version else 0,
        believed=difference.believed,
        observed=difference.observed,
        found_at=at,
        seen_at=at,
    )


# --- what is only different because it is being changed from here


def _told(key: Key, found: Iterable[Difference]) -> list[Difference]:
    """Return the differences that are not just the console's own work under way."""
    hidden, watched = _under_way(key), _watched(key)
    return [
        difference
        for difference in found
        if difference.field not in hidden and (difference.field, difference.handle) not in watched
    ]


def _under_way(key: Key) -> frozenset[str]:
    """Return the fields that differ, or may, because a job has not come to them yet.

    A store that a job could not bring in line at its first try does differ, and that is told.
    """
    if _aligning(key).filter(error="").exists():
        return frozenset(DriftField.values)
    jobs = Job.objects.filter(key=key, state__in=OPEN_STATES)
    begun = {job.kind for job in _begun(jobs) if not only_watches(job)}
    if JobKind.DESTROY in begun:
        return frozenset(DriftField.values)
    hidden: set[str] = set()
    if begun:
        hidden |= {DriftField.VERSION_MISSING, DriftField.VERSION_STATE, DriftField.PRIMARY}
        hidden |= {DriftField.VERSION_DESTRUCTION, DriftField.KEY_STATE}
    if jobs.filter(kind__in=MAKES_A_VERSION).exists():
        hidden |= {DriftField.VERSION_UNKNOWN, DriftField.PRIMARY}
    return frozenset(hidden)


def _begun(jobs: QuerySet[Job]) -> list[Job]:
    """Return the jobs that remove material and have begun to, or may at any moment."""
    now_or_before = Q(run_after__lte=clock.now()) | Q(attempts__gt=0)
    rows = jobs.filter(now_or_before, kind__in=REMOVES).select_related("key", "version")
    # One that waits for a decision does nothing: what is decided on has to be seen.
    return [job for job in rows if not holding.in_the_way(job)]


def _watched(key: Key) -> set[tuple[str, str]]:
    """Return the losses, as field and handle, that a job is about to write down as the store's own doing."""
    jobs = Job.objects.filter(key=key, state__in=OPEN_STATES)
    expected: set[tuple[str, str]] = set()
    for job in _begun(jobs):
        if only_watches(job) and job.version is not None:
            expected.add((DriftField.VERSION_MISSING, job.version.handle))
        elif only_watches(job):
            expected.add((DriftField.KEY_MISSING, ""))
    return expected


def _under_way_fields(key: Key, written: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
    """Return those of the written differences about which nothing can be said at the moment."""
    hidden, watched = _under_way(key), _watched(key)
    return {name for name in written if name[0] in hidden or name in watched}


def _aligning(key: Key) -> QuerySet[Job]:
    return Job.objects.filter(key=key, kind=JobKind.ALIGN, state__in=OPEN_STATES)
