"""Saved filters of the audit trail: questions that somebody asks again and again."""

from __future__ import annotations

from typing import Any

from audit.events import Subject
from audit.models import SavedFilter
from keys import gate, names, parameters, targets
from keys.actions import Action
from keys.callers import Role
from keys.errors import Denied, Invalid, NotFound
from keys.gate.changes import Change
from keys.targets import Parameters, Target

# What a filter may ask for, as the audit page's form and the API name it.
MEMBERS = (
    "text", "range", "since", "until", "actor", "action", "object_kind", "object_id",
    "classification", "outcome", "door", "request_id",
)  # fmt: skip
RANGES = ("today", "7d", "30d", "year")
VALUE_LENGTH = 200
# So many a person may keep: a list of them is shown above the trail.
MOST = 50


def saved_filter(reference: str, parameters: Parameters) -> Target[SavedFilter]:
    """Find a saved filter by id."""
    wanted = names.as_uuid(reference)
    row = SavedFilter.objects.filter(pk=wanted).first() if wanted else None
    if row is None:
        raise NotFound("There is no such saved filter.")
    # Without its name, which may be somebody's.
    return Target(row, "saved_filter", str(row.id), "")


@gate.change(Action.SAVE_FILTER, on=targets.house)
def save_filter(
    change: Change[None],
    *,
    name: str,
    query: dict[str, str],
    shared: bool = False,
    reason: str = "",
) -> SavedFilter:
    """Keep a filter under a name; one's own filter of that name is replaced.

    `query` has members of MEMBERS as text, `range` one of RANGES (it moves with the day). Shared
    with everybody who may read the trail, or one's own. Raises Invalid.
    """
    wanted = _query(query)
    owner = change.caller.principal_id
    own = SavedFilter.objects.filter(owner=owner)
    called = names.display_name(name)
    row = own.filter(name=called).first()
    if row is None:
        if own.count() >= MOST:
            raise Invalid(f"You have {MOST} saved filters; delete one first.", field="name")
        row = SavedFilter(owner=owner, name=called, created_at=change.now)
    row.query, row.shared = wanted, parameters.yes_or_no(shared, "shared")
    row.save()
    change.about = Subject("saved_filter", str(row.id))
    # What is looked for may be a person's name, so only what kind of question it is stands here.
    change.facts |= {"members": sorted(wanted), "shared": row.shared}
    return row


@gate.change(Action.DELETE_FILTER, on=saved_filter)
def delete_filter(change: Change[SavedFilter], *, reason: str = "") -> SavedFilter:
    """Delete a saved filter: one's own, or as an administrator a shared one. Raises Denied."""
    row = change.row
    if not may_delete(change.caller.principal_id, change.caller.role, row):
        raise Denied(
            "Only who saved a filter deletes it; an administrator also those that are shared."
        )
    change.about = Subject("saved_filter", str(row.id))
    SavedFilter.objects.filter(pk=row.pk).delete()
    return row


def may_delete(principal_id: object, role: Role, row: SavedFilter) -> bool:
    """Whether somebody of this role may delete a saved filter."""
    return row.owner == principal_id or (row.shared and role is Role.ADMINISTRATOR)


def _query(query: Any) -> dict[str, str]:
    """Return the members that were set. Raises Invalid for others, and for what is no text."""
    if not isinstance(query, dict):
        raise Invalid("query must be an object of filters.", field="query")
    found = {}
    for name, value in query.items():
        if name not in MEMBERS:
            known = ", ".join(MEMBERS)
            raise Invalid(f"query has members of these names: {known}.", field="query")
        if not isinstance(value, str) or len(value) > VALUE_LENGTH or not value.isprintable():
            limit = f"text of at most {VALUE_LENGTH} printable characters"
            raise Invalid(f"query: {name} must be {limit}.", field="query")
        if value:
            found[name] = value
    for name in ("since", "until"):
        parameters.moment(found.get(name), name)
    if "range" in found:
        parameters.one_of(found["range"], "range", RANGES)
    if not found:
        raise Invalid("Choose something to filter by first.", field="query")
    return dict(sorted(found.items()))
