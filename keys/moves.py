"""What a change did to states, for its entry: so that an auditor can replay every key's life.

keys.lifecycle tells of each state that it writes, a signal of each key and version that is made.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from django.db.models.signals import post_save

from keys.models import Key, KeyVersion

_collected: ContextVar[list[dict[str, Any]] | None] = ContextVar("moves", default=None)


@contextmanager
def collected() -> Iterator[list[dict[str, Any]]]:
    """Collect the moves that the block makes: key, version (None: the key itself), from, to.

    `from` is "" where the key or version was made.
    """
    moves: list[dict[str, Any]] = []
    token = _collected.set(moves)
    try:
        yield moves
    finally:
        _collected.reset(token)


def note(key_id: uuid.UUID, version: int | None, before: str, after: str) -> None:
    """Say that a state was written; outside `collected` nobody asks."""
    moves = _collected.get()
    if moves is not None:
        moves.append({"key": str(key_id), "version": version, "from": before, "to": after})


def _made_key(sender: object, instance: Key, created: bool, **kwargs: Any) -> None:
    if created:
        note(instance.id, None, "", instance.state)


def _made_version(sender: object, instance: KeyVersion, created: bool, **kwargs: Any) -> None:
    if created:
        note(instance.key_id, instance.number, "", instance.state)


post_save.connect(_made_key, sender=Key, dispatch_uid="keys.moves.key")
post_save.connect(_made_version, sender=KeyVersion, dispatch_uid="keys.moves.version")
