"""What is built beside the log while it grows: tiles, the search index; and the streams' deliveries.

One process does it (`manage.py trail`); a second one does no harm. All of it follows from the
entries, so that nothing is lost where it ends at any moment.
"""

from __future__ import annotations

import logging
import threading
import time

from django.db import Error, InterfaceError, close_old_connections, connections

from audit import exports, index, streams, tiles
from audit.store import read_head

log = logging.getLogger(__name__)

# How long it rests where there is nothing to do, and where the database can't be reached.
REST_SECONDS = 1.0
OUTAGE_SECONDS = 5.0
TIDY_SECONDS = 3600.0
# Done in one go, so that neither waits long for the other.
TILES = 256
BLOCKS = 16
# A block's words are many short lists, of which nothing is a cycle: looking for cycles in between
# (gc.set_threshold, of the process that keeps) would take as long as the work itself.
GC_THRESHOLD = 500_000
# What isn't indexed is looked at entry by entry; so much of it is normal.
NORMAL = 2 * index.BLOCK


def work(using: str = "default") -> bool:
    """Do what there is to do now, some seconds of it at most; tell whether anything was done.

    Raises django.db.Error where the database can't be reached.
    """
    built = tiles.build(using, limit=TILES)
    indexed = index.build(using, limit_blocks=BLOCKS)
    return bool(built or indexed)


def run(stop: threading.Event, using: str = "default") -> None:
    """Work until `stop` is set, whatever becomes of the database meanwhile."""
    deliveries = threading.Thread(target=streams.deliver_all, args=(stop,), name="streams")
    deliveries.start()
    try:
        _build_until(stop, using)
    finally:
        stop.set()
        deliveries.join()


def _build_until(stop: threading.Event, using: str) -> None:
    reached, tidied = True, float("-inf")
    while not stop.is_set():
        try:
            busy = work(using)
            if not busy and time.monotonic() - tidied > TIDY_SECONDS:
                exports.forget_old(using)
                tidied = time.monotonic()
        except (Error, InterfaceError) as error:
            if reached:
                log.error("The audit trail's index waits: %s", type(error).__name__)
            reached = False
            _disconnect(using)
            stop.wait(OUTAGE_SECONDS)
            continue
        if not reached:
            log.warning("The audit trail's index is built again.")
        reached = True
        if not busy:
            close_old_connections()
            stop.wait(REST_SECONDS)
    _disconnect(using)


def _disconnect(using: str) -> None:
    """Drop the connection; the next use opens a new one."""
    try:
        connections[using].close()
    except Error as error:
        log.debug("Closing a broken connection failed: %s", type(error).__name__)
        connections[using].connection = None


def trouble(using: str = "default") -> str:
    """Return in a sentence what keeps this from being current, or "". Raises django.db.Error."""
    if fault := index.fault(using):
        return fault
    size = read_head(connections[using]).size
    covered = index.indexed(using)
    waiting = size - covered
    if waiting <= NORMAL:
        return ""
    if covered == 0:
        return "It was never seen at work: start “manage.py trail”."
    return (
        f"It is {waiting:,} entries behind: searching the audit trail is slow until it caught up."
    )
