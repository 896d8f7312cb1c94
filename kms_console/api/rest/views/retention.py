"""The trail's archive and legal holds."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, UnsetType
from rest_framework.request import Request
from rest_framework.response import Response

from keys import administration
from keys.trail import retention
from kms_console.api.rest import shown_retention
from kms_console.api.rest.codecs.strict import given
from kms_console.api.rest.schema import operation, page_of
from kms_console.api.rest.views.base import (
    Asked,
    Door,
    Limit,
    Nothing,
    Why,
    asked,
    caller_of,
    created,
    read,
)
from kms_console.api.rest.views.versions import whole

_ARCHIVE = {
    "start": 0,
    "end": 65536,
    "first_at": "2027-01-01T09:30:00Z",
    "last_at": "2027-02-11T17:04:51Z",
    "bundle": "entries/000000000000-000000065535-5d0c4f21aa9e7b10.jsonl.gz",
    "sha256": "5d0c4f21aa9e7b10…",
    "retain_until": "2034-02-12T00:00:00Z",
    "archived_at": "2027-02-12T00:00:00Z",
    "verified_at": "2027-02-12T00:00:00Z",
    "dropped_at": None,
    "restored_at": None,
}
_HOLD = {
    "id": "3f0c5f0e-0b0e-4a53-9d0e-54f1c2f6a7b8",
    "name": "Case 7",
    "reason": "A court asked for it.",
    "since": "2027-01-01T00:00:00Z",
    "until": None,
    "placed_by": "d9b2d63d-a233-4123-847a-7090a2c3f0e1",
    "placed_at": "2027-03-01T09:30:00Z",
    "released_by": None,
    "released_at": None,
}


class ArchiveQuery(Asked):
    """One page, newest first."""

    after: Annotated[str, Meta(pattern=r"^[0-9]{0,15}$", description="The `next` before.")] = ""
    limit: Limit = retention.ARCHIVES


class HoldQuery(Asked):
    """`active`: only those in force."""

    active: bool = False


class PlaceHold(Asked):
    """Times as in RFC 3339; `until` left out: whatever comes."""

    name: str
    since: str
    reason: str
    until: str | UnsetType = UNSET


class Archives(Door):
    @operation(
        "list_archives",
        "List the bundles of entries in the archive",
        tag="audit",
        query=ArchiveQuery,
        answers={200: page_of(shown_retention.Archive)},
        answer_example={"items": [_ARCHIVE], "next": None},
    )
    def get(self, request: Request) -> Response:
        wanted, caller = asked(request, ArchiveQuery), caller_of(request)
        after = int(wanted.after) if wanted.after else None
        rows = retention.list_archives(caller, after=after, limit=wanted.limit + 1)
        items = [shown_retention.archive(row, caller) for row in rows[: wanted.limit]]
        more = str(items[-1].start) if len(rows) > wanted.limit else None
        return Response({"items": items, "next": more})


class OneArchive(Door):
    @operation(
        "find_archive",
        "See a bundle, by its first entry",
        tag="audit",
        query=Nothing,
        answers={200: shown_retention.Archive},
        answer_example=_ARCHIVE,
    )
    def get(self, request: Request, archive: str) -> Response:
        asked(request, Nothing)
        caller = caller_of(request)
        row = retention.find_archive(caller, whole(archive))
        return Response(shown_retention.archive(row, caller))


class RestoreArchive(Door):
    @operation(
        "restore_audit",
        "Bring a bundle's entries back into the database",
        tag="audit",
        body=Why,
        answers={200: shown_retention.Archive},
        example={"reason": "The yearly inspection."},
        answer_example=_ARCHIVE | {"restored_at": "2028-01-10T08:00:00Z"},
        description="Each entry is compared with the tree first. It answers once all are back. A bundle "
        "of more than 65,536 entries is brought back by the command archive_audit.",
    )
    def post(self, request: Request, archive: str) -> Response:
        caller, why = caller_of(request), read(request, Why)
        row = administration.restore_audit(caller, archive, reason=why.reason)
        return Response(shown_retention.archive(row, caller))


class Holds(Door):
    @operation(
        "list_holds",
        "List legal holds",
        tag="audit",
        query=HoldQuery,
        answers={200: page_of(shown_retention.Hold)},
        answer_example={"items": [_HOLD], "next": None},
    )
    def get(self, request: Request) -> Response:
        wanted, caller = asked(request, HoldQuery), caller_of(request)
        rows = retention.list_holds(caller, active=wanted.active)
        return Response({"items": [shown_retention.hold(r, caller) for r in rows], "next": None})

    @operation(
        "place_hold",
        "Place a legal hold",
        tag="audit",
        body=PlaceHold,
        answers={201: shown_retention.Hold},
        example={
            "name": "Case 7",
            "since": "2027-01-01T00:00:00Z",
            "reason": "A court asked for it.",
        },
        answer_example=_HOLD,
        description="Nothing of its time is dropped and nobody's personal data erased, at once.",
    )
    def post(self, request: Request) -> Response:
        caller, values = caller_of(request), given(read(request, PlaceHold))
        row = administration.place_hold(caller, **values)
        return created(shown_retention.hold(row, caller), "audit-hold", hold=row.id)


class OneHold(Door):
    @operation(
        "find_hold",
        "See a legal hold",
        tag="audit",
        query=Nothing,
        answers={200: shown_retention.Hold},
        answer_example=_HOLD,
    )
    def get(self, request: Request, hold: str) -> Response:
        asked(request, Nothing)
        caller = caller_of(request)
        return Response(shown_retention.hold(retention.find_hold(caller, hold), caller))


class ReleaseHold(Door):
    @operation(
        "release_hold",
        "Release a legal hold",
        tag="audit",
        body=Why,
        answers={200: shown_retention.Hold},
        example={"reason": "The case is closed."},
        answer_example=_HOLD | {"released_at": "2027-09-01T10:00:00Z"},
        waits=True,
    )
    def post(self, request: Request, hold: str) -> Response:
        caller, why = caller_of(request), read(request, Why)
        row = administration.release_hold(caller, hold, reason=why.reason)
        return Response(shown_retention.hold(row, caller))
