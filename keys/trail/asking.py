"""What callers look for in the trail: filters as they give them, and as the record understands them."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import datetime
from typing import Any

from audit.search import Filters
from keys import targets
from keys.errors import NotFound

_ABOUT = ("key", "classification", "key_store", "principal")


def resolved(filters: Filters) -> Filters:
    """Return filters whose object is named by id: people know an alias or a name."""
    if not filters.object_id:
        return filters
    kinds = [kind for kind in _ABOUT if filters.object_kind in ("", kind)]
    for kind in kinds:
        try:
            found: targets.Target[Any] = getattr(targets, kind)(filters.object_id, {})
        except NotFound:
            continue
        return replace(filters, object_id=found.id)
    return filters


def told(filters: Filters) -> dict[str, str]:
    """Return the filters that were set, as an entry tells them."""
    said = {}
    for field in fields(filters):
        value = getattr(filters, field.name)
        if value:
            said[field.name] = (
                value.isoformat() if isinstance(value, datetime) else str(value)[:200]
            )
    return said
