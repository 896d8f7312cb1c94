"""What callers look for in the trail: filters as they give them, and as the record understands them."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import fields, replace
from datetime import datetime
from typing import Any

from audit import search
from audit.errors import UnclearSearch
from audit.events import Outcome, Personal, Told
from audit.search import Filters
from keys import names, targets
from keys.actions import ACTIONS
from keys.callers import Door
from keys.errors import Invalid, NotFound
from keys.models import Classification

_ABOUT = ("key", "classification", "key_store", "principal")
TOLD_LENGTH = 200
_VOCABULARIES = {
    "action": frozenset([*(action.value for action in ACTIONS), "authenticate"]),
    "outcome": frozenset(outcome.value for outcome in Outcome),
    "door": frozenset(door.value for door in Door),
    "object_kind": frozenset([*_ABOUT, "credential", "grant", "approval", "job", "house", "log",
                              "door", "entry", "address", "ceremony", "drift", "listing", "root_key",
                              "saved_filter", "export", "legal_hold", "hold", "archive"]),
}  # fmt: skip


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


def told(filters: Filters) -> dict[str, Told]:
    """Return the filters that were set, as an entry tells them.

    Plain are times, words of a vocabulary and ids, also those that a name stood for. Whatever else
    somebody typed may be somebody's name: it is personal.
    """
    said: dict[str, Told] = {}
    for field in fields(filters):
        value = getattr(filters, field.name)
        if not value:
            continue
        if isinstance(value, datetime):
            said[field.name] = value.isoformat()
            continue
        text = str(value)
        if field.name == "object_id":
            text = _object(filters)
        elif field.name == "classification":
            text = ",".join(map(_classification, filter(None, map(str.strip, text.split(",")))))
        plain = _plain(field.name, text)
        said[field.name] = text[:TOLD_LENGTH] if plain else Personal(text[:TOLD_LENGTH], kept=False)
    return said


def _plain(name: str, text: str) -> bool:
    """Whether a filter's text can be nobody's name."""
    if names.as_uuid(text) is not None:
        return True
    known = _VOCABULARIES.get(name)
    if name == "classification":
        known = frozenset(Classification.objects.values_list("name", flat=True))
    return known is not None and {one.strip() for one in text.split(",")} <= known
