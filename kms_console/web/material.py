"""Importing a key's material: given once, or twice where officers must agree in between."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_http_methods

from keys import administration as a
from keys import queries
from keys.actions import Action
from keys.algorithms import SPECS
from keys.callers import Caller
from keys.models import Approval, Key
from keys.secret import Secret
from kms_console.web.doors import given, handle, offer, page
from kms_console.web.forms import HouseForm, MomentField, reason_field

MATERIAL_LIMIT = 16 * 1024


class ImportForm(HouseForm):
    renamed = {"check_value": "material"}

    material = forms.CharField(
        label="Material, in base64",
        required=False,
        max_length=2 * MATERIAL_LIMIT,
        strip=False,
        help_text="Raw bytes for symmetric keys; PKCS#8 (DER) for key pairs.",
        # Never echoed back, not even after an error.
        widget=forms.PasswordInput(attrs={"autocomplete": "off", "class": "mono"}),
    )
    file = forms.FileField(
        label="Or a file with the bytes", required=False, max_length=255, allow_empty_file=False
    )
    originated_at = MomentField(
        label="When the material was made (UTC)",
        required=False,
        help_text="Its periods count from then. Empty: now.",
    )
    reason = reason_field()

    def clean(self) -> dict[str, Any]:
        values: dict[str, Any] = super().clean() or {}
        text, file = values.pop("material", ""), values.pop("file", None)
        if bool(text) == bool(file):
            self.add_error("material", "Give the material once: as base64 or as a file.")
            return values
        if file:
            data = file.read(MATERIAL_LIMIT + 1)
        else:
            try:
                data = base64.b64decode("".join(text.split()), validate=True)
            except (ValueError, binascii.Error):
                self.add_error("material", "That is not base64.")
                return values
        if not 0 < len(data) <= MATERIAL_LIMIT:
            self.add_error("material", f"The material has 1 to {MATERIAL_LIMIT} bytes.")
        values["material"] = Secret(data)
        return values


@require_http_methods(["GET", "HEAD", "POST"])
@page
def key_import(request: HttpRequest, caller: Caller, reference: str) -> HttpResponse:
    """Give a key its material. After the officers' votes the same person gives the same once more."""
    offer(request, caller, Action.IMPORT_KEY)
    key = queries.find_key(caller, reference)
    approved = _approved_import(caller, key)
    initial = {}
    if approved:
        initial = {
            "originated_at": _as_input(approved.parameters.get("originated_at")),
            "reason": approved.reason,
        }
    posted = (request.POST, request.FILES) if request.method == "POST" else ()
    form = ImportForm(*posted, initial=initial)

    def bring(values: dict[str, Any]) -> HttpResponse:
        a.import_key(caller, key.alias, **_as_approved(given(values), approved))
        messages.success(request, "The material is imported; the key is enabled.")
        return redirect("web:key", reference=key.alias)

    context = {"key": key, "approved": approved, "bytes": materials_size(key)}
    return handle(request, form, bring, "keys/import.html", context)


def materials_size(key: Key) -> str:
    """Return in words what material the key takes."""
    spec = SPECS[key.spec]
    if spec.asymmetric:
        return f"an {spec.label} private key, unencrypted PKCS#8 in DER"
    return f"exactly {spec.bits // 8} bytes"


def _approved_import(caller: Caller, key: Key) -> Approval | None:
    rows = queries.list_approvals(caller, key=key, state="approved").rows
    return next(
        (
            r
            for r in rows
            if r.action == Action.IMPORT_KEY and r.requester_id == caller.principal_id
        ),
        None,
    )


def _as_input(text: Any) -> str:
    return str(text or "")[:16]


def _as_approved(values: dict[str, Any], approved: Approval | None) -> dict[str, Any]:
    """Write the date as the request does where both mean the same: votes bind the request's text."""
    agreed = approved.parameters.get("originated_at") if approved else None
    given = values.get("originated_at")
    if agreed and given and _as_input(agreed) == _as_input(given):
        values["originated_at"] = agreed
    return values
