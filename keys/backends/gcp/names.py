"""Resource names, and the labels with which the console marks what is its own.

A CryptoKey of the console is called kms-console-<key id>. `kms-console-key` holds that id;
`kms-console-version-<number>` says for which version label a CryptoKeyVersion is, or will be, made,
and for imported material its check value. That is what makes a retry safe: Google gives out the
numbers, and takes no name of ours for a version.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass

from keys.backends.base import NoMaterial, Parent

PREFIX = "kms-console"
KEY_LABEL, VERSION_LABEL = f"{PREFIX}-key", f"{PREFIX}-version-"
# Google allows 64 labels a resource; older marks are of no use once the console has the handle.
MARKS_KEPT = 20

_KEY = re.compile(r"/cryptoKeys/[a-zA-Z0-9_-]{1,63}")
_VERSION = re.compile(r"(/cryptoKeys/[a-zA-Z0-9_-]{1,63})/cryptoKeyVersions/([1-9][0-9]{0,9})")
_MARK = re.compile(rf"{VERSION_LABEL}([1-9][0-9]{{0,9}})")
_MARKED = re.compile(r"([0-9a-f]{32})(?:-([0-9a-f]{16}))?")


@dataclass(frozen=True, slots=True)
class Mark:
    """For which label the version with this number is; `check` is that of imported material."""

    number: int
    label: uuid.UUID
    check: str = ""

    def pair(self) -> tuple[str, str]:
        value = f"{self.label.hex}-{self.check}" if self.check else self.label.hex
        return f"{VERSION_LABEL}{self.number}", value


def key_id(label: uuid.UUID, parent: Parent | None) -> str:
    return f"{PREFIX}-{parent.key if parent else label}"


def key_of(ring: str, label: uuid.UUID, parent: Parent | None) -> str:
    """Return the CryptoKey that a version belongs to. Raises NoMaterial for a handle of elsewhere.

    A key that was taken over keeps its own name: its newest version's handle says which.
    """
    if parent is not None and parent.newest:
        return split(ring, parent.newest)[0]
    return f"{ring}/cryptoKeys/{key_id(label, parent)}"


def split(ring: str, handle: str) -> tuple[str, int]:
    """Return a handle's CryptoKey and version number. Raises NoMaterial for any other text."""
    found = _VERSION.fullmatch(handle.removeprefix(ring)) if handle.startswith(ring) else None
    if found is None:
        raise NoMaterial("The handle names no key version of this key ring.")
    return ring + found[1], int(found[2])


def number_of(version: str) -> int:
    """Return the number at the end of a version's name, 0 where there is none."""
    tail = version.rpartition("/cryptoKeyVersions/")[2]
    return int(tail) if tail.isascii() and tail.isdigit() and len(tail) <= 10 else 0


def is_key(ring: str, reference: str) -> bool:
    return reference.startswith(ring) and bool(_KEY.fullmatch(reference.removeprefix(ring)))


def version_name(key: str, number: int) -> str:
    return f"{key}/cryptoKeyVersions/{number}"


def marks(labels: Mapping[str, str]) -> list[Mark]:
    """Return the console's marks in a key's labels, oldest version first; foreign ones are left out."""
    found = []
    for name, value in labels.items():
        number, marked = _MARK.fullmatch(name), _MARKED.fullmatch(value)
        if number and marked:
            found.append(Mark(int(number[1]), uuid.UUID(marked[1]), marked[2] or ""))
    return sorted(found, key=lambda mark: mark.number)


def mark_for(labels: Mapping[str, str], label: uuid.UUID) -> Mark | None:
    return next((mark for mark in marks(labels) if mark.label == label), None)


def marked(labels: Mapping[str, str], mark: Mark) -> dict[str, str]:
    """Return the labels with one more mark in place of any older one of that label or number."""
    kept = [
        other
        for other in marks(labels)
        if mark.label != other.label and mark.number != other.number
    ]
    others = {name: value for name, value in labels.items() if not name.startswith(VERSION_LABEL)}
    newest = [*kept, mark][-MARKS_KEPT:]
    return {**others, **dict(one.pair() for one in newest)}


def unmarked(labels: Mapping[str, str], number: int) -> dict[str, str]:
    """Return the labels without the console's mark of the version with this number."""
    return {name: value for name, value in labels.items() if name != f"{VERSION_LABEL}{number}"}


def tags(labels: Mapping[str, str]) -> dict[str, str]:
    """Return other people's labels."""
    return {name: value for name, value in labels.items() if not name.startswith(PREFIX)}
