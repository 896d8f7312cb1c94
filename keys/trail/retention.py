"""What of the trail is in the archive, and what is under legal hold, for callers who may read it."""

from __future__ import annotations

from dataclasses import dataclass

from audit import retention
from audit.models import Archive, LegalHold
from keys import gate, targets
from keys.actions import Action
from keys.callers import Caller

ARCHIVES = 100


@dataclass(frozen=True, slots=True)
class Kept:
    """Where the archive stands. `end`: the entries below it are in bundles.

    `to_drop` says that bundles wait for the role that owns the tables; `trouble` is a sentence or "".
    """

    end: int
    bundles: int
    dropped: int
    to_drop: bool
    trouble: str


def list_archives(
    caller: Caller, *, after: int | None = None, limit: int = ARCHIVES
) -> list[Archive]:
    """Return bundles, the newest first, of those that start below `after`. Raises Denied."""
    gate.read(caller, Action.READ_AUDIT)
    rows = Archive.objects.order_by("-start")
    if after is not None:
        rows = rows.filter(start__lt=after)
    return list(rows[: max(1, limit)])


def find_archive(caller: Caller, start: int) -> Archive:
    """Return the bundle that starts with an entry. Raises Denied or NotFound."""
    gate.read(caller, Action.READ_AUDIT)
    return targets.archive(str(start), {}).row


def kept(caller: Caller) -> Kept:
    """Return where the archive stands. Raises Denied."""
    gate.read(caller, Action.READ_AUDIT)
    newest = Archive.objects.order_by("-start").first()
    waiting = Archive.objects.filter(dropped_at=None, restored_at=None).exclude(verified_at=None)
    return Kept(
        end=newest.end if newest else 0,
        bundles=Archive.objects.count(),
        dropped=Archive.objects.exclude(dropped_at=None).count(),
        to_drop=waiting.exists() and not retention.may_delete(),
        trouble=retention.trouble(),
    )


def list_holds(caller: Caller, *, active: bool = False) -> list[LegalHold]:
    """Return legal holds, the newest first; with `active`, only those in force. Raises Denied."""
    gate.read(caller, Action.READ_AUDIT)
    rows = LegalHold.objects.order_by("-placed_at")
    return list(rows.filter(released_at=None) if active else rows)


def find_hold(caller: Caller, reference: str) -> LegalHold:
    """Return a legal hold by id. Raises Denied or NotFound."""
    gate.read(caller, Action.READ_AUDIT)
    return targets.hold(reference, {}).row
