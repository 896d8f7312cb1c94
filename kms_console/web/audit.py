"""The audit trail: filters, an entry with its proof, export, verification."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from django import forms
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_POST, require_safe

from audit.events import Outcome
from audit.search import Filters
from keys import trail
from keys.actions import ACTIONS
from keys.callers import Caller, Door
from keys.errors import Invalid
from kms_console.web import facts
from kms_console.web.doors import page
from kms_console.web.forms import HouseForm
from kms_console.web.wording import label

# Beyond so many entries a proof, which reads every leaf hash, is made only when asked for.
PROOF_AT_ONCE = 50_000
_ANY = [("", "Any")]


def _choices(kind: str, values: list[str]) -> list[tuple[str, str]]:
    return _ANY + sorted(((value, label(kind, value)) for value in values), key=lambda row: row[1])


class AuditForm(HouseForm):
    """Filters from a query string; every one is optional."""

    text = forms.CharField(label="Search", required=False, max_length=200)
    since = forms.DateTimeField(
        label="From (UTC)",
        required=False,
        widget=forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M"),
    )
    until = forms.DateTimeField(
        label="Before (UTC)",
        required=False,
        widget=forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M"),
    )
    actor = forms.CharField(label="Who", required=False, max_length=200)
    action = forms.ChoiceField(
        label="Action",
        required=False,
        choices=_choices("action", [action.value for action in ACTIONS] + ["authenticate"]),
    )
    object_id = forms.CharField(label="Key or object", required=False, max_length=200)
    outcome = forms.ChoiceField(
        label="Outcome",
        required=False,
        choices=[
            *_ANY,
            (Outcome.SUCCESS.value, "Done"),
            (Outcome.DENIED.value, "Denied"),
            (Outcome.FAILED.value, "Failed"),
            (Outcome.STARTED.value, "Started"),
            (Outcome.PENDING.value, "Waits for votes"),
        ],
    )
    door = forms.ChoiceField(
        label="Door", required=False, choices=_choices("door", [door.value for door in Door])
    )
    request_id = forms.CharField(label="Request id", required=False, max_length=64)

    def filters(self) -> Filters:
        """Return what was asked for. Raises Invalid, naming what is wrong."""
        if not self.is_valid():
            field, errors = next(iter(self.errors.items()))
            name = self.fields[field].label if field in self.fields else field
            raise Invalid(f"{name}: {' '.join(str(error) for error in errors)}")
        return Filters(**{name: value for name, value in self.cleaned_data.items() if value})


@require_safe
@page
def audit_list(request: HttpRequest, caller: Caller) -> HttpResponse:
    form = AuditForm(request.GET)
    filters = form.filters()
    before = _before(request)
    rows = trail.search_audit(caller, filters, before=before, limit=51)
    more = len(rows) > 50
    rows = rows[:50]
    context = {
        "form": form,
        "rows": rows,
        "next": rows[-1].index if more else None,
        "before": before,
        "filtered": any(asdict(filters).values()),
        "narrowed": any(value for name, value in asdict(filters).items() if name != "text"),
        "head": trail.log_head(caller),
    }
    return render(request, "audit/list.html", context)


def _before(request: HttpRequest) -> int | None:
    text = request.GET.get("before", "")
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 15:
        raise Invalid("before must be the number of an entry.", field="before")
    return int(text)


@require_safe
@page
def audit_entry(request: HttpRequest, caller: Caller, index: int) -> HttpResponse:
    entry = trail.find_entry(caller, index)
    head = trail.log_head(caller)
    proved = head.size <= PROOF_AT_ONCE or request.GET.get("proof") == "yes"
    body: dict[str, Any] = json.loads(bytes(entry.body))
    context = {
        "entry": entry,
        "body": json.dumps(body, indent=2, ensure_ascii=False),
        "facts": facts.rows(body["facts"]),
        "approvals": body["approvals"],
        "leaf_hash": bytes(entry.leaf_hash).hex(),
        "proof": trail.prove_entry(caller, index) if proved else None,
        "head": head,
        "previous": index - 1 if index > 0 else None,
        "following": index + 1 if index + 1 < head.size else None,
    }
    return render(request, "audit/entry.html", context)


@require_POST
@page
def audit_export(request: HttpRequest, caller: Caller) -> HttpResponseBase:
    """Stream what the filters find. That it left is recorded before the first line."""
    form = AuditForm(request.POST)
    kind = request.POST.get("format", "jsonl")
    lines = trail.export_audit(caller, form.filters(), kind)
    response = StreamingHttpResponse(
        lines, content_type="text/csv; charset=utf-8" if kind == "csv" else "application/jsonl"
    )
    stamp = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    response["Content-Disposition"] = f'attachment; filename="audit-{stamp}.{kind}"'
    return response


@require_POST
@page
def audit_verify(request: HttpRequest, caller: Caller) -> HttpResponse:
    """Walk the whole log now and say what was found."""
    report = trail.verify_audit(caller)
    return render(request, "audit/verified.html", {"report": report})
