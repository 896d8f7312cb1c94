"""What of the trail leaves the database, and what must not: archives and legal holds."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings

from audit import retention, streams
from audit.errors import ArchiveFault, AuditError, PlaceError, PlaceUnavailable
from audit.events import Subject
from audit.models import Archive, LegalHold
from audit.tiles import WIDTH
from keys import clock, gate, names, parameters, targets
from keys.actions import Action
from keys.callers import Door
from keys.errors import AlreadyExists, Conflict, Invalid, KeyServiceError, Unavailable
from keys.gate.changes import Change
from keys.services import scheduler
from keys.targets import Target

logger = logging.getLogger(__name__)

MOST = 1024 * 1024  # entries in one bundle
# A small house's bundles: the sweep writes none of fewer entries, and not more than so many at once.
FEWEST = 4096
AT_ONCE = 4
# After a failure the sweep leaves the archive alone for so long: each try is an entry of the log.
REST = timedelta(minutes=15)
_rest_until: datetime | None = None
_resting: dict[int, datetime] = {}  # bundles that can't be dropped, and until when each is let be
# Failures that one sweep puts up with.
FAILURES = 8
# A storage that can't be used for so many bundles is away; for one, it may be that bundle's own fault.
AWAY = 2
# The subject that holds move: what must not happen under one rests on it.
HOLDS = ("house", "holds")
# Bringing a bundle back takes as long as it is large: a request does it up to this size.
RESTORED_AT_ONCE = 65_536


@dataclass(slots=True)
class Draft:
    """A bundle on its way: filled in before the change's transaction begins."""

    written: retention.archives.Written | None = None


def log(reference: str, asked: Mapping[str, Any]) -> Target[Draft]:
    """The log itself."""
    return Target(Draft(), "log", "log", "")


@contextmanager
def _told() -> Iterator[None]:
    """Translate what the record says about bundles and places."""
    try:
        yield
    except PlaceUnavailable as error:
        raise Unavailable(f"The archive's storage can't be used now: {error}.") from None
    except (ArchiveFault, PlaceError) as error:
        raise Conflict(f"The archive: {error}.") from None


def _write(change: Change[Draft], arguments: dict[str, Any]) -> None:
    """Write the next bundle to its place and read it back; no transaction is open."""
    count = parameters.whole(arguments["entries"], "entries", WIDTH, MOST)
    if count % WIDTH:
        raise Invalid(f"entries must be a multiple of {WIDTH}.", field="entries")
    before = parameters.moment(arguments["before"], "before")
    if not settings.AUDIT_ARCHIVE:
        raise Conflict("No place for archives is configured: set KMS_AUDIT_ARCHIVE.")
    found = retention.next_range(count, before)
    if found is None:
        raise Conflict("There is nothing to archive yet: bundles hold what was signed long enough.")
    with _told():
        change.row.written = retention.write_bundle(*found)


@gate.change(Action.ARCHIVE_AUDIT, on=log, prepare=_write)
def archive_audit(
    change: Change[Draft],
    *,
    entries: int = retention.ENTRIES,
    before: str = "",
    reason: str = "",
) -> Archive:
    """Write the next bundle of at most `entries` entries to the archive, and read it back.

    `entries` is a multiple of 256; with `before`, a time, only what is older. Raises Conflict where
    there is nothing to archive or the log is not whole, Unavailable where the storage is away.
    """
    written = change.row.written
    assert written is not None
    row = retention.register(written, change.now)
    change.facts |= _facts(row)
    return row


def _facts(archive: Archive) -> dict[str, Any]:
    return {
        "start": archive.start,
        "end": archive.end,
        "bundle": archive.name,
        "sha256": archive.sha256,
    }


def _may_drop(change: Change[Archive], arguments: dict[str, Any]) -> None:
    """Refuse what must stay; read the bundle once more, since after this it is the only copy."""
    row = change.row
    if row.verified_at is None:
        raise Conflict("The bundle was not verified.")
    if row.dropped_at is not None and not retention.rows_left(row):
        raise Conflict("These entries are not in the database.")
    _check_holds(row)
    _check_streams(row)
    if not retention.may_delete():
        raise Conflict(
            "The application's database role may not delete entries: run "
            "`python manage.py archive_audit drop` as the role that owns the tables."
        )
    with _told():
        retention.check_kept(row)
        retention.check(row)


def _check_holds(row: Archive) -> None:
    if held := retention.reaching(row.first_at, row.last_at):
        raise Conflict(f"A legal hold is in force: {held[0].name}. Nothing is dropped under it.")


def _check_streams(row: Archive) -> None:
    reached = streams.reached()
    # A drop that was begun is finished: a stream that is new since then gets no more by waiting.
    if reached is not None and reached < row.end and row.dropped_at is None:
        raise Conflict(
            f"A stream has delivered the entries before {reached} only: what it still has to deliver "
            "is not dropped."
        )


@gate.change(Action.DROP_AUDIT, on=targets.archive, prepare=_may_drop)
def drop_audit(change: Change[Archive], *, reason: str = "") -> Archive:
    """Delete the entries of a verified bundle from the database; tiles and proofs stay.

    Repeated after a crash, it goes on. Raises Conflict where a legal hold reaches into the bundle,
    where the bundle is not what the tree says, or where the database's role may not.
    """
    row = change.row
    change.rest_on(*HOLDS)
    _check_holds(row)
    if row.dropped_at is None:
        row.dropped_at = change.now
        row.save(update_fields=["dropped_at"])
    change.facts |= _facts(row)
    change.after(lambda: _dropped(row))
    return row


def _dropped(row: Archive) -> Archive:
    with _told():
        retention.delete_rows(row)
    return row


