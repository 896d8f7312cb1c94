"""Exports of the audit trail that can be taken up again, and what shows that nothing is missing."""

from __future__ import annotations

from typing import Annotated, Any

from django.http import HttpResponse, HttpResponseBase, StreamingHttpResponse
from msgspec import Meta
from rest_framework.request import Request
from rest_framework.response import Response

from audit.models import Export as ExportRow
from keys import trail
from kms_console.api.rest import downloads, shapes, shown_audit
from kms_console.api.rest.problems import RangeNotSatisfiable
from kms_console.api.rest.schema import operation, page_of
from kms_console.api.rest.views.audit import AuditFilters, filters_of
from kms_console.api.rest.views.base import (
    Asked,
    Door,
    Nothing,
    address,
    asked,
    caller_of,
    created,
    read,
)
from kms_console.api.rest.views.versions import whole

_MOST = 10**15
Size = Annotated[int, Meta(ge=0, le=_MOST)]


class NewExport(AuditFilters):
    """What to export. `jsonl` and `evidence` hold every byte as hashed."""

    format: shown_audit.ExportFormat = "jsonl"


class ProofQuery(Asked):
    """`size`: of which log; left out: of the log as it is now."""

    size: Size | None = None


class ConsistencyQuery(Asked):
    """Two sizes that the log had."""

    first: Size
    second: Size


class Exports(Door):
    @operation(
        "list_exports",
        "List your exports of the audit trail",
        tag="audit",
        query=Nothing,
        answers={200: page_of(shown_audit.Export)},
    )
    def get(self, request: Request) -> Response:
        asked(request, Nothing)
        rows = trail.list_exports(caller_of(request))
        return Response({"items": [_shown(row) for row in rows], "next": None})

    @operation(
        "create_export",
        "Make an export of the audit trail as it is now",
        tag="audit",
        description="Its bytes are fetched from `content`, in one go or in parts.",
        body=NewExport,
        example={"format": "evidence", "action": "rotate_key"},
        answers={201: shown_audit.Export},
    )
    def post(self, request: Request) -> Response:
        wanted = read(request, NewExport)
        row = trail.create_export(caller_of(request), filters_of(wanted), wanted.format)
        return created(_shown(row), "audit-export", export=row.id)


class OneExport(Door):
    @operation(
        "find_export",
        "Read how far an export is",
        tag="audit",
        query=Nothing,
        answers={200: shown_audit.Export},
    )
    def get(self, request: Request, export: str) -> Response:
        asked(request, Nothing)
        return Response(_shown(trail.find_export(caller_of(request), export)))


class Content(Door):
    @operation(
        "export_content",
        "Fetch an export",
        tag="audit",
        description=(
            "Takes `Range` and `If-Range` (RFC 9110), one range at a time, so that a download which"
            " broke off can go on. The bytes and the `ETag` stay the same. A first request for a part"
            " makes the whole once, to know its length."
        ),
        query=Nothing,
        answers={
            200: "The whole export, as a stream.",
            206: "The part that was asked for.",
            416: "The export has no such part.",
        },
    )
    def get(self, request: Request, export: str) -> HttpResponseBase:
        asked(request, Nothing)
        caller = caller_of(request)
        row = trail.find_export(caller, export)
        plain = request._request
        if not downloads.asks_for_part(plain, row):
            answer = StreamingHttpResponse(trail.export_content(caller, export))
            return _headed(answer, row, row.bytes)
        length = trail.export_length(caller, export)
        part = downloads.part(plain, length)
        if part is None:
            raise RangeNotSatisfiable(f"The export has {length} bytes.", length=length)
        count = part.end - part.start
        pieces = downloads.limited(trail.export_content(caller, export, part.start), count)
        answer = StreamingHttpResponse(pieces, status=206)
        answer["Content-Range"] = f"bytes {part.start}-{part.end - 1}/{length}"
        return _headed(answer, row, count)

    def head(self, request: Request, export: str) -> HttpResponseBase:
        asked(request, Nothing)
        row = trail.find_export(caller_of(request), export)
        return _headed(HttpResponse(), row, row.bytes)

    def handle_exception(self, error: Exception) -> Response:
        response: Response = super().handle_exception(error)
        if isinstance(error, RangeNotSatisfiable):
            response["Content-Range"] = f"bytes */{error.extra['length']}"
        return response


class Checkpoint(Door):
    @operation(
        "latest_checkpoint",
        "Read the newest signed checkpoint",
        tag="audit",
        description="With `Accept: text/plain`, the signed note alone.",
        query=Nothing,
        answers={200: shown_audit.Checkpoint},
    )
    def get(self, request: Request) -> HttpResponseBase:
        asked(request, Nothing)
        row = trail.latest_checkpoint(caller_of(request))
        if "text/plain" in request._request.headers.get("Accept", ""):
            return HttpResponse(row.note, content_type="text/plain; charset=utf-8")
        return Response(shown_audit.checkpoint(row))


class Consistency(Door):
    @operation(
        "prove_consistency",
        "Prove that an earlier log is the beginning of a later one",
        tag="audit",
        query=ConsistencyQuery,
        answers={200: shown_audit.Consistency},
    )
    def get(self, request: Request) -> Response:
        wanted = asked(request, ConsistencyQuery)
        proof = trail.prove_consistency(caller_of(request), wanted.first, wanted.second)
        found = shown_audit.Consistency(
            first=wanted.first, second=proof.size, root=proof.root, hashes=proof.hashes
        )
        return Response(found)


class EntryProof(Door):
    @operation(
        "prove_entry",
        "Prove that an entry stands in the log",
        tag="audit",
        query=ProofQuery,
        answers={200: shapes.Proof},
    )
    def get(self, request: Request, index: str) -> Response:
        wanted, caller, number = asked(request, ProofQuery), caller_of(request), whole(index)
        if wanted.size is None:
            proof = trail.prove_entry(caller, number)
        else:
            proof = trail.prove_at(caller, number, wanted.size)
        return Response(shapes.Proof(size=proof.size, root=proof.root, hashes=proof.hashes))


def _shown(row: ExportRow) -> shown_audit.Export:
    return shown_audit.export(row, address("audit-export-content", export=row.id))


def _headed(answer: Any, row: ExportRow, length: int | None) -> HttpResponseBase:
    """Return the answer with what tells a client how to go on where it breaks off."""
    answer["Content-Type"] = trail.FORMATS[row.format].media_type
    answer["Content-Disposition"] = f'attachment; filename="{downloads.name(row)}"'
    answer["Accept-Ranges"] = "bytes"
    answer["ETag"] = downloads.etag(row)
    if length is not None:
        answer["Content-Length"] = str(length)
    found: HttpResponseBase = answer
    return found
