"""From a configured key store to its live backend."""

from __future__ import annotations

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
    return registry.backend_for(store.id, store.kind, store.settings, store.credentials)


def backend_of(key: Key) -> Backend:
    """Return the backend that holds a key's material."""
    return backend(facts(key.key_store))
