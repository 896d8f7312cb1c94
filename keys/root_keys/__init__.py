"""Root keys: which one seals the software store's material, who holds each, and their rotation.

A new house begins with a root key in a file or a variable (keys.sealing). Any other key store can
hold it instead: then a row of RootKey has it wrapped by a key in that store, and each process opens
it there on first use. Rotating makes a new one, which seals from then on; a job seals anew what the
old one sealed, and then destroys the key that held it. docs/adr/0010 says why.
"""

from __future__ import annotations

import logging
import time
import uuid

from django.db import DatabaseError, IntegrityError

from keys.backends.software.models import RootKey
from keys.errors import KeyServiceError, LogUnavailable
from keys.models import KeyStore
from keys.root_keys import log, making, opening, resealing, rows, succession
from keys.root_keys.overview import Overview, Root, overview, standing
from keys.stores import places_like

__all__ = [
    "Overview",
    "Root",
    "check_ready",
    "held_by_store",
    "holders",
    "holds_a_root_key",
    "is_to_hold_one",
    "overview",
    "standing",
    "tidy",
]

logger = logging.getLogger(__name__)
SECONDS = 20.0


def check_ready() -> None:
    """Open the root key that seals, where this process hasn't yet.

    Raises Unavailable or BackendError, saying what is wrong.
    """
    opening.present()


def held_by_store() -> bool:
    """Whether a key store holds the root key that seals. Raises Unavailable."""
    return bool(log.newest()) or rows.current() is not None


def tidy(seconds: float = SECONDS) -> None:
    """Go on with whatever is under way: root keys to be made, material to be sealed anew, old ones to end.

    For every sweep, and right after a change; stops starting new chunks after `seconds`. Safe in
    several processes at once. What fails is told by the log and by entries, never raised; what has
    to wait goes on with the next sweep.
    """
    until = time.monotonic() + seconds
    try:
        log.take_up_lost_intents()
        succession.follow_the_log()
        for intent in rows.intents():
            try:
                making.go_on(intent)
            except LogUnavailable:
                raise
            except KeyServiceError as error:
                logger.warning("A root key was not made: %s", error.detail)
        resealing.go_on(until)
    except IntegrityError:
        logger.info("Another process was quicker with a root key.")
    except (KeyServiceError, DatabaseError) as error:
        logger.warning("Root keys wait for the next sweep: %s", type(error).__name__)


def holds_a_root_key(store_id: uuid.UUID) -> bool:
    """Whether software keys can't be opened without this store: it must not be switched off."""
    return any(store == store_id for store, _ in _held())


def is_to_hold_one(store_id: uuid.UUID) -> bool:
    """Whether a root key is being made that this store is to hold: officers agreed to where it is."""
    return RootKey.objects.filter(store_id=store_id, pk__in=rows.intents()).exists()


def holders() -> set[tuple[uuid.UUID, str]]:
    """Return (store, handle) of every key that holds a root key: not to be adopted, nor destroyed.

    Under each key store that leads to the same keys: a second one hides nothing.
    """
    held = _held()
    stores = {row.id: places_like(row) for row in KeyStore.objects.filter(pk__in=dict(held))}
    return held | {(like.id, handle) for store, handle in held for like in stores.get(store, ())}


def _held() -> set[tuple[uuid.UUID, str]]:
    held = RootKey.objects.exclude(store_id=rows.NOWHERE).exclude(handle="")
    return set(held.values_list("store_id", "handle"))
