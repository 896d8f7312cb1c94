"""A key's labels, written by one thread at a time and never from an old read.

Google replaces all labels of a key at once, and its update_crypto_key has no etag or other condition.
So whoever writes them holds the key's lock and reads them just before. Between two processes a moment
is left; what a mark is for survives that (keys.backends.gcp.making).
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Mapping

from keys.backends.base import NoMaterial
from keys.backends.gcp.keyring import Keyring

LOCKS = 64


class Labels:
    """The labels of one key ring's keys."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring
        self._locks = tuple(threading.RLock() for _ in range(LOCKS))

    def lock(self, key: str) -> threading.RLock:
        """Return the lock of a key, by its name. Its holder may call write()."""
        return self._locks[zlib.crc32(key.encode()) % LOCKS]

    def write(self, key: str, change: Callable[[Mapping[str, str]], Mapping[str, str]]) -> None:
        """Write what `change` makes of the labels as they are now, where that differs."""
        with self.lock(key):
            now = self._keyring.key(key)
            if now is None:
                raise NoMaterial("The key is not in the key ring any more.")
            labels = dict(now.labels)
            wanted = dict(change(labels))
            if wanted == labels:
                return
            self._keyring.connection.call(
                "update_crypto_key",
                {
                    "crypto_key": {"name": key, "labels": wanted},
                    "update_mask": {"paths": ["labels"]},
                },
            )
