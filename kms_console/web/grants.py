"""Grants: what an application may do with a key, or with every key of a classification."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.http import require_http_methods

from keys import administration as a
from keys import queries
from keys.actions import GRANTABLE, Action
from keys.callers import Caller, Kind
from keys.models import Key
from keys.queries import KeyFilters
from kms_console.web.doors import confirm, handle, offer, page
from kms_console.web.forms import HouseForm, MomentField, PairsField, WordsField, reason_field
from kms_console.web.verbs import Verb

REVOKE = Verb(
    "revoke", Action.REVOKE_GRANT, "Revoke the grant", "ban", danger=True,
    done="The grant is revoked.",
)  # fmt: skip


class GrantForm(HouseForm):
    application = forms.ChoiceField(label="Application")
    key = forms.CharField(
        label="Key",
        max_length=128,
        required=False,
        help_text="Its alias. Or leave this empty and choose a classification.",
        widget=forms.TextInput(
            attrs={"class": "mono", "spellcheck": "false", "list": "aliases", "autocomplete": "off"}
        ),
    )
    classification = forms.ChoiceField(
        label="Every key of a classification",
        required=False,
        help_text="Those that exist and those to come.",
    )
    operations = forms.MultipleChoiceField(label="May", widget=forms.CheckboxSelectMultiple)
    context = PairsField(
        label="Only with this encryption context",
        required=False,
        help_text="One name=value a line; each must be in the request's context.",
    )
    not_before = MomentField(label="From (UTC)", required=False, help_text="Empty: at once.")
    expires_at = MomentField(label="Until (UTC)", required=False, help_text="Empty: until revoked.")
    source_networks = WordsField(
        label="Only from these networks",
        required=False,
        max_length=2000,
        help_text="Like 10.1.0.0/16, between blanks.",
    )
    reason = reason_field()

    def __init__(self, caller: Caller, key: Key | None, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        applications = queries.list_principals(caller, Kind.APPLICATION, limit=1000).rows
        rows = queries.list_classifications(caller)
        self._choose(
            "application",
            [("", "Choose one"), *((str(r.id), r.name) for r in applications if r.active)],
        )
        self._choose("classification", [("", "None")] + [(r.name, r.title) for r in rows])
        fitting = [
            action for action in GRANTABLE
            if key is None or action.row.usage in (None, key.usage)
        ]  # fmt: skip
        self._choose("operations", [(action.value, action.label) for action in fitting])

    def _choose(self, field: str, choices: list[tuple[str, str]]) -> None:
        self.fields[field].choices = choices  # type: ignore[attr-defined]


@require_http_methods(["GET", "HEAD", "POST"])
@page
def grant_create(request: HttpRequest, caller: Caller) -> HttpResponse:
    offer(request, caller, Action.CREATE_GRANT)
    asked = {
        name: request.GET.get(name, "")[:128] for name in ("key", "application", "classification")
    }
    key = queries.find_key(caller, asked["key"]) if asked["key"] else None
    posted = request.POST if request.method == "POST" else None
    form = GrantForm(
        caller, key, posted, initial={name: value for name, value in asked.items() if value}
    )
    back = _back(asked)

    def create(values: dict[str, Any]) -> HttpResponse:
        to = values.pop("application")
        a.create_grant(caller, to, **values)
        messages.success(request, "Granted. It holds from the next request on.")
        return redirect(back)

    context = {
        "back": back,
        "key": key,
        "none": len(form.fields["application"].choices) < 2,  # type: ignore[attr-defined]
        "aliases": [] if key else queries.list_keys(caller, KeyFilters(), limit=200).rows,
    }
    return handle(request, form, create, "grants/form.html", context)


def _back(asked: dict[str, str]) -> str:
    if asked["key"]:
        return reverse("web:key", args=[asked["key"]])
    if asked["application"]:
        return reverse("web:application", args=[asked["application"]])
    return reverse("web:applications")


@require_http_methods(["GET", "HEAD", "POST"])
@page
def grant_revoke(request: HttpRequest, caller: Caller, reference: str) -> HttpResponse:
    row = queries.find_grant(caller, reference)
    about = row.key.name if row.key is not None else str(row.classification)
    return confirm(
        request,
        caller,
        REVOKE,
        title=f"Revoke: {row.principal.name} on {about}",
        explanation=f"{row.principal.name} can no longer do this, from the very next request on: "
        f"{', '.join(Action(one).label.lower() for one in row.operations)}.",
        back=reverse("web:application", args=[row.principal_id]),
        do=lambda values: a.revoke_grant(caller, str(row.id), **values),
        done=REVOKE.done,
    )
