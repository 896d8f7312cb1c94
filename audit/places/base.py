"""What every place can do. The docstrings of Place are the contract of all of them."""

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from audit.errors import PlaceError

CHUNK = 1024 * 1024
# What `get` holds in memory; longer things are read in pieces.
GET_LIMIT = 64 * 1024 * 1024
NAME_LIMIT = 512
# No part begins with a dot: "..", hidden files, and what is still being written.
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")


class Place(ABC):
    """Somewhere outside the database where bytes are kept under names.

    Every method raises audit.errors.PlaceUnavailable where trying again may help and PlaceError
    where it won't; PlaceMissing, a PlaceError, where nothing has the name. No message tells an
    address. Names are parts of letters, digits, ".", "_" and "-", joined by "/".
    """

    # Whether the storage itself refuses to delete what is retained or held.
    enforces = False

    def __init__(self, url: str) -> None:
        self.url = url

    @abstractmethod
    def put(
        self,
        name: str,
        data: bytes | Path,
        *,
        retain_until: datetime | None = None,
        hold: bool = False,
        replace: bool = False,
    ) -> None:
        """Keep `data`, or the content of a file, under a name; durable once this returns.

        What has the name already stays: the same bytes again are no error (a repeated call ends as
        the first one would have), other bytes are a PlaceError, unless `replace`. Nobody sees half
        of it. `retain_until` and `hold` (a legal hold) forbid deleting, where `enforces`.
        """

    @abstractmethod
    def get(self, name: str) -> bytes:
        """Return what is kept under a name, up to GET_LIMIT bytes."""

    @abstractmethod
    def read(self, name: str) -> Iterator[bytes]:
        """Yield what is kept under a name in pieces of up to CHUNK bytes."""

    @abstractmethod
    def names(self, prefix: str = "") -> list[str]:
        """Return the names that begin with `prefix`, sorted."""

    def retained_until(self, name: str) -> datetime | None:
        """Return until when the storage refuses, whoever asks, to delete what has the name; or None."""
        return None

    @abstractmethod
    def hold(self, name: str, on: bool) -> None:
        """Put what has the name under legal hold, or release it, where `enforces`."""


def checked(name: str) -> str:
    """Return a name that can be used. Raises PlaceError."""
    if len(name) > NAME_LIMIT or not _NAME.fullmatch(name):
        raise PlaceError("a name at a place has parts of letters, digits, '.', '_', '-' only")
    return name


def stream(data: bytes | Path) -> Iterator[bytes]:
    """Yield bytes, or a file's content, in pieces. Raises PlaceError where the file can't be read."""
    if isinstance(data, bytes):
        yield data
        return
    try:
        with data.open("rb") as file:
            yield from pieces(file)
    except OSError as error:
        raise PlaceError(f"what to keep can't be read: {error.strerror}") from None


def pieces(file: BinaryIO) -> Iterator[bytes]:
    """Yield a file's content in pieces."""
    while chunk := file.read(CHUNK):
        yield chunk


def sha256(data: bytes | Path) -> bytes:
    """Return the SHA-256 of bytes or of a file's content, in constant memory."""
    digest = hashlib.sha256()
    for chunk in stream(data):
        digest.update(chunk)
    return digest.digest()


def collected(chunks: Iterator[bytes]) -> bytes:
    """Return pieces as one. Raises PlaceError where there is more than GET_LIMIT."""
    found = bytearray()
    for chunk in chunks:
        found += chunk
        if len(found) > GET_LIMIT:
            raise PlaceError("what is kept under that name is too long to be read at once")
    return bytes(found)
