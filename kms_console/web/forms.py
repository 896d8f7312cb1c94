"""Fields and small forms. They turn text into plain JSON values; the domain checks what these mean."""

from __future__ import annotations

import base64
import binascii
import re
from datetime import UTC, datetime
from typing import Any

from django import forms

from keys.errors import KeyServiceError

REASON_HELP = "Kept for ever in the audit trail, and shown to whoever must agree."


class HouseForm(forms.Form):
    """A form whose errors may also come from the domain."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("label_suffix", "")
        super().__init__(*args, **kwargs)

    # What the domain calls a field, where the form calls it otherwise.
    renamed: dict[str, str] = {}

    def refuse(self, error: KeyServiceError) -> None:
        """Show a domain error at its field, or above the form where it has none."""
        named = str(error.extra.get("field", ""))
        field = self.renamed.get(named, named)
        if field not in self.fields:
            self.add_error(None, error.detail)
            return
        # At its field an error need not repeat what programs call that.
        detail = error.detail
        if named and detail.startswith(f"{named} "):
            detail = detail.removeprefix(f"{named} ").capitalize()
        self.add_error(field, detail)


class MomentField(forms.DateTimeField):
    """A point in time, in UTC; cleaned to ISO 8601 text, as the domain reads it, or None."""

    widget = forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M")

    def clean(self, value: Any) -> str | None:
        moment: datetime | None = super().clean(value)
        return moment.astimezone(UTC).isoformat() if moment else None


class PairsField(forms.CharField):
    """Text pairs, one `name=value` a line; cleaned to a dict."""

    widget = forms.Textarea(attrs={"rows": 3, "class": "mono", "spellcheck": "false"})

    def clean(self, value: Any) -> dict[str, str]:
        pairs: dict[str, str] = {}
        for line in super().clean(value).splitlines():
            if not line.strip():
                continue
            name, equals, content = line.partition("=")
            if not equals:
                raise forms.ValidationError(f"Write name=value, one a line; not “{line[:60]}”.")
            pairs[name.strip()] = content.strip()
        return pairs

    def prepare_value(self, value: Any) -> Any:
        if isinstance(value, dict):
            return "\n".join(f"{name}={content}" for name, content in value.items())
        return value


class WordsField(forms.CharField):
    """Words between blanks or commas; cleaned to a list."""

    def clean(self, value: Any) -> list[str]:
        return [word for word in re.split(r"[\s,]+", super().clean(value)) if word]

    def prepare_value(self, value: Any) -> Any:
        return " ".join(value) if isinstance(value, list) else value


def reason_field(required: bool = True) -> forms.CharField:
    return forms.CharField(
        label="Reason",
        max_length=500,
        required=required,
        help_text=REASON_HELP,
        widget=forms.Textarea(attrs={"rows": 2}),
    )


class ReasonForm(HouseForm):
    reason = reason_field()


class DestroyForm(HouseForm):
    days = forms.IntegerField(
        label="Wait this many days first",
        required=False,
        min_value=1,
        max_value=120,
        help_text="Empty: as long as the classification asks. It can be longer, never shorter.",
    )
    reason = reason_field()


class SignInForm(HouseForm):
    username = forms.CharField(
        label="User name",
        max_length=150,
        widget=forms.TextInput(
            attrs={"autocomplete": "username", "autocapitalize": "none", "autofocus": True}
        ),
    )
    password = forms.CharField(
        label="Password",
        max_length=1000,
        strip=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "current-password"}),
    )


class PasswordForm(HouseForm):
    renamed = {"password": "new"}

    old = forms.CharField(
        label="Present password",
        max_length=1000,
        strip=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "current-password"}),
    )
    new = forms.CharField(
        label="New password",
        max_length=1000,
        strip=False,
        help_text="At least 12 characters, none of the common ones. Every other session of yours ends.",
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
    )
    again = forms.CharField(
        label="New password, again",
        max_length=1000,
        strip=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
    )

    def clean(self) -> dict[str, Any]:
        values: dict[str, Any] = super().clean() or {}
        if "new" in values and "again" in values and values["new"] != values["again"]:
            self.add_error("again", "The two new passwords differ.")
        return values


class Unechoed(forms.Textarea):
    """A text area that never shows again what was sent, not even after an error."""

    def get_context(self, name: str, value: Any, attrs: dict[str, Any] | None) -> dict[str, Any]:
        context: dict[str, Any] = super().get_context(name, None, attrs)
        return context


def secret_field(label: str, limit: int, *, required: bool = True, help_text: str = "") -> Any:
    """Return a field for a secret in one line: hidden while typed, never shown again."""
    return forms.CharField(
        label=label,
        required=required,
        max_length=limit,
        strip=False,
        help_text=help_text,
        widget=forms.PasswordInput(
            attrs={"autocomplete": "off", "spellcheck": "false", "class": "mono"}
        ),
    )


def check_value_field(label: str, *, required: bool = False, help_text: str = "") -> Any:
    return forms.CharField(
        label=label,
        required=required,
        max_length=100,
        help_text=help_text,
        widget=forms.TextInput(
            attrs={"autocomplete": "off", "spellcheck": "false", "class": "mono"}
        ),
    )


class BlobFields(HouseForm):
    """A form with bytes that come as base64 (the field `blob`) or as a file (`file`), one of the two."""

    blob_limit = 16 * 1024
    blob_name = "material"

    def blob_of(self, values: dict[str, Any], *, required: bool = True) -> bytes | None:
        """Return the bytes, once; whatever is wrong is told at the field. Call it from clean()."""
        text, file = values.pop("blob", ""), values.pop("file", None)
        if bool(text) == bool(file):
            if required or text:
                self.add_error("blob", f"Give the {self.blob_name} once: as base64 or as a file.")
            return None
        if file:
            data: bytes = file.read(self.blob_limit + 1)
        else:
            data = self.decoded(text)
            if not data:
                self.add_error("blob", "That is not base64.")
                return None
        if not 0 < len(data) <= self.blob_limit:
            self.add_error("blob", f"The {self.blob_name} has 1 to {self.blob_limit:,} bytes.")
            return None
        return data

    @staticmethod
    def decoded(text: str) -> bytes:
        """Return what base64 stands for, or nothing where it is none."""
        try:
            return base64.b64decode("".join(text.split()), validate=True)
        except (ValueError, binascii.Error):
            return b""

    @staticmethod
    def as_text(data: bytes) -> str:
        """Return a file's text, or nothing where it is none."""
        try:
            text = data.decode("ascii")
        except UnicodeDecodeError:
            return ""
        return text if all(c.isprintable() or c in "\r\n\t" for c in text) else ""


def blob_field(label: str) -> Any:
    return forms.CharField(
        label=label,
        required=False,
        max_length=32 * 1024,
        widget=Unechoed(
            attrs={"rows": 3, "class": "mono", "autocomplete": "off", "spellcheck": "false"}
        ),
    )


def file_field(label: str) -> Any:
    return forms.FileField(label=label, required=False, max_length=255, allow_empty_file=False)
