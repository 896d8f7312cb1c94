"""Rows of RootKey: their states, moved by compare-and-set, and what stands in them meanwhile.

A root key's life: asked for (`making`, under an intent's id, since the root itself is not there yet),
wrapped and proved (`making`, under its own id), `current` once the log tells of it; later `retiring`
until nothing is sealed under it any more, and `retired`. `retired_at` is also the lease: until then
whoever claimed the row is at work on it.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from django.conf import settings
from django.db import DatabaseError, router
from django.db.models import Q, QuerySet

from keys import clock
from keys.backends.software.models import RootKey
from keys.errors import Unavailable
from keys.models import KeyStore


class RootState(StrEnum):
    """Where a root key stands. Only `current` seals; `current`, `retiring` and `retired` open."""

    MAKING = "making"
    CURRENT = "current"
    RETIRING = "retiring"
    RETIRED = "retired"


# The store of a root key that only a file or the variable holds, and what its handle says.
NOWHERE = uuid.UUID(int=0)
FILE = "file"
# Intents are told from root keys' ids, which are hexadecimal, by how they begin.
HOLD, NEW = "hold-", "new-"
_LABELS = uuid.UUID("6c1f9d1e-6a4b-4c0e-9d2a-0c8f5f7a3b10")
_GONE = "The material database can't be reached."


def alias() -> str:
    """Return the name of the database that the rows are in."""
    return router.db_for_write(RootKey)


def new_intent(prefix: str) -> str:
    """Return an id for a root key that is asked for; `prefix`: HOLD or NEW."""
    return prefix + os.urandom(6).hex()[: 16 - len(prefix)]


def label_of(intent: str) -> uuid.UUID:
    """Return the label under which the holder's key is made at the store, the same after a crash."""
    return uuid.uuid5(_LABELS, intent)


def current() -> RootKey | None:
    """Return the row that seals, or None where a file's root key does. Raises Unavailable."""
    try:
        return RootKey.objects.filter(state=RootState.CURRENT).first()
    except DatabaseError:
        raise Unavailable(_GONE) from None


def named(root_id: str) -> RootKey | None:
    """Return a root key that a key store holds and that may be opened. Raises Unavailable."""
    rows = RootKey.objects.exclude(state=RootState.MAKING).exclude(store_id=NOWHERE)
    try:
        return rows.filter(pk=root_id).first()
    except DatabaseError:
        raise Unavailable(_GONE) from None


def written() -> QuerySet[RootKey]:
    """Return the rows of root keys that are made and wrapped, and have not taken over yet."""
    intents = Q(id__startswith=HOLD) | Q(id__startswith=NEW)
    return RootKey.objects.filter(state=RootState.MAKING).exclude(intents)


def intents() -> list[str]:
    """Return the ids of what is asked for and has no root key yet."""
    made = written().values("id")
    waiting = RootKey.objects.filter(state=RootState.MAKING).exclude(id__in=made)
    return list(waiting.order_by("created_at").values_list("id", flat=True))


def place(store: KeyStore) -> dict[str, Any]:
    """Return where a key store is and how it is reached, as officers see it: no secret is in it."""
    return {
        "id": str(store.id),
        "kind": store.kind,
        "settings": store.settings,
        "credentials": store.credentials,
    }


def write_intent(intent: str, store_id: uuid.UUID) -> None:
    """Write down what was asked for, once, whoever of two writes it."""
    row = RootKey(id=intent, wrapped=b"", store_id=store_id, state=RootState.MAKING)
    RootKey.objects.bulk_create([row], ignore_conflicts=True)


def note_file_root(root_id: str) -> None:
    """Write down that a root key which only a file holds is being replaced."""
    row = RootKey(id=root_id, wrapped=b"", store_id=NOWHERE, handle=FILE, state=RootState.RETIRING)
    RootKey.objects.bulk_create([row], ignore_conflicts=True)


def claim(root_id: str, state: RootState) -> RootKey | None:
    """Take a row in this state for the length of a lease, by compare-and-set; None where somebody else has it."""
    now = clock.now()
    lease = now + timedelta(seconds=settings.JOB_LEASE_SECONDS)
    free = RootKey.objects.filter(pk=root_id, state=state).filter(
        Q(retired_at=None) | Q(retired_at__lte=now)
    )
    if not free.update(retired_at=lease):
        return None
    return RootKey.objects.filter(pk=root_id, retired_at=lease).first()


def renew(row: RootKey) -> bool:
    """Begin a claim's lease anew; False where somebody else has claimed the row since."""
    lease = clock.now() + timedelta(seconds=settings.JOB_LEASE_SECONDS)
    mine = RootKey.objects.filter(pk=row.pk, retired_at=row.retired_at)
    if not mine.update(retired_at=lease):
        return False
    row.retired_at = lease
    return True


def note_handle(row: RootKey, handle: str) -> None:
    """Write down which key is being made to hold a root key, where the claim still holds."""
    row.handle = handle
    RootKey.objects.filter(pk=row.pk, retired_at=row.retired_at).update(handle=handle)


def put_off(row: RootKey, until: datetime) -> None:
    """Let go of a claimed row until a time; what somebody else claimed since stays theirs."""
    RootKey.objects.filter(pk=row.pk, retired_at=row.retired_at).update(retired_at=until)


def move(row: RootKey, to: RootState, **more: object) -> bool:
    """Move a row, as it was read, to another state; whether it was still as it was read."""
    changes = {"state": to, **more}
    same = RootKey.objects.filter(pk=row.pk, state=row.state, retired_at=row.retired_at)
    if not same.update(**changes):
        return False
    for column, value in changes.items():
        setattr(row, column, value)
    return True


def holder_digest(row: RootKey) -> str:
    """Return SHA-256, in hex, of who holds a root key and how: what the log says of it.

    A row that somebody else wrote has another one, so it is refused (keys.root_keys.opening).
    """
    told = [str(row.store_id), row.handle, row.algorithm, bytes(row.wrapped).hex()]
    return hashlib.sha256("\n".join(told).encode()).hexdigest()
