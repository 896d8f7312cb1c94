"""What of the log is in bundles outside, and the steps by which entries go there and come back.

Each step can be repeated, and a crash between two loses nothing: a bundle is registered once it was
read back, a row is deleted once its bundle is registered and marked as dropped, and it is marked as
in the database again once every row is back.
"""

from __future__ import annotations

import logging
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
from django.conf import settings
from django.db import IntegrityError, connections, transaction
from django.db.models import Exists, Max, OuterRef, QuerySet

from audit import entries, tiles
from audit.errors import ArchiveFault, PlaceUnavailable
from audit.models import Archive, Checkpoint, Entry
from audit.retention import bundles, holds, where
from audit.store import read_head
from audit.tiles import WIDTH

log = logging.getLogger(__name__)

ENTRIES = 65_536  # in a bundle, unless somebody wishes another multiple of 256
CHUNK = 4096  # rows that one transaction deletes

# How long a bundle that somebody brings back is left alone by who drops the rest of another.
RESTORING = timedelta(hours=1)

_COLUMNS = (*entries.COLUMNS, "leaf_hash", "body")
_NAMES = ", ".join(f'"{name}"' for name in _COLUMNS)
_MARKS = ", ".join(["%s"] * len(_COLUMNS))
_INSERT = f"INSERT INTO audit_entry ({_NAMES}) VALUES ({_MARKS})"  # noqa: S608 - constants


@dataclass(frozen=True, slots=True)
class Written:
    """A bundle at its place, read back and compared."""

    start: int
    end: int
    first_at: datetime
    last_at: datetime
    place: str
    name: str
    sha256: str
    retain_until: datetime | None
    hold: bool


class _Time(msgspec.Struct):
    """What is read of a body to know its time, in microseconds since the epoch."""

    at: int


def archived(index: int, using: str = "default") -> Archive | None:
    """Return the bundle that holds an entry, whether or not the database has the entry too."""
    rows = Archive.objects.using(using).filter(start__lte=index).order_by("-start")
    found = rows.first()
    return found if found is not None and index < found.end else None


def next_range(
    count: int = ENTRIES, before: datetime | None = None, using: str = "default"
) -> tuple[int, int] | None:
    """Return (start, end) of the next bundle of at most `count` entries, or None.

    Bundles follow each other from the first entry on. None reaches into the newest 256 entries,
    beyond the tiles, or beyond what was signed; with `before`, none ends with a later entry.
    """
    start = Archive.objects.using(using).aggregate(Max("end"))["end__max"] or 0
    signed = _newest_checkpoint(using)
    size = read_head(connections[using]).size
    limit = min(signed.size if signed else 0, tiles.covered(using), size - WIDTH)
    end = min(start + count, limit) // WIDTH * WIDTH
    if before is not None and end > start:
        lasts = range(start + WIDTH - 1, end, WIDTH)
        old = Entry.objects.using(using).filter(index__in=lasts, at__lt=before)
        last = old.aggregate(Max("index"))["index__max"]
        end = start if last is None else last + 1
    return (start, end) if end > start else None


def _newest_checkpoint(using: str) -> Checkpoint | None:
    return Checkpoint.objects.using(using).order_by("-size", "-id").first()


def write_bundle(start: int, end: int, using: str = "default") -> Written:
    """Verify the entries start..end-1, write their bundle to the archive, read it back and compare.

    Nothing is written to the database. Raises ArchiveFault, PlaceUnavailable or PlaceError.
    """
    place = where.new()
    checkpoint = _newest_checkpoint(using)
    if checkpoint is None or checkpoint.size < end:
        raise ArchiveFault("no checkpoint covers these entries yet")
    days = settings.AUDIT_RETAIN_DAYS if place.enforces else 0
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(days=days) if days else None
    try:
        with tempfile.TemporaryDirectory(prefix="kms-archive-") as folder:
            path = Path(folder) / "bundle"
            made = bundles.make(path, start, end, checkpoint, using)
            name = f"entries/{start:012d}-{end - 1:012d}-{made.sha256[:16]}.jsonl.gz"
            hold = bool(holds.reaching(made.first_at, made.last_at, using))
            place.put(name, path, retain_until=until, hold=hold)
    except OSError as error:
        log.warning("A bundle can't be written to a temporary file: %s", error)
        raise PlaceUnavailable("a bundle can't be put together on this machine's disk") from None
    for _ in bundles.read(place.read(name), start, end, made.sha256, using):
        pass
    return Written(
        start, end, made.first_at, made.last_at, place.url, name, made.sha256, until, hold
    )


def register(written: Written, at: datetime, using: str = "default") -> Archive:
    """Write down a bundle that was read back. Inside the caller's transaction."""
    row = Archive.objects.using(using).create(
        start=written.start,
        end=written.end,
        first_at=written.first_at,
        last_at=written.last_at,
        place=written.place,
        name=written.name,
        sha256=written.sha256,
        retain_until=written.retain_until,
        archived_at=at,
        hold_told=written.hold,
    )
    row.verified_at = at
    row.save(update_fields=["verified_at"])
    return row


