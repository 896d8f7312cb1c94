"""Names, handles and tags of keys at Azure.

A handle is the key's identifier without the vault's host: NAME/VERSION.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

from keys.backends.base import NoMaterial, Parent
from keys.errors import BackendError, Conflict

OURS = "kms-console"
KEY_TAG = "kms-console-key"
VERSION_TAG = "kms-console-version"
CHECK_TAG = "kms-console-check"
SPEC_TAG = "kms-console-spec"  # Azure does not tell how long a symmetric key is
DESTROY_TAG = "kms-console-destroy-at"
# What DESTROY_TAG says of a version that is to go at once, alone.
NOW = "now"

_HANDLE = re.compile(r"([0-9A-Za-z-]{1,127})/([0-9A-Za-z]{1,64})")
_NAME = re.compile(r"[0-9A-Za-z-]{1,127}")


class Handle(NamedTuple):
    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name}/{self.version}"


def parsed(handle: str) -> Handle:
    """Return a handle's parts. Raises NoMaterial for text that is none."""
    found = _HANDLE.fullmatch(handle)
    if found is None:
        raise NoMaterial
    return Handle(found[1], found[2])


def handle_of(identifier: str) -> Handle:
    """Return the handle of a key identifier (https://HOST/keys/NAME/VERSION). Raises BackendError."""
    found = _HANDLE.fullmatch(_path(identifier))
    if found is None:
        raise BackendError("Azure named a key version in a way that makes no sense.")
    return Handle(found[1], found[2])


def name_of(identifier: str) -> str:
    """Return the name in a key identifier, with or without a version. Raises BackendError."""
    name = _path(identifier).partition("/")[0]
    return checked_name(name)


def _path(identifier: str) -> str:
    path = urlsplit(identifier).path if isinstance(identifier, str) else ""
    for start in ("/keys/", "/deletedkeys/"):
        if path.startswith(start):
            return path.removeprefix(start).rstrip("/")
    return ""


def checked_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise BackendError("Azure named a key in a way that makes no sense.")
    return name


def is_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None


def name_for(label: uuid.UUID, parent: Parent | None) -> str:
    """Return the name under which a version labelled so is made and looked for."""
    if parent is not None and parent.newest:
        return parsed(parent.newest).name
    return f"{OURS}-{parent.key if parent is not None else label}"


def tags_for(label: uuid.UUID, parent: Parent | None) -> dict[str, str]:
    key = parent.key if parent is not None else label
    return {KEY_TAG: str(key), VERSION_TAG: str(label)}


def others_tags(tags: Mapping[str, str] | None) -> dict[str, str]:
    """Return the tags that are not the console's own."""
    return {name: value for name, value in (tags or {}).items() if not name.startswith(OURS)}


def one_name(handles: Iterable[str]) -> str:
    """Return the name that all handles of a key share. Raises NoMaterial for none, Conflict for two."""
    names = {parsed(handle).name for handle in handles}
    if not names:
        raise NoMaterial
    if len(names) > 1:
        raise Conflict("The key's versions are of more than one key at Azure.")
    return names.pop()
