"""Envelope encryption on an event loop: the same messages; long work is done in a thread beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import BinaryIO

from kms_console_client import layout
from kms_console_client.aio import AsyncClient
from kms_console_client.cache import CachedKey, DataKeyCache, Flight, Place, landed
from kms_console_client.calls import Context
from kms_console_client.envelope import Sealing, flat, through_draft
from kms_console_client.layout import Bytes

TASKS = "tasks"
# Longer ones would keep the event loop standing.
LOOP_BYTES = 256 * 1024


class AsyncEnvelope(Sealing):
    """Envelope with methods to await. Tasks may share one, and its cache with Envelopes in threads."""

    def __init__(
        self,
        client: AsyncClient,
        key: str,
        *,
        cache: DataKeyCache | None = None,
        chunk: int = 1 << layout.USUAL,
    ) -> None:
        super().__init__(client, key, cache, chunk=chunk)
        self._client = client

    async def encrypt(self, data: Bytes, context: Context | None = None) -> bytes:
        """Return `data` as a message. Raises KmsError where a data key is needed and can't be had."""
        plain = flat(data)
        message, _ = await self._begin(context, len(plain))
        if len(plain) <= LOOP_BYTES:
            return message.seal(plain)
        return await asyncio.to_thread(message.seal, plain)

    async def decrypt(self, message: Bytes, context: Context | None = None) -> bytes:
        """Return a message's content. Raises CannotDecrypt where one bit of it or of the context differs."""
        view = memoryview(flat(message))
        head = layout.read_head(view)
        opened = await self._accept(head, context)
        if len(view) <= LOOP_BYTES:
            return opened.open(view[head.length :])
        return await asyncio.to_thread(opened.open, view[head.length :])

    async def encrypt_stream(
        self, source: BinaryIO, target: BinaryIO, context: Context | None = None
    ) -> int:
        """Encrypt what `source` still holds into `target`, in a thread; return its length."""
        message, key = await self._begin(context, 0)
        total = await asyncio.to_thread(message.seal_stream, source, target)
        self._cache.add(key, total)
        return total

    async def decrypt_stream(
        self, source: BinaryIO, target: BinaryIO, context: Context | None = None
    ) -> int:
        """Decrypt the message that `source` holds into `target`, in a thread; return the content's length.

        Raises CannotDecrypt. What stands in `target` then is the true beginning of a message that
        was cut off or changed: don't use it. `decrypt_file` leaves nothing behind.
        """
        head = await asyncio.to_thread(layout.take_head, source)
        message = await self._accept(head, context)
        return await asyncio.to_thread(message.open_stream, source, target)

    async def encrypt_file(
        self, source: str | Path, target: str | Path, context: Context | None = None
    ) -> int:
        """Encrypt a file into another, which appears once it is whole; return the content's length."""
        message, key = await self._begin(context, 0)
        total = await asyncio.to_thread(through_draft, source, target, message.seal_stream)
        self._cache.add(key, total)
        return total

    async def decrypt_file(
        self, source: str | Path, target: str | Path, context: Context | None = None
    ) -> int:
        """Decrypt a file into another, which appears once all of it is verified; return its length."""
        head = await asyncio.to_thread(_head_of, source)
        message = await self._accept(head, context)

        def work(reading: BinaryIO, writing: BinaryIO) -> int:
            again = layout.take_head(reading)
            if again != head:
                raise layout.refusal()  # another file took its place meanwhile
            return message.open_stream(reading, writing)

        return await asyncio.to_thread(through_draft, source, target, work)

    async def _begin(self, context: Context | None, size: int) -> tuple[layout.Message, CachedKey]:
        pairs = layout.canonical(context)

        async def fetch(born: float) -> CachedKey:
            length = layout.DATA_KEY
            answer = await self._client.generate_data_key(self._key, context, length=length)
            return self._for_sealing(answer, born)

        key = await self._obtain(self._sealing_place(pairs), size, fetch)
        try:
            return layout.begin(key.expand, key.prefix, pairs), key
        finally:
            self._cache.release(key)

    async def _accept(self, head: layout.Head, context: Context | None) -> layout.Message:
        pairs = layout.canonical(context)

        async def fetch(born: float) -> CachedKey:
            answer = await self._client.decrypt(self._key, head.encrypted, context)
            return self._for_opening(answer, born)

        key = await self._obtain(self._opening_place(head, pairs), None, fetch)
        try:
            return head.accept(key.expand, pairs)
        finally:
            self._cache.release(key)

    async def _obtain(
        self, place: Place, size: int | None, fetch: Callable[[float], Awaitable[CachedKey]]
    ) -> CachedKey:
        """Return a counted key from the cache, or from the service: one request, however many want it."""
        cache = self._cache
        while True:
            found = cache.take(place, TASKS, size)
            if isinstance(found, CachedKey):
                return found
            if isinstance(found, Flight):
                # Shielded: a task that is cancelled while it waits cancels nobody else's wait.
                landed(await asyncio.shield(asyncio.wrap_future(found.done)))
                continue
            try:
                key = await fetch(cache.clock())
            except BaseException as error:
                cache.fail(place, TASKS, error)
                raise
            cache.keep(place, TASKS, key, size)
            return key


def _head_of(source: str | Path) -> layout.Head:
    with Path(source).open("rb") as file:
        return layout.take_head(file)
