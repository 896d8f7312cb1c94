"""Classifications, and pausing their rotation."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET, UnsetType
from rest_framework.request import Request
from rest_framework.response import Response

from keys import administration, queries
from keys.queries import Page
from kms_console.api.rest import shapes, shown
from kms_console.api.rest.codecs.strict import given
from kms_console.api.rest.schema import operation, page_of
from kms_console.api.rest.views.base import (
    Asked,
    Door,
    Nothing,
    Why,
    asked,
    caller_of,
    created,
    listed,
    read,
)

_EXAMPLE = {
    "id": "7b7a3c52-3c8e-4f55-8b5e-6d3f0b1f7a10",
    "name": "patient-health",
    "title": "Patient health",
    "description": "Records under medical secrecy.",
    "allowed_specs": ["AES_256"],
    "minimum_protection": "hsm",
    "key_stores": ["hsm"],
    "rotation_days": 90,
    "rotation_paused": False,
    "rotation_paused_reason": "",
    "originator_days": 180,
    "recipient_days": 3650,
    "quorum": {"m": 2, "n": 3},
    "destruction_days": 30,
    "suspended_decrypts": False,
    "allows_export": False,
    "created_at": "2027-01-01T09:30:00Z",
}


class _Policy(Asked, kw_only=True):
    description: str | UnsetType = UNSET
    minimum_protection: str | UnsetType = UNSET
    rotation_days: int | UnsetType = UNSET
    originator_days: int | UnsetType = UNSET
    recipient_days: int | UnsetType = UNSET
    quorum: dict[str, int] | UnsetType = UNSET
    destruction_days: int | UnsetType = UNSET
    suspended_decrypts: bool | UnsetType = UNSET
    allows_export: bool | UnsetType = UNSET
    reason: str | UnsetType = UNSET


class CreateClassification(_Policy, kw_only=True):
    """`quorum` is {"m": 2, "n": 3}, or {} where one officer acts alone."""

    name: str
    title: str
    allowed_specs: list[str]
    key_stores: list[str]


class UpdateClassification(_Policy, kw_only=True):
    """What is left out stays. `quorum` is {"m": 2, "n": 3}, or {} for none."""

    title: str | UnsetType = UNSET
    allowed_specs: list[str] | UnsetType = UNSET
    key_stores: list[str] | UnsetType = UNSET


class Classifications(Door):
    @operation(
        "list_classifications",
        "List classifications",
        tag="classifications",
        query=Nothing,
        answers={200: page_of(shapes.Classification)},
        answer_example={"items": [_EXAMPLE], "next": None},
        description="All of them: they are few.",
    )
    def get(self, request: Request) -> Response:
        asked(request, Nothing)
        caller = caller_of(request)
        page = Page(queries.list_classifications(caller))
        return listed(caller, page, shown.classification)

    @operation(
        "create_classification",
        "Create a classification",
        tag="classifications",
        body=CreateClassification,
        answers={201: shapes.Classification},
        answer_example=_EXAMPLE,
        example={
            "name": "patient-health",
            "title": "Patient health",
            "allowed_specs": ["AES_256"],
            "key_stores": ["hsm"],
            "rotation_days": 90,
            "quorum": {"m": 2, "n": 3},
        },
    )
    def post(self, request: Request) -> Response:
        caller, wanted = caller_of(request), read(request, CreateClassification)
        values = given(wanted, "quorum")
        if wanted.quorum is not UNSET:
            values |= _quorum(wanted.quorum)
        row = administration.create_classification(caller, **values)
        return created(shown.classification(row, caller), "classification", classification=row.id)


class OneClassification(Door):
    @operation(
        "find_classification",
        "Read a classification",
        tag="classifications",
        answers={200: shapes.Classification},
        answer_example=_EXAMPLE,
    )
    def get(self, request: Request, classification: str) -> Response:
        caller = caller_of(request)
        row = queries.find_classification(caller, classification)
        return Response(shown.classification(row, caller))

    @operation(
        "update_classification",
        "Change a classification",
        tag="classifications",
        body=UpdateClassification,
        answers={200: shapes.Classification},
        waits=True,
        example={"rotation_days": 60, "reason": "Audit finding 12."},
    )
    def patch(self, request: Request, classification: str) -> Response:
        caller, values = caller_of(request), given(read(request, UpdateClassification))
        row = administration.update_classification(caller, classification, **values)
        return Response(shown.classification(row, caller))


class PauseRotation(Door):
    @operation(
        "pause_rotation",
        "Pause scheduled rotation",
        tag="classifications",
        body=Why,
        answers={200: shapes.Classification},
        waits=True,
        example={"reason": "The key store moves this weekend."},
    )
    def post(self, request: Request, classification: str) -> Response:
        caller, values = caller_of(request), given(read(request, Why))
        row = administration.pause_rotation(caller, classification, **values)
        return Response(shown.classification(row, caller))


class ResumeRotation(Door):
    @operation(
        "resume_rotation",
        "Resume scheduled rotation",
        tag="classifications",
        body=Why,
        answers={200: shapes.Classification},
    )
    def post(self, request: Request, classification: str) -> Response:
        caller, values = caller_of(request), given(read(request, Why))
        row = administration.resume_rotation(caller, classification, **values)
        return Response(shown.classification(row, caller))


def _quorum(quorum: Any) -> dict[str, Any]:
    """Return a quorum as creation takes it. What else stands in it goes along, to be refused there."""
    return {f"quorum_{name}": value for name, value in quorum.items()}
