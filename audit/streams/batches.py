"""The next entries of a stream, each in the stream's form."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from audit import personal
from audit.errors import StreamError
from audit.formats import cef, ocsf
from audit.formats.activities import severity
from audit.formats.naming import Names, commitments
from audit.models import Entry
from audit.streams.addresses import Stream

ENTRIES = 500
# A batch ends after this many bytes of bodies, so that nobody is sent what it won't take.
BYTES = 1024 * 1024
_decode = msgspec.json.Decoder().decode


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
    """Consecutive entries from `start`; `end` is the index after the last one."""

    start: int
    end: int
    messages: list[Message]


def following(
    stream: Stream, start: int, using: str = "default", limit: int = ENTRIES
) -> Batch | None:
    """Return the entries from `start`, None where there is none yet.

    What was archived and dropped before its turn is passed over. Raises StreamError where an entry
    can't be read, which nothing but tampering explains.
    """
    rows = _rows(start, using, limit)
    if not rows:
        return None
    bodies = [_body(index, data) for index, _, _, data in rows]
    names = personal.opened(commitments(bodies), using) if stream.names else {}
    messages = [
        _message(stream, index, at, leaf, data, body, names)
        for (index, at, leaf, data), body in zip(rows, bodies, strict=True)
    ]
    return Batch(start, rows[-1][0] + 1, messages)


def _body(index: int, data: bytes) -> Any:
    try:
        return _decode(data)
    except ValueError:
        raise _unreadable(index) from None


def _unreadable(index: int) -> StreamError:
    return StreamError(f"entry {index} can't be read: verify the log")


def _rows(start: int, using: str, limit: int) -> list[tuple[int, datetime, bytes, bytes]]:
    table = Entry.objects.using(using).filter(index__gte=start).order_by("index")
    found: list[tuple[int, datetime, bytes, bytes]] = []
    size = 0
    for index, at, leaf, data in table.values_list("index", "at", "leaf_hash", "body")[:limit]:
        size += len(data)
        if found and size > BYTES:
            break
        found.append((index, at, bytes(leaf), bytes(data)))
    return found


def _message(
    stream: Stream,
    index: int,
    at: datetime,
    leaf: bytes,
    data: bytes,
    body: Any,
    names: Names,
) -> Message:
    try:
        level = severity(body["action"], body["outcome"])
        line = _line(stream.format, data, leaf, body, names)
        return Message(index, body["uuid"], at, body["action"], level, leaf, line)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise _unreadable(index) from None


def _line(form: str, data: bytes, leaf: bytes, body: Any, names: Names) -> bytes:
    if form == "ocsf":
        return ocsf.line(body, names, leaf=leaf)
    return cef.line(body, names, leaf=leaf) if form == "cef" else data