def check(archive: Archive, using: str = "default") -> int:
    """Read a bundle at its place and compare it with the tree; return the number of its entries.

    The times that legal holds are compared with must be those of its entries' bodies. Raises
    ArchiveFault, PlaceUnavailable or PlaceError.
    """
    chunks, count = where.of(archive).read(archive.name), 0
    first, last = None, None
    for batch in bundles.read(chunks, archive.start, archive.end, archive.sha256, using):
        count += len(batch)
        times = [_time(body) for _, body, _ in batch]
        first = min(times) if first is None else min(first, *times)
        last = max(times) if last is None else max(last, *times)
    assert first is not None and last is not None
    if (entries.moment(first), entries.moment(last)) != (archive.first_at, archive.last_at):
        raise ArchiveFault("the bundle's times are not those of its entries")
    return count


def _time(body: bytes) -> int:
    try:
        return msgspec.json.decode(body, type=_Time).at
    except msgspec.MsgspecError:
        raise ArchiveFault("an entry of the bundle does not have the form of an entry") from None


def unfinished(using: str = "default") -> QuerySet[Archive]:
    """Return the dropped bundles of which entries are in the database still, and not brought back now."""
    left = Entry.objects.using(using).filter(
        index__gte=OuterRef("start"), index__lt=OuterRef("end")
    )
    busy = datetime.now(UTC) - RESTORING
    rows = Archive.objects.using(using).exclude(dropped_at=None).exclude(restoring_at__gt=busy)
    return rows.filter(Exists(left))


def rows_left(archive: Archive, using: str = "default") -> int:
    """Return how many of a bundle's entries are in the database."""
    rows = Entry.objects.using(using).filter(index__gte=archive.start, index__lt=archive.end)
    return rows.count()


def may_delete(using: str = "default") -> bool:
    """Whether this connection's role may delete entries at all: the application's may not."""
    connection = connections[using]
    if connection.vendor != "postgresql":
        return True
    with connection.cursor() as cursor:
        cursor.execute("SELECT has_table_privilege('audit_entry', 'DELETE')")
        return bool(cursor.fetchone()[0])


def delete_rows(archive: Archive, using: str = "default") -> int:
    """Delete a dropped bundle's entries from the database, some at a time; return how many went.

    The database's triggers look at each. Raises ArchiveFault where they refuse, and where somebody
    brought the bundle back meanwhile.
    """
    connection, gone = connections[using], 0
    for first in range(archive.start, archive.end, CHUNK):
        try:
            with transaction.atomic(using=using), connection.cursor() as cursor:
                if connection.vendor == "postgresql":
                    # Whoever places a hold meanwhile waits, and comes before the next chunk.
                    cursor.execute("LOCK TABLE audit_legalhold IN SHARE MODE")
                # Whoever says that all is back waits too, and counts what is there then.
                row = Archive.objects.using(using).select_for_update().filter(pk=archive.pk)
                if not row.exclude(dropped_at=None).exists():
                    raise ArchiveFault("the bundle's entries were brought back meanwhile")
                cursor.execute(
                    'DELETE FROM audit_entry WHERE "index" >= %s AND "index" < %s',
                    [first, min(first + CHUNK, archive.end)],
                )
                gone += cursor.rowcount
        except IntegrityError:
            raise ArchiveFault("the database keeps the entries: a legal hold was placed") from None
    return gone


def bring_back(archive: Archive, using: str = "default") -> int:
    """Put a dropped bundle's entries back, each compared with the tree; return how many.

    Raises ArchiveFault, PlaceUnavailable or PlaceError.
    """
    connection, count = connections[using], 0
    chunks = where.of(archive).read(archive.name)
    Archive.objects.using(using).filter(pk=archive.pk).update(restoring_at=datetime.now(UTC))
    for batch in bundles.read(chunks, archive.start, archive.end, archive.sha256, using):
        indices = [index for index, _, _ in batch]
        with transaction.atomic(using=using):
            there = Entry.objects.using(using).filter(index__gte=indices[0], index__lte=indices[-1])
            have = set(there.values_list("index", flat=True))
            rows = [_row(connection, body, leaf) for at, body, leaf in batch if at not in have]
            if rows:
                with connection.cursor() as cursor:
                    cursor.executemany(_INSERT, rows)
            count += len(rows)
    return count


def _row(connection: Any, body: bytes, leaf: bytes) -> tuple[Any, ...]:
    """Return the row of an entry, its columns taken from its body."""
    try:
        index, uuid, at, *rest = entries.columns(msgspec.json.decode(body))
        identity, time = UUID(uuid), entries.moment(at)
    except (KeyError, TypeError, ValueError, OverflowError, msgspec.MsgspecError):
        raise ArchiveFault("an entry of the bundle does not have the form of an entry") from None
    if connection.vendor != "postgresql":
        return (
            index,
            identity.hex,
            connection.ops.adapt_datetimefield_value(time),
            *rest,
            leaf,
            body,
        )
    return (index, identity, time, *rest, leaf, body)
