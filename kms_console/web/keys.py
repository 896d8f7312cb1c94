"""Keys: the list, a key's page, creating, editing, importing."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_safe

from audit.search import Filters
from keys import administration as a
from keys import clock, queries, queries_audit
from keys.actions import Action
from keys.algorithms import SPEC_CHOICES, SPECS, Usage
from keys.callers import Caller
from keys.errors import Invalid, NotFound
from keys.models import Approval, Classification, Key
from keys.models.key import Origin
from keys.queries import KeyFilters
from keys.states import KeyState, VersionState
from kms_console.web import verbs
from kms_console.web.doors import confirm, given, handle, may, offer, page
from kms_console.web.forms import HouseForm, PairsField
from kms_console.web.wording import label

CONDITIONS = {
    "overdue": "Overdue for rotation",
    "paused": "Rotation paused",
    "compromised": "With a compromised version",
    "pending_destruction": "Pending destruction",
}


@require_safe
@page
def key_list(request: HttpRequest, caller: Caller) -> HttpResponse:
    filters = KeyFilters(**{name: request.GET.get(name, "")[:200] for name in _FILTERS})
    found = queries.list_keys(caller, filters, after=request.GET.get("after", "")[:200])
    context = {
        "page": found,
        "filters": filters,
        "filtered": any(getattr(filters, name) for name in _FILTERS),
        "narrowed": any(getattr(filters, name) for name in _FILTERS if name != "text"),
        "classifications": queries.list_classifications(caller),
        "key_stores": queries.list_key_stores(caller),
        "states": [(state.value, label("key_state", state.value)) for state in KeyState],
        "specs": SPEC_CHOICES,
        "origins": Origin.choices,
        "conditions": CONDITIONS.items(),
        "now": clock.now(),
        "after": request.GET.get("after", ""),
    }
    return render(request, "keys/list.html", context)


_FILTERS = ("text", "classification", "key_store", "state", "spec", "origin", "condition")


@require_safe
@page
def key_page(request: HttpRequest, caller: Caller, reference: str) -> HttpResponse:
    key = queries.find_key(caller, reference)
    versions = list(key.versions.select_related("created_by").order_by("-number")[:100])
    reads_audit = may(caller, Action.READ_AUDIT)
    entries = (
        queries_audit.search_audit(
            caller, Filters(object_kind="key", object_id=str(key.id)), limit=8
        )
        if reads_audit
        else []
    )
    context = {
        "key": key,
        "versions": [(row, verbs.for_version(caller, key, row)) for row in versions],
        "verbs": verbs.for_key(caller, key),
        "primary": next((row for row in versions if row.primary), None),
        "compromised": [row for row in versions if row.state == VersionState.COMPROMISED],
        "grants": queries.list_grants(caller, key=key, limit=20).rows,
        "requests": _live_requests(caller, key),
        "jobs": queries.list_jobs(caller, key=key, limit=6).rows,
        "entries": entries,
        "curl": _curl(request, key),
        "now": clock.now(),
        "importable": key.state == KeyState.PENDING_IMPORT and may(caller, Action.IMPORT_KEY),
    }
    return render(request, "keys/page.html", context)


def _live_requests(caller: Caller, key: Key) -> list[Approval]:
    rows: list[Approval] = []
    for state in ("open", "approved"):
        rows += queries.list_approvals(caller, key=key, state=state, limit=10).rows
    return rows


def _curl(request: HttpRequest, key: Key) -> str:
    """Return a command that uses the key, for who has a token and a grant."""
    operation, body = {
        Usage.ENCRYPT_DECRYPT.value: ("encrypt", '{"plaintext": "aGVsbG8="}'),
        Usage.SIGN_VERIFY.value: ("sign", '{"message": "aGVsbG8="}'),
        Usage.GENERATE_VERIFY_MAC.value: ("mac", '{"message": "aGVsbG8="}'),
    }[key.usage]
    address = request.build_absolute_uri(f"/api/v1/keys/{key.alias}/{operation}")
    return (
        f"curl {address} \\\n"
        '  -H "Authorization: Bearer $KMS_TOKEN" \\\n'
        '  -H "Content-Type: application/json" \\\n'
        f"  -d '{body}'"
    )


# --- creating


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
    spec = forms.ChoiceField(label="Key type")
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
    rotation_days = forms.IntegerField(
        label="Rotate every (days)", required=False, min_value=1, max_value=3650
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

    def __init__(self, classification: Classification, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        spec, store, days = (
            self.fields["spec"],
            self.fields["key_store"],
            self.fields["rotation_days"],
        )
        spec.choices = _spec_choices(classification)  # type: ignore[attr-defined]
        store.choices = [  # type: ignore[attr-defined]
            (row.name, f"{row.title} ({label_of(row.protection)})")
            for row in classification.key_stores.all()
            if row.enabled
        ]
        days.help_text = (
            f"Empty: every {classification.rotation_days} days, as the classification asks. "
            "It can be more often, not less."
        )


def label_of(protection: str) -> str:
    return "HSM" if protection == "hsm" else protection


def _spec_choices(classification: Classification) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return the specs that a classification allows, by what they are for."""
    return [
        (
            usage.label,
            [(name, SPECS[name].label) for name in classification.allowed_specs
             if name in SPECS and SPECS[name].usage is usage],
        )
        for usage in Usage
        if any(name in SPECS and SPECS[name].usage is usage for name in classification.allowed_specs)
    ]  # fmt: skip


