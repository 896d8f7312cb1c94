"""Bringing a key's material: import parameters, then the material wrapped under them; or again, later."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_safe

from keys import administration as a
from keys import queries, queries_ceremonies
from keys.actions import Action
from keys.algorithms import SPECS
from keys.callers import Caller
from keys.errors import Invalid, NotFound
from keys.imports import tickets
from keys.models import Approval, Key, KeyVersion
from keys.models.imports import CeremonyState
from keys.secret import Secret
from kms_console.web.doors import given, handle, offer, page
from kms_console.web.forms import (
    BlobFields,
    HouseForm,
    MomentField,
    blob_field,
    check_value_field,
    file_field,
    reason_field,
    secret_field,
)
from kms_console.web.public_keys import pem

KWP = "AES_KWP"
_WAYS = {
    "RSA_AES_KEY_WRAP_SHA_256": "RSA-OAEP and AES key wrap: material of any size",
    "RSAES_OAEP_SHA_256": "RSA-OAEP alone: symmetric keys",
    KWP: "AES key wrap, under a key of this console",
}


# --- the first page: how to bring it


@require_safe
@page
def key_import(request: HttpRequest, caller: Caller, reference: str) -> HttpResponse:
    """Show the ways to bring material, and what is under way already."""
    offer(request, caller, Action.IMPORT_KEY)
    key = queries.find_key(caller, reference)
    version = asked_version(request, key)
    held = queries_ceremonies.ceremonies(caller, key)
    context = {
        **about(caller, key, version),
        "ceremony": next((row for row in held if row.state == CeremonyState.OPEN), None),
        "pair": SPECS[key.spec].asymmetric,
    }
    return render(request, "imports/ways.html", context)


def asked_version(request: HttpRequest, key: Key) -> KeyVersion | None:
    """Return the version whose own material is brought again, where the address names one."""
    number = request.GET.get("version", "")
    if not number:
        return None
    if not number.isascii() or not number.isdigit() or len(number) > 9:
        raise Invalid("version must be a version's number.", field="version")
    found = key.versions.filter(number=int(number)).first()
    if found is None:
        raise NotFound(f"The key {key.alias} has no version {int(number)}.")
    return found


def about(caller: Caller, key: Key, version: KeyVersion | None) -> dict[str, Any]:
    """Return what every page about an import says: what is wanted, and what officers agreed to."""
    return {
        "key": key,
        "version": version,
        "query": f"?version={version.number}" if version else "",
        "size": material_words(key),
        "approved": approved_import(caller, key, version),
        "next": _what_comes(key, version),
    }


def _what_comes(key: Key, version: KeyVersion | None) -> str:
    if version is not None:
        return (
            f"Version {version.number} takes the material that it had, and no other. It returns in the "
            "state that it has."
        )
    if key.versions.exists():
        return "The material becomes the next version and takes over at once: a rotation."
    return "The material becomes the key's first version, and the key is enabled."


def material_words(key: Key) -> str:
    """Return in words what material the key takes."""
    spec = SPECS[key.spec]
    if spec.asymmetric:
        return f"an {spec.label} private key, unencrypted PKCS#8 in DER"
    return f"exactly {spec.bits // 8} bytes"


def approved_import(caller: Caller, key: Key, version: KeyVersion | None) -> Approval | None:
    """Return the caller's own approved request to import into this key, outside any ceremony."""
    number = version.number if version else None
    rows = queries.list_approvals(caller, key=key, state="approved").rows
    return next(
        (
            row
            for row in rows
            if row.action == Action.IMPORT_KEY
            and row.requester_id == caller.principal_id
            and row.parameters.get("number") == number
            and not row.parameters.get("ceremony")
        ),
        None,
    )


# --- import parameters


class ParametersForm(HouseForm):
    spec = forms.ChoiceField(
        label="Wrapping key",
        choices=[(name, SPECS[name].label) for name in tickets.SPECS],
        widget=forms.RadioSelect,
        initial=tickets.SPECS[0],
    )
    reason = reason_field(required=False)


@require_http_methods(["GET", "HEAD", "POST"])
@page
def import_parameters(request: HttpRequest, caller: Caller, reference: str) -> HttpResponse:
    """Make a wrapping key and a token for one import; the token is shown once."""
    offer(request, caller, Action.IMPORT_PARAMETERS)
    key = queries.find_key(caller, reference)
    version = asked_version(request, key)
    form = ParametersForm(request.POST if request.method == "POST" else None)

    def make(values: dict[str, Any]) -> HttpResponse:
        made = a.import_parameters(caller, key.alias, **given(values))
        context = {
            **about(caller, key, version),
            "made": made,
            "public_key": pem(made.public_key),
            "token": made.token.reveal().decode(),
            "small": not SPECS[key.spec].asymmetric,
        }
        response = render(request, "imports/parameters_made.html", context)
        response["Cache-Control"] = "no-store"
        return response

    return handle(request, form, make, "imports/parameters.html", about(caller, key, version))


