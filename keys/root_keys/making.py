"""Letting a key store hold a root key: the one that a file held until now, or a new one.

The intent is a row before the store is asked, and the holder's key is made there under a label that
follows from the intent, so a second try after a crash finds what the first one left. The root key's own
row is written before the entry that ends the intent; the entry decides. No transaction is open while
a store is asked.
"""

from __future__ import annotations

import os
import uuid
from contextlib import suppress
from datetime import timedelta
from typing import Any

from django.db import IntegrityError, transaction

from audit.events import Outcome
from keys import clock, sealing
from keys.actions import Action
from keys.algorithms import ALGORITHMS, SPECS, Usage
from keys.backends.base import Backend, Capabilities, Material, Parent
from keys.backends.proof import check_material
from keys.backends.software.models import RootKey
from keys.errors import (
    BackendError,
    BackendUnavailable,
    Conflict,
    KeyServiceError,
    StillWaiting,
    Unavailable,
    Unsupported,
)
from keys.models import KeyStore
from keys.primitives.xaes import KEY_BYTES
from keys.root_keys import log, opening, rows, succession
from keys.root_keys.rows import RootState
from keys.secret import Secret

# Symmetric first: it binds the root key's id, and nobody outside the store can wrap.
HOLDERS = ("AES_256", "RSA_4096", "RSA_3072", "RSA_2048")
# A store that was away is asked again after this.
PAUSE = timedelta(seconds=15)
# A store that stays away this long is given up on; somebody can ask again.
PATIENCE = timedelta(days=1)


def go_on(intent: str) -> None:
    """Take what was asked for as far as it goes. Safe to repeat; an intent is good once.

    Where the store can't be reached the row waits for another time. Raises what it failed with for
    good, after its entry is left and the holder's key taken back.
    """
    row = rows.claim(intent, RootState.MAKING)
    if row is None:
        return
    asked = log.asked(row)
    if log.ended(intent) or not asked:
        # The process ended before the row was removed; or nobody who may has asked for this.
        _finish(row)
        return
    try:
        made, root = _made(row, asked)
        if _written(row, made) and log.end(
            action_of(intent), intent, made.id, log.MADE, _told(made)
        ):
            opening.remember(made.id, root)
            succession.take_over(made)
        if log.ended(intent):
            _finish(row)
    except KeyServiceError as error:
        if isinstance(error, Unavailable) and clock.now() < row.created_at + PATIENCE:
            rows.put_off(row, clock.now() + _pause(error))
        elif _given_up(row, error):
            raise


def recognise(agreed: dict[str, Any]) -> None:
    """Tell of the one root key that officers recognised, held as they saw it, where its store opens it.

    Raises Conflict where the row, or where its store is, is another by now.
    """
    row = RootKey.objects.filter(pk=agreed["root_key"], state=RootState.CURRENT).first()
    if row is None or rows.holder_digest(row) != agreed["holder_sha256"]:
        raise Conflict("The root key is not held as it was when officers agreed; ask again.")
    _as_asked(row, agreed)
    opening.unwrap(row)
    log.tell(Action.HOLD_ROOT_KEY, row.id, log.MADE, {**_told(row), "intent": ""}, again=True)


def holder_spec(able: Capabilities) -> tuple[str, str]:
    """Return the spec and the algorithm of the key that is to hold a root key. Raises Unsupported."""
    offered = [
        (spec, name)
        for spec in HOLDERS
        for name in SPECS[spec].algorithms_for(Usage.ENCRYPT_DECRYPT, able.algorithms.get(spec, ()))
    ]
    # SHA-1 is sound in OAEP, but nobody wants to explain it: only where there is nothing else.
    for spec, name in sorted(offered, key=lambda one: ALGORITHMS[one[1]].legacy):
        return spec, name
    raise Unsupported("This key store encrypts neither with AES-256 nor with RSA-OAEP.")


def action_of(intent: str) -> Action:
    holds = intent.startswith(rows.HOLD)
    return Action.HOLD_ROOT_KEY if holds else Action.ROTATE_ROOT_KEY


def _pause(error: KeyServiceError) -> timedelta:
    asked = getattr(error, "retry_after", None) or 0.0
    return max(PAUSE, timedelta(seconds=min(float(asked), 3600.0)))


def _made(row: RootKey, asked: dict[str, Any]) -> tuple[RootKey, Secret]:
    """Return the row of a root key that a key at the store holds, proved, and the root key.

    Raises Conflict where the store is not the one, or not where, that officers agreed to.
    """
    there = _as_asked(row, asked)
    holds = row.id.startswith(rows.HOLD)
    if holds and (rows.current() is not None or log.newest()):
        raise Conflict("A key store holds the root key already.")
    spec, algorithm = holder_spec(there.capabilities())
    material = _holder_key(there, row, spec, algorithm)
    rows.note_handle(row, material.handle)
    check_material(there, material, spec, Usage.ENCRYPT_DECRYPT, algorithm)
    root = sealing.root_key() if holds else Secret(os.urandom(KEY_BYTES))
    root_id = sealing.root_key_id(root).hex()
    if holds and root_id != asked.get("root_key"):
        raise Conflict("The root key of this host is not the one that officers agreed to.")
    if _holds_any(row.store_id, material.handle):
        raise Conflict("The key at the store holds another root key already.")
    aad = opening.bound(root_id, algorithm)
    made = RootKey(
        id=root_id,
        wrapped=there.encrypt(material.handle, algorithm, root.reveal(), aad),
        store_id=row.store_id,
        handle=material.handle,
        algorithm=algorithm,
        state=RootState.MAKING,
    )
    if holds and (before := _wrapped_before(made, root)) is not None:
        return before, root
    if opening.unwrap(made) != root:
        raise BackendError("The key store does not give back the root key that it wrapped.")
    return made, root


