"""How far streams have come, whose turn it is to deliver them, and what is wrong with them.

The cursor's row is the promise: everything before `next` was taken. Whoever delivers holds a lease on
it, so that two keepers don't send everything twice. No lock and no transaction lasts across a
delivery; where a lease ends during one, the other keeper sends the batch once more, and the cursor
moves by compare-and-set.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from django.db import Error
from django.db.models import Q

from audit import writer
from audit.models import Cursor, Entry
from audit.streams.addresses import Stream, configured

# Longer than any one delivery takes; renewed before each.
LEASE_SECONDS = 90
LATE = timedelta(minutes=5)
PROBLEM_LIMIT = 200


def position(stream: Stream, using: str = "default") -> Cursor:
    """Return a stream's cursor; a new one stands at the log's end, or where its address says."""
    table = Cursor.objects.using(using)
    found = table.filter(stream=stream.identity).first()
    if found is not None:
        return found
    start = writer.head(using).size if stream.start is None else stream.start
    # Another keeper may do the same now: the first row stands.
    table.bulk_create([Cursor(stream=stream.identity, next=start)], ignore_conflicts=True)
    return table.get(stream=stream.identity)


def claim(stream: Stream, holder: str, using: str = "default") -> Cursor | None:
    """Take or renew the lease on a stream and return its cursor; None where another holder has it."""
    now = datetime.now(UTC)
    position(stream, using)
    free = Q(holder__in=("", holder)) | Q(held_until=None) | Q(held_until__lt=now)
    rows = Cursor.objects.using(using).filter(free, stream=stream.identity)
    if not rows.update(holder=holder, held_until=now + timedelta(seconds=LEASE_SECONDS)):
        return None
    return position(stream, using)


def release(stream: Stream, holder: str, using: str = "default") -> None:
    """Give the lease back, so that another holder need not wait for its end."""
    table = Cursor.objects.using(using)
    table.filter(stream=stream.identity, holder=holder).update(holder="", held_until=None)


def move(stream: Stream, start: int, end: int, using: str = "default") -> bool:
    """Say that entries start..end-1 were taken; False where the cursor is elsewhere meanwhile."""
    table = Cursor.objects.using(using)
    moved = table.filter(stream=stream.identity, next=start).update(
        next=end, delivered_at=datetime.now(UTC), failing_since=None, problem=""
    )
    return bool(moved)


def failing(stream: Stream, problem: str, using: str = "default") -> None:
    """Say why nothing is taken; since when stays what it was."""
    table = Cursor.objects.using(using).filter(stream=stream.identity)
    table.filter(failing_since=None).update(failing_since=datetime.now(UTC))
    table.update(problem=problem[:PROBLEM_LIMIT])


def reached(using: str = "default") -> int | None:
    """Return the index before which every configured stream has delivered all; None without streams.

    What is not below it must stay in the database. Where an address can't be used, nobody knows
    which cursor is its: all of them count.
    """
    streams, problems = configured()
    if not streams and not problems:
        return None
    table = Cursor.objects.using(using)
    if not problems:
        table = table.filter(stream__in=[one.identity for one in streams])
    found = dict(table.values_list("stream", "next"))
    # A stream that nobody has begun yet begins here.
    size = writer.head(using).size
    begins = [
        size if one.start is None else one.start for one in streams if one.identity not in found
    ]
    return min([*found.values(), *begins], default=0)


def trouble(using: str = "default") -> str:
    """Return in a sentence which streams don't get what they should, or ""."""
    streams, problems = configured()
    if problems:
        return f"{len(problems)} of the streams' addresses can't be used: {problems[0]}"
    if not streams:
        return ""
    try:
        return _told(streams, using)
    except Error:
        return ""  # the database's own check says so


def _told(streams: list[Stream], using: str) -> str:
    rows = list(Cursor.objects.using(using).filter(stream__in=[one.identity for one in streams]))
    bad = [(row.failing_since, row) for row in rows if row.failing_since is not None]
    if bad:
        since, first = min(bad, key=lambda one: one[0])
        what = f"{len(bad)} of {len(streams)} streams failing since {_minute(since)}"
        return f"{what}: {first.problem}"
    last = Entry.objects.using(using).order_by("-index").values_list("index", flat=True).first()
    waiting = [row.next for row in rows if last is not None and row.next <= last]
    if not waiting:
        return ""
    # Nobody delivers, or not fast enough.
    oldest = Entry.objects.using(using).filter(index__gte=min(waiting)).order_by("index").first()
    if oldest is None or datetime.now(UTC) - oldest.at < LATE:
        return ""
    return f"{len(waiting)} of {len(streams)} streams behind since {_minute(oldest.at)}"


def _minute(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
