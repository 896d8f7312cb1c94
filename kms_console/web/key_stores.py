"""Key stores: where material lives, how each is, adding one, switching one off."""

from __future__ import annotations

import json
from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_safe

from keys import administration as a
from keys import queries
from keys.actions import Action
from keys.backends import registry
from keys.callers import Caller
from kms_console import health
from kms_console.web.doors import confirm, handle, offer, page
from kms_console.web.forms import HouseForm, reason_field
from kms_console.web.overview import PARTS
from kms_console.web.verbs import Verb

SWITCH_OFF = Verb(
    "off", Action.UPDATE_KEY_STORE, "Switch off", "power", danger=True,
    done="The key store is switched off.",
)  # fmt: skip
SWITCH_ON = Verb(
    "on", Action.UPDATE_KEY_STORE, "Switch on", "power", done="The key store is switched on."
)


@require_safe
@page
def key_store_list(request: HttpRequest, caller: Caller) -> HttpResponse:
    parts = [(PARTS.get(part.name, part.name), part) for part in health.report().parts]
    context = {"rows": queries.list_key_stores(caller), "parts": parts}
    return render(request, "key_stores/list.html", context)


class KeyStoreForm(HouseForm):
    title = forms.CharField(label="Name", max_length=128, help_text="What people call it.")
    name = forms.CharField(
        label="Short name",
        max_length=128,
        help_text="What programs call it, for ever: hsm-1.",
        widget=forms.TextInput(attrs={"class": "mono", "spellcheck": "false"}),
    )
    kind = forms.ChoiceField(label="Kind", widget=forms.RadioSelect)
    settings = forms.CharField(
        label="Settings",
        required=False,
        max_length=4000,
        help_text='A JSON object, for an HSM like {"module": "/usr/lib/…/libsofthsm2.so", '
        '"token_label": "kms"}. Never a secret.',
        widget=forms.Textarea(attrs={"rows": 4, "class": "mono", "spellcheck": "false"}),
    )
    credentials = forms.CharField(
        label="Where its credential is",
        required=False,
        max_length=500,
        help_text="env:NAME of a variable, or file:/path. Never the PIN itself.",
        widget=forms.TextInput(attrs={"class": "mono", "spellcheck": "false"}),
    )
    reason = reason_field(required=False)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["kind"].choices = [  # type: ignore[attr-defined]
            (kind.name, f"{kind.label}. {kind.help}") for kind in registry.kinds()
        ]

    def clean_settings(self) -> dict[str, Any]:
        text = self.cleaned_data["settings"].strip()
        try:
            settings = json.loads(text) if text else {}
        except (ValueError, RecursionError):
            raise forms.ValidationError("That is not JSON.") from None
        if not isinstance(settings, dict):
            raise forms.ValidationError('Write an object: {"name": "value"}.')
        return settings


@require_http_methods(["GET", "HEAD", "POST"])
@page
def key_store_create(request: HttpRequest, caller: Caller) -> HttpResponse:
    offer(request, caller, Action.CREATE_KEY_STORE)
    form = KeyStoreForm(request.POST if request.method == "POST" else None)

    def create(values: dict[str, Any]) -> HttpResponse:
        a.create_key_store(caller, **values)
        messages.success(request, "The key store is added. Allow it in a classification to use it.")
        return redirect("web:key-stores")

    context = {
        "title": "Add a key store",
        "back": reverse("web:key-stores"),
        "crumb": "Key stores",
        "button": "Add",
    }
    return handle(request, form, create, "form.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
@page
def key_store_off(request: HttpRequest, caller: Caller, reference: str) -> HttpResponse:
    row = queries.find_key_store(caller, reference)
    return confirm(
        request,
        caller,
        SWITCH_OFF,
        title=f"Switch off {row.title}",
        explanation="No key in it can be used, rotated or created until it is switched on again. "
        "Nothing in it is changed.",
        back=reverse("web:key-stores"),
        do=lambda values: a.update_key_store(caller, row.name, enabled=False, **values),
        done=SWITCH_OFF.done,
    )


@require_http_methods(["GET", "HEAD", "POST"])
@page
def key_store_on(request: HttpRequest, caller: Caller, reference: str) -> HttpResponse:
    row = queries.find_key_store(caller, reference)
    return confirm(
        request,
        caller,
        SWITCH_ON,
        title=f"Switch on {row.title}",
        explanation="Its keys can be used again, as their own states allow.",
        back=reverse("web:key-stores"),
        do=lambda values: a.update_key_store(caller, row.name, enabled=True, **values),
        done=SWITCH_ON.done,
    )