def _holder_key(there: Backend, row: RootKey, spec: str, algorithm: str) -> Material:
    label, parent = _named(row, algorithm)
    found = there.find(label, parent)
    if found is not None:
        return found
    return there.generate(label, spec, usage=Usage.ENCRYPT_DECRYPT, parent=parent)


def _named(row: RootKey, algorithm: str = "") -> tuple[uuid.UUID, Parent]:
    label = rows.label_of(row.id)
    return label, Parent(label, "root key", algorithm)


def check_is_as_asked(store: KeyStore, asked: dict[str, Any]) -> None:
    """Raise Conflict where a key store is elsewhere, or is reached otherwise, than was asked for."""
    if any(asked.get(name) != value for name, value in rows.place(store).items()):
        raise Conflict(
            f"The key store {store.name} was changed since this was asked for: its kind, settings or "
            "credentials are others. Ask again."
        )


def _as_asked(row: RootKey, asked: dict[str, Any]) -> Backend:
    """Return the holder's backend, asked only where officers agreed to. Raises Conflict, Unavailable."""
    check_is_as_asked(opening.holder_row(row.store_id), asked)
    return opening.holder(row.store_id)[1]


def _told(made: RootKey) -> dict[str, str]:
    """Return what the log says of who holds it, and how: before it seals, since no other is opened."""
    store = KeyStore.objects.filter(pk=made.store_id).first()
    return {
        "key_store": store.name if store else str(made.store_id),
        "handle": made.handle,
        "algorithm": made.algorithm,
        "holder_sha256": rows.holder_digest(made),
    }


def _written(row: RootKey, made: RootKey) -> bool:
    """Write the new root key's row, before its entry; whether the claim of its intent still holds.

    What was told is then never without its row, whoever of two workers tells.
    """
    if not rows.renew(row):
        return False
    if RootKey.objects.filter(pk=made.pk, handle=made.handle, wrapped=made.wrapped).exists():
        return True
    try:
        with transaction.atomic(using=rows.alias()):
            made.save(force_insert=True)
    except IntegrityError:
        raise BackendUnavailable("The root key's row is there already.") from None
    return True


def _wrapped_before(made: RootKey, root: Secret) -> RootKey | None:
    """Return the row of the same root key that an earlier try wrote: another wrapping could be told of it."""
    before = rows.written().filter(pk=made.pk).first()
    if before is None:
        return None
    with suppress(BackendError):
        there = (before.store_id, before.handle) == (made.store_id, made.handle)
        if there and opening.unwrap(before) == root:
            return before
    before.delete()  # not written here
    return None


def _finish(row: RootKey) -> None:
    """Be done with an intent that has its end, or that nobody asked for; what was made besides goes."""
    asked = log.asked(row)
    try:
        if asked and log.told(row.id, log.FAILED):
            _take_back(row, asked)
    except Unavailable:
        rows.put_off(row, clock.now() + PAUSE)
        return
    if asked and row.handle:
        for made in rows.written().filter(store_id=row.store_id, handle=row.handle):
            if not log.knows(made):
                made.delete()
    RootKey.objects.filter(pk=row.pk, state=RootState.MAKING).delete()


def _given_up(row: RootKey, error: KeyServiceError) -> bool:
    """End it for good: the failure is told, the holder's key destroyed, the row removed.

    Where the store can't be reached for that, the row waits for it. Where somebody else has claimed
    the row meanwhile, or has come further, nothing is touched: then it has not failed.
    """
    if not rows.renew(row):
        return False
    action, told = action_of(row.id), {"error": error.detail}
    failed = log.end(action, row.id, row.id, log.FAILED, told, Outcome.FAILED, error.code)
    _finish(row)
    return failed


def _take_back(row: RootKey, asked: dict[str, Any]) -> None:
    """Destroy the key that was made for what failed, only where officers agreed to, and if it holds nothing."""
    try:
        there = _as_asked(row, asked)
        found = there.find(*_named(row))
        if found is not None and not _holds_any(row.store_id, found.handle):
            there.destroy(found.handle)
    except (StillWaiting, Unsupported, Conflict):
        return  # the store has begun, or never had one, or is elsewhere now


def _holds_any(store_id: uuid.UUID, handle: str) -> bool:
    """Whether any root key was ever told to be held by a key: a stray one is better than one too few."""
    held = RootKey.objects.exclude(state=RootState.MAKING).filter(store_id=store_id, handle=handle)
    return held.exists() or log.names_holder(opening.holder_row(store_id), handle)
