"""Canonical JSON (RFC 8785) for the values that entries are made of.

Entries hold no floats, no integer outside ±(2^53-1) and only ASCII names of members. For those
values RFC 8785 is: no white space, members sorted, the shortest escapes, UTF-8; that is what
msgspec writes in sorted order, and a test compares it with a full implementation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

# RFC 8785 §3.2.2.3: numbers are IEEE 754 doubles, so larger integers would not survive a reader.
INTEGER_LIMIT = 2**53 - 1

JsonValue = None | bool | int | str | Sequence["JsonValue"] | Mapping[str, "JsonValue"]

_encoder = msgspec.json.Encoder(order="deterministic")


def encode_checked(value: object) -> bytes:
    """Return the canonical JSON of a value already known to be in the subset (see `encode`)."""
    return _encoder.encode(value)


def encode(value: JsonValue) -> bytes:
    """Return the canonical JSON (RFC 8785) of `value` as UTF-8.

    Raises TypeError for a float or any other type outside the subset, ValueError for an integer
    beyond ±(2^53-1), a member name that is not ASCII, or text that UTF-8 can't carry (a lone
    surrogate; the UnicodeEncodeError is a ValueError).
    """
    check(value)
    return encode_checked(value)


def check(value: object) -> None:
    """Raise what `encode` would raise for `value`."""
    if value is None or isinstance(value, bool):
        return
    if isinstance(value, str):
        if not value.isascii():
            value.encode("utf-8")
    elif isinstance(value, int):
        if not -INTEGER_LIMIT <= value <= INTEGER_LIMIT:
            raise ValueError(f"an entry can't hold the number {value}: it is beyond 2^53-1")
    elif isinstance(value, dict):
        for name, member in value.items():
            if not isinstance(name, str):
                raise TypeError(f"a member's name must be text, not {type(name).__name__}")
            if not name.isascii():
                raise ValueError(f"a member's name must be ASCII, not {name!a}")
            check(member)
    elif isinstance(value, list | tuple):
        for member in value:
            check(member)
    else:
        raise TypeError(f"an entry can't hold a {type(value).__name__}")
