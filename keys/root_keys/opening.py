"""Opening root keys: from the file or the variable, or at the key store that holds them.

What a store opened stays in this process's memory, so that keys can be loaded while the store is
away. Of many threads that need the same root key one asks the store, the others wait for it.
"""

from __future__ import annotations

import threading
import uuid
from concurrent.futures import Future

from django.db import DatabaseError

from keys import sealing
from keys.algorithms import SPECS
from keys.backends import registry
from keys.backends.base import Backend, NoMaterial
from keys.backends.software.models import RootKey
from keys.errors import (
    BackendError,
    CannotDecrypt,
    KeyServiceError,
    Unavailable,
    Unsupported,
)
from keys.models import KeyStore
from keys.primitives.xaes import KEY_BYTES
from keys.root_keys import log, rows, succession
from keys.secret import Secret
from keys.stores import backend, facts

_AAD = b"kms-console root key "
_opened: dict[str, Secret] = {}
_flights: dict[str, Future[Secret]] = {}
_lock = threading.Lock()


def present() -> tuple[str, Secret]:
    """Return the id of the root key that seals now, and the key: the one that the log says was made
    last, or the file's where no store ever held one.

    Raises Unavailable, also where the store that holds it can't be reached, and BackendError where
    what the store opens is not the root key that the house made.
    """
    row = succession.sealing_row()
    if row is not None:
        return row.id, _of(row)
    key = sealing.root_key()
    return sealing.root_key_id(key).hex(), key


def by_id(root_id: str) -> Secret:
    """Return the root key that a blob names. Raises as present() does."""
    key = _at_hand(root_id)
    if key is not None:
        return key
    row = rows.named(root_id)
    if row is not None and row.wrapped:
        return _of(row)
    if rows.current() is not None:
        raise Unavailable(
            f"The secret was sealed under the root key {root_id}, which no key store holds "
            "any more; the file or the variable with it is not here."
        )
    own = sealing.root_key_id(sealing.root_key()).hex()
    raise Unavailable(f"The secret was sealed under another root key: {root_id}, not {own}.")


def remember(root_id: str, key: Secret) -> None:
    """Keep a root key that this process made or opened."""
    _opened[root_id] = key


def forget(root_id: str = "") -> None:
    """Forget one root key, or all, as a new process would know none."""
    if root_id:
        _opened.pop(root_id, None)
    else:
        _opened.clear()


# --- at the store


def holder(store_id: uuid.UUID) -> tuple[KeyStore, Backend]:
    """Return a key store that may hold the root key, and its backend. Raises Unavailable, Unsupported."""
    store = holder_row(store_id)
    return store, backend(facts(store))


def holder_row(store_id: uuid.UUID) -> KeyStore:
    """Return the row of a key store that may hold the root key. Raises Unavailable, Unsupported."""
    try:
        store = KeyStore.objects.filter(pk=store_id).first()
    except DatabaseError:
        raise Unavailable("The database can't be reached now.") from None
    if store is None:
        raise Unavailable("The key store that holds the root key is not configured here.")
    check_can_hold(store)
    return store


def check_can_hold(store: KeyStore) -> None:
    """Raise Unsupported for a store whose own material is sealed under the root key."""
    if registry.backend_class(store.kind).needs_root_key:
        raise Unsupported(
            f"{store.name} is itself sealed under the root key, so it can't hold it. "
            "Name a key store elsewhere: an HSM, Vault or OpenBao, or a cloud's."
        )


def bound(root_id: str, algorithm: str) -> bytes:
    """Return what is authenticated beside a wrapped root key: its id, where the algorithm can."""
    able = [spec for spec in SPECS.values() if algorithm in spec.algorithms]
    if not able:
        raise BackendError(f"The root key {root_id} names an algorithm that there isn't.")
    return b"" if able[0].asymmetric else _AAD + root_id.encode()


def unwrap(row: RootKey) -> Secret:
    """Have the store open a root key, and check that it is the one. Raises as present() does."""
    store, there = holder(row.store_id)
    aad = bound(row.id, row.algorithm)
    try:
        raw = there.decrypt(row.handle, row.algorithm, bytes(row.wrapped), aad)
    except NoMaterial:
        raise Unavailable(
            f"The key store {store.name} no longer has the key that holds the root key."
        ) from None
    except CannotDecrypt:
        raise _not_ours(row) from None
    except Unavailable:
        raise
    except KeyServiceError as error:
        raise Unavailable(
            f"The key store {store.name} does not open the root key: {error.detail}"
        ) from None
    key = Secret(raw)
    if len(key) != KEY_BYTES or sealing.root_key_id(key).hex() != row.id:
        raise _not_ours(row)
    return key


def _of(row: RootKey) -> Secret:
    key = _at_hand(row.id)
    return _opened_once(row) if key is None else key


def _at_hand(root_id: str) -> Secret | None:
    """Return a root key that needs no store: opened before, or in the file."""
    found = _opened.get(root_id)
    if found is not None or not sealing.root_key_exists():
        return found
    try:
        key = sealing.root_key()
    except Unavailable:
        return None
    return key if sealing.root_key_id(key).hex() == root_id else None


def _opened_once(row: RootKey) -> Secret:
    with _lock:
        flight = _flights.get(row.id)
        first = flight is None
        if flight is None:
            flight = _flights[row.id] = Future()
    if not first:
        return flight.result()
    try:
        key = _trusted(row)
        remember(row.id, key)
        flight.set_result(key)
    except BaseException as error:
        flight.set_exception(error)
        raise
    finally:
        with _lock:
            _flights.pop(row.id, None)
    return key


def _trusted(row: RootKey) -> Secret:
    """Open a root key that the log knows of.

    The id alone would not do: whoever writes into this table can choose a root key, and wrap it
    under a public key, or under a key of their own that the store lets the console use.
    """
    if not log.knows(row):
        raise succession.unknown(row)
    return unwrap(row)


def _not_ours(row: RootKey) -> BackendError:
    return BackendError(
        f"What the key store opened is not the root key {row.id}: the row was changed, or wrapped "
        "by somebody else."
    )
