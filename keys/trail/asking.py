"""What callers look for in the trail: filters as they give them, and as the record understands them."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import fields, replace
from datetime import datetime
from typing import Any

from audit import search
from audit.errors import UnclearSearch
from audit.search import Filters
from keys import targets
from keys.errors import Invalid, NotFound

_ABOUT = ("key", "classification", "key_store", "principal")


def resolved(filters: Filters) -> Filters:
    """Return filters whose object is named by id, and classifications by name: people know others.

    Raises Invalid where the search text can't be looked for.
    """
    wanted = filters
    if filters.classification:
        named = filter(None, map(str.strip, filters.classification.split(",")))
        wanted = replace(wanted, classification=",".join(map(_classification, named)))
    if filters.object_id:
        wanted = replace(wanted, object_id=_object(filters))
    try:
        search.check(wanted)
    except UnclearSearch as error:
        raise Invalid(str(error), field="text") from None
    return wanted


def _object(filters: Filters) -> str:
    kinds = {one.strip() for one in filters.object_kind.split(",")} - {""}
    for kind in _ABOUT:
        if kinds and kind not in kinds:
            continue
        with suppress(NotFound):
            found: targets.Target[Any] = getattr(targets, kind)(filters.object_id, {})
            return found.id
    return filters.object_id


def _classification(reference: str) -> str:
    """Return the name under which entries have a classification; one that is gone keeps its own."""
    try:
        return targets.classification(reference, {}).row.name
    except NotFound:
        return reference


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
