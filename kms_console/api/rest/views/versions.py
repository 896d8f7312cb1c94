"""Versions of a key, and their states."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, UnsetType
from rest_framework.request import Request
from rest_framework.response import Response

from keys import administration, queries
from keys.administration.versions import find_version
from keys.errors import NotFound
from kms_console.api.rest import shapes, shown
from kms_console.api.rest.codecs.strict import given
from kms_console.api.rest.schema import operation, page_of
from kms_console.api.rest.views.base import (
    Asked,
    Door,
    Limit,
    Why,
    asked,
    caller_of,
    listed,
    read,
)

_EXAMPLE = {
    "id": "5b0f4f0e-3c1d-4a6b-8f0e-1d2c3b4a5f60",
    "number": 1,
    "state": "deactivated",
    "condition": None,
    "primary": False,
    "state_reason": "replaced by version 2",
    "created_at": "2027-01-01T09:30:00Z",
    "originated_at": "2027-01-01T09:30:00Z",
    "activated_at": "2027-01-01T09:30:00Z",
    "protect_until": "2029-01-01T09:30:00Z",
    "process_until": "2032-01-01T09:30:00Z",
    "deactivated_at": "2027-04-01T09:30:00Z",
    "compromised_at": None,
    "destroy_at": None,
    "destroyed_at": None,
    "material_expires_at": None,
    "check_value": "9f2c41",
}


class VersionQuery(Asked):
    """One page of versions, newest first."""

    after: Annotated[str, Meta(pattern=r"^[0-9]{0,9}$", description="The `next` before.")] = ""
    limit: Limit = queries.PAGE


class Transition(Asked):
    """`days`: for destruction, a window longer than the classification's."""

    to: shapes.VersionState
    reason: str | UnsetType = UNSET
    days: int | UnsetType = UNSET


class Versions(Door):
    @operation(
        "list_versions",
        "List a key's versions",
        tag="versions",
        query=VersionQuery,
        answers={200: page_of(shapes.Version)},
        answer_example={"items": [_EXAMPLE], "next": None},
    )
    def get(self, request: Request, key: str) -> Response:
        wanted, caller = asked(request, VersionQuery), caller_of(request)
        page = queries.list_versions(caller, key, after=wanted.after, limit=wanted.limit)
        return listed(caller, page, shown.version)


class OneVersion(Door):
    @operation(
        "find_version",
        "Read a version",
        tag="versions",
        answers={200: shapes.Version},
        answer_example=_EXAMPLE,
    )
    def get(self, request: Request, key: str, number: str) -> Response:
        caller = caller_of(request)
        row = find_version(queries.find_key(caller, key), whole(number))
        return Response(shown.version(row, caller))


class TransitionVersion(Door):
    @operation(
        "transition_version",
        "Move a version to another state",
        tag="versions",
        body=Transition,
        answers={200: shapes.Version},
        waits=True,
        example={"to": "compromised", "reason": "The backup tape was stolen."},
        description="Destruction waits for its window; until then `condition` is "
        "`pending_destruction` and it can be cancelled.",
    )
    def post(self, request: Request, key: str, number: str) -> Response:
        caller, values = caller_of(request), given(read(request, Transition))
        row = administration.transition_version(caller, key, number=whole(number), **values)
        row.refresh_from_db()
        return Response(shown.version(row, caller))


class CancelVersionDestruction(Door):
    @operation(
        "cancel_version_destruction",
        "Cancel a version's destruction",
        tag="versions",
        body=Why,
        answers={200: shapes.Version},
        waits=True,
    )
    def post(self, request: Request, key: str, number: str) -> Response:
        caller, values = caller_of(request), given(read(request, Why))
        row = administration.cancel_version_destruction(caller, key, number=whole(number), **values)
        return Response(shown.version(row, caller))


def whole(text: str) -> int:
    """Return the number that an address names. Raises NotFound: no thing has another one."""
    if not (text.isascii() and text.isdigit() and len(text) <= 15):
        raise NotFound("There is no such number.")
    return int(text)
