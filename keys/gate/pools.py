"""Where a use may wait: rooms of threads with bounded queues, one for each kind of waiting.

An event loop waits for nothing. What has to is handed on: to the room that loads from the database,
to the room of the key's own store, or to the room for work that takes long. So a store that hangs
fills its own room and no other, and who finds a room full is refused at once. A caller that may
wait by itself (a page, a command) is a guest of a slow store, and there are few places for guests:
what pages are served by must not all stand before one store.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from django.conf import settings
from django.db import close_old_connections, connections

from keys.backends import registry
from keys.errors import Busy
from keys.snapshot import StoreFacts

T = TypeVar("T")

LOADING_THREADS = 8
# Keys of this process that are not in memory yet, and those whose algorithms take milliseconds.
LOCAL_THREADS = 8
# Pairs of RSA keys take seconds; more threads than processors would make none of them sooner.
LEISURE_THREADS, LEISURE_QUEUE = 2, 32
# How many uses may wait for a place in a room, for each of its threads.
QUEUE_PER_THREAD = 8
# How many callers that wait by themselves may stand before one slow store, and before all of them:
# of the eight threads that pages have, half and three quarters (kms_console.asgi).
GUESTS, ALL_GUESTS = 4, 6

TOO_MANY = "Too many requests wait for this key's store; try again."
TOO_LATE = "The request waited too long for its key store, which was not asked; try again."


@dataclass(slots=True)
class Place:
    """Where one try of a use runs, and so for what it may wait.

    `on_loop`: for nothing. `loading`: for the database only. `store`: in the room of that store.
    `leisure`: in the room for long work. None of these: the caller waits by itself, as a guest.
    `full`: on a loop, once the room that it needs had no place: it is decided, and refused.
    """

    on_loop: bool = False
    loading: bool = False
    leisure: bool = False
    full: bool = False
    store: uuid.UUID | None = None
    _guest_of: list[uuid.UUID] = field(default_factory=list)

    def ask(self, store: StoreFacts) -> None:
        """Say that a key store is about to be waited for.

        Raises Offload where that has to be elsewhere, Busy where there is no place.
        """
        if self.on_loop or self.loading:
            raise Offload(Place(store=store.id), store)
        if store.id != self.store and store.id not in self._guest_of and is_slow(store):
            _guests.enter(store.id)
            self._guest_of.append(store.id)

    def take_long(self) -> None:
        """Say that what follows takes seconds. Raises Offload where that has to be elsewhere."""
        if self.on_loop or self.loading or self.store is not None:
            raise Offload(Place(leisure=True))

    def leave(self) -> None:
        """Give back what was taken as a guest."""
        while self._guest_of:
            _guests.leave(self._guest_of.pop())


LOOP, LOADING, FULL = Place(on_loop=True), Place(loading=True), Place(on_loop=True, full=True)


class Offload(Exception):
    """This use would wait; an event loop hands it to where it may: to load, where nothing is said."""

    def __init__(self, place: Place = LOADING, store: StoreFacts | None = None) -> None:
        super().__init__()
        self.place, self.store = place, store


def is_slow(store: StoreFacts) -> bool:
    """Whether a key store is another machine or module, which may not answer."""
    kind = registry.KINDS.get(store.kind)
    return kind is not None and kind.workers > 0


class Room:
    """Threads, and a bounded queue before them.

    `patience`: how many seconds a use may wait in the queue; None: as long as it takes.
    """

    def __init__(
        self, name: str, threads: int, queue: int | None = None, patience: float | None = None
    ) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._places = threading.BoundedSemaphore(threads + queue) if queue is not None else None
        self._patience = patience

    async def run(self, call: Callable[[], T]) -> T:
        """Call in a thread of the room. Raises Busy where it is full, or the wait was too long."""
        return await asyncio.wrap_future(self.submit(call))

    def submit(self, call: Callable[[], T]) -> Future[T]:
        """Do the same without an event loop: return the call's future. Raises Busy."""
        if self._places is not None and not self._places.acquire(blocking=False):
            raise Busy(TOO_MANY)
        until = None if self._patience is None else time.monotonic() + self._patience
        future = self._pool.submit(self._in_time, call, until)
        future.add_done_callback(self._release)
        return future

    def _in_time(self, call: Callable[[], T], until: float | None) -> T:
        if until is not None and time.monotonic() >= until:
            raise Busy(TOO_LATE)
        return call()

    def _release(self, future: Future[T]) -> None:
        if self._places is not None:
            self._places.release()

    def close(self) -> None:
        """Let nobody in any more; who is inside finishes."""
        self._pool.shutdown(wait=False, cancel_futures=True)


class _Guests:
    """Who waits for slow stores by itself, in all threads of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside: Counter[uuid.UUID] = Counter()

    def enter(self, store: uuid.UUID) -> None:
        with self._lock:
            if self._inside[store] >= GUESTS or self._inside.total() >= ALL_GUESTS:
                raise Busy(TOO_MANY)
            self._inside[store] += 1

    def leave(self, store: uuid.UUID) -> None:
        with self._lock:
            self._inside[store] -= 1
            if not self._inside[store]:
                del self._inside[store]


_lock = threading.Lock()
_guests = _Guests()
_loading = Room("use-load", LOADING_THREADS)  # as many as the door lets in may wait for it
_leisure = Room("use-long", LEISURE_THREADS, LEISURE_QUEUE)
_rooms: dict[uuid.UUID, Room] = {}


async def run(place: Place, store: StoreFacts | None, call: Callable[[Place], T]) -> T:
    """Call `call(place)` in the room that `place` says. Raises what it raises, and Busy."""
    if place.leisure:
        return await _leisure.run(lambda: _tidied(place, call, keep=False))
    if store is None:
        return await _loading.run(lambda: _tidied(place, call, keep=True))
    # Whoever waits for a slow store hardly ever asks the database: no connection is kept for that.
    return await room_of(store).run(lambda: _tidied(place, call, keep=not is_slow(store)))


def room_of(store: StoreFacts) -> Room:
    """Return the room of a key store in this process, made on first use."""
    found = _rooms.get(store.id)
    if found is not None:
        return found
    with _lock:
        if store.id not in _rooms:
            kind = registry.KINDS.get(store.kind)
            threads = (kind.workers if kind is not None else 0) or LOCAL_THREADS
            queue, patience = threads * QUEUE_PER_THREAD, settings.BACKEND_TIMEOUT_SECONDS
            _rooms[store.id] = Room(f"use-{store.kind}", threads, queue, patience)
        return _rooms[store.id]


def _tidied(place: Place, call: Callable[[Place], T], *, keep: bool) -> T:
    close_old_connections()
    try:
        return call(place)
    finally:
        place.leave()
        if keep:
            close_old_connections()
        else:
            connections.close_all()


def _after_fork() -> None:
    """Begin with empty rooms: the threads of these are the parent's."""
    global _lock, _guests, _loading, _leisure
    _lock, _guests = threading.Lock(), _Guests()
    _loading = Room("use-load", LOADING_THREADS)
    _leisure = Room("use-long", LEISURE_THREADS, LEISURE_QUEUE)
    _rooms.clear()


os.register_at_fork(after_in_child=_after_fork)
