"""Filters as a row keeps them, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from datetime import datetime
from typing import Any

from audit import search
from audit.index.filters import plan
from audit.search import Filters

_TIMES = ("since", "until")


def kept(filters: Filters) -> dict[str, str]:
    """Return the filters that are set, as JSON holds them."""
    found = {}
    for field in fields(filters):
        value = getattr(filters, field.name)
        if value:
            found[field.name] = value.isoformat() if isinstance(value, datetime) else str(value)
    return found


def filters_of(found: Mapping[str, str]) -> Filters:
    """Return the filters that a row keeps."""
    values: dict[str, Any] = {
        name: datetime.fromisoformat(value) if name in _TIMES else value
        for name, value in found.items()
    }
    return Filters(**values)


def matching(filters: Filters, after: int, until: int, using: str) -> Iterator[list[int]]:
    """Yield the indices of what may match with after < index < until, in chunks, ascending."""
    return search.matching(filters, after=after, until=until, using=using)


def deciding(filters: Filters, using: str) -> Callable[[bytes], bool]:
    """Return what tells of an entry's body whether it matches; the index may rarely be wrong."""
    return plan(filters, using).fits


def count(filters: Filters, until: int, using: str) -> int:
    """Return how many entries below `until` match."""
    return search.count(filters, until, using=using)
