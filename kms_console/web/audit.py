"""The audit trail: looked for, and verified."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_POST, require_safe

from audit.search import Filters
from keys import queries, trail
from keys.callers import Caller
from keys.errors import Invalid
from kms_console.web import audit_form, audit_names
from kms_console.web.audit_form import AuditForm
from kms_console.web.doors import page

PAGE = 50
# Filters that are not seen at once, so that the form opens where one of them is set.
_FOLDED = ("action", "outcome", "actor", "object_id", "classification", "door", "request_id",
           "since", "until")  # fmt: skip


@require_safe
@page
def audit_list(request: HttpRequest, caller: Caller) -> HttpResponse:
    form = AuditForm(request.GET)
    asked, filters, before = form.asked(), form.filters(), _before(request)
    rows = trail.search_audit(caller, filters, before=before, limit=PAGE + 1)
    more, rows = len(rows) > PAGE, rows[:PAGE]
    audit_names.shown(rows)
    saved = trail.list_filters(caller)
    context = {
        "form": form,
        "rows": rows,
        "next": rows[-1].index if more else None,
        "before": before,
        "asked": asked,
        "query": audit_form.address(asked),
        "narrowed": any(name in asked for name in _FOLDED),
        "ranges": _ranges(asked),
        "saved": _chips(saved, asked),
        "classifications": queries.list_classifications(caller),
        "head": trail.log_head(caller),
        "unfiltered": filters == Filters(),
    }
    return render(request, "audit/list.html", context)


def _ranges(asked: dict[str, str]) -> list[tuple[str, str, bool]]:
    """Return the quick ranges as label, query string and whether it is the present one."""
    rows = []
    exact = "since" in asked or "until" in asked
    for value, label in audit_form.RANGES:
        rest = {n: v for n, v in asked.items() if n not in ("range", "since", "until")}
        query = audit_form.address(rest | ({"range": value} if value else {}))
        rows.append((label, query, not exact and asked.get("range", "") == value))
    return rows


def _chips(saved: list[Any], asked: dict[str, str]) -> list[tuple[Any, str, bool]]:
    """Return saved filters as row, query string and whether it is what is asked now."""
    return [(row, audit_form.address(row.query), row.query == asked) for row in saved]


def _before(request: HttpRequest) -> int | None:
    text = request.GET.get("before", "")
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 15:
        raise Invalid("before must be the number of an entry.", field="before")
    return int(text)


@require_POST
@page
def audit_verify(request: HttpRequest, caller: Caller) -> HttpResponse:
    """Walk the whole log now and say what was found."""
    report = trail.verify_audit(caller)
    return render(request, "audit/verified.html", {"report": report})
