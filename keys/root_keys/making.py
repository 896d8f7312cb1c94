"""Letting a key store hold a root key: the one that a file held until now, or a new one.

The intent is a row before the store is asked, and the holder's key is made there under a label that
follows from the intent, so a second try after a crash finds what the first one left. No transaction
is open while a store is asked.
"""

from __future__ import annotations

import os
import uuid
from datetime import timedelta

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
from keys.root_keys import log, opening, rows
from keys.root_keys.rows import RootState
from keys.secret import Secret

# Symmetric first: it binds the root key's id, and nobody outside the store can wrap.
HOLDERS = ("AES_256", "RSA_4096", "RSA_3072", "RSA_2048")
# A store that was away is asked again after this.
PAUSE = timedelta(seconds=15)
# A store that stays away this long is given up on; somebody can ask again.
PATIENCE = timedelta(days=1)


def go_on(intent: str) -> None:
    """Take what was asked for as far as it goes. Safe to repeat.

    Where the store can't be reached the row waits for another time. Raises what it failed with for
    good, after its entry is left and the holder's key taken back.
    """
    row = rows.claim(intent, RootState.MAKING)
    if row is None:
        return
    if log.told(intent, log.FAILED) or not log.asked(row):
        # The process ended before the row was removed; or nobody who may has asked for this.
        row.delete()
        return
    try:
        made, root = _made(row)
        _tell_made(made, action_of(intent), intent)
        _take_over(row, made, root)
    except KeyServiceError as error:
        if isinstance(error, Unavailable) and clock.now() < row.created_at + PATIENCE:
            rows.put_off(row, clock.now() + _pause(error))
        elif _given_up(row, error):
            raise


def recognise(store_id: uuid.UUID) -> None:
    """Tell of root keys that a store holds and the log doesn't know, where the store opens them."""
    unknown = RootKey.objects.filter(store_id=store_id).exclude(state=RootState.MAKING)
    # The one that seals last: what was told last is what is never destroyed.
    for row in sorted(unknown.exclude(wrapped=b""), key=lambda row: row.state == RootState.CURRENT):
        if not log.knows(row):
            opening.unwrap(row)
            _tell_made(row, Action.HOLD_ROOT_KEY, "")


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


def _made(row: RootKey) -> tuple[RootKey, Secret]:
    """Return the row of a root key that a key at the store holds, proved, and the root key."""
    store, there = opening.holder(row.store_id)
    holds = row.id.startswith(rows.HOLD)
    if holds and rows.current() is not None:
        raise Conflict("A key store holds the root key already.")
    spec, algorithm = holder_spec(there.capabilities())
    material = _holder_key(there, row, spec, algorithm)
    check_material(there, material, spec, Usage.ENCRYPT_DECRYPT, algorithm)
    root = sealing.root_key() if holds else Secret(os.urandom(KEY_BYTES))
    root_id = sealing.root_key_id(root).hex()
    aad = opening.bound(root_id, algorithm)
    made = RootKey(
        id=root_id,
        wrapped=there.encrypt(material.handle, algorithm, root.reveal(), aad),
        store_id=store.id,
        handle=material.handle,
        algorithm=algorithm,
        state=RootState.CURRENT,
    )
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


def _tell_made(made: RootKey, action: Action, intent: str) -> None:
    """Have the log say who holds it, and how: before it seals, since no other is opened.

    Told again where an earlier try was told and got no further: that one's wrapping is lost.
    """
    store = KeyStore.objects.filter(pk=made.store_id).first()
    told = {
        "key_store": store.name if store else str(made.store_id),
        "handle": made.handle,
        "algorithm": made.algorithm,
        "holder_sha256": rows.holder_digest(made),
        "intent": intent,
    }
    log.tell(action, made.id, log.MADE, told, again=True)


def _take_over(intent: RootKey, made: RootKey, root: Secret) -> None:
    """Let it seal from this moment, where the claim still holds; what sealed until now begins to retire."""
    own = opening.file_root()
    try:
        with transaction.atomic(using=rows.alias()):
            mine = RootKey.objects.filter(pk=intent.pk, retired_at=intent.retired_at)
            if not mine.delete()[0]:
                raise BackendUnavailable("Somebody else is at work on it.")
            before = rows.current()
            if before is not None:
                rows.move(before, RootState.RETIRING)
            elif own and own != made.id:
                rows.note_file_root(own)
            made.save(force_insert=True)
    except IntegrityError:
        raise BackendUnavailable("Another root key took over at the same time.") from None
    opening.remember(made.id, root)


def _given_up(row: RootKey, error: KeyServiceError) -> bool:
    """End it for good: the holder's key is destroyed, the failure told, the row removed.

    Where the store can't be reached for that, the row waits, and all of it is tried again. Where
    somebody else has claimed the row meanwhile, and may have come further, nothing is touched.
    """
    if not rows.renew(row):
        return False
    try:
        _take_back(row)
    except Unavailable:
        rows.put_off(row, clock.now() + PAUSE)
        return False
    told = {"error": error.detail}
    log.tell(action_of(row.id), row.id, log.FAILED, told, Outcome.FAILED, error.code)
    RootKey.objects.filter(pk=row.pk, state=RootState.MAKING).delete()
    return True


def _take_back(row: RootKey) -> None:
    if log.made_by(row.id, action_of(row.id)):
        # It came as far as a root key once: a stray key at the store is better than one too few.
        return
    try:
        _, there = opening.holder(row.store_id)
        found = there.find(*_named(row))
        if found is not None:
            there.destroy(found.handle)
    except (StillWaiting, Unsupported):
        return  # the store has begun, or never had one
