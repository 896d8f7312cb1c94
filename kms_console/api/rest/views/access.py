"""Applications with their credentials and grants, and people."""

from __future__ import annotations

from msgspec import UNSET, UnsetType
from rest_framework.request import Request
from rest_framework.response import Response

from keys import administration, queries
from keys.callers import Caller, Kind
from keys.errors import NotFound
from keys.models import Principal
from keys.queries import Page
from kms_console.api.rest import shapes, shown
from kms_console.api.rest.codecs.strict import given
from kms_console.api.rest.schema import operation, page_of
from kms_console.api.rest.views.base import (
    Asked,
    Door,
    Nothing,
    Paged,
    Why,
    asked,
    caller_of,
    created,
    listed,
    read,
)

_APPLICATION = {
    "id": "b1e0a8f2-6a3e-4f3b-9a3f-0f2a6d0f7c11",
    "kind": "application",
    "name": "billing",
    "role": "",
    "description": "Invoices",
    "active": True,
    "demo": False,
    "created_at": "2027-01-01T09:30:00Z",
}
_CREDENTIAL = {
    "id": "2f1b4b0e-7c38-4d0a-9c9c-0a8f0b6c2d22",
    "kind": "bearer",
    "hint": "kms_9xQ2",
    "source_networks": ["10.1.0.0/16"],
    "created_at": "2027-01-01T09:30:00Z",
    "expires_at": "2028-01-01T00:00:00Z",
    "revoked_at": None,
}

_LIMITS = {
    "application": {"id": "b1e0a8f2-6a3e-4f3b-9a3f-0f2a6d0f7c11", "name": "billing"},
    "rate": 100,
    "burst": 200,
    "quota": 1000000,
    "house_rate": None,
    "handed_out": 15625,
}


class CreateApplication(Asked):
    name: str
    description: str | UnsetType = UNSET
    reason: str | UnsetType = UNSET


class IssueCredential(Asked):
    expires_at: str | UnsetType | None = UNSET
    source_networks: list[str] | UnsetType = UNSET
    reason: str | UnsetType = UNSET


class CreatePerson(Asked):
    """`role` is administrator or auditor; officers are appointed."""

    name: str
    username: str
    role: str
    reason: str | UnsetType = UNSET


class SetLimits(Asked):
    """All limits anew. `rate` uses a second, `burst` at once, `quota` a day (UTC); null: no limit."""

    rate: int | None
    quota: int | None
    burst: int | None = None
    reason: str | UnsetType = UNSET


class AppointOfficer(Asked):
    name: str
    username: str
    reason: str | UnsetType = UNSET


class Applications(Door):
    @operation(
        "list_applications",
        "List applications",
        tag="applications",
        query=Paged,
        answers={200: page_of(shapes.Principal)},
        answer_example={"items": [_APPLICATION], "next": None},
    )
    def get(self, request: Request) -> Response:
        return _principals(request, Kind.APPLICATION)

    @operation(
        "create_application",
        "Register an application",
        tag="applications",
        body=CreateApplication,
        answers={201: shapes.Principal},
        example={"name": "billing", "description": "Invoices"},
        answer_example=_APPLICATION,
    )
    def post(self, request: Request) -> Response:
        caller, values = caller_of(request), given(read(request, CreateApplication))
        row = administration.create_application(caller, **values)
        return created(shown.principal(row, caller), "application", application=row.id)


class OneApplication(Door):
    @operation(
        "find_application",
        "Read an application",
        tag="applications",
        answers={200: shapes.Principal},
        answer_example=_APPLICATION,
    )
    def get(self, request: Request, application: str) -> Response:
        caller = caller_of(request)
        return Response(shown.principal(_of_kind(caller, application, Kind.APPLICATION), caller))


class DeactivateApplication(Door):
    @operation(
        "deactivate_application",
        "Close an application's account for good",
        tag="applications",
        body=Why,
        answers={200: shapes.Principal},
    )
    def post(self, request: Request, application: str) -> Response:
        caller, values = caller_of(request), given(read(request, Why))
        found = _of_kind(caller, application, Kind.APPLICATION)
        row = administration.deactivate_principal(caller, str(found.id), **values)
        return Response(shown.principal(row, caller))


class Limits(Door):
    http_method_names = ["get", "put", "head"]

    @operation(
        "find_limits",
        "Read an application's limits",
        tag="applications",
        query=Nothing,
        answers={200: shapes.Limits},
        answer_example=_LIMITS,
    )
    def get(self, request: Request, application: str) -> Response:
        asked(request, Nothing)
        caller = caller_of(request)
        return Response(shown.limits(_of_kind(caller, application, Kind.APPLICATION), caller))

    @operation(
        "set_limits",
        "Set an application's limits",
        tag="applications",
        body=SetLimits,
        answers={200: shapes.Limits},
        example={"rate": 100, "burst": 200, "quota": 1000000},
        answer_example=_LIMITS,
        description="All of them anew: what is null, or left out, is unlimited from then on. In force "
        "from the application's next use; a batch counts its items.",
    )
    def put(self, request: Request, application: str) -> Response:
        caller, values = caller_of(request), given(read(request, SetLimits))
        row = administration.set_limits(caller, application, **values)
        return Response(shown.limits(row, caller))


