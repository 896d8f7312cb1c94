"""Keys: found, created, described, rotated, disabled, imported, destroyed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType
from rest_framework.request import Request
from rest_framework.response import Response

from keys import administration, queries
from keys.callers import Caller
from keys.models import Key
from keys.queries import KeyFilters
from keys.states import Condition
from kms_console.api.rest import shapes, shown
from kms_console.api.rest.codecs.strict import given
from kms_console.api.rest.schema import operation, page_of
from kms_console.api.rest.views.base import (
    Asked,
    Door,
    Paged,
    Why,
    address,
    asked,
    caller_of,
    created,
    listed,
    read,
)

KeyCondition = Literal["overdue", "paused", "compromised", "pending_destruction"]


class KeyQuery(Paged):
    """What narrows a list of keys."""

    text: Annotated[str, Meta(description="Words in name, alias, description or owner.")] = ""
    classification: str = ""
    key_store: str = ""
    state: shapes.KeyState | UnsetType = UNSET
    spec: str = ""
    usage: shapes.KeyUsage | UnsetType = UNSET
    origin: shapes.Origin | UnsetType = UNSET
    condition: KeyCondition | UnsetType = UNSET


class CreateKey(Asked):
    name: str
    classification: str
    spec: str
    usage: (
        Annotated[str, Meta(description="The key's one purpose. Left out: the spec's first.")]
        | UnsetType
    ) = UNSET
    algorithm: str | UnsetType = UNSET
    alias: str | UnsetType = UNSET
    key_store: str | UnsetType = UNSET
    description: str | UnsetType = UNSET
    labels: dict[str, str] | UnsetType = UNSET
    owner: str | UnsetType = UNSET
    rotation_days: int | UnsetType | None = UNSET
    publish_days: (
        Annotated[int, Meta(description="Days before a rotation to publish the next public key.")]
        | UnsetType
        | None
    ) = UNSET
    exportable: (
        Annotated[bool, Meta(description="Whether its material may ever leave, by votes.")]
        | UnsetType
    ) = UNSET
    origin: shapes.Origin | UnsetType = UNSET
    reason: str | UnsetType = UNSET


class UpdateKey(Asked):
    """What is left out stays."""

    name: str | UnsetType = UNSET
    description: str | UnsetType = UNSET
    labels: dict[str, str] | UnsetType = UNSET
    owner: str | UnsetType = UNSET
    reason: str | UnsetType = UNSET


class RotateKey(Asked):
    """`activate`: false leaves the new version pre-active."""

    activate: bool | UnsetType = UNSET
    reason: str | UnsetType = UNSET


class ScheduleDestruction(Asked):
    """`days`: a window longer than the classification's."""

    days: int | UnsetType = UNSET
    reason: str | UnsetType = UNSET


_EXAMPLE = {
    "id": "0d5f0c0e-2f6a-4c58-9d3e-5c6f7a1b2c3d",
    "alias": "patient-records",
    "name": "Patient records",
    "description": "",
    "labels": {"team": "records"},
    "owner": "Records team",
    "classification": {"id": "7b7a3c52-3c8e-4f55-8b5e-6d3f0b1f7a10", "name": "patient-health"},
    "key_store": {"id": "c0a8e7a4-6d1b-4b51-9a57-0f3f6f0f5b1e", "name": "hsm"},
    "spec": "AES_256",
    "usage": "ENCRYPT_DECRYPT",
    "algorithm": "AES_256_GCM",
    "origin": "generated",
    "model": "hsm-backed",
    "protection": "hsm",
    "exportable": False,
    "adopted": False,
    "state": "enabled",
    "rotation_days": None,
    "publish_days": None,
    "rotate_at": "2027-04-01T09:30:00Z",
    "destroy_at": None,
    "created_at": "2027-01-01T09:30:00Z",
    "primary_version": 1,
}
_ONE = _EXAMPLE | {"budget": {"used": 65536, "limit": 4294967296}}
_NEW = {
    "name": "Patient records",
    "classification": "patient-health",
    "spec": "AES_256",
    "key_store": "hsm",
    "labels": {"team": "records"},
}


