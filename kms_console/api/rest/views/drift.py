"""Where key stores differ from what the console believes, and what is done about it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import UNSET, UnsetType
from rest_framework.request import Request
from rest_framework.response import Response

from keys import administration, queries, queries_stores
from keys.callers import Caller
from keys.drift.ways import ways
from keys.models import Drift
from kms_console.api.rest import shapes, shown, shown_stores
from kms_console.api.rest.codecs.strict import given
from kms_console.api.rest.schema import operation, page_of
from kms_console.api.rest.views.base import (
    Door,
    Nothing,
    Paged,
    Why,
    asked,
    caller_of,
    listed,
    read,
)

_KEY = {"id": "0d5f0c0e-2f6a-4c58-9d3e-5c6f7a1b2c3d", "name": "records"}
_STORE = {"id": "c0a8e7a4-6d1b-4b51-9a57-0f3f6f0f5b1e", "name": "frankfurt"}
_LISTED = {
    "id": "2f0c1a9e-7b1d-4d56-8a6e-3f2b1c0d9e8f",
    "key": _KEY,
    "key_store": _STORE,
    "field": "key_state",
    "version": None,
    "handle": "",
    "believed": "enabled",
    "observed": "disabled",
    "state": "open",
    "found_at": "2027-01-01T09:30:00Z",
    "seen_at": "2027-01-01T10:30:00Z",
    "decided_at": None,
    "decided_by": None,
    "reason": "",
}
_ONE = _LISTED | {
    "ways": {
        "accept": "",
        "revert": "",
        "repair": "Only a version that is not there any more can be replaced by a new one.",
    }
}
_VIEW = {
    "key": _KEY,
    "compared": True,
    "seen": {
        "reference": "arn:aws:kms:eu-central-1:111122223333:key/0d5f0c0e",
        "name": "records",
        "state": "enabled",
        "spec": "AES_256",
        "usage": "ENCRYPT_DECRYPT",
        "algorithm": "AES_256_GCM",
        "imported": False,
        "provider_managed": False,
        "rotation_days": 365,
        "destroy_at": None,
        "tags": {"team": "archive"},
        "facts": {"rotations_used": "3", "rotations_limit": "25"},
        "problem": "",
        "versions": [
            {
                "number": 1,
                "handle": "arn:aws:kms:eu-central-1:111122223333:key/0d5f0c0e",
                "state": "active",
                "primary": True,
                "created_at": "2026-01-01T09:30:00Z",
                "destroy_at": None,
            }
        ],
    },
    "seen_at": "2027-01-01T10:30:00Z",
    "trouble": "",
    "look_at": "2027-01-01T11:30:00Z",
    "rotation_days": 365,
    "tags": {"team": "archive"},
    "rotations": {"used": 3, "limit": 25},
    "open_differences": 0,
}


class DriftQuery(Paged):
    """`state` left out: those that are open. `key` and `key_store` by id or name."""

    state: shapes.DriftState = "open"
    field: shapes.DriftField | UnsetType = UNSET
    key: str = ""
    key_store: str = ""


class Differences(Door):
    @operation(
        "list_drift",
        "List differences",
        tag="drift",
        query=DriftQuery,
        answers={200: page_of(shapes.Drift)},
        answer_example={"items": [_LISTED], "next": None},
        description="What the stores said the last time they were asked. The newest first.",
    )
    def get(self, request: Request) -> Response:
        wanted, caller = asked(request, DriftQuery), caller_of(request)
        page = queries_stores.drifts(
            caller,
            state=wanted.state,
            key=wanted.key,
            key_store=wanted.key_store,
            field=wanted.field or "",
            cursor=wanted.after,
            limit=wanted.limit,
        )
        return listed(caller, page, shown_stores.drift)


class OneDifference(Door):
    @operation(
        "find_drift",
        "Read a difference",
        tag="drift",
        answers={200: shapes.Drift},
        answer_example=_ONE,
    )
    def get(self, request: Request, drift: str) -> Response:
        caller = caller_of(request)
        return Response(_one(queries_stores.find_drift(caller, drift), caller))


def _one(row: Drift, caller: Caller) -> shapes.Drift:
    shape = shown_stores.drift(row, caller)
    shape.ways = ways(row)
    return shape


def _way(identity: str, summary: str, function: Callable[..., Drift], description: str) -> Any:
    """Return the view of one way to settle a difference."""

    @operation(
        identity,
        summary,
        tag="drift",
        body=Why,
        answers={200: shapes.Drift},
        answer_example=_ONE,
        waits=True,
        description=description,
    )
    def post(self: Door, request: Request, drift: str) -> Response:
        caller, values = caller_of(request), given(read(request, Why))
        return Response(_one(function(caller, drift, **values), caller))

    return type(identity.title().replace("_", ""), (Door,), {"post": post}).as_view()  # type: ignore[attr-defined]


WAYS: dict[str, Any] = {
    "accept": _way(
        "accept_drift",
        "Accept what the store says",
        administration.accept_drift,
        "The console follows. Nothing is changed at the store.",
    ),
    "revert": _way(
        "revert_drift",
        "Put the store back",
        administration.revert_drift,
        "A job brings the key at the store in line with what the console believes. The difference stays "
        "open until the store agrees; other open differences of the key stay as they are.",
    ),
    "repair": _way(
        "repair_drift",
        "Repair a key with a new version",
        administration.repair_drift,
        "A new version is made and takes over. What was lost stays lost.",
    ),
}


class CheckDrift(Door):
    @operation(
        "check_drift",
        "Compare a key with its store now",
        tag="keys",
        body=Why,
        answers={200: shapes.Key},
        description="What differs stands at `GET drift?key=…`.",
    )
    def post(self, request: Request, key: str) -> Response:
        caller, values = caller_of(request), given(read(request, Why))
        row = administration.check_drift(caller, key, **values)
        return Response(shown.one_key(row, caller))


class KeyAtStore(Door):
    @operation(
        "find_store_view",
        "Read what a key's store last said of it",
        tag="keys",
        query=Nothing,
        answers={200: shapes.StoreView},
        answer_example=_VIEW,
    )
    def get(self, request: Request, key: str) -> Response:
        asked(request, Nothing)
        caller = caller_of(request)
        row = queries.find_key(caller, key)
        view = queries_stores.store_view(caller, row)
        differing = queries_stores.drifts(caller, key=str(row.id), limit=200).rows
        return Response(shown_stores.store_view(row, view, len(differing)))
