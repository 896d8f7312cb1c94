"""Connections of the asyncio client: kept alive, bounded in number, each on the event loop that made it."""

from __future__ import annotations

import asyncio
from collections import deque

from kms_console_client.forks import renew_in_children
from kms_console_client.http import Answer, AnswerReader, BadHttp
from kms_console_client.service import Service


class Stale(Exception):
    """A kept connection had ended when it was used again: the request has to be sent anew."""


class Connection(asyncio.Protocol):
    """One connection; one request at a time. Bytes that nobody asked for end it."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._reader: AnswerReader | None = None
        self._waiting: asyncio.Future[Answer] | None = None
        self._used = False
        self.open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.open = True

    def data_received(self, data: bytes) -> None:
        if self._reader is None:
            self.close()
            return
        try:
            if self._reader.feed(data):
                self._finish()
        except BadHttp as error:
            self._fail(error)

    def eof_received(self) -> None:
        if self._reader is not None:
            try:
                if self._reader.end():
                    self._finish()
            except BadHttp as error:
                self._fail(error)

    def connection_lost(self, error: Exception | None) -> None:
        self.open = False
        self._fail(error or ConnectionResetError("The connection ended before the answer did"))

    async def ask(self, request: bytes, limit: int) -> Answer:
        """Return the answer to a request. Raises OSError, BadHttp, Stale."""
        assert self._transport is not None
        if not self.open:
            raise Stale
        reader = self._reader = AnswerReader(limit)
        self._waiting = asyncio.get_running_loop().create_future()
        try:
            self._transport.write(request)
            answer = await self._waiting
        except OSError as error:
            if self._used and not reader.begun:
                raise Stale from error
            raise
        finally:
            self._reader = self._waiting = None
        self._used = True
        return answer

    def close(self) -> None:
        self.open = False
        if self._transport is not None:
            self._transport.abort()

    def _finish(self) -> None:
        assert self._reader is not None
        answer, self._reader = self._reader.answer, None
        if self._waiting is not None and not self._waiting.done():
            assert answer is not None
            self._waiting.set_result(answer)

    def _fail(self, error: Exception) -> None:
        self._reader = None
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(error)


class AsyncPool:
    """At most `size` connections to one service; callers beyond that wait until one is free."""

    def __init__(self, service: Service, size: int) -> None:
        if size < 1:
            raise ValueError("At least one connection is needed.")
        self._service, self._size = service, size
        self._loop: asyncio.AbstractEventLoop | None = None
        self._renew()
        renew_in_children(self)

    def _renew(self) -> None:
        self._free = asyncio.Semaphore(self._size)
        self._kept: deque[Connection] = deque()
        self._round = 0

    def after_fork(self) -> None:
        """Drop the parent's connections; the parent's event loop is none of the child's."""
        self._loop = None
        self._renew()

    async def ask(self, request: bytes, limit: int, seconds: float) -> Answer:
        """Return the answer to a request, within `seconds`. Raises OSError, TimeoutError, BadHttp."""
        self._enter_loop()
        async with asyncio.timeout(seconds), self._free:
            while True:
                try:
                    return await self._ask(request, limit)
                except Stale:
                    continue  # each of those used up a kept connection; a new one is never stale

    def _enter_loop(self) -> None:
        """Raises RuntimeError where another event loop, which still runs, has the connections."""
        loop = asyncio.get_running_loop()
        if self._loop is loop:
            return
        if self._loop is not None and not self._loop.is_closed():
            raise RuntimeError("An AsyncClient belongs to one event loop: make one for each.")
        self._renew()  # what a closed loop had is gone with it
        self._loop = loop

    async def _ask(self, request: bytes, limit: int) -> Answer:
        number = self._round
        connection = self._take() or await self._connect()
        keep = False
        try:
            answer = await connection.ask(request, limit)
            keep = answer.keep
            return answer
        finally:
            if keep and connection.open and number == self._round:
                self._kept.append(connection)
            else:
                connection.close()

    def _take(self) -> Connection | None:
        while self._kept:
            connection = self._kept.pop()
            if connection.open:
                return connection
        return None

    async def _connect(self) -> Connection:
        service = self._service
        _, connection = await asyncio.get_running_loop().create_connection(
            Connection,
            service.host,
            service.port,
            ssl=service.tls,
            server_hostname=service.host if service.tls is not None else None,
        )
        return connection

    async def close(self) -> None:
        """Close what is kept now, and what is in use as soon as its answer is there."""
        self._round += 1
        kept, self._kept = self._kept, deque()
        for connection in kept:
            connection.close()
        await asyncio.sleep(0)  # transports close in the loop's next turn
