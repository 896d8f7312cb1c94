"""From bundles and legal holds to what the API shows of them."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

from audit.models import Archive as ArchiveRow
from audit.models import LegalHold
from keys.callers import Caller
from kms_console.api.rest import shapes
from kms_console.api.rest.shown import utc


class Archive(shapes.Shape):
    """A bundle of the entries from `start` to before `end`; `sha256` is of its bytes, in hex.

    `dropped_at` is null where the database has the entries (too).
    """

    start: int
    end: int
    first_at: shapes.Time
    last_at: shapes.Time
    bundle: str
    sha256: shapes.Hex
    retain_until: shapes.Moment
    archived_at: shapes.Time
    verified_at: shapes.Moment
    dropped_at: shapes.Moment
    restored_at: shapes.Moment


class Hold(shapes.Shape):
    """A legal hold on entries from `since` to before `until`; null: whatever comes.

    In force while `released_at` is null.
    """

    id: uuid.UUID
    name: str
    reason: str
    since: shapes.Time
    until: shapes.Moment
    placed_by: uuid.UUID
    placed_at: shapes.Time
    released_by: uuid.UUID | None
    released_at: shapes.Moment


def _at(moment: datetime) -> datetime:
    return moment.astimezone(UTC)


def archive(row: ArchiveRow, caller: Caller) -> Archive:
    return Archive(
        start=row.start,
        end=row.end,
        first_at=_at(row.first_at),
        last_at=_at(row.last_at),
        bundle=row.name,
        sha256=row.sha256,
        retain_until=utc(row.retain_until),
        archived_at=_at(row.archived_at),
        verified_at=utc(row.verified_at),
        dropped_at=utc(row.dropped_at),
        restored_at=utc(row.restored_at),
    )


def hold(row: LegalHold, caller: Caller) -> Hold:
    return Hold(
        id=row.id,
        name=row.name,
        reason=row.reason,
        since=_at(row.since),
        until=utc(row.until),
        placed_by=row.placed_by,
        placed_at=_at(row.placed_at),
        released_by=row.released_by,
        released_at=utc(row.released_at),
    )
