"""What the audit page asks: its fields, its quick ranges, and what they mean as filters."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from django import forms

from audit.events import Outcome
from audit.search import Filters
from keys import clock
from keys.actions import ACTIONS
from keys.callers import Door
from keys.errors import Invalid
from kms_console.web import wording
from kms_console.web.forms import HouseForm
from kms_console.web.wording import label

RANGES = [
    ("", "All time"),
    ("today", "Today"),
    ("7d", "7 days"),
    ("30d", "30 days"),
    ("year", "This year"),
]
_ANY = [("", "Any")]


def _choices(kind: str, values: list[str]) -> list[tuple[str, str]]:
    return _ANY + sorted(((value, label(kind, value)) for value in values), key=lambda row: row[1])


class AnyOf(forms.ChoiceField):
    """One value of a vocabulary, or several with commas between them, as saved filters may have."""

    def __init__(self, kind: str, **options: Any) -> None:
        self.kind = kind
        super().__init__(required=False, **options)

    def valid_value(self, value: str) -> bool:
        known = {str(code) for code, _ in self.choices}  # type: ignore[misc, union-attr]
        return value in known or set(value.split(",")) <= known - {""}

    def offering(self, value: str) -> AnyOf:
        """Return a field that can show `value`, which may be several."""
        if "," in value and self.valid_value(value):
            words = " or ".join(label(self.kind, one) for one in value.split(","))
            self.choices = [*self.choices, (value, words)]  # type: ignore[misc]
        return self


class AuditForm(HouseForm):
    """Filters from a query string; every one is optional."""

    text = forms.CharField(label="Search", required=False, max_length=200)
    range = forms.ChoiceField(
        label="Range", required=False, choices=RANGES, widget=forms.HiddenInput
    )
    action = AnyOf(
        "action",
        label="Action",
        choices=_choices("action", [action.value for action in ACTIONS] + ["authenticate"]),
    )
    outcome = AnyOf(
        "outcome",
        label="Outcome",
        choices=[
            *_ANY,
            *((one.value, wording.state("outcome", one.value)[2]) for one in Outcome),
            ("denied,failed", "Denied or failed"),
        ],
    )
    actor = forms.CharField(label="Who", required=False, max_length=200)
    object_id = forms.CharField(label="Key or object", required=False, max_length=200)
    classification = forms.CharField(
        label="Classification",
        required=False,
        max_length=200,
        widget=forms.TextInput(attrs={"list": "classifications", "autocomplete": "off"}),
    )
    door = AnyOf("door", label="Door", choices=_choices("door", [door.value for door in Door]))
    request_id = forms.CharField(label="Request id", required=False, max_length=64)
    since = forms.DateTimeField(
        label="From (UTC)",
        required=False,
        widget=forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M"),
    )
    until = forms.DateTimeField(
        label="Before (UTC)",
        required=False,
        widget=forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M"),
    )

    def __init__(self, data: Mapping[str, Any], **options: Any) -> None:
        super().__init__(_shown(data), **options)
        for name, field in self.fields.items():
            if isinstance(field, AnyOf):
                field.offering(str(self.data.get(name, "")))

    def asked(self) -> dict[str, str]:
        """Return what was filled in, as it can be kept and asked again. Raises Invalid."""
        if not self.is_valid():
            field, errors = next(iter(self.errors.items()))
            name = self.fields[field].label if field in self.fields else field
            raise Invalid(f"{name}: {' '.join(str(error) for error in errors)}")
        told = {}
        for name, value in self.cleaned_data.items():
            if isinstance(value, datetime):
                told[name] = value.astimezone(UTC).isoformat().replace("+00:00", "Z")
            elif value:
                told[name] = str(value)
        return told

    def filters(self) -> Filters:
        """Return what was asked for, a range counted from now. Raises Invalid."""
        self.asked()
        values = {name: value for name, value in self.cleaned_data.items() if value}
        begins = beginning(values.pop("range", ""), clock.now())
        if begins is not None:
            values["since"] = max(begins, values.get("since", begins))
        return Filters(**values)


def _shown(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return a query's values as the fields show them: times without seconds or zone."""
    found = {name: data[name] for name in AuditForm.base_fields if name in data}
    for name in ("since", "until"):
        text = found.get(name)
        try:
            told = datetime.fromisoformat(text) if text else None
            if told is not None and told.tzinfo is not None:
                found[name] = f"{told.astimezone(UTC):%Y-%m-%dT%H:%M}"
        except (ValueError, OverflowError, TypeError):
            pass  # the field says so
    return found


def beginning(chosen: str, now: datetime) -> datetime | None:
    """Return when a quick range begins, in UTC; None for all time."""
    midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return {
        "today": midnight,
        "7d": midnight - timedelta(days=6),
        "30d": midnight - timedelta(days=29),
        "year": midnight.replace(month=1, day=1),
    }.get(chosen)


def address(query: Mapping[str, str]) -> str:
    """Return a query string that asks for this."""
    return urlencode(query)


def told(query: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return what a query asks for, as label and value that people read."""
    kinds = {"action": "action", "outcome": "outcome", "door": "door"}
    ranges, rows = dict(RANGES), []
    for name, value in query.items():
        field = AuditForm.base_fields.get(name)
        words = str(value)
        if name in kinds:
            words = " or ".join(label(kinds[name], one) for one in words.split(","))
        elif name == "range":
            words = ranges.get(words, words)
        elif name in ("since", "until"):
            words = words.replace("T", " ").removesuffix("Z")[:16]
        rows.append((str(field.label if field else name), words))
    return rows