def _bring_back(change: Change[Archive], arguments: dict[str, Any]) -> None:
    if change.row.dropped_at is None:
        raise Conflict("These entries are in the database.")
    size = change.row.end - change.row.start
    if change.caller.door in (Door.REST, Door.CONSOLE) and size > RESTORED_AT_ONCE:
        raise Conflict(
            f"The bundle has {size:,} entries, more than a request can bring back: run "
            f"`python manage.py archive_audit restore {change.row.start}`."
        )
    with _told():
        retention.bring_back(change.row)


@gate.change(Action.RESTORE_AUDIT, on=targets.archive, prepare=_bring_back)
def restore_audit(change: Change[Archive], *, reason: str = "") -> Archive:
    """Put a bundle's entries back into the database, each compared with the tree, for reading.

    Raises Conflict where they are there, where the bundle is not what the tree says, or where it is
    larger than a request over REST or in the console can bring back.
    """
    row = change.row
    row.dropped_at, row.restored_at, row.restoring_at = None, change.now, None
    row.save(update_fields=["dropped_at", "restored_at", "restoring_at"])
    change.facts |= _facts(row)
    return row


@gate.change(Action.PLACE_HOLD, on=targets.house)
def place_hold(
    change: Change[None], *, name: str, since: str, until: str = "", reason: str = ""
) -> LegalHold:
    """Forbid that entries between two times are dropped, or anybody's personal data erased.

    `since` is included, `until` is not; left out: whatever comes. Why is needed. Raises Invalid or
    AlreadyExists.
    """
    chosen = names.display_name(name)
    begins, ends = parameters.moment(since, "since"), parameters.moment(until, "until")
    if begins is None:
        raise Invalid("since is missing: from when on is everything kept?", field="since")
    if ends is not None and ends <= begins:
        raise Invalid("until must be later than since.", field="until")
    why = names.prose(reason, "reason", required=True)
    if LegalHold.objects.filter(name=chosen).exists():
        raise AlreadyExists(f"There is, or was, a hold {chosen} already.", field="name")
    row = LegalHold.objects.create(
        name=chosen,
        reason=why,
        since=begins,
        until=ends,
        placed_by=change.caller.principal_id,
        placed_at=change.now,
    )
    change.about = Subject("hold", str(row.id), row.name)
    change.facts |= {"since": begins.isoformat(), "until": ends.isoformat() if ends else None}
    change.touch(*HOLDS)
    return row


@gate.change(Action.RELEASE_HOLD, on=targets.hold)
def release_hold(change: Change[LegalHold], *, reason: str = "") -> LegalHold:
    """Let go of what a hold kept. A hold is released once. Raises Conflict."""
    row = LegalHold.objects.select_for_update().get(pk=change.row.pk)
    if row.released_at is not None:
        raise Conflict("The hold was released already.")
    row.released_at, row.released_by = change.now, change.caller.principal_id
    row.save(update_fields=["released_at", "released_by"])
    change.touch(*HOLDS)
    return row


def keep_trail() -> None:
    """Archive what is older than KMS_AUDIT_KEEP_DAYS, and drop what was archived; the sweep does this.

    Where the database's role may not delete, dropping is left to the owner's command. After a failure
    it rests for a quarter of an hour; a bundle that can't be dropped rests by itself.
    """
    global _rest_until
    retention.sync_holds()
    now = clock.now()
    if not settings.AUDIT_ARCHIVE or not settings.AUDIT_KEEP_DAYS:
        return
    if _rest_until is not None and now < _rest_until:
        return
    before = now - timedelta(days=settings.AUDIT_KEEP_DAYS)
    try:
        _drop_due(before)  # first: it needs nothing that writing a bundle needs
        for _ in range(AT_ONCE):
            found = retention.next_range(before=before)
            if found is None or found[1] - found[0] < FEWEST:
                break
            archive_audit(scheduler(), before=before.isoformat(), reason="due")
        _drop_due(before)
    except (KeyServiceError, AuditError, OSError) as error:
        _rest_until = now + REST
        logger.warning("The trail's archive has to wait: %s", _kind(error))


def _kind(error: Exception) -> str:
    return error.code if isinstance(error, KeyServiceError) else type(error).__name__


def _drop_due(before: datetime) -> None:
    """Drop some bundles that are due. One that can't be dropped stops no other."""
    if not retention.may_delete():
        return
    now, done, failed, away = clock.now(), 0, 0, 0
    for row in droppable(before):
        if now < _resting.get(row.start, now):
            continue
        try:
            drop_audit(scheduler(), str(row.start), reason="due")
        except (Conflict, Unavailable) as error:
            _resting[row.start] = now + REST
            failed += 1
            away += isinstance(error, Unavailable)
            if away == AWAY:
                raise
            logger.warning("The bundle %s can't be dropped: %s", row, error)
        else:
            _resting.pop(row.start, None)
            done += 1
        if done == AT_ONCE or failed == FAILURES:
            break


def droppable(before: datetime | None = None) -> list[Archive]:
    """Return the verified bundles (older than `before`) that no hold keeps and that are to be dropped.

    None that a stream to a SIEM has still to deliver. Also those whose drop was interrupted,
    whatever their age. What somebody brought back to read stays until somebody drops it again.
    """
    rows = Archive.objects.filter(dropped_at=None, restored_at=None)
    if before is not None:
        rows = rows.filter(last_at__lt=before)
    free = ~retention.under_hold()
    rows = rows.filter(free).exclude(verified_at=None)
    if (reached := streams.reached()) is not None:
        rows = rows.filter(end__lte=reached)
    return sorted([*retention.unfinished().filter(free), *rows], key=lambda row: row.start)
