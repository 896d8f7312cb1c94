"""Saved filters of the audit trail: one's own, and those that others share."""

from __future__ import annotations

from rest_framework.request import Request
from rest_framework.response import Response

from audit import models
from keys import administration, trail
from keys.callers import Caller
from kms_console.api.rest.codecs.strict import given
from kms_console.api.rest.schema import operation, page_of
from kms_console.api.rest.shapes_filters import SavedFilter
from kms_console.api.rest.views.base import (
    Asked,
    Door,
    Nothing,
    Why,
    asked,
    caller_of,
    created,
    read,
)

_ONE = {
    "id": "7c0e5a52-9f3e-4c1e-8a4d-5b1f0c2d3e4f",
    "name": "Refusals of this week",
    "query": {"outcome": "denied", "range": "7d"},
    "shared": True,
    "own": True,
    "created_at": "2027-01-01T09:30:00Z",
}


class SaveFilter(Asked):
    """One's own filter of that name is replaced."""

    name: str
    query: dict[str, str]
    shared: bool = False
    reason: str = ""


class Filters(Door):
    @operation(
        "list_filters",
        "List saved filters",
        tag="audit",
        query=Nothing,
        answers={200: page_of(SavedFilter)},
        answer_example={"items": [_ONE], "next": None},
        description="The caller's own, and those that are shared.",
    )
    def get(self, request: Request) -> Response:
        asked(request, Nothing)
        caller = caller_of(request)
        rows = [_shown(row, caller) for row in trail.list_filters(caller)]
        return Response({"items": rows, "next": None})

    @operation(
        "save_filter",
        "Save a filter",
        tag="audit",
        body=SaveFilter,
        answers={201: SavedFilter},
        answer_example=_ONE,
    )
    def post(self, request: Request) -> Response:
        caller, values = caller_of(request), given(read(request, SaveFilter))
        row = administration.save_filter(caller, **values)
        return created(_shown(row, caller), "filter", filter=row.id)


class OneFilter(Door):
    @operation(
        "find_filter",
        "Read a saved filter",
        tag="audit",
        answers={200: SavedFilter},
        answer_example=_ONE,
    )
    def get(self, request: Request, filter: str) -> Response:
        caller = caller_of(request)
        return Response(_shown(trail.find_filter(caller, filter), caller))


class DeleteFilter(Door):
    @operation(
        "delete_filter",
        "Delete a saved filter",
        tag="audit",
        body=Why,
        answers={200: SavedFilter},
        answer_example=_ONE,
        description="One's own; an administrator also those that are shared.",
    )
    def post(self, request: Request, filter: str) -> Response:
        caller, values = caller_of(request), given(read(request, Why))
        return Response(_shown(administration.delete_filter(caller, filter, **values), caller))


def _shown(row: models.SavedFilter, caller: Caller) -> SavedFilter:
    return SavedFilter(
        id=row.id,
        name=row.name,
        query=row.query,
        shared=row.shared,
        own=row.owner == caller.principal_id,
        created_at=row.created_at,
    )
