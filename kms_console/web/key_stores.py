"""Key stores: where material lives, how each is, adding one, changing it, switching one off."""

from __future__ import annotations

import re
from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from keys import administration as a
from keys import clock, queries, queries_stores, stores
from keys.actions import Action
from keys.algorithms import ALGORITHMS, SPECS
from keys.backends import registry
from keys.backends.base import Capabilities
from keys.backends.registry import Kind
from keys.callers import Caller
from keys.errors import Invalid, KeyServiceError
from keys.models import KeyStore
from keys.queries import KeyFilters
from kms_console import health
from kms_console.web import root_key
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
    rows = queries.list_key_stores(caller)
    context = {"rows": rows, "parts": parts, "root_key": root_key.panel(request, caller, rows)}
    return render(request, "key_stores/list.html", context)


# --- one key store


@require_safe
@page
def key_store_page(request: HttpRequest, caller: Caller, reference: str) -> HttpResponse:
    row = queries.find_key_store(caller, reference)
    kind = registry.KINDS.get(row.kind)
    remote = kind is not None and kind.remote
    keys = queries.list_keys(caller, KeyFilters(key_store=row.name), limit=10)
    differing = queries_stores.drifts(caller, key_store=row.name, limit=100).rows if remote else []
    asked = request.GET.get("ask") == "offers"
    context = {
        "row": row,
        "kind": kind,
        "remote": remote,
        "settings": _settings(row, kind),
        "keys": keys,
        "differing": len(differing),
        "listings": list(queries_stores.list_listings(caller, row, limit=5)) if remote else [],
        "asked": asked,
        "offers": offers(row) if asked and row.enabled else None,
        "now": clock.now(),
    }
    return render(request, "key_stores/page.html", context)


def _settings(row: KeyStore, kind: Kind | None) -> list[tuple[str, Any]]:
    """Return a store's settings under the names that people read, in the order of its kind."""
    known = {one.name: one.label for one in kind.settings} if kind else {}
    told = [(known[name], row.settings[name]) for name in known if row.settings.get(name)]
    return told + [(name, value) for name, value in row.settings.items() if name not in known]


def offers(row: KeyStore) -> dict[str, Any]:
    """Ask a key store how it is and what it can do; `trouble` says why it could not be asked."""
    try:
        backend = stores.backend(stores.facts(row))
        state = backend.health()
        told: dict[str, Any] = {
            "health": state,
            "facts": [(_named(name), value) for name, value in state.facts.items()],
        }
        found = backend.capabilities()
    except KeyServiceError as error:
        return {"trouble": error.detail}
    return told | {
        "specs": [_offered(found, spec) for spec in SPECS if spec in found.algorithms],
        "can": found,
    }


