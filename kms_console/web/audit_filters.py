"""Saved filters of the audit trail: kept, listed, deleted."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_safe

from keys import administration as a
from keys import trail
from keys.actions import Action
from keys.administration.filters import may_delete
from keys.callers import Caller
from keys.errors import Invalid
from kms_console.web import audit_form
from kms_console.web.audit_form import AuditForm
from kms_console.web.doors import confirm, handle, offer, page
from kms_console.web.forms import HouseForm
from kms_console.web.verbs import Verb

DELETE = Verb(
    "delete", Action.DELETE_FILTER, "Delete the filter", "trash-2", danger=True,
    done="The filter is deleted.",
)  # fmt: skip


class SaveForm(HouseForm):
    name = forms.CharField(
        label="Name", max_length=128, help_text="Your own filter of that name is replaced."
    )
    shared = forms.BooleanField(
        label="Everybody who may read the audit trail sees it", required=False
    )


@require_safe
@page
def filter_list(request: HttpRequest, caller: Caller) -> HttpResponse:
    rows = trail.list_filters(caller)
    names = trail.owners(rows)
    context = {
        "rows": [
            {
                "row": row,
                "owner": "you" if row.owner == caller.principal_id else names.get(row.owner, ""),
                "told": audit_form.told(row.query),
                "query": audit_form.address(row.query),
                "may_delete": may_delete(caller.principal_id, caller.role, row),
            }
            for row in rows
        ]
    }
    return render(request, "audit/filters.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
@page
def filter_save(request: HttpRequest, caller: Caller) -> HttpResponse:
    """Ask for a name (in a dialog, where there is script) and keep what the address asks for."""
    offer(request, caller, Action.SAVE_FILTER)
    asked = AuditForm(request.GET).asked()
    if not asked:
        raise Invalid("Choose something to filter by first.")
    back = f"{reverse('web:audit')}?{audit_form.address(asked)}"

    def save(values: dict[str, Any]) -> HttpResponse:
        a.save_filter(caller, name=values["name"], query=asked, shared=values["shared"])
        messages.success(request, "The filter is saved. It stands above the list.")
        return redirect(back)

    form = SaveForm(request.POST if request.method == "POST" else None)
    context = {"back": back, "told": audit_form.told(asked)}
    return handle(request, form, save, "audit/filter_save.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
@page
def filter_delete(request: HttpRequest, caller: Caller, reference: str) -> HttpResponse:
    row = trail.find_filter(caller, reference)
    shared = " Others can't use it any more either." if row.shared else ""
    return confirm(
        request,
        caller,
        DELETE,
        title=f"Delete the filter “{row.name}”?",
        explanation=f"The entries that it finds stay as they are.{shared}",
        back=reverse("web:audit-filters"),
        do=lambda values: a.delete_filter(caller, str(row.id), **values),
        done=DELETE.done,
    )
