"""The root key: letting a key store hold it, and rotating it."""

from __future__ import annotations

import uuid
from typing import Any

from audit.events import Outcome
from keys import gate, root_keys, sealing, targets
from keys.actions import Action
from keys.backends.software.models import RootKey, WrappedMaterial
from keys.errors import Conflict, Invalid, Unavailable
from keys.gate.changes import Change
from keys.models import KeyStore
from keys.root_keys import log, making, opening, rows
from keys.root_keys.overview import Overview

# Seconds that whoever asks waits for material to be sealed anew; the sweeps do the rest.
AT_ONCE = 5.0


def _name_root_and_holder(change: Change[None], arguments: dict[str, Any]) -> None:
    """Say in what officers vote on where the store is, and which root key it is to hold, or holds how."""
    store = _store(arguments["key_store"])
    row = rows.current()
    if row is not None:
        told = {"root_key": row.id, "holder_sha256": rows.holder_digest(row)}
    else:
        told = {"root_key": sealing.root_key_id(sealing.root_key()).hex()}
    _fill_in(arguments, rows.place(store) | told)


@gate.change(Action.HOLD_ROOT_KEY, on=targets.house, prepare=_name_root_and_holder)
def hold_root_key(
    change: Change[None],
    *,
    key_store: str,
    holder: dict[str, Any] | None = None,
    reason: str = "",
) -> Overview:
    """Let a key store hold the present root key, wrapped by a key made there for it.

    Nothing is sealed anew: it stays the same root key. Once it is current there, the file or the
    variable can be removed from every host, and a process opens it at the store when it starts.
    Returns how root keys stand; where the store can't be reached it goes on by itself later. Where
    a backup of the log was put back that doesn't know of this store's root keys yet, they are
    recognised. Raises Conflict where a store holds it already, Unsupported for a store that is itself
    sealed under it. `holder` is filled in: where the store is, and which root key.
    """
    seen = holder or {}
    store = _holder(key_store, seen)
    row = rows.current()
    if row is not None:
        return _recognise(change, row, store, seen)
    if newest := log.newest():
        raise Conflict(
            f"The log says that a key store holds the root key {newest} already, and the material "
            "database does not have it. Put both databases back as of one time, or rotate the root key."
        )
    _check_is_the_houses(sealing.root_key_id(sealing.root_key()).hex())
    return _intend(change, rows.HOLD, store, seen)


def _name_the_holder(change: Change[None], arguments: dict[str, Any]) -> None:
    """Say in what officers vote on which store will hold the new root key, and where that is."""
    if not arguments["key_store"]:
        arguments["key_store"] = _present_holder()
    _fill_in(arguments, rows.place(_store(arguments["key_store"])))


def _present_holder() -> str:
    row = rows.current()
    if row is None:
        raise Invalid(
            "Only a file or a variable holds the root key. Name the key store that is to hold the "
            "new one: the console writes no root key to a file of any host.",
            field="key_store",
        )
    store = KeyStore.objects.filter(pk=row.store_id).first()
    if store is None:
        raise Unavailable("The key store that holds the root key is not configured here.")
    return store.name


def _fill_in(arguments: dict[str, Any], told: dict[str, Any]) -> None:
    if arguments["holder"] not in (None, told):
        raise Conflict(
            "The key store is not the one, or not where, that was asked for: its settings or credentials "
            "are others now, or it holds another root key. Ask again."
        )
    arguments["holder"] = told


@gate.change(Action.ROTATE_ROOT_KEY, on=targets.house, prepare=_name_the_holder)
def rotate_root_key(
    change: Change[None],
    *,
    key_store: str = "",
    holder: dict[str, Any] | None = None,
    reason: str = "",
) -> Overview:
    """Make a new root key, held by a new key in a key store: the present one's where left out.

    It seals from the moment it is current. What the old one sealed is sealed anew, here as far as
    it goes and by the sweeps after; then the old one is retired, and the key that held it destroyed
    at its store. A root key that only a file holds is replaced by one that the named store holds.
    Returns how root keys stand. Raises Conflict while another is being made. `holder` is filled in:
    where the store is, and how it is reached.
    """
    seen = holder or {}
    return _intend(change, rows.NEW, _holder(key_store, seen), seen)


def _store(reference: Any) -> KeyStore:
    if not isinstance(reference, str) or not reference:
        raise Invalid("key_store must name a key store.", field="key_store")
    store = targets.key_store(reference, {}).row
    opening.check_can_hold(store)
    return store


def _holder(reference: Any, seen: dict[str, Any]) -> KeyStore:
    """Return the key store that is to hold a root key. Raises NotFound, Invalid, Unsupported, Conflict."""
    store = KeyStore.objects.select_for_update().get(pk=_store(reference).pk)
    making.check_is_as_asked(store, seen)
    if not store.enabled:
        raise Conflict(f"The key store {store.name} is switched off.")
    if rows.intents():
        raise Conflict("A root key is being made already; see how it stands.")
    return store


def _check_is_the_houses(own: str) -> None:
    """Raise Conflict where the root key on this host is not the one that material is sealed under."""
    material = WrappedMaterial.objects.all()
    if material.exists() and not material.filter(root_id=own).exists():
        raise Conflict(
            f"The root key of this host, {own}, is not the one that the house's keys are sealed under."
        )


def _intend(change: Change[None], prefix: str, store: KeyStore, seen: dict[str, Any]) -> Overview:
    """Write the intent into the log; its row follows, since no transaction spans both databases."""
    intent = rows.new_intent(prefix)
    change.outcome, change.about = Outcome.STARTED, log.subject(intent)
    change.facts |= {"step": log.ASKED, "key_store": store.name, "holder": seen}
    change.after(lambda: _begin(intent, store.id))
    return root_keys.standing()  # what after() returns takes its place


def _begin(intent: str, store_id: uuid.UUID) -> Overview:
    rows.write_intent(intent, store_id)
    making.go_on(intent)
    root_keys.tidy(AT_ONCE)
    return root_keys.standing()


def _recognise(
    change: Change[None], row: RootKey, store: KeyStore, seen: dict[str, Any]
) -> Overview:
    """Have the log say again what an older copy of it doesn't: that this store holds the root key."""
    if row.store_id != store.id or log.knows(row):
        raise Conflict(
            "A key store holds the root key already. Rotate it to have a new one in another store."
        )
    change.outcome, change.about = Outcome.STARTED, log.subject(row.id)
    change.facts |= {"step": log.RECOGNITION, "key_store": store.name, "holder": seen}
    change.after(lambda: _recognised(seen))
    return root_keys.standing()


def _recognised(seen: dict[str, Any]) -> Overview:
    making.recognise(seen)
    return root_keys.standing()