def _named(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _offered(found: Capabilities, spec: str) -> dict[str, Any]:
    return {
        "label": SPECS[spec].label,
        "algorithms": [
            ALGORITHMS[name].label if name in ALGORITHMS else name
            for name in found.algorithms[spec]
        ],
        "imports": spec in found.imports,
        "exports": spec in found.exports,
    }


@require_POST
@page
def key_store_check(request: HttpRequest, caller: Caller, reference: str) -> HttpResponse:
    """Ask a key store how it is now."""
    row = a.check_key_store(caller, reference)
    if row.healthy:
        messages.success(request, "The key store answers.")
    else:
        messages.warning(request, "The key store does not answer as it should.")
    return redirect("web:key-store", reference=row.name)


# --- adding and changing one

PREFIX = "setting_"


class ConnectionForm(HouseForm):
    """The fields with which a kind of key store is reached: its own settings, and its credential."""

    title = forms.CharField(label="Name", max_length=128, help_text="What people call it.")
    name = forms.CharField(
        label="Short name",
        max_length=128,
        help_text="What programs call it, for ever: frankfurt.",
        widget=forms.TextInput(attrs={"class": "mono", "spellcheck": "false"}),
    )
    credentials = forms.CharField(
        label="Where its credential is",
        required=False,
        max_length=500,
        widget=forms.TextInput(
            attrs={"class": "mono", "spellcheck": "false", "autocomplete": "off"}
        ),
    )
    reason = reason_field()

    def __init__(self, kind: Kind, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.kind = kind
        for one in kind.settings:
            self.fields[PREFIX + one.name] = forms.CharField(
                label=one.label,
                help_text=one.help,
                required=one.required,
                max_length=1000,
                widget=forms.TextInput(attrs={"class": "mono", "spellcheck": "false"}),
            )
        if kind.credential or kind.needs_credential:
            where = "Write env:NAME of a variable, or file:/path; never the secret itself."
            holds = f" What is there: {_lowered(kind.credential)}" if kind.credential else ""
            self.fields["credentials"].help_text = where + holds
            self.fields["credentials"].required = kind.needs_credential
        else:
            del self.fields["credentials"]
        asked = [PREFIX + one.name for one in kind.settings]
        self.order_fields(["title", "name", *asked, "credentials", "reason"])

    @property
    def settings(self) -> list[Any]:
        """The bound fields of the kind's own settings."""
        return [self[PREFIX + one.name] for one in self.kind.settings]

    def given(self) -> dict[str, Any]:
        """Return the cleaned values as the domain takes them: what was left empty is not set."""
        values = dict(self.cleaned_data)
        settings = {one.name: values.pop(PREFIX + one.name) for one in self.kind.settings}
        values.setdefault("credentials", "")
        return {**values, "settings": {name: text for name, text in settings.items() if text}}

    def refuse(self, error: KeyServiceError) -> None:
        """Show an error about a setting at that setting, where it names one."""
        named = [one.name for one in self.kind.settings if _names(error.detail, one.name)]
        if error.extra.get("field") in (None, "", "settings") and len(named) == 1:
            self.add_error(PREFIX + named[0], error.detail)
        else:
            super().refuse(error)


def _lowered(text: str) -> str:
    """Return a sentence to go on with; a word in capitals stays one."""
    return text if text[1:2].isupper() else text[:1].lower() + text[1:]


def _names(text: str, word: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", text) is not None


class ChangeForm(ConnectionForm):
    """The same without the short name, which never changes."""

    name = None  # type: ignore[assignment]


@require_http_methods(["GET", "HEAD", "POST"])
@page
def key_store_create(request: HttpRequest, caller: Caller) -> HttpResponse:
    """The kind first, each with a page of its own, whose address names it; then its own settings."""
    offer(request, caller, Action.CREATE_KEY_STORE)
    kind = registry.KINDS.get(request.GET.get("kind", ""))
    if kind is None:
        if request.method == "POST":
            raise Invalid("Choose a kind of key store first.")
        return render(request, "key_stores/choose.html", {"kinds": registry.kinds()})
    form = ConnectionForm(kind, request.POST if request.method == "POST" else None)

    def create(values: dict[str, Any]) -> HttpResponse:
        row = a.create_key_store(caller, kind=kind.name, **form.given())
        messages.success(request, "The key store is added. Allow it in a classification to use it.")
        return redirect("web:key-store", reference=row.name)

    context = {
        "title": f"Add {kind.label}",
        "kind": kind,
        "back": reverse("web:key-store-create"),
        "button": "Add the key store",
    }
    return handle(request, form, create, "key_stores/form.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
@page
def key_store_edit(request: HttpRequest, caller: Caller, reference: str) -> HttpResponse:
    offer(request, caller, Action.UPDATE_KEY_STORE)
    row = queries.find_key_store(caller, reference)
    kind = registry.KINDS.get(row.kind)
    if kind is None:
        raise Invalid(f"This console knows no kind of key store {row.kind}.")
    initial = {PREFIX + name: value for name, value in row.settings.items()}
    initial |= {"title": row.title, "credentials": row.credentials}
    form = ChangeForm(kind, request.POST if request.method == "POST" else None, initial=initial)

    def save(values: dict[str, Any]) -> HttpResponse:
        a.update_key_store(caller, row.name, **form.given())
        messages.success(request, "The key store is changed.")
        return redirect("web:key-store", reference=row.name)

    context = {
        "title": f"Change {row.title}",
        "kind": kind,
        "row": row,
        "back": reverse("web:key-store", args=[row.name]),
        "button": "Save",
    }
    return handle(request, form, save, "key_stores/form.html", context)


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
        back=reverse("web:key-store", args=[row.name]),
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
        back=reverse("web:key-store", args=[row.name]),
        do=lambda values: a.update_key_store(caller, row.name, enabled=True, **values),
        done=SWITCH_ON.done,
    )
