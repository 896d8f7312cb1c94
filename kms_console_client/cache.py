"""Data keys that are used more than once: bounded in age, messages, bytes and number, and ended with care.

What leaves the cache is freed as soon as nobody uses it, and OpenSSL overwrites it then. Python can't
promise more than that: the JSON that a key came in, and what was derived from it, are freed only.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import NoReturn

from kms_console_client.errors import KmsError
from kms_console_client.forks import renew_in_children

Place = tuple[object, ...]

MESSAGES_LIMIT = 1 << 32
BYTES_LIMIT = 1 << 50
# SHA-512's block, and HMAC's two pads as tables.
BLOCK = 128
INNER = bytes(byte ^ 0x36 for byte in range(256))
OUTER = bytes(byte ^ 0x5C for byte in range(256))


def now() -> float:
    """Return seconds of a clock that nobody sets, and that goes on while the machine sleeps where there is one."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


class CachedKey:
    """One data key, and how much it was used. The cache it belongs to looks after all of it.

    It is kept as what HMAC-SHA-512 makes of it first: the hash states after its inner and its outer
    block (RFC 2104). OpenSSL overwrites such a state when it is freed.
    """

    __slots__ = ("_inner", "_outer", "born", "bytes", "gone", "messages", "prefix", "users")

    def __init__(self, secret: bytes, prefix: bytes, born: float) -> None:
        padded = secret.ljust(BLOCK, b"\0")
        self._inner = hashlib.sha512(padded.translate(INNER))
        self._outer = hashlib.sha512(padded.translate(OUTER))
        # What a message's head under this key begins with; empty for a key that only opens.
        self.prefix = prefix
        self.born = born
        self.messages = self.bytes = 0
        # How many use it at this moment; ended only where nobody does.
        self.users = 0
        self.gone = False

    def __repr__(self) -> str:
        return "CachedKey()"

    def __reduce__(self) -> NoReturn:
        raise TypeError("A data key leaves its process in no other way than encrypted.")

    def expand(self, info: bytes) -> bytes:
        """Return 64 bytes: HKDF-Expand of RFC 5869 with SHA-512, its first block."""
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(info + b"\x01")
        outer.update(inner.digest())
        return outer.digest()

    def wipe(self) -> None:
        """End the key. A later use fails: it never runs on with another one."""
        del self._inner, self._outer

    @property
    def alive(self) -> bool:
        return hasattr(self, "_inner")


class Flight:
    """One fetch of a key that others wait for: threads by `wait`, tasks by `done`."""

    def __init__(self) -> None:
        self.done: Future[KmsError | None] = Future()

    def wait(self) -> None:
        """Wait in a thread. Raises the error that the fetch ended with."""
        landed(self.done.result())


def landed(error: KmsError | None) -> None:
    if error is not None:
        raise error.again()


