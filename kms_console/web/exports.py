"""Export: a version's material leaves, wrapped for one recipient, after officers have agreed."""

from __future__ import annotations

import hashlib
from typing import Any

from django import forms
from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_http_methods

from keys import administration as a
from keys import queries
from keys.actions import Action
from keys.administration.exports import RSA_ALGORITHMS, X_WING_ALGORITHMS
from keys.callers import Caller
from keys.errors import Conflict, NotFound, StateForbids
from keys.models import Approval, Key, KeyVersion
from kms_console.web.doors import handle, offer, page, votes_needed
from kms_console.web.forms import BlobFields, HouseForm, file_field, reason_field
from kms_console.web.public_keys import attachment
from kms_console.web.wording import label

KEY_LIMIT = 16 * 1024


class ExportForm(HouseForm):
    public_key = forms.CharField(
        label="Recipient's public key",
        required=False,
        max_length=KEY_LIMIT,
        help_text="PEM. RSA with 3,072 bits at least, or X-Wing. Compare it with the recipient first.",
        widget=forms.Textarea(
            attrs={
                "rows": 5,
                "class": "mono",
                "spellcheck": "false",
                "placeholder": "-----BEGIN PUBLIC KEY-----",
            }
        ),
    )
    file = file_field("Or a file with it")
    algorithm = forms.ChoiceField(
        label="How it is wrapped",
        choices=[
            (name, label("algorithm", name)) for name in (*RSA_ALGORITHMS, *X_WING_ALGORITHMS)
        ],
        widget=forms.RadioSelect,
        initial=RSA_ALGORITHMS[0],
    )
    reason = reason_field()

    def clean(self) -> dict[str, Any]:
        values: dict[str, Any] = super().clean() or {}
        text, file = values.get("public_key", ""), values.pop("file", None)
        if bool(text) == bool(file):
            self.add_error("public_key", "Give the public key once: as text or as a file.")
        elif file:
            data: bytes = file.read(KEY_LIMIT + 1)
            values["public_key"] = BlobFields.as_text(data)
            if not values["public_key"]:
                self.add_error("public_key", "The file is no public key in PEM, or too large.")
        return values


class DownloadForm(HouseForm):
    """What an approved request asked for: only its id is sent again."""

    request = forms.CharField(max_length=64, widget=forms.HiddenInput)


@require_http_methods(["GET", "HEAD", "POST"])
@page
def version_export(
    request: HttpRequest, caller: Caller, reference: str, number: int
) -> HttpResponse:
    """Ask for an export; once it is approved, the same person downloads it here, once."""
    offer(request, caller, Action.EXPORT_KEY)
    key = queries.find_key(caller, reference)
    version = key.versions.filter(number=number).first()
    if version is None:
        raise NotFound(f"The key {key.alias} has no version {number}.")
    if not key.exportable and request.method != "POST":
        raise StateForbids("The key was not created exportable; that can't be changed later.")
    approved = approved_export(caller, key, version)
    context = {
        "key": key,
        "version": version,
        "approved": approved,
        "recipient": recipient_digest(approved.parameters["public_key"]) if approved else "",
        "votes": votes_needed(Action.EXPORT_KEY, key.classification),
    }
    if approved is not None or "request" in request.POST:
        return _download(request, caller, key, version, approved, context)
    posted = (request.POST, request.FILES) if request.method == "POST" else ()

    def ask(values: dict[str, Any]) -> HttpResponse:
        made = a.export_key(caller, key.alias, number=version.number, **values)
        return _wrapped(key, made.version, made.wrapped)

    return handle(request, ExportForm(*posted), ask, "exports/ask.html", context)


def _download(
    request: HttpRequest,
    caller: Caller,
    key: Key,
    version: KeyVersion,
    approved: Approval | None,
    context: dict[str, Any],
) -> HttpResponse:
    """Carry out an approved export: the answer is the file, and there is no other copy."""
    form = DownloadForm(
        request.POST if request.method == "POST" else None,
        initial={"request": approved.id if approved else ""},
    )

    def take(values: dict[str, Any]) -> HttpResponse:
        # A second click must not ask the officers anew for what has left already.
        if approved is None or values["request"] != str(approved.id):
            raise Conflict("This was downloaded already, or is not approved any more: ask again.")
        agreed = {name: approved.parameters[name] for name in ("public_key", "algorithm")}
        made = a.export_key(
            caller, key.alias, number=version.number, reason=approved.reason, **agreed
        )
        return _wrapped(key, made.version, made.wrapped)

    return handle(request, form, take, "exports/download.html", context)


def _wrapped(key: Key, number: int, wrapped: bytes) -> HttpResponse:
    return attachment(wrapped, f"{key.alias}-{number}.wrapped", "application/octet-stream")


def approved_export(caller: Caller, key: Key, version: KeyVersion) -> Approval | None:
    """Return the caller's own approved request to export this version."""
    rows = queries.list_approvals(caller, key=key, state="approved").rows
    return next(
        (
            row
            for row in rows
            if row.action == Action.EXPORT_KEY
            and row.requester_id == caller.principal_id
            and row.parameters.get("number") == version.number
        ),
        None,
    )


def recipient_digest(public_key: str) -> str:
    """Return the SHA-256, in hex, of a recipient's public key as a request keeps it: DER in base64."""
    der = BlobFields.decoded(public_key)
    return hashlib.sha256(der).hexdigest() if der else ""
