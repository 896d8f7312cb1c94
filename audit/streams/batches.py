"""The next entries of a stream, each in the stream's form.

A stream is evidence of its own, so nothing is left out of it in silence: what is missing from the
log, or is not what was hashed, stops the stream.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from audit import checkpoints, personal
from audit.errors import StreamError
from audit.exports import opening
from audit.formats import cef, ocsf
from audit.formats.activities import severity
from audit.merkle import leaf_hash
from audit.models import Archive, Entry
from audit.streams.addresses import Stream

ENTRIES = 500
# A batch ends after this many bytes as they are sent, so that nobody is sent what it won't take.
BYTES = 1024 * 1024
# More than what syslog writes before an entry.
SYSLOG_HEAD = 512
_decode = msgspec.json.Decoder().decode

# Index, time, leaf hash, body.
Row = tuple[int, datetime, bytes, bytes]


@dataclass(frozen=True, slots=True)
class Message:
    """One entry as it is sent. `severity` is OCSF's severity_id, `line` has no line break."""

    index: int
    uuid: str
    at: datetime
    action: str
    severity: int
    leaf: bytes
    line: bytes


@dataclass(frozen=True, slots=True)
class Batch:
    """Entries from `start` on; `end` is the index after the last one, also where `messages` is empty."""

    start: int
    end: int
    messages: list[Message]


def following(
    stream: Stream, start: int, size: int, using: str = "default", limit: int = ENTRIES
) -> Batch | None:
    """Return the next of the entries start..size-1, None where start is size.

    What was archived and dropped before its turn is passed over. Raises StreamError where an entry
    is missing, can't be read or is not what was hashed, which nothing but tampering explains.
    """
    if start >= size:
        return None
    rows = _rows(start, size, using, limit)
    first = rows[0][0] if rows else size
    if first > start:
        _ensure_dropped(start, first, using)
    found = _sound(rows)
    told = set(personal.texts([body for _, body in found])) if stream.names else set()
    known = opening.look_up(told, using)
    log_name = _log_name(stream, using)
    messages: list[Message] = []
    sent = 0
    for row, body in found:
        try:
            message = _message(stream, row, body, known, log_name)
        except StreamError:
            if messages:
                break  # what comes before it is delivered
            raise
        sent += len(message.line) + (SYSLOG_HEAD if stream.is_syslog else 1)
        if messages and sent > BYTES:
            break
        messages.append(message)
    return Batch(start, first + len(messages), messages)


def _rows(start: int, size: int, using: str, limit: int) -> list[Row]:
    table = Entry.objects.using(using).filter(index__gte=start, index__lt=size).order_by("index")
    found: list[Row] = []
    read = 0
    for index, at, leaf, data in table.values_list("index", "at", "leaf_hash", "body")[:limit]:
        read += len(data)
        if found and read > BYTES:
            break
        found.append((index, at, bytes(leaf), bytes(data)))
    return found


def _ensure_dropped(start: int, end: int, using: str) -> None:
    """Raise StreamError unless bundles that were verified and dropped hold the entries start..end-1."""
    table = Archive.objects.using(using).exclude(verified_at=None).exclude(dropped_at=None)
    bundles = table.filter(end__gt=start, start__lt=end).order_by("start")
    missing = start
    for begins, ends in bundles.values_list("start", "end"):
        if begins <= missing < ends:
            missing = ends
    if missing < end:
        raise StreamError(f"entry {missing} is missing: verify the log")


def _sound(rows: list[Row]) -> list[tuple[Row, Any]]:
    """Return the rows up to the first that is missing or not sound, and what they say.

    Raises StreamError where that is the very first one.
    """
    found: list[tuple[Row, Any]] = []
    for row in rows:
        if found and row[0] != found[-1][0][0] + 1:
            break
        try:
            found.append((row, _body(row)))
        except StreamError:
            if not found:
                raise
            break
    return found


def _body(row: Row) -> Any:
    index, _, leaf, data = row
    if leaf_hash(data) != leaf:
        raise StreamError(f"entry {index} is not what was written: verify the log")
    try:
        body = _decode(data)
        if body["index"] == index:
            return body
    except (KeyError, TypeError, ValueError):
        raise _unreadable(index) from None
    raise StreamError(f"entry {index} says that it is another one: verify the log")


def _unreadable(index: int) -> StreamError:
    return StreamError(f"entry {index} can't be read: verify the log")


def _log_name(stream: Stream, using: str) -> str:
    """Return the log's origin as checkpoints name it, where one was signed."""
    if stream.format != "ocsf":
        return ocsf.LOG_NAME
    newest = checkpoints.latest(using)
    return ocsf.LOG_NAME if newest is None else newest.origin


def _message(stream: Stream, row: Row, body: Any, known: opening.Known, log_name: str) -> Message:
    index, at, leaf, line = row
    try:
        names = opening.names(body, known) if known else {}
        if stream.format == "ocsf":
            line = ocsf.line(body, names, leaf=leaf, log_name=log_name)
        elif stream.format == "cef":
            line = cef.line(body, names, leaf=leaf)
        level = severity(body["action"], body["outcome"])
        return Message(index, body["uuid"], at, body["action"], level, leaf, line)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise _unreadable(index) from None
