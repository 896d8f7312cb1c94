"""Legal holds: what must not be dropped or erased, and the flag that storage outside has for it."""

from __future__ import annotations

import logging
import threading
from datetime import datetime

from django.db.models import Q

from audit.errors import AuditError
from audit.models import Archive, LegalHold
from audit.places import open_place

log = logging.getLogger(__name__)
_lock = threading.Lock()
# The newest placing or release that this process has carried to the archive's storage.
_synced: datetime | None = None
_trouble = ""


def active_holds(using: str = "default") -> list[LegalHold]:
    """Return the holds that were placed and not released, the oldest first."""
    return list(LegalHold.objects.using(using).filter(released_at=None).order_by("placed_at"))


def held(at: datetime | None = None, using: str = "default") -> bool:
    """Tell whether something of that time is under legal hold; None: anything at all."""
    rows = LegalHold.objects.using(using).filter(released_at=None)
    if at is not None:
        rows = rows.filter(Q(until=None) | Q(until__gt=at), since__lte=at)
    return rows.exists()


def reaching(first: datetime, last: datetime, using: str = "default") -> list[LegalHold]:
    """Return the active holds that reach into the time from `first` to `last`, both included."""
    return [hold for hold in active_holds(using) if _reaches(hold, first, last)]


def _reaches(hold: LegalHold, first: datetime, last: datetime) -> bool:
    return hold.since <= last and (hold.until is None or hold.until > first)


def sync_holds(using: str = "default") -> int:
    """Tell the archive's storage which bundles are under legal hold; return how many were told.

    Costs two queries where no hold was placed or released since the last call of this process. What
    fails is tried again by the next call; trouble() says so meanwhile.
    """
    global _synced, _trouble
    with _lock:
        known = _synced
        holds = list(LegalHold.objects.using(using).all())
        moves = [at for hold in holds for at in (hold.placed_at, hold.released_at) if at]
        newest = max(moves, default=None)
        if newest is None or (known is not None and newest <= known):
            return 0
        try:
            told = _tell(holds, using)
        except AuditError as error:
            _trouble = "The archive's storage could not be told of a legal hold; it is tried again."
            log.warning("Legal holds wait for the archive's storage: %s", error)
            return 0
        _synced, _trouble = newest, ""
        return told


def _tell(holds: list[LegalHold], using: str) -> int:
    told = 0
    for archive in Archive.objects.using(using).order_by("start"):
        touching = [one for one in holds if _reaches(one, archive.first_at, archive.last_at)]
        if touching:
            on = any(one.released_at is None for one in touching)
            open_place(archive.place).hold(archive.name, on)
            told += 1
    return told


def trouble() -> str:
    """Return in a sentence what keeps legal holds from reaching the storage, or ""."""
    return _trouble


def forget() -> None:
    """Begin anew, as a process does: for tests, which have a database each."""
    global _synced, _trouble
    with _lock:
        _synced, _trouble = None, ""
