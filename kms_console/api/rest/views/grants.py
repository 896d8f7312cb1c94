"""Grants: what an application may do, with which keys."""

from __future__ import annotations

from msgspec import UNSET, UnsetType
from rest_framework.request import Request
from rest_framework.response import Response

from keys import administration, queries
from kms_console.api.rest import shapes, shown
from kms_console.api.rest.codecs.strict import given
from kms_console.api.rest.schema import operation, page_of
from kms_console.api.rest.views.base import (
    Asked,
    Door,
    Paged,
    Why,
    asked,
    caller_of,
    created,
    listed,
    read,
)

_EXAMPLE = {
    "id": "6b4f9d0a-0c8a-4b8e-8f55-3f0e2b6a9d33",
    "application": {"id": "b1e0a8f2-6a3e-4f3b-9a3f-0f2a6d0f7c11", "name": "billing"},
    "key": {"id": "0d5f0c0e-2f6a-4c58-9d3e-5c6f7a1b2c3d", "name": "invoices"},
    "classification": None,
    "operations": ["decrypt", "encrypt"],
    "context": {"tenant": "north"},
    "source_networks": [],
    "not_before": None,
    "expires_at": None,
    "created_at": "2027-01-01T09:30:00Z",
    "created_by": {"id": "d9b2d63d-a233-4123-847a-7090a2c3f0e1", "name": "Olga"},
    "revoked_at": None,
}


class GrantQuery(Paged):
    """Those that concern a key (also by its classification), or an application."""

    key: str = ""
    application: str = ""


class CreateGrant(Asked):
    """Name either a key or a classification. `context`: pairs that every request's context must contain."""

    application: str
    operations: list[str]
    key: str | UnsetType = UNSET
    classification: str | UnsetType = UNSET
    context: dict[str, str] | UnsetType = UNSET
    not_before: str | UnsetType | None = UNSET
    expires_at: str | UnsetType | None = UNSET
    source_networks: list[str] | UnsetType = UNSET
    reason: str | UnsetType = UNSET


class Grants(Door):
    @operation(
        "list_grants",
        "List grants",
        tag="grants",
        query=GrantQuery,
        answers={200: page_of(shapes.Grant)},
        answer_example={"items": [_EXAMPLE], "next": None},
    )
    def get(self, request: Request) -> Response:
        wanted, caller = asked(request, GrantQuery), caller_of(request)
        key = queries.find_key(caller, wanted.key) if wanted.key else None
        owner = queries.find_principal(caller, wanted.application) if wanted.application else None
        page = queries.list_grants(
            caller, key=key, principal=owner, after=wanted.after, limit=wanted.limit
        )
        return listed(caller, page, shown.grant)

    @operation(
        "create_grant",
        "Let an application use keys",
        tag="grants",
        body=CreateGrant,
        answers={201: shapes.Grant},
        waits=True,
        example={
            "application": "billing",
            "key": "invoices",
            "operations": ["encrypt", "decrypt"],
            "context": {"tenant": "north"},
        },
        answer_example=_EXAMPLE,
    )
    def post(self, request: Request) -> Response:
        wanted, caller = read(request, CreateGrant), caller_of(request)
        values = given(wanted, "application")
        row = administration.create_grant(caller, wanted.application, **values)
        return created(shown.grant(row, caller), "grant", grant=row.id)


class OneGrant(Door):
    @operation(
        "find_grant",
        "Read a grant",
        tag="grants",
        answers={200: shapes.Grant},
        answer_example=_EXAMPLE,
    )
    def get(self, request: Request, grant: str) -> Response:
        caller = caller_of(request)
        return Response(shown.grant(queries.find_grant(caller, grant), caller))


class RevokeGrant(Door):
    @operation(
        "revoke_grant",
        "Take a grant back",
        tag="grants",
        body=Why,
        answers={200: shapes.Grant},
        description="It is refused from the very next request, in every process.",
    )
    def post(self, request: Request, grant: str) -> Response:
        caller, values = caller_of(request), given(read(request, Why))
        return Response(shown.grant(administration.revoke_grant(caller, grant, **values), caller))
