"""The forms of a key ceremony."""

from __future__ import annotations

import binascii
import re
from typing import Any

from django import forms

from keys import queries
from keys.algorithms import SPECS, KeySpec
from keys.callers import Caller, Kind, Role
from keys.imports import ceremonies as rules
from keys.imports import tickets
from keys.models import Key
from keys.secret import Secret
from keys.states import Condition, KeyState
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
from kms_console.web.wording import label


class OpenForm(HouseForm):
    custodians = forms.MultipleChoiceField(
        label="Officers who take part",
        widget=forms.CheckboxSelectMultiple,
        help_text=f"{rules.LEAST} to {rules.MOST}. You may be one of them.",
    )
    split = forms.ChoiceField(
        label="Who brings the material",
        choices=[
            ("yes", "Each officer enters one component: nobody knows the whole"),
            ("no", "One officer brings the whole, wrapped; the others compare its check value"),
        ],
        widget=forms.RadioSelect,
        initial="yes",
    )
    first = forms.ChoiceField(
        label="The officer who brings the whole",
        required=False,
        help_text="One of those above. Left out of account where each enters a component.",
    )
    place = forms.CharField(
        label="Place", max_length=256, required=False, help_text="For the minutes."
    )
    reason = reason_field()

    def __init__(self, caller: Caller, key: Key, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        people = queries.list_principals(caller, Kind.PERSON, limit=1000).rows
        officers = [
            (str(one.id), one.name) for one in people if one.active and one.role == Role.OFFICER
        ]
        self.fields["custodians"].choices = officers  # type: ignore[attr-defined]
        self.fields["first"].choices = officers  # type: ignore[attr-defined]
        self.fields["first"].initial = str(caller.principal_id)
        if SPECS[key.spec].asymmetric:
            # A key pair has no components.
            del self.fields["split"]
            self.fields["first"].help_text = "One of those above."

    def clean(self) -> dict[str, Any]:
        values: dict[str, Any] = super().clean() or {}
        named, first = values.get("custodians", []), values.pop("first", "")
        if named and not rules.LEAST <= len(named) <= rules.MOST:
            self.add_error("custodians", f"Choose {rules.LEAST} to {rules.MOST} officers.")
        values["split"] = values.get("split", "no") == "yes"
        if not values["split"] and named:
            if first not in named:
                self.add_error("first", "Choose one of the officers who take part.")
            values["custodians"] = [first, *(one for one in named if one != first)]
        return values


class ComponentForm(HouseForm):
    component = secret_field("Your component, in hexadecimal", 1000)
    check_value = check_value_field(
        "Its check value, from the paper",
        help_text="Where one stands there: then a mistyped component is refused.",
    )

    def __init__(self, spec: KeySpec, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._bytes = spec.bits // 8
        self.fields["component"].help_text = (
            f"{2 * self._bytes} digits, in groups as they stand on the paper. Blanks don't count. "
            "It is not shown while you type, and never again."
        )

    def clean_component(self) -> Secret:
        digits = re.sub(r"[\s:-]+", "", self.cleaned_data["component"])
        try:
            data = binascii.unhexlify(digits)
        except (ValueError, binascii.Error):
            raise forms.ValidationError(
                "Write pairs of the digits 0 to 9 and a to f, and nothing else."
            ) from None
        if len(data) != self._bytes:
            raise forms.ValidationError(
                f"A component has {2 * self._bytes} digits; these are {len(digits)}."
            )
        return Secret(data)


class WholeForm(BlobFields):
    renamed = {"wrapped": "blob", "component": "blob"}
    blob_limit = tickets.WRAPPED_LIMIT
    blob_name = "wrapped material"

    algorithm = forms.ChoiceField(label="How it is wrapped", widget=forms.RadioSelect)
    file = file_field("File with the wrapped material")
    blob = blob_field("Or the same in base64")
    token = secret_field("Import token", 300)
    check_value = check_value_field(
        "Its check value, from the paper", help_text="Where one stands there."
    )

    def __init__(self, key: Key, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        ways = [
            name
            for name in tickets.ALGORITHMS
            # No private key of a pair fits into one block of RSA.
            if name != "RSAES_OAEP_SHA_256" or not SPECS[key.spec].asymmetric
        ]
        self.fields["algorithm"].choices = [  # type: ignore[attr-defined]
            (name, label("algorithm", name)) for name in ways
        ]
        self.fields["algorithm"].initial = ways[0]

    def clean(self) -> dict[str, Any]:
        values: dict[str, Any] = super().clean() or {}
        wrapped, token = self.blob_of(values), values.pop("token", "").strip()
        values["wrapped"] = Secret(wrapped) if wrapped else None
        values["token"] = Secret(token.encode()) if token else None
        return values


class ConfirmForm(HouseForm):
    check_value = check_value_field(
        "The check value of the whole",
        required=True,
        help_text="Type it from the paper, or as the others read it out. Blanks don't count.",
    )


class ImportForm(HouseForm):
    number = forms.TypedChoiceField(
        label="As",
        required=False,
        coerce=int,
        empty_value=None,
        widget=forms.RadioSelect,
    )
    originated_at = MomentField(
        label="When the material was made (UTC)",
        required=False,
        help_text="Its periods count from then. Empty: now.",
    )
    expires_at = MomentField(
        label="When it is to be removed (UTC)", required=False, help_text="Empty: it stays."
    )
    reason = reason_field()

    def __init__(self, key: Key, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        gone = key.versions.filter(condition=Condition.UNAVAILABLE).order_by("number")
        choices = [(str(one.number), f"Version {one.number}, again") for one in gone]
        if key.state != KeyState.DISABLED:
            first = "The first version" if not key.versions.exists() else "The next version"
            choices.insert(0, ("", first))
        self.fields["number"].choices = choices  # type: ignore[attr-defined]
        if len(choices) == 1:
            self.fields["number"].widget = forms.HiddenInput()
            self.fields["number"].initial = choices[0][0]


class AgreedForm(HouseForm):
    """An import that officers agreed to has nothing left to fill in."""
