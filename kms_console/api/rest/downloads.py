"""Downloads that can be taken up again (RFC 9110, 14): one range of bytes, and what it is of."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from django.http import HttpRequest

from audit.exports import FORMATS
from audit.models import Export

_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")


@dataclass(frozen=True, slots=True)
class Part:
    """The bytes start..end-1 of a download."""

    start: int
    end: int


def etag(row: Export) -> str:
    """Return an export's entity tag: its bytes never change."""
    return f'"{row.id}-{row.format}"'


def name(row: Export) -> str:
    """Return the name of the file."""
    return f"audit-{row.created_at:%Y%m%dT%H%M%SZ}.{FORMATS[row.format].suffix}"


def asks_for_part(request: HttpRequest, row: Export) -> bool:
    """Tell whether a request wants one range of what it had before; several are answered with all."""
    found = _RANGE.fullmatch(request.headers.get("Range", "").replace(" ", ""))
    if found is None or not (found[1] or found[2]):
        return False
    if found[1] and found[2] and int(found[1]) > int(found[2]):
        return False
    return request.headers.get("If-Range", etag(row)) == etag(row)


def part(request: HttpRequest, length: int) -> Part | None:
    """Return the range that is asked for, of a download of `length` bytes; None: there is none such."""
    found = _RANGE.fullmatch(request.headers.get("Range", "").replace(" ", ""))
    assert found is not None
    first, last = found.groups()
    if not first:
        start, end = max(0, length - int(last)), length
    else:
        start, end = int(first), min(int(last) + 1, length) if last else length
    return Part(start, end) if start < end else None


def limited(pieces: Iterator[bytes], count: int) -> Iterator[bytes]:
    """Yield the first `count` bytes."""
    for piece in pieces:
        yield piece[:count]
        count -= len(piece)
        if count <= 0:
            return
