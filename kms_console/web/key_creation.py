"""Creating a key: its classification first, then its type and purpose, then the rest."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods

from keys import administration as a
from keys import queries
from keys.actions import Action
from keys.algorithms import SPECS, KeySpec, Usage
from keys.callers import Caller
from keys.errors import Invalid
from keys.models import Classification
from keys.states import KeyState
from kms_console.web import specs
from kms_console.web.doors import given, handle, offer, page
from kms_console.web.forms import HouseForm, PairsField

EXPORT_HELP = (
    "Its material can then leave the key store later, wrapped for one recipient, once officers have "
    "agreed. Decided now, and never again: leave it off unless somebody else has to hold this key."
)


class KeyForm(HouseForm):
    name = forms.CharField(
        label="Name", max_length=128, help_text="What people call it: Invoices 2027."
    )
    alias = forms.CharField(
        label="Alias",
        max_length=128,
        required=False,
        help_text="What programs call it, for ever. Empty: made from the name.",
        widget=forms.TextInput(attrs={"class": "mono", "spellcheck": "false"}),
    )
    algorithm = forms.ChoiceField(label="Algorithm")
    key_store = forms.ChoiceField(label="Key store")
    origin = forms.ChoiceField(
        label="Material",
        choices=[
            ("generated", "Generate it in the key store"),
            ("imported", "Import my own afterwards"),
        ],
        widget=forms.RadioSelect,
        initial="generated",
    )
    exportable = forms.BooleanField(
        label="Make it exportable", required=False, help_text=EXPORT_HELP
    )
    rotation_days = forms.IntegerField(
        label="Rotate every (days)", required=False, min_value=1, max_value=3650
    )
    publish_days = forms.IntegerField(
        label="Publish the next public key ahead (days)",
        required=False,
        min_value=1,
        max_value=3650,
        help_text="So that peers know it before the rotation. Empty: with the rotation.",
    )
    description = forms.CharField(
        label="Description",
        max_length=500,
        required=False,
        widget=forms.Textarea(attrs={"rows": 2}),
    )
    owner = forms.CharField(
        label="Owner", max_length=128, required=False, help_text="The team or person to ask."
    )
    labels = PairsField(label="Labels", required=False, help_text="One name=value a line.")

    def __init__(
        self, classification: Classification, spec: KeySpec, usage: Usage, *args: Any, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        offered = specs.algorithms(spec, usage)
        self._offer("algorithm", offered)
        self.fields["algorithm"].help_text = _algorithm_help(spec, len(offered))
        stores = [row for row in classification.key_stores.all() if row.enabled]
        self._offer(
            "key_store",
            [(row.name, f"{row.title} ({protection_word(row.protection)})") for row in stores],
        )
        self.fields["rotation_days"].help_text = (
            f"Empty: every {classification.rotation_days} days, as the classification asks. "
            "It can be more often, not less."
        )
        if not classification.allows_export:
            del self.fields["exportable"]
        if not spec.asymmetric:
            del self.fields["publish_days"]

    def _offer(self, field: str, choices: list[tuple[str, str]]) -> None:
        self.fields[field].choices = choices  # type: ignore[attr-defined]


def _algorithm_help(spec: KeySpec, offered: int) -> str:
    if offered == 1:
        return "The only one for this purpose."
    if spec.asymmetric:
        return "The one used where a program names none; the others of this purpose work, too."
    return "For the life of the key. The first is the usual choice."


def protection_word(protection: str) -> str:
    return "HSM" if protection == "hsm" else protection


@require_http_methods(["GET", "HEAD", "POST"])
@page
def key_create(request: HttpRequest, caller: Caller) -> HttpResponse:
    """Each step is a page of its own, whose address holds what was chosen so far."""
    offer(request, caller, Action.CREATE_KEY)
    chosen = request.GET.get("classification", "")[:128]
    if not chosen:
        if request.method == "POST":
            raise Invalid("Choose a classification first.")
        rows = queries.list_classifications(caller)
        return render(request, "keys/choose.html", {"classifications": rows})
    classification = queries.find_classification(caller, chosen)
    spec = SPECS.get(request.GET.get("spec", ""))
    if spec is None or spec.name not in classification.allowed_specs:
        if request.method == "POST":
            raise Invalid("Choose a key type that the classification allows first.")
        groups = specs.grouped(classification.allowed_specs)
        context = {"classification": classification, "groups": groups}
        return render(request, "keys/choose_type.html", context)
    return _create(request, caller, classification, spec, _usage(request, spec))


def _usage(request: HttpRequest, spec: KeySpec) -> Usage:
    """Return the purpose asked for, or the key type's usual one."""
    wanted = request.GET.get("usage", "")
    return next((usage for usage in spec.usages if usage.value == wanted), spec.usages[0])


def _create(
    request: HttpRequest,
    caller: Caller,
    classification: Classification,
    spec: KeySpec,
    usage: Usage,
) -> HttpResponse:
    form = KeyForm(classification, spec, usage, request.POST if request.method == "POST" else None)

    def create(values: dict[str, Any]) -> HttpResponse:
        key = a.create_key(
            caller, classification.name, spec=spec.name, usage=usage.value, **given(values)
        )
        waits = key.state == KeyState.PENDING_IMPORT
        messages.success(
            request,
            "The key waits for its material: import it now." if waits else "The key is created.",
        )
        return redirect("web:key", reference=key.alias)

    context = {
        "classification": classification,
        "spec": spec,
        "usage": usage,
        "when": specs.when(spec.name),
    }
    return handle(request, form, create, "keys/create.html", context)
