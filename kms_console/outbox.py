"""What a page answers, on its way to a client that may read slowly.

A thread of Django's would wait for such a client as long as it likes. Here it puts its answer down
and goes; it waits only with an answer that is larger than there is room for.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]

# How much of one answer, and of all of them, is kept in memory, in bytes.
ROOM = 1024 * 1024
ALL_ROOM = 64 * 1024 * 1024
# How long a client may take over one piece, in seconds, before its connection is given up.
STALL_SECONDS = 30.0


class Outbox:
    """One answer. `put` takes a message as ASGI's send does; `delivered` returns once all have gone."""

    _held = 0  # bytes in all outboxes of this process

    def __init__(self, send: Send) -> None:
        self.started = False
        self._send = send
        self._waiting: deque[Message] = deque()
        self._size = 0
        self._given_up = False
        self._changed = asyncio.Event()
        self._carrier: asyncio.Task[None] | None = None

    async def put(self, message: Message) -> None:
        """Take a message; wait where there is no room for more. Dropped where the client was given up."""
        while self._waiting and (self._size > ROOM or Outbox._held > ALL_ROOM):
            self._changed.clear()
            await self._changed.wait()
        if self._given_up:
            return
        self.started = True
        self._waiting.append(message)
        self._count(len(message.get("body", b"")))
        if self._carrier is None or self._carrier.done():
            self._carrier = asyncio.create_task(self._carry())

    async def delivered(self) -> None:
        """Wait until everything has gone, or was given up. Raises what sending raised."""
        if self._carrier is not None:
            await self._carrier

    async def _carry(self) -> None:
        try:
            while self._waiting:
                await asyncio.wait_for(self._send(self._waiting[0]), STALL_SECONDS)
                self._drop()
        except TimeoutError:
            # An answer that isn't complete: the server closes the connection.
            self._given_up = True
        except BaseException:
            self._given_up = True
            raise
        finally:
            while self._waiting:
                self._drop()

    def _drop(self) -> None:
        self._count(-len(self._waiting.popleft().get("body", b"")))
        self._changed.set()

    def _count(self, size: int) -> None:
        self._size += size
        Outbox._held += size
