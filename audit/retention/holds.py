"""Legal holds: what must not be dropped or erased, and the flag that storage outside has for it."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from django.db.models import Exists, F, OuterRef, Q, QuerySet

from audit.errors import AuditError, PlaceUnavailable
from audit.models import Archive, LegalHold
from audit.retention import where

log = logging.getLogger(__name__)

AT_ONCE = 1000  # bundles that one call tells of
AWAY = 3  # a storage that was away for so many of them is left alone until the next call


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


def under_hold(using: str = "default") -> Exists:
    """Return the condition, for a query of bundles, that an active hold reaches into one."""
    holds = LegalHold.objects.using(using).filter(
        Q(until=None) | Q(until__gt=OuterRef("first_at")),
        released_at=None,
        since__lte=OuterRef("last_at"),
    )
    return Exists(holds)


def _to_tell(using: str) -> QuerySet[Archive]:
    """Return the bundles of which the storage was last told something else."""
    rows = Archive.objects.using(using)
    return rows.filter(
        Q(under_hold(using), hold_told=False) | Q(~under_hold(using), hold_told=True)
    )


def sync_holds(using: str = "default") -> int:
    """Tell the archive's storage which bundles are under legal hold; return how many were told.

    Only of those where it was told otherwise, so that a flag that others set stays. Each bundle by
    itself: one that fails stops no other, and is tried again by the next call; trouble() says so.
    """
    told, away = 0, 0
    # What failed before comes last.
    rows = _to_tell(using).order_by(F("hold_failed_at").asc(nulls_first=True), "start")
    for row in list(rows[:AT_ONCE]):
        wanted = not row.hold_told
        try:
            where.of(row).hold(row.name, wanted)
        except AuditError as error:
            log.warning("A legal hold waits for the archive's storage: %s", error)
            _note(using, row, hold_failed_at=datetime.now(UTC))
            away += isinstance(error, PlaceUnavailable)
            if away == AWAY:
                break
            continue
        _note(using, row, hold_told=wanted, hold_failed_at=None)
        told += 1
    return told


def _note(using: str, row: Archive, **values: object) -> None:
    Archive.objects.using(using).filter(pk=row.pk).update(**values)


def trouble(using: str = "default") -> str:
    """Return in a sentence what keeps legal holds from reaching the storage, or "".

    The rows say so: any process can ask. Raises django.db.Error.
    """
    if not _to_tell(using).exclude(hold_failed_at=None).exists():
        return ""
    return "The archive's storage could not be told of a legal hold; it is tried again."
