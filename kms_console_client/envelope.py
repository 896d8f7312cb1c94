"""Envelope encryption: data of any size encrypted here, with data keys that the service gives and keeps no copy of."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Protocol

from kms_console_client import answers, layout
from kms_console_client.cache import CachedKey, DataKeyCache, Flight, Place
from kms_console_client.calls import Context
from kms_console_client.client import Client
from kms_console_client.errors import BadAnswer
from kms_console_client.layout import Bytes

THREADS = "threads"


class Owner(Protocol):
    """A client of either kind."""

    @property
    def owner(self) -> bytes: ...


class Sealing:
    """What both kinds of envelopes have in common: their key, their cache, and no requests."""

    def __init__(
        self, client: Owner, key: str, cache: DataKeyCache | None = None, *, chunk: int = 1 << 16
    ) -> None:
        exponent = chunk.bit_length() - 1
        if chunk != 1 << exponent or not layout.SMALLEST <= exponent <= layout.LARGEST:
            raise ValueError("A chunk has 4 KiB to 16 MiB, a power of two.")
        self._owner, self._key, self._exponent = client.owner, key, exponent
        self._cache = DataKeyCache() if cache is None else cache

    def __repr__(self) -> str:
        return f"{type(self).__name__}(key={self._key!r})"

    def _sealing_place(self, pairs: bytes) -> Place:
        return "seal", self._owner, self._key, self._exponent, pairs

    def _opening_place(self, head: layout.Head, pairs: bytes) -> Place:
        digest = hashlib.sha256(head.encrypted).digest()
        return "open", self._owner, self._key, digest, pairs

    def _for_sealing(self, answer: answers.DataKey, born: float) -> CachedKey:
        """Return a data key to encrypt with. Raises BadAnswer where it can't be one."""
        if not 0 < len(answer.ciphertext) <= layout.ENCRYPTED_LIMIT:
            raise BadAnswer("The data key is encrypted in a way that is too long.")
        prefixed = layout.prefix(answer.ciphertext, self._exponent)
        return CachedKey(answer.plaintext, prefixed, born)

    def _for_opening(self, answer: answers.Decrypted, born: float) -> CachedKey:
        """Return a data key to decrypt with. Raises CannotDecrypt where it is none of an envelope's."""
        if len(answer.plaintext) != layout.DATA_KEY:
            raise layout.refusal()
        return CachedKey(answer.plaintext, b"", born)


class Envelope(Sealing):
    """Encrypts and decrypts under one key of the service, named by its id or alias.

    The key needs the purpose ENCRYPT_DECRYPT, and the application `generate_data_key` for
    encrypting, `decrypt` for decrypting. `cache` is one of its own with DataKeyCache's limits where
    it is left out; `chunk` is how many bytes are encrypted at a time. Threads may share one.

    The context is bound to the message and is not in it: the same pairs decrypt it.
    """

    def __init__(
        self,
        client: Client,
        key: str,
        *,
        cache: DataKeyCache | None = None,
        chunk: int = 1 << layout.USUAL,
    ) -> None:
        super().__init__(client, key, cache, chunk=chunk)
        self._client = client

    def encrypt(self, data: Bytes, context: Context | None = None) -> bytes:
        """Return `data` as a message. Raises KmsError where a data key is needed and can't be had."""
        plain = flat(data)
        return self._begin(context, len(plain))[0].seal(plain)

    def decrypt(self, message: Bytes, context: Context | None = None) -> bytes:
        """Return a message's content. Raises CannotDecrypt where one bit of it or of the context differs."""
        view = flat(message)
        head = layout.read_head(view)
        return self._accept(head, context).open(memoryview(view)[head.length :])

    def encrypt_stream(
        self, source: BinaryIO, target: BinaryIO, context: Context | None = None
    ) -> int:
        """Encrypt what `source` still holds into `target`; return its length. Memory stays at a few chunks."""
        message, key = self._begin(context, 0)
        total = message.seal_stream(source, target)
        self._cache.add(key, total)
        return total

    def decrypt_stream(
        self, source: BinaryIO, target: BinaryIO, context: Context | None = None
    ) -> int:
        """Decrypt the message that `source` holds into `target`; return the content's length.

        Raises CannotDecrypt. What stands in `target` then is the true beginning of a message that
        was cut off or changed: don't use it. `decrypt_file` leaves nothing behind.
        """
        head = layout.take_head(source)
        return self._accept(head, context).open_stream(source, target)

    def encrypt_file(
        self, source: str | Path, target: str | Path, context: Context | None = None
    ) -> int:
        """Encrypt a file into another, which appears once it is whole; return the content's length."""
        return through_draft(source, target, lambda i, o: self.encrypt_stream(i, o, context))

    def decrypt_file(
        self, source: str | Path, target: str | Path, context: Context | None = None
    ) -> int:
        """Decrypt a file into another, which appears once all of it is verified; return its length."""
        return through_draft(source, target, lambda i, o: self.decrypt_stream(i, o, context))

    def _begin(self, context: Context | None, size: int) -> tuple[layout.Message, CachedKey]:
        pairs = layout.canonical(context)

        def fetch(born: float) -> CachedKey:
            length = layout.DATA_KEY
            answer = self._client.generate_data_key(self._key, context, length=length)
            return self._for_sealing(answer, born)

        key = self._obtain(self._sealing_place(pairs), size, fetch)
        try:
            return layout.begin(key.expand, key.prefix, pairs), key
        finally:
            self._cache.release(key)

    def _accept(self, head: layout.Head, context: Context | None) -> layout.Message:
        pairs = layout.canonical(context)

        def fetch(born: float) -> CachedKey:
            answer = self._client.decrypt(self._key, head.encrypted, context)
            return self._for_opening(answer, born)

        key = self._obtain(self._opening_place(head, pairs), None, fetch)
        try:
            return head.accept(key.expand, pairs)
        finally:
            self._cache.release(key)

    def _obtain(
        self, place: Place, size: int | None, fetch: Callable[[float], CachedKey]
    ) -> CachedKey:
        """Return a counted key from the cache, or from the service: one request, however many want it."""
        cache = self._cache
        while True:
            found = cache.take(place, THREADS, size)
            if isinstance(found, CachedKey):
                return found
            if isinstance(found, Flight):
                found.wait()
                continue
            try:
                key = fetch(cache.clock())
            except BaseException as error:
                cache.fail(place, THREADS, error)
                raise
            cache.keep(place, THREADS, key, size)
            return key


def flat(data: Bytes) -> Bytes:
    """Return data whose length is its bytes."""
    if isinstance(data, bytes | bytearray):
        return data
    return memoryview(data).cast("B")


def through_draft(
    source: str | Path, target: str | Path, work: Callable[[BinaryIO, BinaryIO], int]
) -> int:
    """Do `work` from a file into a new one beside `target`, which takes that name only when all is done.

    The new file is readable by its owner only.
    """
    place = Path(target)
    with (
        Path(source).open("rb") as reading,
        tempfile.NamedTemporaryFile(dir=place.resolve().parent, delete=False) as draft,
    ):
        try:
            total = work(reading, draft)  # type: ignore[arg-type]
            draft.flush()
            os.fsync(draft.fileno())
            os.replace(draft.name, place)
        except BaseException:
            os.unlink(draft.name)
            raise
    return total
