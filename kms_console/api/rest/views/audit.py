"""The audit trail: searched, proved, exported, verified."""

from __future__ import annotations

from typing import Annotated, Any

from django.http import HttpResponseBase, StreamingHttpResponse
from msgspec import Meta
from rest_framework.request import Request
from rest_framework.response import Response

from audit.search import Filters
from keys import trail
from kms_console.api.rest import shapes, shown
from kms_console.api.rest.codecs.strict import given
from kms_console.api.rest.schema import operation, page_of
from kms_console.api.rest.shown_audit import ExportFormat
from kms_console.api.rest.views.base import Asked, Door, Limit, Nothing, asked, caller_of
from kms_console.api.rest.views.versions import whole

_BODY = {
    "v": 1,
    "index": 41,
    "uuid": "01941f29-7c00-7c1e-8d2b-0a1b2c3d4e5f",
    "at": 1798792200000000,
    "actor": {
        "kind": "application",
        "id": "b1e0a8f2-6a3e-4f3b-9a3f-0f2a6d0f7c11",
        "name": "billing",
    },
    "method": "bearer",
    "door": "rest",
    "action": "encrypt",
    "object": {
        "kind": "key",
        "id": "0d5f0c0e-2f6a-4c58-9d3e-5c6f7a1b2c3d",
        "name": "invoices",
        "version": 3,
    },
    "outcome": "success",
    "reason": "",
    "source": "10.1.4.7",
    "request_id": "7f2c1e1c-52f4-4cf4-9f6e-0c4d3f1f8a35",
    "approvals": [],
    "facts": {"context": ["tenant"]},
}
_ENTRY = {
    "index": 41,
    "time": "2027-01-01T09:30:00Z",
    "leaf_hash": "5d…",
    "actor_name": "billing",
    "object_name": "invoices",
    "source": "10.1.4.7",
    "damaged": False,
    "body": _BODY,
}


class AuditFilters(Asked):
    """`since` is included, `until` is not; `object` is an id, an alias or a name."""

    since: shapes.Moment = None
    until: shapes.Moment = None
    actor: str = ""
    action: str = ""
    object_kind: str = ""
    object: str = ""
    classification: str = ""
    outcome: str = ""
    door: str = ""
    request_id: str = ""
    text: str = ""


class AuditQuery(AuditFilters):
    """One page, newest first."""

    after: Annotated[str, Meta(pattern=r"^[0-9]{0,15}$", description="The `next` before.")] = ""
    limit: Limit = trail.PAGE


class ExportQuery(AuditFilters):
    """`jsonl` and `evidence` hold every byte as hashed. The others are for reading."""

    format: ExportFormat = "jsonl"


class Entries(Door):
    @operation(
        "search_audit",
        "Search the audit trail",
        tag="audit",
        query=AuditQuery,
        answers={200: page_of(shapes.Entry)},
        answer_example={"items": [_ENTRY], "next": "41"},
    )
    def get(self, request: Request) -> Response:
        wanted, caller = asked(request, AuditQuery), caller_of(request)
        before = int(wanted.after) if wanted.after else None
        rows = trail.search_audit(caller, filters_of(wanted), before=before, limit=wanted.limit + 1)
        shown_rows = rows[: wanted.limit]
        more = str(shown_rows[-1].index) if len(rows) > wanted.limit else None
        return Response({"items": shown.entries(shown_rows), "next": more})


class OneEntry(Door):
    @operation(
        "find_entry",
        "Read an entry, with the proof that it stands in the log",
        tag="audit",
        answers={200: shapes.ProvedEntry},
    )
    def get(self, request: Request, index: str) -> Response:
        caller, number = caller_of(request), whole(index)
        row = trail.find_entry(caller, number)
        return Response(shown.proved(row, trail.prove_entry(caller, number)))


class Export(Door):
    @operation(
        "export_audit",
        "Export the audit trail",
        tag="audit",
        query=ExportQuery,
        description="In one go; `audit/exports` makes one that can be taken up again.",
        answers={200: "The entries in that format, oldest first, as a stream."},
    )
    def get(self, request: Request) -> HttpResponseBase:
        wanted = asked(request, ExportQuery)
        lines = trail.export_audit(caller_of(request), filters_of(wanted), wanted.format)
        format = trail.FORMATS[wanted.format]
        answer = StreamingHttpResponse(lines, content_type=format.media_type)
        answer["Content-Disposition"] = f'attachment; filename="audit.{format.suffix}"'
        return answer


class Verify(Door):
    @operation(
        "verify_audit",
        "Walk the whole log and say whether it is whole",
        tag="audit",
        query=Nothing,
        answers={200: shapes.Verification},
        answer_example={
            "ok": True,
            "size": 42,
            "root": "9c…",
            "first_bad_index": None,
            "problem": "",
        },
    )
    def get(self, request: Request) -> Response:
        asked(request, Nothing)
        return Response(shown.verification(trail.verify_audit(caller_of(request))))


def filters_of(wanted: AuditFilters) -> Filters:
    values: dict[str, Any] = given(wanted, "after", "limit", "format", "object")
    return Filters(**values, object_id=wanted.object)
