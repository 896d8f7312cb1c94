"""From a configured key store to its live backend."""

from __future__ import annotations

import uuid

from keys.backends import registry
from keys.backends.base import Backend
from keys.errors import Unavailable
from keys.models import Key, KeyStore
from keys.snapshot import StoreFacts


def facts(store: KeyStore) -> StoreFacts:
    """Return what is needed to reach a store, as a value."""
    return StoreFacts(
        store.id, store.name, store.kind, store.settings, store.credentials, store.enabled
    )


def backend(store: StoreFacts) -> Backend:
    """Return a store's backend in this process. Raises Unavailable where the store is switched off."""
    if not store.enabled:
        raise Unavailable(f"The key store {store.name} is switched off.")
    return registry.backend_for(
        store.id, store.kind, store.settings, store.credentials, known=store.digest
    )


def backend_of(key: Key) -> Backend:
    """Return the backend that holds a key's material."""
    return backend(facts(key.key_store))


def same_place(one: KeyStore, other: KeyStore) -> bool:
    """Whether two rows lead to the same keys, as far as their settings tell: one handle, one key.

    How somebody signs in doesn't matter. Where it can't be told (two names for one server), they are
    two places: an administrator who gives a server two names can't be caught by its settings.
    """
    if one.pk == other.pk:
        return True
    return one.kind == other.kind and _place(one) == _place(other)


def places_like(store: KeyStore) -> list[KeyStore]:
    """Return every key store, the given one too, that leads to the same keys."""
    return [row for row in KeyStore.objects.filter(kind=store.kind) if same_place(store, row)]


def _place(store: KeyStore) -> list[str] | uuid.UUID:
    naming = registry.KINDS[store.kind].place
    if naming is None:
        return store.pk
    return [str(store.settings.get(name, "")).strip().rstrip("/").lower() for name in naming]


# --- the house's own: sealed in the material database like software keys, listed nowhere.

WRAPPING_KEYS = uuid.UUID("00000000-0000-4000-8000-000000000011")
COMPONENTS = uuid.UUID("00000000-0000-4000-8000-000000000012")


def wrapping_keys() -> Backend:
    """Return where the wrapping keys of import tickets are, each under its ticket's id."""
    return registry.backend_for(WRAPPING_KEYS, "software", {}, "")


def components() -> Backend:
    """Return where the components of open ceremonies are, each under its custodian's id."""
    return registry.backend_for(COMPONENTS, "software", {}, "")
