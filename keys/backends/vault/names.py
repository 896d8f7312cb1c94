"""Handles: `<name of the transit key>:<version>`."""

from __future__ import annotations

import re
import uuid

from keys.backends.base import NoMaterial, Parent

# What transit takes for a name (framework.GenericNameRegex); it holds no colon and no slash.
_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,398}[A-Za-z0-9_])?")
_VERSION = re.compile(r"[1-9][0-9]{0,8}")
PREFIX = "kms-console-"


def handle(name: str, version: int) -> str:
    return f"{name}:{version}"


def is_name(text: str) -> bool:
    return bool(_NAME.fullmatch(text))


def parsed(text: str) -> tuple[str, int]:
    """Return the key's name and the version of a handle. Raises NoMaterial for what is none."""
    name, _, version = text.rpartition(":")
    if not is_name(name) or not _VERSION.fullmatch(version):
        raise NoMaterial("This is no handle of a transit key.")
    return name, int(version)


def place(label: uuid.UUID, parent: Parent | None) -> tuple[str, int]:
    """Return the name of the key that new material is for, and its newest known version, or 0."""
    if parent is not None and parent.newest:
        return parsed(parent.newest)
    return f"{PREFIX}{parent.key if parent else label}", 0
