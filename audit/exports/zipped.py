"""The ZIP container (APPNOTE 6.3), written in one go: stored, fixed dates, ZIP64 for every member.

Sizes and checksums stand behind each member (data descriptor), since they aren't known before, and
in the directory at the end. The same members give the same bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

_VERSION = 45  # 4.5: ZIP64
_UNIX = 3 << 8  # made by: so that the mode below counts
_DESCRIPTOR = 1 << 3
_TIME, _DATE = 0, (1 << 5) | 1  # 1980-01-01 00:00:00, the first that there is
_MODE = 0o100644 << 16
_ALL16, _ALL32 = 0xFFFF, 0xFFFFFFFF


class Member(NamedTuple):
    """A member that is out: its name, CRC-32, size, and where its local header begins."""

    name: str
    crc: int
    size: int
    offset: int


def local_header(name: str) -> bytes:
    """Return what stands before a member's bytes."""
    extra = struct.pack("<HHQQ", 1, 16, 0, 0)
    fixed = struct.pack(
        "<4sHHHHHIIIHH",
        b"PK\x03\x04",
        _VERSION,
        _DESCRIPTOR,
        0,
        _TIME,
        _DATE,
        0,
        _ALL32,
        _ALL32,
        len(name),
        len(extra),
    )
    return fixed + name.encode("ascii") + extra


def descriptor(crc: int, size: int) -> bytes:
    """Return what stands behind a member's bytes."""
    return struct.pack("<4sIQQ", b"PK\x07\x08", crc, size, size)


def directory(members: Sequence[Member], at: int) -> bytes:
    """Return the directory of all members and the archive's end, for an archive of `at` bytes."""
    entries = b"".join(map(_entry, members))
    count, end = len(members), at + len(entries)
    zip64 = struct.pack(
        "<4sQHHIIQQQQ",
        b"PK\x06\x06",
        44,
        _UNIX | _VERSION,
        _VERSION,
        0,
        0,
        count,
        count,
        len(entries),
        at,
    )
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, end, 1)
    tail = struct.pack(
        "<4sHHHHIIH", b"PK\x05\x06", 0, 0, count, count, len(entries), min(at, _ALL32), 0
    )
    return entries + zip64 + locator + tail


def _entry(member: Member) -> bytes:
    extra = struct.pack("<HHQQQ", 1, 24, member.size, member.size, member.offset)
    fixed = struct.pack(
        "<4sHHHHHHIIIHHHHHII",
        b"PK\x01\x02",
        _UNIX | _VERSION,
        _VERSION,
        _DESCRIPTOR,
        0,
        _TIME,
        _DATE,
        member.crc,
        _ALL32,
        _ALL32,
        len(member.name),
        len(extra),
        0,
        0,
        0,
        _MODE,
        _ALL32,
    )
    return fixed + member.name.encode("ascii") + extra
