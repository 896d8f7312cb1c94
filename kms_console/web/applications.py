"""Applications: registering, their credentials, closing."""

from __future__ import annotations

from typing import Any

from django import forms
from django.conf import settings
from django.contrib import messages
from django.forms import model_to_dict
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_safe

from keys import administration as a
from keys import clock, limits, queries
from keys.actions import Action
from keys.callers import Caller, Kind
from keys.errors import NotFound
from keys.models import Credential, Limit, Principal
from kms_console.web.doors import confirm, handle, may, offer, page, show_once
from kms_console.web.forms import HouseForm, MomentField, WordsField, reason_field
from kms_console.web.verbs import Verb

CLOSE = Verb(
    "close", Action.DEACTIVATE_PRINCIPAL, "Close the account", "ban", danger=True,
    done="The account is closed.",
)  # fmt: skip
REVOKE = Verb(
    "revoke", Action.REVOKE_CREDENTIAL, "Revoke the credential", "ban", danger=True,
    done="The credential is revoked.",
)  # fmt: skip


@require_safe
@page
def application_list(request: HttpRequest, caller: Caller) -> HttpResponse:
    after = request.GET.get("after", "")[:256]
    found = queries.list_principals(caller, Kind.APPLICATION, after=after)
    return render(request, "applications/list.html", {"page": found, "after": after})


class ApplicationForm(HouseForm):
    name = forms.CharField(
        label="Name", max_length=128, help_text="How entries and grants name it."
    )
    description = forms.CharField(
        label="Description",
        max_length=500,
        required=False,
        help_text="What it does, and whom to ask about it.",
        widget=forms.Textarea(attrs={"rows": 2}),
    )


@require_http_methods(["GET", "HEAD", "POST"])
@page
def application_create(request: HttpRequest, caller: Caller) -> HttpResponse:
    offer(request, caller, Action.CREATE_APPLICATION)
    form = ApplicationForm(request.POST if request.method == "POST" else None)

    def create(values: dict[str, Any]) -> HttpResponse:
        row = a.create_application(caller, **values)
        messages.success(request, "The application is registered. Next, give it a credential.")
        return redirect("web:application", reference=row.id)

    context = {
        "title": "Register an application",
        "back": reverse("web:applications"),
        "crumb": "Applications",
        "button": "Register",
        "about": "It can do nothing until it has a credential, and officers have granted it something.",
    }
    return handle(request, form, create, "form.html", context)


def find_application(caller: Caller, reference: str) -> Principal:
    """Return an application. Raises NotFound for people and services."""
    row = queries.find_principal(caller, reference)
    if row.kind != Kind.APPLICATION:
        raise NotFound("There is no such application.")
    return row


@require_safe
@page
def application_page(request: HttpRequest, caller: Caller, reference: str) -> HttpResponse:
    row = find_application(caller, reference)
    context = {
        "row": row,
        "credentials": queries.list_credentials(caller, row),
        "grants": queries.list_grants(caller, principal=row, limit=100).rows,
        "limit": getattr(row, "limit", None),
        "house_rate": settings.RATE_LIMIT,
        "handed_out": limits.handed_out(row.id),
        "may_close": row.active and may(caller, Action.DEACTIVATE_PRINCIPAL),
        "now": clock.now(),
    }
    return render(request, "applications/page.html", context)


class LimitsForm(HouseForm):
    rate = forms.IntegerField(
        label="Uses a second",
        required=False,
        min_value=1,
        max_value=a.limits.MOST_A_SECOND,
        help_text="A batch counts its items. Empty: no limit of its own.",
    )
    burst = forms.IntegerField(
        label="At once",
        required=False,
        min_value=1,
        max_value=a.limits.MOST_A_SECOND,
        help_text="How many may come together after a rest. Empty: as many as in a second.",
    )
    quota = forms.IntegerField(
        label="Uses a day",
        required=False,
        min_value=1,
        max_value=a.limits.MOST_A_DAY,
        help_text="From midnight to midnight, UTC. Empty: no limit.",
    )
    reason = reason_field(required=False)


