"""Failed authentications: one entry per source, door, reason and minute, with a count.

So nobody outside can fill the log, nor can an application that is refused as fast as it can ask.
They are counted in memory; `flush` writes them.
"""

from __future__ import annotations

import atexit
import ipaddress
import logging
import os
import threading
import time
from dataclasses import dataclass

from django.db import connections, transaction

from audit import guard
from audit.events import Actor, Event, Outcome, Personal, Subject
from audit.writer import append

log = logging.getLogger(__name__)

# What is beyond so many different (source, door, reason) between two flushes shares one bucket.
DISTINCT_LIMIT = 1000
OTHERS = "(others)"
FLUSH_SECONDS = 60.0
MINUTE = 60


@dataclass(slots=True)
class _Count:
    number: int
    first: float
    last: float


# minute, source, door, reason; and who, where that is known: kind, id, name, method
_Key = tuple[int, str, str, str, str, str, str, str]
NOBODY = ("unknown", "", "", "none")

_lock = threading.Lock()
_flushing = threading.Lock()
_counts: dict[_Key, _Count] = {}
_stop = threading.Event()
_thread: threading.Thread | None = None


def note(source: str, door: str, reason: str, at: float | None = None) -> None:
    """Count one refusal of `source` (a network address) at `door`; `at` is in seconds.

    `reason` is a word of ours, never text from the request.
    """
    _note((_network(source), door, reason, *NOBODY), at)


def note_known(actor: Actor, method: str, door: str, reason: str, at: float | None = None) -> None:
    """Count one refusal of somebody who is known and no person, wherever it came from."""
    _note(("", door, reason, actor.kind, actor.id, str(actor.name), method), at)


def _note(what: tuple[str, str, str, str, str, str, str], at: float | None) -> None:
    at = time.time() if at is None else at
    with _lock:
        _add((int(at) // MINUTE, *what), _Count(1, at, at))
        _start()


def _network(source: str) -> str:
    """Return the /64 of an IPv6 address: whoever has one has them all. Others stay what they are."""
    try:
        address = ipaddress.ip_address(source)
    except ValueError:
        return source
    if address.version == 4:
        return source
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return f"{ipaddress.IPv6Address(int(address) >> 64 << 64)}/64"


def flush(now: float | None = None) -> int:
    """Write the minutes that are over at `now` (seconds), everything where None.

    Returns the number of entries. Where the log can't be written, what was counted is kept for
    the next flush and the error is raised. Not for use inside a transaction.
    """
    with _flushing:
        taken = _take(now)
        if not taken:
            return 0
        try:
            guard.ready()
            with transaction.atomic(durable=True):
                append([_event(key, count) for key, count in sorted(taken.items())])
        except BaseException:
            with _lock:
                for key, count in taken.items():
                    _add(key, count)
            raise
        return len(taken)


def forget() -> None:
    """Drop what is counted, unwritten, once no flush is under way: for tests."""
    with _flushing, _lock:
        _counts.clear()


def _add(key: _Key, more: _Count) -> None:
    count = _counts.get(key)
    if count is None and len(_counts) >= DISTINCT_LIMIT:
        key = (key[0], OTHERS, OTHERS, OTHERS, *NOBODY)
        count = _counts.get(key)
    if count is None:
        _counts[key] = more
        return
    count.number += more.number
    count.first = min(count.first, more.first)
    count.last = max(count.last, more.last)


def _take(now: float | None) -> dict[_Key, _Count]:
    with _lock:
        over = [key for key in _counts if now is None or key[0] < int(now) // MINUTE]
        return {key: _counts.pop(key) for key in over}


def _event(key: _Key, count: _Count) -> Event:
    _, source, door, reason, kind, identity, name, method = key
    return Event(
        actor=Actor(kind, identity, name),
        method=method,
        door=door,
        action="refused_request" if identity else "authenticate",
        object=Subject("door", door),
        outcome=Outcome.DENIED,
        reason=reason,
        # Who it was nobody knows, but an address may be a person's.
        source=source if source in ("", OTHERS) else Personal(source),
        facts={
            "count": count.number,
            "from": int(count.first * 1_000_000),
            "to": int(count.last * 1_000_000),
        },
    )


def _start() -> None:
    """Start the thread that flushes, once per process; called under the lock."""
    global _thread
    if _thread is None:
        _thread = threading.Thread(target=_run, name="audit-refusals", daemon=True)
        _thread.start()


def _run() -> None:
    while not _stop.wait(FLUSH_SECONDS):
        try:
            flush(time.time())
        except Exception:
            log.exception("Refusals can't be written to the audit log now; they are kept.")
        finally:
            connections.close_all()


def _at_exit() -> None:
    _stop.set()
    try:
        flush()
    except Exception:
        log.exception("Refusals could not be written to the audit log at exit.")


def _after_fork() -> None:
    global _lock, _flushing, _thread
    _lock, _flushing, _thread = threading.Lock(), threading.Lock(), None
    _counts.clear()  # they are the parent's to write


os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