class Credentials(Door):
    @operation(
        "list_credentials",
        "List an application's credentials",
        tag="applications",
        query=Nothing,
        answers={200: page_of(shapes.Credential)},
        answer_example={"items": [_CREDENTIAL], "next": None},
    )
    def get(self, request: Request, application: str) -> Response:
        asked(request, Nothing)
        caller = caller_of(request)
        owner = _of_kind(caller, application, Kind.APPLICATION)
        return listed(caller, Page(queries.list_credentials(caller, owner)), shown.credential)

    @operation(
        "issue_credential",
        "Issue a token",
        tag="applications",
        body=IssueCredential,
        answers={201: shapes.IssuedCredential},
        example={"expires_at": "2028-01-01T00:00:00Z", "source_networks": ["10.1.0.0/16"]},
        answer_example={"credential": _CREDENTIAL, "token": "kms_9xQ2…"},
        description="The token is in this answer and nowhere else.",
    )
    def post(self, request: Request, application: str) -> Response:
        caller, values = caller_of(request), given(read(request, IssueCredential))
        issued = administration.issue_credential(caller, application, **values)
        answer = shapes.IssuedCredential(
            credential=shown.credential(issued.credential, caller),
            token=issued.token.reveal().decode(),
        )
        return created(answer, "credentials", application=issued.credential.principal_id)


class RevokeCredential(Door):
    @operation(
        "revoke_credential",
        "Revoke a credential",
        tag="applications",
        body=Why,
        answers={200: shapes.Credential},
        description="It is refused from the very next request, in every process.",
    )
    def post(self, request: Request, credential: str) -> Response:
        caller, values = caller_of(request), given(read(request, Why))
        row = administration.revoke_credential(caller, credential, **values)
        return Response(shown.credential(row, caller))


class People(Door):
    @operation(
        "list_people",
        "List people",
        tag="people",
        query=Paged,
        answers={200: page_of(shapes.Principal)},
    )
    def get(self, request: Request) -> Response:
        return _principals(request, Kind.PERSON)

    @operation(
        "create_person",
        "Add an administrator or an auditor",
        tag="people",
        body=CreatePerson,
        answers={201: shapes.Appointed},
        example={"name": "Udo", "username": "udo", "role": "auditor"},
    )
    def post(self, request: Request) -> Response:
        caller, values = caller_of(request), given(read(request, CreatePerson))
        return _appointed(administration.create_person(caller, **values), caller)


class OnePerson(Door):
    @operation("find_person", "Read a person", tag="people", answers={200: shapes.Principal})
    def get(self, request: Request, person: str) -> Response:
        caller = caller_of(request)
        return Response(shown.principal(_of_kind(caller, person, Kind.PERSON), caller))


class AppointOfficerView(Door):
    @operation(
        "appoint_officer",
        "Appoint an officer",
        tag="people",
        body=AppointOfficer,
        answers={201: shapes.Appointed},
        waits=True,
        example={"name": "Olga", "username": "olga"},
        description="Where votes are needed, send the same request again once they are there: the "
        "first password is in that answer.",
    )
    def post(self, request: Request) -> Response:
        caller, values = caller_of(request), given(read(request, AppointOfficer))
        return _appointed(administration.appoint_officer(caller, **values), caller)


class Dismiss(Door):
    @operation(
        "dismiss_officer",
        "Dismiss an officer",
        tag="people",
        body=Why,
        answers={200: shapes.Principal},
        waits=True,
    )
    def post(self, request: Request, person: str) -> Response:
        caller, values = caller_of(request), given(read(request, Why))
        row = administration.dismiss_officer(caller, person, **values)
        return Response(shown.principal(row, caller))


class DeactivatePerson(Door):
    @operation(
        "deactivate_person",
        "Close an administrator's or an auditor's account for good",
        tag="people",
        body=Why,
        answers={200: shapes.Principal},
    )
    def post(self, request: Request, person: str) -> Response:
        caller, values = caller_of(request), given(read(request, Why))
        found = _of_kind(caller, person, Kind.PERSON)
        row = administration.deactivate_principal(caller, str(found.id), **values)
        return Response(shown.principal(row, caller))


class ErasePerson(Door):
    @operation(
        "erase_person",
        "Erase the data of a person whose account is closed, for good",
        tag="people",
        body=Why,
        answers={200: shapes.Principal},
        waits=True,
    )
    def post(self, request: Request, person: str) -> Response:
        caller, values = caller_of(request), given(read(request, Why))
        found = _of_kind(caller, person, Kind.PERSON)
        row = administration.erase_person(caller, str(found.id), **values)
        return Response(shown.principal(row, caller))


def _principals(request: Request, kind: Kind) -> Response:
    wanted, caller = asked(request, Paged), caller_of(request)
    page = queries.list_principals(caller, kind, after=wanted.after, limit=wanted.limit)
    return listed(caller, page, shown.principal)


def _of_kind(caller: Caller, reference: str, kind: Kind) -> Principal:
    """Return an application or a person. Raises NotFound where the address names the other."""
    found = queries.find_principal(caller, reference)
    if found.kind != kind:
        raise NotFound("There is no such account.")
    return found


def _appointed(done: administration.people.Appointed, caller: Caller) -> Response:
    password = done.password.reveal().decode() if done.password is not None else ""
    answer = shapes.Appointed(person=shown.principal(done.principal, caller), password=password)
    return created(answer, "person", person=done.principal.id)
