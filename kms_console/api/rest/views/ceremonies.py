"""Key ceremonies: opened, their components entered and confirmed, closed, and their minutes."""

from __future__ import annotations

import uuid
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, UnsetType
from rest_framework.request import Request
from rest_framework.response import Response

from keys import administration, models, queries_ceremonies
from keys.callers import Caller
from keys.models.imports import CeremonyState
from kms_console.api.rest import shapes, shown
from kms_console.api.rest.codecs.strict import given
from kms_console.api.rest.schema import operation, page_of
from kms_console.api.rest.shapes import Name
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
from kms_console.api.rest.views.imports import CheckValue, Token, Wrapped, secrets_of

State = Annotated[str, shapes.one_of(CeremonyState.values, "CeremonyState")]


class OpenCeremony(Asked):
    """`custodians`: names or ids of two to five officers. `split`: each brings a component."""

    custodians: Annotated[list[str], Meta(min_length=2, max_length=5)]
    split: bool
    place: str | UnsetType = UNSET
    reason: str | UnsetType = UNSET


class EnterComponent(Asked):
    """The component itself, or wrapped under the key's import parameters."""

    component: (
        Annotated[bytes, Meta(max_length=128, description="In base64. Never shown again.")]
        | UnsetType
    ) = UNSET
    wrapped: Wrapped | UnsetType = UNSET
    token: Token | UnsetType = UNSET
    algorithm: Literal["RSA_AES_KEY_WRAP_SHA_256", "RSAES_OAEP_SHA_256"] | UnsetType = UNSET
    check_value: CheckValue | UnsetType = UNSET
    reason: str | UnsetType = UNSET


class Confirm(Asked):
    """The check value that the caller has on paper; blanks and capitals don't count."""

    check_value: Annotated[str, Meta(max_length=200)]
    reason: str | UnsetType = UNSET


class Custodian(shapes.Shape):
    """One officer's part. `check_value` is the component's own."""

    number: int
    officer: Name
    check_value: shapes.Hex
    entered_at: shapes.Moment
    confirmed_at: shapes.Moment


class Ceremony(shapes.Shape):
    """`check_value` is the whole material's, once everything is in."""

    id: uuid.UUID
    key: Name
    split: bool
    state: State
    check_value: shapes.Hex
    place: str
    opened_by: Name
    created_at: shapes.Time
    expires_at: shapes.Time
    closed_at: shapes.Moment
    custodians: list[Custodian]


class CeremonyVote(shapes.Shape):
    approval: uuid.UUID
    officer: str
    approve: bool
    at: shapes.Time


class Step(shapes.Shape):
    """An entry of the audit trail about the ceremony."""

    index: int
    at: shapes.Time
    actor: str
    action: str
    outcome: str
    reason: str
    facts: dict[str, Any]
    leaf_hash: shapes.Hex


class Minutes(shapes.Shape):
    """What happened, and how to verify it: entries with their hashes, the log's size and root then."""

    ceremony: Ceremony
    votes: list[CeremonyVote]
    steps: list[Step]
    size: int
    root: shapes.Hex


_EXAMPLE = {
    "id": "6d1f2a0e-6b53-4c1c-9d0a-2f4b1c7e8a90",
    "key": {"id": "0d5f0c0e-2f6a-4c58-9d3e-5c6f7a1b2c3d", "name": "card-network"},
    "split": True,
    "state": "open",
    "check_value": "",
    "place": "Room 7",
    "opened_by": {"id": "9c2b7d1e-1a2b-4c3d-8e4f-5a6b7c8d9e0f", "name": "Olga"},
    "created_at": "2027-01-01T09:30:00Z",
    "expires_at": "2027-01-02T09:30:00Z",
    "closed_at": None,
    "custodians": [
        {
            "number": 1,
            "officer": {"id": "9c2b7d1e-1a2b-4c3d-8e4f-5a6b7c8d9e0f", "name": "Olga"},
            "check_value": "45434599fefb8360",
            "entered_at": "2027-01-01T09:40:00Z",
            "confirmed_at": None,
        },
        {
            "number": 2,
            "officer": {"id": "1f0e9d8c-7b6a-4958-8473-625140f3e2d1", "name": "Otto"},
            "check_value": "",
            "entered_at": None,
            "confirmed_at": None,
        },
    ],
}


def _custodian(row: models.Custodian) -> Custodian:
    return Custodian(
        number=row.number,
        officer=Name(id=row.officer.id, name=row.officer.name),
        check_value=row.check_value,
        entered_at=shown.utc(row.entered_at),
        confirmed_at=shown.utc(row.confirmed_at),
    )


def _shown(row: models.Ceremony) -> Ceremony:
    return Ceremony(
        id=row.id,
        key=Name(id=row.key.id, name=row.key.alias),
        split=row.split,
        state=row.state,
        check_value=row.check_value,
        place=row.place,
        opened_by=Name(id=row.opened_by.id, name=row.opened_by.name),
        created_at=row.created_at,
        expires_at=row.expires_at,
        closed_at=shown.utc(row.closed_at),
        custodians=[
            _custodian(each) for each in row.custodians.select_related("officer").order_by("number")
        ],
    )