class Keys(Door):
    @operation(
        "list_keys",
        "List keys",
        tag="keys",
        query=KeyQuery,
        answers={200: page_of(shapes.Key)},
        answer_example={"items": [_EXAMPLE], "next": "patient-records"},
        description="Applications see the keys that their grants name.",
    )
    def get(self, request: Request) -> Response:
        wanted, caller = asked(request, KeyQuery), caller_of(request)
        filters = KeyFilters(**_texts(given(wanted, "after", "limit")))
        page = queries.list_keys(caller, filters, after=wanted.after, limit=wanted.limit)
        return listed(caller, page, shown.key)

    @operation(
        "create_key",
        "Create a key",
        tag="keys",
        body=CreateKey,
        answers={201: shapes.Key, 202: shapes.KeyCreation},
        example=_NEW,
        answer_example=_ONE,
        description="202: the key is there; its first version waits for the key store, as its job tells.",
    )
    def post(self, request: Request) -> Response:
        wanted, caller = read(request, CreateKey), caller_of(request)
        values = _texts(given(wanted, "classification"))
        key = administration.create_key(caller, wanted.classification, **values)
        return settled(key, caller, 201)


class OneKey(Door):
    @operation(
        "find_key",
        "Read a key",
        tag="keys",
        answers={200: shapes.Key},
        answer_example=_ONE,
    )
    def get(self, request: Request, key: str) -> Response:
        caller = caller_of(request)
        return Response(shown.one_key(queries.find_key(caller, key), caller))

    @operation(
        "update_key",
        "Change what people read about a key",
        tag="keys",
        body=UpdateKey,
        answers={200: shapes.Key},
        example={"owner": "Archive team"},
    )
    def patch(self, request: Request, key: str) -> Response:
        caller, values = caller_of(request), given(read(request, UpdateKey))
        return Response(shown.one_key(administration.update_key(caller, key, **values), caller))


class Rotate(Door):
    @operation(
        "rotate_key",
        "Rotate a key",
        tag="keys",
        body=RotateKey,
        answers={200: shapes.Job},
        waits=True,
        example={"reason": "An administrator left."},
        description="200: the job, done or (202) waiting for the key store or for votes.",
    )
    def post(self, request: Request, key: str) -> Response:
        caller, values = caller_of(request), given(read(request, RotateKey))
        job = administration.rotate_key(caller, key, **values)
        found = queries.find_job(caller, str(job.id))
        if found.finished_at is not None:
            return Response(shown.job(found, caller))
        return Response(
            shown.job(found, caller), 202, headers={"Location": address("job", job=found.id)}
        )


def _verb(
    identity: str,
    summary: str,
    function: Callable[..., Key],
    body: type[msgspec.Struct] = Why,
    waits: bool = True,
) -> Any:
    """Return the view of a verb that takes a key and gives it back changed."""

    @operation(identity, summary, tag="keys", body=body, answers={200: shapes.Key}, waits=waits)
    def post(self: Door, request: Request, key: str) -> Response:
        caller, values = caller_of(request), given(read(request, body))
        return Response(shown.one_key(function(caller, key, **values), caller))

    return type(identity.title().replace("_", ""), (Door,), {"post": post}).as_view()  # type: ignore[attr-defined]


VERBS: dict[str, Any] = {
    "rotate": Rotate.as_view(),
    "enable": _verb("enable_key", "Enable a key", administration.enable_key),
    "disable": _verb("disable_key", "Disable a key", administration.disable_key, waits=False),
    "schedule-destruction": _verb(
        "schedule_destruction",
        "Schedule a key's destruction",
        administration.schedule_destruction,
        ScheduleDestruction,
    ),
    "cancel-destruction": _verb(
        "cancel_destruction", "Cancel a key's destruction", administration.cancel_destruction
    ),
}


def _texts(values: dict[str, Any]) -> dict[str, Any]:
    """Return plain JSON values: what officers vote on and entries tell."""
    plain: dict[str, Any] = msgspec.to_builtins(values)
    return plain


def settled(key: Key, caller: Caller, status: int) -> Response:
    """Answer with a key, or with 202 and its job where its first version waits for the key store."""
    shape, where = shown.one_key(key, caller), {"Location": address("key", key=key.id)}
    if key.versions.filter(condition=Condition.CREATING).exists():
        for job in queries.list_jobs(caller, key=key, state="open", limit=1).rows:
            waiting = shapes.KeyCreation(status="waiting", key=shape, job=shown.job(job, caller))
            where = {"Location": address("job", job=job.id)}
            return Response(waiting, 202, headers=where)
    if status == 201:
        return created(shape, "key", key=key.id)
    return Response(shape, status)
