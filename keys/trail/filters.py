"""Saved filters: one's own, and those that others share."""

from __future__ import annotations

from django.db.models import Q, QuerySet

from audit.models import SavedFilter
from keys import gate, names
from keys.actions import Action
from keys.callers import Caller
from keys.errors import NotFound
from keys.gate import reads
from keys.models import Principal


def list_filters(caller: Caller) -> list[SavedFilter]:
    """Return the caller's saved filters and those that others share, by name. Raises Denied."""
    gate.read(caller, Action.READ_AUDIT)
    return list(_visible(caller).order_by("name", "id")[:500])


def find_filter(caller: Caller, reference: str) -> SavedFilter:
    """Return a saved filter that the caller may see. Raises Denied or NotFound."""
    gate.read(caller, Action.READ_AUDIT)
    wanted = names.as_uuid(reference)
    row = _visible(caller).filter(pk=wanted).first() if wanted else None
    if row is None:
        missing = NotFound("There is no such saved filter.")
        raise reads.not_found(caller, Action.READ_AUDIT, "saved_filter", reference, missing)
    return row


def owners(rows: list[SavedFilter]) -> dict[object, str]:
    """Return the names of those who saved these filters, by id."""
    found = Principal.objects.filter(pk__in={row.owner for row in rows})
    return dict(found.values_list("pk", "name"))


def _visible(caller: Caller) -> QuerySet[SavedFilter]:
    return SavedFilter.objects.filter(Q(owner=caller.principal_id) | Q(shared=True))