# --- the wrapped material


class MaterialForm(BlobFields):
    renamed = {"wrapped": "blob", "material": "blob"}
    blob_limit = tickets.WRAPPED_LIMIT
    blob_name = "wrapped material"

    algorithm = forms.ChoiceField(
        label="How it is wrapped", choices=list(_WAYS.items()), widget=forms.RadioSelect
    )
    file = file_field("File with the wrapped material")
    blob = blob_field("Or the same in base64")
    token = secret_field(
        "Import token", 300, required=False, help_text="The one that came with the wrapping key."
    )
    wrapping_key = forms.CharField(
        label="Wrapping key of this console",
        required=False,
        max_length=128,
        help_text="Its alias; for AES key wrap only.",
        widget=forms.TextInput(
            attrs={"class": "mono", "spellcheck": "false", "autocomplete": "off"}
        ),
    )
    check_value = check_value_field(
        "Check value",
        help_text="The one on your side, if you have it: then nothing else is taken by mistake.",
    )
    originated_at = MomentField(
        label="When the material was made (UTC)",
        required=False,
        help_text="Its periods count from then. Empty: now.",
    )
    expires_at = MomentField(
        label="When it is to be removed (UTC)",
        required=False,
        help_text="It can be imported again. Empty: it stays.",
    )
    reason = reason_field()

    def __init__(self, key: Key, version: KeyVersion | None, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if SPECS[key.spec].asymmetric:
            # No private key of a pair fits into one block of RSA.
            self.fields["algorithm"].choices = [  # type: ignore[attr-defined]
                row for row in _WAYS.items() if row[0] != "RSAES_OAEP_SHA_256"
            ]
        if version is not None:
            del self.fields["originated_at"]

    def clean(self) -> dict[str, Any]:
        values: dict[str, Any] = super().clean() or {}
        wrapped = self.blob_of(values)
        token, under = values.pop("token", "").strip(), values.get("wrapping_key", "").strip()
        if values.get("algorithm") == KWP:
            if not under:
                self.add_error("wrapping_key", "Name the key under which it is wrapped.")
            if token:
                self.add_error("token", "AES key wrap needs no token: leave it empty.")
        elif values.get("algorithm"):
            if not token:
                self.add_error("token", "Give the token that came with the wrapping key.")
            if under:
                self.add_error("wrapping_key", "Only AES key wrap has one: leave it empty.")
        values["wrapping_key"] = under
        values["wrapped"] = Secret(wrapped) if wrapped else None
        values["token"] = Secret(token.encode()) if token else None
        return values


@sensitive_post_parameters("token", "blob")
@require_http_methods(["GET", "HEAD", "POST"])
@page
def import_material(request: HttpRequest, caller: Caller, reference: str) -> HttpResponse:
    """Take the wrapped material. After the officers' votes the same person brings the same once more."""
    offer(request, caller, Action.IMPORT_KEY)
    key = queries.find_key(caller, reference)
    version = asked_version(request, key)
    context = about(caller, key, version)
    approved: Approval | None = context["approved"]
    posted = (request.POST, request.FILES) if request.method == "POST" else ()
    form = MaterialForm(key, version, *posted, initial=_initial(request, approved))

    def bring(values: dict[str, Any]) -> HttpResponse:
        values = as_approved(given(values), approved)
        if version is not None:
            values["number"] = version.number
        told = done(key, version)
        a.import_key(caller, key.alias, **values)
        messages.success(request, told)
        return redirect("web:key", reference=key.alias)

    context["form_title"] = "Import the material again" if version else "Import the material"
    return handle(request, form, bring, "imports/material.html", context)


def done(key: Key, version: KeyVersion | None) -> str:
    """Return what will have happened once this import is done; ask before it is."""
    if version is not None:
        return f"The material of version {version.number} is here again."
    if key.versions.exists():
        return "The material is imported, and protects everything new."
    return "The material is imported; the key is enabled."


def _initial(request: HttpRequest, approved: Approval | None) -> dict[str, Any]:
    way = request.GET.get("algorithm", "")
    initial: dict[str, Any] = {"algorithm": way if way in _WAYS else next(iter(_WAYS))}
    if approved:
        initial["reason"] = approved.reason
        initial["check_value"] = approved.parameters.get("check_value", "")
        for name in MOMENTS:
            initial[name] = as_input(approved.parameters.get(name))
    return initial


# What officers voted on has to be asked for again in the same letters.
MOMENTS = ("originated_at", "expires_at")


def as_input(text: Any) -> str:
    return str(text or "")[:16]


def as_approved(values: dict[str, Any], approved: Approval | None) -> dict[str, Any]:
    """Write dates as the request does where both mean the same: votes bind the request's text."""
    for name in MOMENTS:
        agreed = approved.parameters.get(name) if approved else None
        asked = values.get(name)
        if agreed and asked and as_input(agreed) == as_input(asked):
            values[name] = agreed
    return values
