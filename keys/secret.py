"""A type for secrets: bytes that can't be printed, pickled, logged or compared in variable time."""

from __future__ import annotations

import hmac
from typing import NoReturn


class Secret:
    """Bytes that only `reveal()` gives back.

    Python can't promise to wipe memory; this type prevents the accidents that can be prevented.
    """

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = bytes(value)

    def reveal(self) -> bytes:
        """Return the bytes. Every call is a place to look at in a review."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(…)"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._value, other._value)

    __hash__ = None  # type: ignore[assignment]

    def __len__(self) -> int:
        return len(self._value)

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("A secret can't be pickled or copied.")

    def __getstate__(self) -> NoReturn:
        raise TypeError("A secret can't be pickled or copied.")


def same(one: str, other: str) -> bool:
    """Whether two check values are equal, in constant time."""
    # What people type may hold anything; half a surrogate pair has no UTF-8.
    first, second = (text.encode("utf-8", "backslashreplace") for text in (one, other))
    return hmac.compare_digest(first, second)
