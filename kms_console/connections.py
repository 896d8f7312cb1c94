"""One connection: uvicorn's own, with bounds on what comes before a request, and an end that cuts nobody off.

The server reads a request's head without a bound on its size, its number of headers or its time, and
closes idle connections the moment it is told to end, also those with a request just arriving. uvicorn
takes this class with `--http kms_console.connections:Connection`.
"""

from __future__ import annotations

import asyncio
import os
import resource
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# Of a request's head: bytes of the address, bytes and number of headers, seconds until it is whole.
URL_BYTES = 8 * 1024
HEAD_BYTES = 32 * 1024
HEADERS = 100
HEAD_SECONDS = 10.0
# How long an idle connection is kept once the server ends: who uses it all the time sends the next
# request within that, and learns from its answer to go elsewhere.
LINGER_SECONDS = 1.0
AGAIN_SECONDS = 0.02
# Files and sockets that aren't a client's: databases, key stores, logs.
RESERVED_FILES = 256
LEAST, MOST = 64, 20_000


def most_connections() -> int:
    """Return how many connections this process may have at once, by its limit of open files."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST if soft < 0 else min(max(soft - RESERVED_FILES, LEAST), MOST)


class Connection(HttpToolsProtocol):
    """A client's connection. All methods are called on the event loop."""

    limit = most_connections()

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._ending = False
        # Bytes: of what just came; of a head after the chunk it began in, and which head that is.
        self._chunk = self._head = 0
        self._head_of: object = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self.connections) > self.limit:
            self._hang_up(
                503, b"Too many connections; try again in a moment.", b"retry-after: 1\r\n"
            )
        else:
            self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    # The next two run for each request, so they look before they call.

    def data_received(self, data: bytes) -> None:
        self._chunk = len(data)
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete or self._in_head:
            self._count_head(len(data))

    def on_headers_complete(self) -> None:
        if self._timer is not None:
            self._stop_waiting()
        if (
            len(self.headers) > HEADERS
            or len(self.url) > URL_BYTES
            or self._chunk + self._head > HEAD_BYTES
        ):
            self._refuse_or_go_on()
        else:
            super().on_headers_complete()
        if self._ending and self.cycle is not None:
            self.cycle.keep_alive = False

    @property
    def _in_head(self) -> bool:
        """Whether a request has begun whose head isn't whole: only then does its scope name a method."""
        return self.scope is not None and "method" not in self.scope

    def _count_head(self, size: int) -> None:
        """Take note of bytes that came before the next request, or of a part of its head."""
        if self.transport.is_closing():
            return
        if self._in_head:
            if self._head_of is self.scope:
                self._head += size
            else:
                self._head_of, self._head = self.scope, 0
            if self._head > HEAD_BYTES:
                self._hang_up(431, b"The request's head is too large.")
                return
        if self._timer is None and self._idle:
            self._wait_for_head()

    def shutdown(self) -> None:
        """Take no more than what is on its way: called once the server listens no longer."""
        self._ending = True
        if self._idle:
            self.loop.call_later(LINGER_SECONDS, self._close_where_idle)
        else:
            super().shutdown()

    @property
    def _idle(self) -> bool:
        """Whether no request that has its head is under way."""
        return self.cycle is None or self.cycle.response_complete

    def _close_where_idle(self) -> None:
        if not self._idle or self.transport.is_closing():
            return
        if self._has_more():
            self.loop.call_later(AGAIN_SECONDS, self._close_where_idle)
        else:
            self.transport.close()

    def _has_more(self) -> bool:
        """Whether something came that was not read yet."""
        connection = self.transport.get_extra_info("socket")
        try:
            with socket.socket(fileno=os.dup(connection.fileno())) as ours:
                return bool(ours.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except (OSError, AttributeError):
            return False

    def _wait_for_head(self) -> None:
        self._timer = self.loop.call_later(HEAD_SECONDS, self._too_slow)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        self._timer = None
        if not self._idle:  # an earlier request's answer is under way
            self._wait_for_head()
        elif self._in_head:
            self._hang_up(408, b"The request did not arrive in time.")
        else:
            self.transport.close()

    def _refuse_or_go_on(self) -> None:
        """Have the request answered by a refusal where its head is too large."""
        application, refusal = self.app, self._refusal()
        if refusal is not None:
            self.app = refusal
        super().on_headers_complete()
        self.app = application

    def _refusal(self) -> Application | None:
        if len(self.url) > URL_BYTES:
            return _saying(414, b"The address is too long.")
        if len(self.headers) > HEADERS:
            return _saying(431, b"The request has too many headers.")
        if self._chunk + self._head > HEAD_BYTES:
            size = sum(len(name) + len(value) + 4 for name, value in self.headers)
            if size > HEAD_BYTES:
                return _saying(431, b"The request's head is too large.")
        return None

    def _hang_up(self, status: int, told: bytes, more: bytes = b"") -> None:
        """Answer before there is a request, and close."""
        if self._idle:
            head = b"HTTP/1.1 %d %s\r\n%s" % (status, _PHRASES[status], more)
            head += b"content-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\n" % len(told)
            self.transport.write(head + b"connection: close\r\n\r\n" + told)
        self.transport.close()


Application = Callable[[Any, Any, Any], Awaitable[None]]
_PHRASES = {
    408: b"Request Timeout",
    431: b"Request Header Fields Too Large",
    503: b"Service Unavailable",
}


def _saying(status: int, told: bytes) -> Application:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        headers = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", str(len(told)).encode()),
            (b"connection", b"close"),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": told})

    return application