@require_http_methods(["GET", "HEAD", "POST"])
@page
def limits_set(request: HttpRequest, caller: Caller, reference: str) -> HttpResponse:
    offer(request, caller, Action.SET_LIMITS)
    row = find_application(caller, reference)
    back = reverse("web:application", args=[row.id])
    own: Limit | None = getattr(row, "limit", None)
    present = model_to_dict(own, ["rate", "burst", "quota"]) if own is not None else {}
    form = LimitsForm(request.POST if request.method == "POST" else None, initial=present)

    def put(values: dict[str, Any]) -> HttpResponse:
        a.set_limits(caller, str(row.id), **values)
        messages.success(request, "The limits are in force from the next use on.")
        return redirect(back)

    context = {
        "title": f"Limits of {row.name}",
        "back": back,
        "crumb": row.name,
        "button": "Set the limits",
        "about": "What is beyond them is refused with 429 and told when to come again.",
    }
    return handle(request, form, put, "form.html", context)


class CredentialForm(HouseForm):
    expires_at = MomentField(
        label="Expires (UTC)",
        required=False,
        help_text="Empty: never. A year at most is good practice.",
    )
    source_networks = WordsField(
        label="Only from these networks",
        required=False,
        max_length=2000,
        help_text="Like 10.1.0.0/16, between blanks. Empty: from anywhere.",
    )
    reason = reason_field(required=False)


@require_http_methods(["GET", "HEAD", "POST"])
@page
def credential_issue(request: HttpRequest, caller: Caller, reference: str) -> HttpResponse:
    """Issue a token and show it, this once."""
    offer(request, caller, Action.ISSUE_CREDENTIAL)
    row = find_application(caller, reference)
    form = CredentialForm(request.POST if request.method == "POST" else None)
    back = reverse("web:application", args=[row.id])

    def issue(values: dict[str, Any]) -> HttpResponse:
        issued = a.issue_credential(caller, str(row.id), **values)
        return show_once(
            request,
            title=f"The token of {row.name}",
            secret=issued.token.reveal().decode(),
            explanation="Copy it now into the application's secret store. Only its digest is kept here, "
            "so nobody can show it again; a lost token is replaced by a new one.",
            back=back,
        )

    context = {
        "title": f"Issue a credential to {row.name}",
        "back": back,
        "crumb": row.name,
        "button": "Issue and show it once",
        "about": "A bearer token. It is shown once, on the next page.",
    }
    return handle(request, form, issue, "form.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
@page
def credential_revoke(
    request: HttpRequest, caller: Caller, reference: str, credential: str
) -> HttpResponse:
    row = find_application(caller, reference)
    known: list[Credential] = queries.list_credentials(caller, row)
    found = next((one for one in known if str(one.id) == credential.lower()), None)
    if found is None:
        raise NotFound("There is no such credential.")
    return confirm(
        request,
        caller,
        REVOKE,
        title=f"Revoke {found.hint}… of {row.name}",
        explanation="It is refused from the very next request on, everywhere. There is no way back.",
        back=reverse("web:application", args=[row.id]),
        do=lambda values: a.revoke_credential(caller, str(found.id), **values),
        done=REVOKE.done,
    )


@require_http_methods(["GET", "HEAD", "POST"])
@page
def application_close(request: HttpRequest, caller: Caller, reference: str) -> HttpResponse:
    row = find_application(caller, reference)
    return confirm(
        request,
        caller,
        CLOSE,
        title=f"Close the account of {row.name}",
        explanation="All its credentials and grants stop working at once, for good. Its name stays taken, "
        "so that the trail never speaks of two applications alike.",
        back=reverse("web:application", args=[row.id]),
        do=lambda values: a.deactivate_principal(caller, str(row.id), **values),
        done=CLOSE.done,
    )
