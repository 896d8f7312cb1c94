"""What callers send, checked once: each function returns a clean value or raises Invalid naming the field."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any

from keys.errors import Invalid


def whole(value: Any, field: str, least: int, most: int) -> int:
    """Return a whole number from `least` to `most`."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise Invalid(f"{field} must be a whole number.", field=field)
    if not least <= value <= most:
        raise Invalid(f"{field} must be from {least} to {most}, not {value}.", field=field)
    return value


def whole_or_none(value: Any, field: str, least: int, most: int) -> int | None:
    return None if value is None else whole(value, field, least, most)


def yes_or_no(value: Any, field: str) -> bool:
    if not isinstance(value, bool):
        raise Invalid(f"{field} must be true or false.", field=field)
    return value


def one_of(value: Any, field: str, choices: Collection[str]) -> str:
    """Return `value` where it is among `choices`; the error lists them."""
    if not isinstance(value, str) or value not in choices:
        raise Invalid(f"{field} must be one of: {', '.join(sorted(choices))}.", field=field)
    return value


def some_of(value: Any, field: str, choices: Collection[str]) -> list[str]:
    """Return a list of at least one of `choices`, sorted, each once."""
    if not isinstance(value, list) or not value:
        raise Invalid(
            f"{field} must be a list with at least one of: {', '.join(sorted(choices))}.",
            field=field,
        )
    return sorted({one_of(item, field, choices) for item in value})


def text_pairs(value: Any, field: str, most: int = 32) -> dict[str, str]:
    """Return text pairs (labels, an encryption context): at most `most`, names 1 to 128, values to 256 characters."""
    if not isinstance(value, dict):
        raise Invalid(f"{field} must be an object of text pairs.", field=field)
    if len(value) > most:
        raise Invalid(f"{field} has more than {most} pairs.", field=field)
    for name, content in value.items():
        if not isinstance(name, str) or not 1 <= len(name) <= 128 or not name.isprintable():
            raise Invalid(f"{field}: names have 1 to 128 printable characters.", field=field)
        if not isinstance(content, str) or len(content) > 256 or not content.isprintable():
            raise Invalid(
                f"{field}: values are text of at most 256 printable characters.", field=field
            )
    return dict(sorted(value.items()))


def networks(value: Any, field: str = "source_networks") -> list[str]:
    """Return networks in CIDR notation, at most 32."""
    if not isinstance(value, list) or len(value) > 32:
        raise Invalid(f"{field} must be a list of at most 32 networks.", field=field)
    try:
        return sorted({str(ipaddress.ip_network(str(item))) for item in value})
    except ValueError:
        raise Invalid(
            f"{field} must be networks like 10.1.0.0/16 or 2001:db8::/32.", field=field
        ) from None


def moment(value: Any, field: str) -> datetime | None:
    """Return the time that an ISO 8601 text with a zone names, in UTC; None for nothing."""
    if value is None or value == "":
        return None
    try:
        parsed = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise Invalid(f"{field} must be a time like 2027-01-31T12:00:00Z.", field=field) from None
    if parsed.tzinfo is None:
        raise Invalid(f"{field} lacks its time zone: write 2027-01-31T12:00:00Z.", field=field)
    try:
        return parsed.astimezone(UTC)
    except OverflowError:
        raise Invalid(f"{field} lies outside the calendar.", field=field) from None