def _now(caller: Caller, reference: str) -> Response:
    """Answer with a ceremony as it stands."""
    return Response(_shown(queries_ceremonies.ceremony(caller, reference)))


class KeyCeremonies(Door):
    @operation(
        "list_ceremonies",
        "List a key's ceremonies",
        tag="ceremonies",
        query=Paged,
        answers={200: page_of(Ceremony)},
        answer_example={"items": [_EXAMPLE], "next": None},
    )
    def get(self, request: Request, key: str) -> Response:
        wanted, caller = asked(request, Paged), caller_of(request)
        page = queries_ceremonies.list_ceremonies(
            caller, key, after=wanted.after, limit=wanted.limit
        )
        return listed(caller, page, lambda row, _: _shown(row))

    @operation(
        "open_ceremony",
        "Open a key ceremony",
        tag="ceremonies",
        body=OpenCeremony,
        answers={201: Ceremony},
        answer_example=_EXAMPLE,
        example={"custodians": ["Olga", "Otto"], "split": True, "place": "Room 7"},
        description="Open for 24 hours, for one import. Split: the material is the exclusive or of all "
        "components. Not split: the first custodian brings it wrapped under import parameters.",
    )
    def post(self, request: Request, key: str) -> Response:
        caller, values = caller_of(request), given(read(request, OpenCeremony))
        row = administration.open_ceremony(caller, key, **values)
        return created(_shown(row), "ceremony", ceremony=row.id)


class OneCeremony(Door):
    @operation(
        "find_ceremony",
        "Read a ceremony",
        tag="ceremonies",
        answers={200: Ceremony},
        answer_example=_EXAMPLE,
    )
    def get(self, request: Request, ceremony: str) -> Response:
        return _now(caller_of(request), ceremony)


class Component(Door):
    @operation(
        "enter_component",
        "Enter one's component",
        tag="ceremonies",
        body=EnterComponent,
        answers={200: Ceremony},
        answer_example=_EXAMPLE,
        example={"component": "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA="},
        description="Once for each custodian. `check_value`, where given, must be the component's own.",
    )
    def post(self, request: Request, ceremony: str) -> Response:
        wanted, caller = read(request, EnterComponent), caller_of(request)
        values = given(wanted, "component", "wrapped", "token")
        administration.enter_component(caller, ceremony, **values, **secrets_of(wanted))
        return _now(caller, ceremony)


class ConfirmCeremony(Door):
    @operation(
        "confirm_ceremony",
        "Confirm a ceremony's check value",
        tag="ceremonies",
        body=Confirm,
        answers={200: Ceremony},
        answer_example=_EXAMPLE,
        example={"check_value": "4543 4599 FEFB 8360"},
        description="Two officers must have done so before the material is imported: import_key with "
        "the ceremony's id.",
    )
    def post(self, request: Request, ceremony: str) -> Response:
        caller, values = caller_of(request), given(read(request, Confirm))
        administration.confirm_ceremony(caller, ceremony, **values)
        return _now(caller, ceremony)


class Close(Door):
    @operation(
        "close_ceremony",
        "Cancel a ceremony",
        tag="ceremonies",
        body=Why,
        answers={200: Ceremony},
        answer_example=_EXAMPLE | {"state": "cancelled"},
        example={"reason": "A component was read aloud."},
    )
    def post(self, request: Request, ceremony: str) -> Response:
        caller, values = caller_of(request), given(read(request, Why))
        administration.close_ceremony(caller, ceremony, **values)
        return _now(caller, ceremony)


class ReadMinutes(Door):
    @operation(
        "read_minutes",
        "Read a ceremony's minutes",
        tag="ceremonies",
        query=Nothing,
        answers={200: Minutes},
        description="Who did what and when, check values, votes, and the entries of the trail with their "
        "hashes. Components and material stand nowhere.",
    )
    def get(self, request: Request, ceremony: str) -> Response:
        asked(request, Nothing)
        found = queries_ceremonies.minutes(caller_of(request), ceremony)
        return Response(
            Minutes(
                ceremony=_shown(found.ceremony),
                votes=[
                    CeremonyVote(
                        approval=uuid.UUID(vote.approval),
                        officer=vote.officer,
                        approve=vote.approve,
                        at=vote.at,
                    )
                    for vote in found.votes
                ],
                steps=[
                    Step(
                        index=step.index,
                        at=step.at,
                        actor=step.actor,
                        action=step.action,
                        outcome=step.outcome,
                        reason=step.reason,
                        facts=step.facts,
                        leaf_hash=step.leaf_hash,
                    )
                    for step in found.steps
                ],
                size=found.size,
                root=found.root,
            )
        )


STEPS: dict[str, Any] = {
    "component": Component.as_view(),
    "confirm": ConfirmCeremony.as_view(),
    "close": Close.as_view(),
    "minutes": ReadMinutes.as_view(),
}