@require_http_methods(["GET", "HEAD", "POST"])
@page
def key_create(request: HttpRequest, caller: Caller) -> HttpResponse:
    """First the classification, then what it allows."""
    offer(request, caller, Action.CREATE_KEY)
    chosen = request.GET.get("classification", "")[:128]
    if not chosen:
        if request.method == "POST":
            raise Invalid("Choose a classification first.")
        rows = queries.list_classifications(caller)
        return render(request, "keys/choose.html", {"classifications": rows})
    classification = queries.find_classification(caller, chosen)
    form = KeyForm(classification, request.POST if request.method == "POST" else None)

    def create(values: dict[str, Any]) -> HttpResponse:
        key = a.create_key(caller, classification.name, **values)
        waits = key.state == KeyState.PENDING_IMPORT
        messages.success(
            request,
            "The key waits for its material: import it now." if waits else "The key is created.",
        )
        return redirect("web:key", reference=key.alias)

    return handle(request, form, create, "keys/create.html", {"classification": classification})


class KeyDetailsForm(HouseForm):
    name = forms.CharField(label="Name", max_length=128)
    description = forms.CharField(
        label="Description",
        max_length=500,
        required=False,
        widget=forms.Textarea(attrs={"rows": 2}),
    )
    owner = forms.CharField(label="Owner", max_length=128, required=False)
    labels = PairsField(label="Labels", required=False, help_text="One name=value a line.")


@require_http_methods(["GET", "HEAD", "POST"])
@page
def key_edit(request: HttpRequest, caller: Caller, reference: str) -> HttpResponse:
    offer(request, caller, Action.UPDATE_KEY)
    key = queries.find_key(caller, reference)
    initial = {name: getattr(key, name) for name in ("name", "description", "owner", "labels")}
    form = KeyDetailsForm(request.POST if request.method == "POST" else None, initial=initial)

    def save(values: dict[str, Any]) -> HttpResponse:
        a.update_key(caller, key.alias, **values)
        messages.success(request, "Saved.")
        return redirect("web:key", reference=key.alias)

    back = reverse("web:key", args=[key.alias])
    context = {"title": "Edit the description", "crumb": key.name, "back": back, "button": "Save"}
    return handle(request, form, save, "form.html", context)


# --- verbs


@require_http_methods(["GET", "HEAD", "POST"])
@page
def key_verb(request: HttpRequest, caller: Caller, reference: str, verb: str) -> HttpResponse:
    """Rotate, disable, enable, destroy: why, then do it."""
    row = verbs.KEY_VERBS.get(verb)
    if row is None:
        raise NotFound("There is no such page.")
    key = queries.find_key(caller, reference)
    return confirm(
        request,
        caller,
        row.verb,
        title=f"{row.verb.label}: {key.name}",
        explanation=row.explanation,
        back=reverse("web:key", args=[key.alias]),
        do=lambda values: row.do(caller, key.alias, **given(values)),
        done=row.verb.done,
        classification=key.classification,
    )


@require_http_methods(["GET", "HEAD", "POST"])
@page
def version_verb(
    request: HttpRequest, caller: Caller, reference: str, number: int, verb: str
) -> HttpResponse:
    """Activate, suspend, resume, deactivate, revoke, destroy one version."""
    row = verbs.VERSION_VERBS.get(verb)
    if row is None:
        raise NotFound("There is no such page.")
    key = queries.find_key(caller, reference)
    version = key.versions.filter(number=number).first()
    if version is None:
        raise NotFound(f"The key {key.alias} has no version {number}.")

    def do(values: dict[str, Any]) -> None:
        if row.to is None:
            a.cancel_version_destruction(caller, key.alias, number=number, **values)
        else:
            to = verbs.target_state(verb, version)
            a.transition_version(caller, key.alias, number=number, to=to.value, **given(values))

    return confirm(
        request,
        caller,
        row.verb,
        title=f"{row.verb.label}: {key.name}, version {number}",
        explanation=row.explanation,
        back=reverse("web:key", args=[key.alias]),
        do=do,
        done=row.verb.done,
        classification=key.classification,
    )
