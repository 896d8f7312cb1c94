"""After a rotation: everything sealed anew, then the old root key retired and its holder destroyed.

Chunk by chunk, each row by compare-and-set, so that a crash loses nothing and two workers only share
the work. A row that does not open stays as it is, and keeps the root key that it names.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Iterable
from datetime import timedelta

from django.db import transaction
from django.db.models import Q

from keys import clock
from keys.actions import Action
from keys.backends.base import Backend
from keys.backends.software.models import RootKey, WrappedMaterial
from keys.errors import BackendError, KeyServiceError, StillWaiting, Unavailable
from keys.models import KeyStore
from keys.root_keys import log, opening, rows, seals, succession
from keys.root_keys.rows import RootState
from keys.secret import Secret
from keys.stores import same_place

logger = logging.getLogger(__name__)
CHUNK = 200
# Where a store waits with a destruction and doesn't say until when.
LOOK_AGAIN = timedelta(days=1)


def go_on(until: float) -> None:
    """Seal anew what an old root key sealed, until `time.monotonic()` says so; end what is over."""
    current = rows.current()
    if current is None:
        return
    for root_id in _old_roots(current.id):
        if RootKey.objects.filter(pk=root_id).exists() or succession.file_root() == root_id:
            rows.note_file_root(root_id)
            _seal_anew(root_id, until)
    for row in RootKey.objects.filter(state=RootState.RETIRING):
        _retire(row)
    over = Q(retired_at=None) | Q(retired_at__lte=clock.now())
    for row in RootKey.objects.filter(over, state=RootState.RETIRED).exclude(handle=""):
        _end(row.id)


def _old_roots(current: str) -> list[str]:
    other = WrappedMaterial.objects.exclude(root_id=current)
    return list(other.order_by("root_id").values_list("root_id", flat=True).distinct())


def _seal_anew(root_id: str, until: float) -> None:
    after = uuid.UUID(int=0)
    waiting = WrappedMaterial.objects.filter(root_id=root_id).order_by("label")
    while time.monotonic() < until:
        chunk = list(waiting.filter(label__gt=after)[:CHUNK])
        if not chunk:
            return
        try:
            under = opening.present()
            anew = [found for row in chunk if (found := _anew(row, under)) is not None]
        except Unavailable as error:
            logger.warning("Sealing anew waits: %s", error.detail)
            return
        with transaction.atomic(using=rows.alias()):
            for before, row in anew:
                seals.put(row.label, before, root_id, row)
        after = chunk[-1].label


def _anew(row: WrappedMaterial, under: tuple[str, Secret]) -> tuple[bytes, WrappedMaterial] | None:
    before = bytes(row.wrapped)
    try:
        seals.seal(row, seals.unseal(row), under)
    except BackendError:
        logger.error("The material %s does not open, and can't be sealed anew.", row.label)
        return None
    return before, row


def _retire(row: RootKey) -> None:
    """Let a root key retire under which nothing is sealed any more."""
    if _in_use(row.id):
        return
    if rows.move(row, RootState.RETIRED):
        opening.forget(row.id)
        _end(row.id)


def _in_use(root_id: str) -> bool:
    sealed = WrappedMaterial.objects.filter(root_id=root_id)
    return sealed.exists() or _misfiled(root_id)


def _misfiled(root_id: str) -> bool:
    """Correct rows whose column says otherwise than the blob; whether a blob names this root key."""
    found = False
    every = WrappedMaterial.objects.exclude(root_id=root_id).values_list("label", "wrapped")
    for label, wrapped in every.iterator(chunk_size=1000):
        if bytes(wrapped)[1:9].hex() == root_id:
            WrappedMaterial.objects.filter(pk=label, wrapped=wrapped).update(root_id=root_id)
            found = True
    return found


def _end(root_id: str) -> None:
    """Destroy the key that held a retired root key, and tell; what its store puts off is looked at again."""
    row = rows.claim(root_id, RootState.RETIRED)
    if row is None or not row.handle:
        return
    if row.store_id == rows.NOWHERE:
        log.tell(Action.ROTATE_ROOT_KEY, row.id, log.RETIRED, {"held_by": "file or variable"})
        _note(row, handle="", retired_at=clock.now())
        return
    try:
        store, there = opening.holder(row.store_id)
        if not _may_go(row, store):
            logger.error("The row of the root key %s is not as the console left it.", row.id)
            return
        told = {"key_store": store.name, "handle": row.handle}
        log.tell(Action.ROTATE_ROOT_KEY, row.id, log.RETIRED, told)
        _destroy(row, there, told)
    except KeyServiceError as error:  # the claim runs out, and it is tried again
        logger.warning("The key that held an old root key is not destroyed yet: %s", error.detail)


def _may_go(row: RootKey, store: KeyStore) -> bool:
    """Whether the log agrees: what is destroyed at a store can't be had back from any backup.

    Somebody who writes into this table must not have the console destroy what still holds a root
    key, so neither the state nor the handle is believed alone. A key that any other root key is said
    to be held by, in a row or in a later entry, stays.
    """
    if not log.holder_of(row, store) or log.newest() == row.id or _in_use(row.id):
        return False
    others = RootKey.objects.exclude(pk=row.pk).filter(handle=row.handle)
    return not any(same_place(store, other) for other in _stores_of(others))


def _stores_of(held: Iterable[RootKey]) -> list[KeyStore]:
    return list(KeyStore.objects.filter(pk__in=[row.store_id for row in held]))


def _destroy(row: RootKey, there: Backend, told: dict[str, str]) -> None:
    try:
        there.destroy(row.handle)
    except StillWaiting as waiting:
        until = waiting.until or clock.now() + LOOK_AGAIN
        begun = {**told, "until": until.isoformat()}
        log.tell(Action.ROTATE_ROOT_KEY, row.id, log.DESTRUCTION_BEGUN, begun)
        _note(row, wrapped=b"", retired_at=until)
        return
    log.tell(Action.ROTATE_ROOT_KEY, row.id, log.DESTROYED, told)
    _note(row, handle="", wrapped=b"", retired_at=clock.now())


def _note(row: RootKey, **changes: object) -> None:
    RootKey.objects.filter(pk=row.pk, retired_at=row.retired_at).update(**changes)
