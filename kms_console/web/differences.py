"""Differences between the console and a key store, in words: what differs, and what each side says."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from keys.algorithms import SPECS
from keys.models import Drift
from keys.models.drift import DriftField
from kms_console.web import wording


@dataclass(frozen=True, slots=True)
class Side:
    """What one side says: a state of wording's table `kind`, or text."""

    text: str
    kind: str = ""
    value: str = ""


# Which states stand in a difference of these fields.
_STATES = {
    DriftField.KEY_STATE: "key",
    DriftField.KEY_MISSING: "key",
    DriftField.VERSION_STATE: "version",
    DriftField.VERSION_MISSING: "version",
    DriftField.VERSION_UNKNOWN: "version",
}
# How a field without a value reads.
_NOTHING = {
    DriftField.KEY_MISSING: "not there",
    DriftField.VERSION_MISSING: "not there",
    DriftField.VERSION_UNKNOWN: "unknown",
    DriftField.PRIMARY: "none",
    DriftField.ROTATION: "switched off",
    DriftField.DESTRUCTION: "no date",
    DriftField.VERSION_DESTRUCTION: "no date",
    DriftField.TAGS: "no tags",
}
_DATES = (DriftField.DESTRUCTION, DriftField.VERSION_DESTRUCTION)


def side(row: Drift, value: Any) -> Side:
    """Return what one side of a difference says, for a page."""
    if row.field in _STATES and isinstance(value, str) and value:
        return Side("", _STATES[DriftField(row.field)], value)
    return Side(words(row, value))


def words(row: Drift, value: Any) -> str:
    """Return what one side of a difference says, in words: see keys.drift.comparing for the values."""
    field = DriftField(row.field)
    if value in (None, "", {}):
        return _NOTHING.get(field, "nothing")
    if field in _STATES and isinstance(value, str):
        return wording.state(_STATES[field], value)[2].lower()
    if field in _DATES and isinstance(value, str):
        return _date(value)
    if field == DriftField.VERSION_UNKNOWN and isinstance(value, Mapping):
        return _version_told(value)
    if field == DriftField.ROTATION:
        return f"every {value} days"
    if field == DriftField.TAGS and isinstance(value, Mapping):
        return ", ".join(_tag(name, content) for name, content in sorted(value.items()))
    if field == DriftField.MATERIAL and isinstance(value, str):
        return SPECS[value].label if value in SPECS else _fingerprint(value)
    if field == DriftField.PRIMARY:
        return _version_named(row, str(value))
    return str(value)


def _date(value: str) -> str:
    try:
        return f"{datetime.fromisoformat(value).astimezone(UTC):%-d %b %Y, %H:%M} UTC"
    except (ValueError, OverflowError):
        return value


def _version_told(value: Mapping[str, Any]) -> str:
    """Return what a store says of a version that is unknown here: keys.drift.comparing.told_of."""
    told = [
        wording.state("version", str(value.get("state")))[2].lower(),
        "protects new data" if value.get("primary") else "does not protect new data",
    ]
    if value.get("destroy_at"):
        told.append(f"destroyed on {_date(str(value['destroy_at']))}")
    if value.get("public_key"):
        told.append(f"public key SHA-256 {str(value['public_key'])[:16]}…")
    return ", ".join(told)


def _tag(name: str, content: Any) -> str:
    return f"no {name}" if content is None else f"{name}={content}"


def _fingerprint(value: str) -> str:
    """Return a public key's SHA-256, which people can compare; the key itself is too long."""
    try:
        return f"SHA-256 {hashlib.sha256(bytes.fromhex(value)).hexdigest()[:16]}…"
    except ValueError:
        return value


def _version_named(row: Drift, handle: str) -> str:
    """Return a version by its number, where the console knows one of this handle."""
    numbers = row.key.versions.filter(handle=handle).values_list("number", flat=True)
    return f"version {numbers[0]}" if numbers else f"a version unknown here ({handle})"


def about(row: Drift) -> str:
    """Return what differs, in a few words: the field, and the version where it is about one."""
    told = wording.label("drift_field", row.field)
    return f"{told}, version {row.number}" if row.number else told


def put_to_vote(given: Mapping[str, Any], row: Drift) -> list[tuple[str, str]]:
    """Return what officers vote on in words: a difference as it was found."""
    return [
        ("What differs", about(row)),
        ("The console believes", words(row, given.get("believed"))),
        ("The store says", words(row, given.get("observed"))),
    ]
