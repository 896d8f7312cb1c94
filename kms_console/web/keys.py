"""Keys: the list, a key's page, its description, its verbs. Creating one is in key_creation.py."""

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
from keys import clock, counters, queries, queries_ceremonies, trail
from keys.actions import Action
from keys.algorithms import ALGORITHMS, SPECS
from keys.callers import Caller
from keys.counters import Budget
from keys.errors import NotFound
from keys.models import Approval, Key, KeyVersion
from keys.models.imports import CeremonyState
from keys.models.key import Origin
from keys.queries import KeyFilters
from keys.states import GONE, Condition, KeyState, VersionState
from kms_console.web import audit_names, drift, examples, specs, verbs
from kms_console.web.doors import confirm, given, handle, may, offer, page
from kms_console.web.forms import HouseForm, PairsField
from kms_console.web.public_keys import certifiable
from kms_console.web.wording import label

CONDITIONS = {
    "overdue": "Overdue for rotation",
    "paused": "Rotation paused",
    "compromised": "With a compromised version",
    "pending_destruction": "Pending destruction",
    "low_budget": "Little message budget left",
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
        "specs": specs.choices(SPECS),
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
        trail.search_audit(caller, Filters(object_kind="key", object_id=str(key.id)), limit=8)
        if reads_audit
        else []
    )
    audit_names.shown(entries)
    primary = next((row for row in versions if row.primary), None)
    held = queries_ceremonies.ceremonies(caller, key)[:5]
    context = {
        "key": key,
        "versions": [(row, verbs.for_version(caller, key, row)) for row in versions],
        "verbs": verbs.for_key(caller, key),
        "primary": primary,
        "compromised": [row for row in versions if row.state == VersionState.COMPROMISED],
        "grants": queries.list_grants(caller, key=key, limit=20).rows,
        "requests": _live_requests(caller, key),
        "jobs": queries.list_jobs(caller, key=key, limit=6).rows,
        "entries": entries,
        "curl": examples.curl(key, request.build_absolute_uri("/").rstrip("/")),
        "curl_about": examples.about(key),
        "now": clock.now(),
        "importable": _importable(caller, key),
        "unavailable": [row for row in versions if _unavailable(row)],
        "pair": SPECS[key.spec].asymmetric,
        "budget": budget(primary, key),
        "published": [row for row in versions if row.public_key and _gives_away(key, row)][:10],
        "leaving": [row for row in versions if _may_leave(caller, key, row)],
        "jwks": request.build_absolute_uri(reverse("rest:jwks", args=[key.alias])),
        "at_store": drift.at_store(caller, key),
        "ceremonies": held,
        "past_ceremonies": [row for row in held if row.state != CeremonyState.OPEN],
        "certifiable": certifiable(key) and may(caller, Action.CERTIFICATE_REQUEST),
    }
    return render(request, "keys/page.html", context)


def _importable(caller: Caller, key: Key) -> bool:
    """Whether this person can be offered to bring the key's first or next material."""
    takes = key.state in (KeyState.PENDING_IMPORT, KeyState.ENABLED)
    return key.origin == Origin.IMPORTED and takes and may(caller, Action.IMPORT_KEY)


def _unavailable(version: KeyVersion) -> bool:
    """Whether a version's material is not there, or not any more, though the version is."""
    if version.state in GONE:
        return False
    ended = version.material_expires_at is not None and version.material_expires_at <= clock.now()
    return version.condition == Condition.UNAVAILABLE or (ended and not version.condition)


def _gives_away(key: Key, version: KeyVersion) -> bool:
    """Whether a version's public key can be had now: the gate refuses it otherwise."""
    allowed = (VersionState.ACTIVE, VersionState.DEACTIVATED)
    return key.state == KeyState.ENABLED and version.state in allowed and not version.condition


def _may_leave(caller: Caller, key: Key, version: KeyVersion) -> bool:
    """Whether a version's material is there to be exported, and this person may ask for it."""
    kept = version.state not in (*GONE, VersionState.COMPROMISED) and not version.condition
    return key.exportable and kept and may(caller, Action.EXPORT_KEY)


def budget(version: KeyVersion | None, key: Key) -> Budget | None:
    """Return how much of a version's message budget is handed out; None where it needs none."""
    if version is None or key.algorithm not in ALGORITHMS:
        return None
    return counters.budget(version.id, key.algorithm)


def _live_requests(caller: Caller, key: Key) -> list[Approval]:
    rows: list[Approval] = []
    for state in ("open", "approved"):
        rows += queries.list_approvals(caller, key=key, state=state, limit=10).rows
    return rows


# --- describing


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
        if row.do is not None:
            row.do(caller, key.alias, number=number, **values)
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