class DataKeyCache:
    """Data keys of envelopes. Envelopes may share one, of both kinds, also with different clients.

    A key is used for at most `max_age` seconds from when it was asked for, encrypts at most
    `max_messages` messages and `max_bytes` bytes of content, and the least used ones beyond
    `capacity` are dropped. With a `max_age` of 0 nothing is kept. `clock` gives seconds.

    Within `max_age` a key works on although its token was revoked or its master key disabled.
    What is over age is ended when the cache is next used, or by `clear`.
    """

    def __init__(
        self,
        *,
        max_age: float = 300.0,
        max_messages: int = 1 << 20,
        max_bytes: int = 1 << 36,
        capacity: int = 1000,
        clock: Callable[[], float] = now,
    ) -> None:
        if not 0 <= max_age <= 86_400:
            raise ValueError("max_age is between 0 and 86,400 seconds.")
        if not 1 <= max_messages <= MESSAGES_LIMIT or not 1 <= max_bytes <= BYTES_LIMIT:
            raise ValueError("A key encrypts 1 to 2^32 messages, and 1 to 2^50 bytes.")
        if capacity < 1:
            raise ValueError("capacity is at least 1.")
        self.max_age, self.max_messages, self.max_bytes = max_age, max_messages, max_bytes
        self.capacity, self.clock = capacity, clock
        self._keys: OrderedDict[Place, CachedKey] = OrderedDict()
        self._renew()
        renew_in_children(self)

    def _renew(self) -> None:
        self._lock = threading.Lock()
        self._flights: dict[Place, Flight] = {}
        # What was kept and when it was asked for, the oldest first; some of it may be gone.
        self._by_age: deque[tuple[float, Place]] = deque()

    def __repr__(self) -> str:
        return f"DataKeyCache({len(self)} keys)"

    def __len__(self) -> int:
        return len(self._keys)

    def __reduce__(self) -> NoReturn:
        raise TypeError("A cache of data keys leaves its process in no way.")

    def after_fork(self) -> None:
        """A child has keys of its own: what two processes count apart would be more than a key may do."""
        self._renew()
        keys, self._keys = self._keys, OrderedDict()
        for key in keys.values():
            key.gone = True
            key.wipe()

    def clear(self) -> None:
        """Drop every key: the next message asks for a new one."""
        with self._lock:
            for place in list(self._keys):
                self._drop(place)
            self._by_age.clear()

    def take(self, place: Place, kind: str, size: int | None) -> CachedKey | Flight | None:
        """Return a key for a message of `size` bytes (None: to open one), which is counted.

        Where there is none: the flight to wait for, or None, and then the caller is who fetches it,
        and says so by `keep` or `fail`. `kind` tells flights of threads and of tasks apart: a task
        must never be waited for by the thread that it runs on.
        """
        with self._lock:
            self._drop_old()
            key = self._keys.get(place)
            if key is not None and self._fits(key, size):
                self._count(key, size)
                self._keys.move_to_end(place)
                return key
            if key is not None and not self._alone(size):
                self._drop(place)
            if self._alone(size):
                return None
            flight = self._flights.get((kind, *place))
            if flight is None:
                self._flights[(kind, *place)] = Flight()
            return flight

    def keep(self, place: Place, kind: str, key: CachedKey, size: int | None) -> None:
        """Keep a key that was fetched, and count the message that it was fetched for."""
        with self._lock:
            self._count(key, size)
            if self._alone(size) or key.born + self.max_age <= self.clock():
                key.gone = True
            else:
                if place in self._keys:
                    self._drop(place)
                self._keys[place] = key
                self._remember(key.born, place)
                while len(self._keys) > self.capacity:
                    self._drop(next(iter(self._keys)))
            flight = self._flights.pop((kind, *place), None)
        if flight is not None:
            flight.done.set_result(None)

    def fail(self, place: Place, kind: str, error: BaseException) -> None:
        """Tell those who wait that there is no key."""
        with self._lock:
            flight = self._flights.pop((kind, *place), None)
        if flight is not None:
            # Whoever was interrupted (a task was cancelled, say) interrupts nobody else.
            flight.done.set_result(error.again() if isinstance(error, KmsError) else None)

    def release(self, key: CachedKey) -> None:
        """Say that a key which `take` gave or `keep` took is not used any more."""
        with self._lock:
            key.users -= 1
            if key.gone and not key.users:
                key.wipe()

    def _alone(self, size: int | None) -> bool:
        """Whether a fetched key serves one message only, so that nobody gains by waiting for it."""
        return not self.max_age or (
            size is not None and (self.max_messages == 1 or size > self.max_bytes)
        )

    def _fits(self, key: CachedKey, size: int | None) -> bool:
        """Whether a key may serve one more message."""
        return size is None or (
            key.messages < self.max_messages and key.bytes + size <= self.max_bytes
        )

    def _count(self, key: CachedKey, size: int | None) -> None:
        key.users += 1
        if size is not None:
            key.messages += 1
            key.bytes += size

    def add(self, key: CachedKey, size: int) -> None:
        """Count content whose length nobody knew before it was read."""
        with self._lock:
            key.bytes += size

    def _remember(self, born: float, place: Place) -> None:
        self._by_age.append((born, place))
        if len(self._by_age) > 2 * self.capacity + 1000:
            rows = ((key.born, place) for place, key in self._keys.items())
            self._by_age = deque(sorted(rows, key=lambda row: row[0]))

    def _drop_old(self) -> None:
        moment = self.clock()
        while self._by_age and self._by_age[0][0] + self.max_age <= moment:
            born, place = self._by_age.popleft()
            key = self._keys.get(place)
            if key is not None and key.born == born:
                self._drop(place)

    def _drop(self, place: Place) -> None:
        key = self._keys.pop(place)
        key.gone = True
        if not key.users:
            key.wipe()
