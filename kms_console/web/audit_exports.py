"""Taking the trail out: what form, the page of an export, and its bytes in pieces."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from django import forms
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_safe

from audit import exports
from audit.exports import FORMATS
from audit.models import Export
from keys import trail
from keys.actions import Action
from keys.callers import Caller
from kms_console.web import audit_form
from kms_console.web.audit_form import AuditForm
from kms_console.web.doors import handle, offer, page
from kms_console.web.forms import HouseForm

# The most that one answer to a range with an end holds in memory.
PIECE = 8 * 1024 * 1024
_RANGE = re.compile(r"bytes=([0-9]{1,15})-([0-9]{0,15})")
_SAYS = {
    "jsonl": "The entries byte for byte as they were hashed, one a line. Names and addresses stand as "
    "commitments.",
    "csv": "A table for reading, with names in it. No evidence: it is not what was hashed.",
    "ocsf": "For a SIEM that reads OCSF: JSON Lines, API Activity and Entity Management.",
    "cef": "For a SIEM that reads CEF: one line an entry.",
    "evidence": "For a court or an auditor who trusts nobody here: entries, proofs, signed checkpoint "
    "and a verifier that runs on any machine.",
}


class ExportForm(HouseForm):
    format = forms.ChoiceField(
        label="Form",
        choices=[(name, form.title) for name, form in FORMATS.items()],
        widget=forms.RadioSelect,
        initial="evidence",
    )


@require_http_methods(["GET", "HEAD", "POST"])
@page
def export_choose(request: HttpRequest, caller: Caller) -> HttpResponse:
    """Ask for the form; the filters stand in the address, as on the trail's own page."""
    offer(request, caller, Action.EXPORT_AUDIT)
    filters = AuditForm(request.GET)
    asked = filters.asked()

    def create(values: dict[str, Any]) -> HttpResponse:
        row = trail.create_export(caller, filters.filters(), values["format"])
        return redirect("web:audit-export-page", reference=row.id)

    form = ExportForm(request.POST if request.method == "POST" else None)
    context = {
        "told": audit_form.told(asked),
        "query": audit_form.address(asked),
        "says": [(name, FORMATS[name].title, _SAYS.get(name, "")) for name in _order()],
        "chosen": form["format"].value() or "evidence",
        "own": trail.list_exports(caller, 5),
    }
    return handle(request, form, create, "audit/export.html", context)


def _order() -> list[str]:
    """The evidence first: it is what the trail is kept for."""
    return sorted(FORMATS, key=lambda name: name != "evidence")


@require_safe
@page
def export_list(request: HttpRequest, caller: Caller) -> HttpResponse:
    offer(request, caller, Action.EXPORT_AUDIT)
    return render(request, "audit/exports.html", {"rows": _told(trail.list_exports(caller))})


def _told(rows: list[Export]) -> list[tuple[Export, str]]:
    return [(row, FORMATS[row.format].title) for row in rows if row.format in FORMATS]


@require_safe
@page
def export_page(request: HttpRequest, caller: Caller, reference: str) -> HttpResponse:
    offer(request, caller, Action.EXPORT_AUDIT)
    row = trail.find_export(caller, reference)
    context = {
        "row": row,
        "title": FORMATS[row.format].title,
        "says": _SAYS.get(row.format, ""),
        "told": audit_form.told(_query(row.filters)),
        "name": _file_name(row),
        "piece": PIECE,
        "progress": exports.progress(row),
    }
    return render(request, "audit/export_page.html", context)


def _query(filters: dict[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in filters.items() if value}


@require_safe
@page
def export_content(request: HttpRequest, caller: Caller, reference: str) -> HttpResponseBase:
    """The bytes: all of them, or the range that is asked for, the same ones each time."""
    offer(request, caller, Action.EXPORT_AUDIT)
    row = trail.find_export(caller, reference)
    wanted = _RANGE.fullmatch(request.headers.get("Range", ""))
    tag = f'"{row.id}"'
    if wanted is None or request.headers.get("If-Range", tag) != tag:
        answer: HttpResponseBase = StreamingHttpResponse(trail.export_content(caller, reference))
        if row.bytes is not None:
            answer["Content-Length"] = str(row.bytes)
    elif wanted[2]:
        answer = _piece(caller, row, int(wanted[1]), int(wanted[2]))
    else:
        answer = _rest(caller, row, int(wanted[1]))
    answer["Content-Type"] = FORMATS[row.format].media_type
    answer["Content-Disposition"] = f'attachment; filename="{_file_name(row)}"'
    answer["Accept-Ranges"] = "bytes"
    answer["ETag"] = tag
    return answer


def _piece(caller: Caller, row: Export, start: int, last: int) -> HttpResponse:
    """Answer a range with an end. How far the whole is stands in headers, for the progress bar."""
    if last < start:
        return _unsatisfiable(row)
    if row.bytes is not None and start >= row.bytes:
        return _unsatisfiable(row)
    most = min(PIECE, last - start + 1)
    data, ended = _taken(trail.export_content(caller, row.id, start), most)
    if not data:
        return _unsatisfiable(trail.find_export(caller, row.id))
    now = trail.find_export(caller, row.id)
    total = start + len(data) if ended else now.bytes
    far = exports.progress(now)
    answer = HttpResponse(data, status=206)
    whole = "*" if total is None else str(total)
    answer["Content-Range"] = f"bytes {start}-{start + len(data) - 1}/{whole}"
    answer["X-Entries-Done"], answer["X-Entries-Total"] = str(far.done), str(far.total)
    return answer


def _taken(pieces: Iterator[bytes], most: int) -> tuple[bytes, bool]:
    """Return the first `most` bytes, and whether there are no more."""
    found = bytearray()
    for piece in pieces:
        found += piece
        if len(found) > most:
            break
    else:
        return bytes(found), True
    close = getattr(pieces, "close", None)
    if close is not None:
        close()  # so that how far it came is kept
    return bytes(found[:most]), False


def _rest(caller: Caller, row: Export, start: int) -> HttpResponseBase:
    """Answer a range without an end, as browsers and curl ask to take a download up again."""
    length = trail.export_length(caller, row.id)
    if start >= length:
        return _unsatisfiable(trail.find_export(caller, row.id))
    content = trail.export_content(caller, row.id, start)
    answer = StreamingHttpResponse(content, status=206)
    answer["Content-Range"] = f"bytes {start}-{length - 1}/{length}"
    answer["Content-Length"] = str(length - start)
    return answer


def _unsatisfiable(row: Export) -> HttpResponse:
    answer = HttpResponse(status=416)
    answer["Content-Range"] = f"bytes */{row.bytes if row.bytes is not None else '*'}"
    return answer


def _file_name(row: Export) -> str:
    return f"audit-{row.created_at:%Y%m%dT%H%M%SZ}.{FORMATS[row.format].suffix}"
