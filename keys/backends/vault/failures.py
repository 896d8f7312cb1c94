"""What the engine's answers other than success mean. Its own words are matched, never passed on.

They could hold anything a broken server or a proxy in between puts there. Vault and OpenBao have
no error codes but the HTTP status, and say with 500 what is the caller's fault too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keys.backends.base import NoMaterial
from keys.errors import (
    BackendError,
    BackendUnavailable,
    KeyServiceError,
    StateForbids,
    Throttled,
    Unsupported,
)

# Words in an answer, lower case, to what they mean. The first that fits counts.
_MEANINGS: tuple[tuple[str, type[KeyServiceError], str], ...] = (
    ("soft-deleted", StateForbids, "The key is soft-deleted at the store, which refuses its use."),
    ("too old", StateForbids, "The version is below the key's minimum at the store."),
    ("less than the minimum", StateForbids, "The version is below the key's minimum at the store."),
    ("no such key version", NoMaterial, "The key at the store has no such version."),
    ("key version does not exist", NoMaterial, "The key at the store has no such version."),
    ("higher than the latest", NoMaterial, "The key at the store has no such version."),
    ("version is too new", NoMaterial, "The key at the store has no such version."),
    ("key not found", NoMaterial, "There is no such key at the store."),
    ("invalid key name", NoMaterial, "There is no such key at the store."),
    ("no existing key named", NoMaterial, "There is no such key at the store."),
    ("no key found with name", NoMaterial, "There is no such key at the store."),
    ("no handler for route", BackendError, "No secrets engine is mounted there: check the mount."),
    ("unsupported path", Unsupported, "This server has no such operation."),
    ("unsupported operation", Unsupported, "This server has no such operation."),
    ("unknown key type", Unsupported, "This server has no keys of this type."),
    ("does not allow rotation", Unsupported, "The key was imported, and may not be rotated there."),
    ("sealed", BackendUnavailable, "The server is sealed."),
)
# Sealed or standby in several ways (sys/health), a replica that lags behind (412).
_NOT_NOW = frozenset({408, 412, 425, 472, 473})


def failure(
    status: int, errors: tuple[str, ...], what: str, headers: Mapping[str, Any]
) -> KeyServiceError:
    """Return the error for an answer. `what`: method and path, for a person."""
    if status == 429:
        return Throttled(retry_after=seconds(headers.get("Retry-After")))
    said = " ".join(errors).lower()
    for words, kind, meaning in _MEANINGS:
        if words in said:
            return kind(meaning)
    if status >= 500 or status in _NOT_NOW:
        return BackendUnavailable(f"The store answered {what} with status {status}.")
    if 300 <= status < 400:
        # Followed, it would carry the token to wherever the answer says.
        return BackendUnavailable(
            f"The store answered {what} with a redirection: a standby node that doesn't forward, "
            "or an address that isn't the active node's."
        )
    if status == 404:
        return BackendError(
            f"Something answered {what} with 404 that does not speak of a key: check the address and "
            "mount, and what is between the console and the server."
        )
    return BackendError(f"The store refused {what} with status {status}.")


def says(errors: tuple[str, ...], words: str) -> bool:
    return words in " ".join(errors).lower()


def seconds(value: Any) -> float | None:
    """Return a Retry-After in seconds; None for a date or for nonsense."""
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return found if 0 <= found < 1e6 else None
