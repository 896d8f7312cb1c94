"""What a key pair gives away: its public key, and a certificate signing request."""

from __future__ import annotations

import base64
import textwrap
from typing import Any

from django import forms
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST

from keys import operations, queries
from keys.actions import Action
from keys.algorithms import SPECS, Family, Usage
from keys.callers import Caller
from keys.errors import Invalid, NotFound
from keys.models import Key
from kms_console.web import specs
from kms_console.web.doors import given, handle, offer, page
from kms_console.web.forms import HouseForm, WordsField

# Of these families X.509 requests can be made.
_CERTIFIABLE = (Family.RSA, Family.EC, Family.EDWARDS, Family.ML_DSA)


def certifiable(key: Key) -> bool:
    """Whether a certificate signing request makes sense for a key."""
    return key.usage == Usage.SIGN_VERIFY and SPECS[key.spec].family in _CERTIFIABLE


def pem(der: bytes, what: str = "PUBLIC KEY") -> str:
    """Return DER as PEM (RFC 7468)."""
    lines = textwrap.wrap(base64.b64encode(der).decode(), 64)
    return "\n".join([f"-----BEGIN {what}-----", *lines, f"-----END {what}-----", ""])


def attachment(content: str | bytes, name: str, content_type: str) -> HttpResponse:
    """Return a file to be kept by who asked, and by no cache. `name` is one of ours, without quotes."""
    response = HttpResponse(content, content_type=content_type)
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    response["Cache-Control"] = "no-store"
    return response


@require_POST
@page
def public_key(request: HttpRequest, caller: Caller, reference: str) -> HttpResponse:
    """Give a version's public key as a PEM file. It is a use of the key, and leaves its entry."""
    number = request.POST.get("version", "")
    if not number.isascii() or not number.isdigit() or len(number) > 9:
        raise Invalid("version must be a version's number.", field="version")
    key = queries.find_key(caller, reference)
    found = operations.public_key(caller, str(key.id), version=int(number))
    return attachment(
        pem(found.public_key), f"{key.alias}-{found.version}.pem", "application/x-pem-file"
    )


class CertificateForm(HouseForm):
    subject = forms.CharField(
        label="Subject",
        max_length=1024,
        required=False,
        help_text="A distinguished name, the most special part first: CN=shop.example,O=Company,C=AT.",
        widget=forms.TextInput(attrs={"class": "mono", "spellcheck": "false"}),
    )
    dns_names = WordsField(
        label="Host names",
        required=False,
        max_length=4000,
        help_text="Between blanks: shop.example *.shop.example",
        widget=forms.TextInput(attrs={"class": "mono", "spellcheck": "false"}),
    )
    emails = WordsField(label="E-mail addresses", required=False, max_length=4000)
    ip_addresses = WordsField(label="IP addresses", required=False, max_length=4000)
    uris = WordsField(label="URIs", required=False, max_length=4000)
    algorithm = forms.ChoiceField(label="Signed with")

    def __init__(self, key: Key, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        offered = specs.algorithms(SPECS[key.spec], key.usage)
        offered.sort(key=lambda row: row[0] != key.algorithm)
        self.fields["algorithm"].choices = offered  # type: ignore[attr-defined]


@require_http_methods(["GET", "HEAD", "POST"])
@page
def certificate_request(request: HttpRequest, caller: Caller, reference: str) -> HttpResponse:
    """Make a certificate signing request with the key's primary version, as a PEM file."""
    offer(request, caller, Action.CERTIFICATE_REQUEST)
    key = queries.find_key(caller, reference)
    if not certifiable(key):
        raise NotFound("Certificates are for keys that sign.")
    form = CertificateForm(key, request.POST if request.method == "POST" else None)

    def make(values: dict[str, Any]) -> HttpResponse:
        made = operations.certificate_request(caller, str(key.id), **given(values))
        return attachment(made.pem, f"{key.alias}-{made.version}.csr", "application/pkcs10")

    context = {"key": key, "back": reverse("web:key", args=[key.alias])}
    return handle(request, form, make, "keys/certificate.html", context)
