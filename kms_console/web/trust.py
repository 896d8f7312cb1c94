"""Proofs: what the log's word rests on, the keys to note elsewhere, and legal holds."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_safe

from audit.models import LegalHold
from keys import administration as a
from keys import clock
from keys.actions import Action
from keys.callers import Caller
from keys.errors import NotFound
from keys.trail import trust
from kms_console.web.doors import confirm, given, handle, offer, page
from kms_console.web.forms import HouseForm, MomentField, reason_field
from kms_console.web.verbs import Verb

RELEASE = Verb(
    "release", Action.RELEASE_HOLD, "Release the hold", "lock-open", danger=True,
    done="The legal hold is released.",
)  # fmt: skip


@require_safe
@page
def trust_page(request: HttpRequest, caller: Caller) -> HttpResponse:
    found = trust.trust(caller)
    latest = found.newest[0] if found.newest else None
    context = {
        "trust": found,
        "latest": latest,
        "unsigned": found.head.size - latest.checkpoint.size if latest else found.head.size,
        "now": clock.now(),
    }
    return render(request, "audit/proofs.html", context)


@require_safe
@page
def verifier_keys(request: HttpRequest, caller: Caller) -> HttpResponse:
    """The log's verifier keys, one a line, as verify_audit and the offline verifier read them."""
    lines = [key.text for key in trust.trust(caller).keys]
    if not lines:
        raise NotFound("No verifier key is known here: the signer makes them when it first runs.")
    answer = HttpResponse("".join(f"{line}\n" for line in lines), content_type="text/plain")
    answer["Content-Disposition"] = 'attachment; filename="audit-keys.txt"'
    return answer


class HoldForm(HouseForm):
    name = forms.CharField(
        label="Name", max_length=128, help_text="For instance the file number of the case."
    )
    since = MomentField(label="Keeps entries from (UTC)")
    until = MomentField(
        label="Before (UTC)",
        required=False,
        help_text="Empty: whatever comes until it is released.",
    )
    reason = reason_field()


@require_http_methods(["GET", "HEAD", "POST"])
@page
def hold_place(request: HttpRequest, caller: Caller) -> HttpResponse:
    offer(request, caller, Action.PLACE_HOLD)

    def place(values: dict[str, Any]) -> HttpResponse:
        a.place_hold(caller, **given(values))
        messages.success(request, "The legal hold is in force.")
        return redirect("web:proofs")

    context = {
        "title": "Place a legal hold",
        "about": "Until it is released, no entry of that time is dropped from the database, and "
        "nobody's personal data is erased.",
        "back": reverse("web:proofs"),
        "crumb": "Proofs",
        "button": "Place the hold",
    }
    form = HoldForm(request.POST if request.method == "POST" else None)
    return handle(request, form, place, "form.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
@page
def hold_release(request: HttpRequest, caller: Caller, reference: str) -> HttpResponse:
    row = _hold(caller, reference)
    return confirm(
        request,
        caller,
        RELEASE,
        title=f"Release the legal hold “{row.name}”?",
        explanation="What it kept may then be dropped from the database once it is archived and old "
        "enough, and personal data can be erased again.",
        back=reverse("web:proofs"),
        do=lambda values: a.release_hold(caller, str(row.id), **values),
        done=RELEASE.done,
    )


def _hold(caller: Caller, reference: str) -> LegalHold:
    found = next((one for one in trust.trust(caller).holds if str(one.id) == reference), None)
    if found is None:
        raise NotFound("There is no such legal hold.")
    return found
