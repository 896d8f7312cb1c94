"""Which root key seals: the one that the log says was made last, and its row, that takes over from it.

A new root key's row is written before its entry. The entry decides; the rows follow it, moved by
whoever sees it first. So a row that is put back, or moved by hand, changes nothing.
"""

from __future__ import annotations

import logging

from django.db import DatabaseError, IntegrityError, transaction

from keys import sealing
from keys.backends.software.models import RootKey
from keys.errors import BackendError, BackendUnavailable, Unavailable
from keys.root_keys import log, rows
from keys.root_keys.rows import RootState

logger = logging.getLogger(__name__)


def sealing_row() -> RootKey | None:
    """Return the row of the root key that seals; None where the file's does, since no store ever held one.

    Raises Unavailable where the row that the log names is not there, or not current, and
    BackendError where the log knows nothing of the one that is: never is another taken in its place.
    """
    row, newest = rows.current(), log.newest()
    if row is not None and row.id != newest and newest:
        # Told, and not yet taken over by whoever told: it is done here.
        row = _taken_over(newest) or row
    elif row is None and newest:
        row = _taken_over(newest)
    if not newest or (row is not None and row.id == newest):
        return row
    if row is not None and not log.knows(row):
        raise unknown(row)
    raise Unavailable(
        f"The log says that the root key {newest} seals, and the material database says otherwise: it "
        "is older, or was changed by hand. Put both databases back as of the same time, or rotate the "
        "root key."
    )


def take_over(made: RootKey) -> None:
    """Let a root key that the log tells of seal; what sealed until now begins to retire. Safe to repeat.

    One that another was told after only opens what it sealed. Raises Unavailable where another took
    over at the same time.
    """
    own = file_root()
    try:
        with transaction.atomic(using=rows.alias()):
            before = rows.current()
            if log.newest() != made.id:
                rows.move(made, RootState.RETIRING, retired_at=None)
                return
            if before is not None:
                rows.move(before, RootState.RETIRING)
            elif own and own != made.id:
                rows.note_file_root(own)
            rows.move(made, RootState.CURRENT, retired_at=None)
    except IntegrityError:
        raise BackendUnavailable("Another root key took over at the same time.") from None


def follow_the_log() -> None:
    """Let every root key take over that was told and has not, for the sweep. Raises Unavailable."""
    for row in rows.written():
        if log.knows(row):
            take_over(row)


def file_root() -> str:
    """Return the id of the root key in the file or the variable, or "" where there is none to read."""
    try:
        return sealing.root_key_id(sealing.root_key()).hex()
    except Unavailable:
        return ""


def unknown(row: RootKey) -> BackendError:
    return BackendError(
        f"The log does not say that {row.id} was made here and is held like this. Where a "
        "backup was put back, put both databases back as of the same time."
    )


def _taken_over(newest: str) -> RootKey | None:
    made = rows.written().filter(pk=newest).first()
    if made is None or not log.knows(made):
        return None
    try:
        take_over(made)
    except (DatabaseError, BackendUnavailable):
        logger.info("Another process was quicker with a root key.")
    return rows.current()
