"""Connections of the waiting client: kept alive, bounded in number, and never shared with a forked child."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections import deque

from kms_console_client.forks import renew_in_children
from kms_console_client.http import Answer, AnswerReader
from kms_console_client.service import Service, no_delay

READ = 64 * 1024


class Deadline:
    """One point in time for all that a try consists of: waiting for its turn, connecting, asking, reading."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Return the seconds that are left. Raises TimeoutError where none are."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


class Stale(Exception):
    """A kept connection had ended when it was used again: the request has to be sent anew."""


class Connection:
    """One connection; one request at a time."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._used = False

    def ask(self, request: bytes, limit: int, deadline: Deadline) -> Answer:
        """Return the answer to a request. Raises OSError, TimeoutError, BadHttp, Stale."""
        reader = AnswerReader(limit)
        try:
            self._send(request, deadline)
            while reader.answer is None:
                self._sock.settimeout(deadline.left())
                data = self._sock.recv(READ)
                if not (reader.feed(data) if data else reader.end()) and not data:
                    raise ConnectionResetError("The connection ended before the answer did")
        except TimeoutError:
            raise
        except OSError as error:
            if self._used and not reader.begun:
                raise Stale from error
            raise
        self._used = True
        return reader.answer

    def _send(self, request: bytes, deadline: Deadline) -> None:
        """Send a request. Where the server stops reading, its answer says why."""
        self._sock.settimeout(deadline.left())
        try:
            self._sock.sendall(request)
        except (BrokenPipeError, ConnectionResetError):
            if self._used:
                raise

    def idle(self) -> bool:
        """Whether nothing came since the last answer: neither an end, nor bytes that nobody asked for."""
        if hasattr(select, "poll"):
            watch = select.poll()
            watch.register(self._sock, select.POLLIN)
            return not watch.poll(0)
        return not select.select([self._sock], [], [], 0)[0]

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._sock.close()


class Pool:
    """At most `size` connections to one service; callers beyond that wait until one is free."""

    def __init__(self, service: Service, size: int) -> None:
        if size < 1:
            raise ValueError("At least one connection is needed.")
        self._service, self._size = service, size
        self._renew()
        renew_in_children(self)

    def _renew(self) -> None:
        self._lock = threading.Lock()
        self._free = threading.BoundedSemaphore(self._size)
        self._kept: deque[Connection] = deque()
        # Raised by close(), so that what is out at that moment is closed when it comes back.
        self._round = 0

    def after_fork(self) -> None:
        """Drop the parent's connections. Closing them here says nothing to the server: no TLS farewell."""
        kept = self._kept
        self._renew()
        for connection in kept:
            connection.close()

    def ask(self, request: bytes, limit: int, seconds: float) -> Answer:
        """Return the answer to a request, within `seconds`. Raises OSError, TimeoutError, BadHttp."""
        deadline = Deadline(seconds)
        free = self._free
        if not free.acquire(timeout=deadline.left()):
            raise TimeoutError
        try:
            while True:
                try:
                    return self._ask(request, limit, deadline)
                except Stale:
                    continue  # each of those used up a kept connection; a new one is never stale
        finally:
            free.release()

    def _ask(self, request: bytes, limit: int, deadline: Deadline) -> Answer:
        number = self._round
        connection = self._take() or self._connect(deadline)
        keep = False
        try:
            answer = connection.ask(request, limit, deadline)
            keep = answer.keep
            return answer
        finally:
            if not (keep and self._give_back(connection, number)):
                connection.close()

    def _take(self) -> Connection | None:
        """Return a kept connection that is still good, the last used one first."""
        while True:
            with self._lock:
                if not self._kept:
                    return None
                connection = self._kept.pop()
            if connection.idle():
                return connection
            connection.close()

    def _give_back(self, connection: Connection, number: int) -> bool:
        with self._lock:
            if number != self._round:
                return False
            self._kept.append(connection)
            return True

    def _connect(self, deadline: Deadline) -> Connection:
        service = self._service
        sock = _reach(service.host, service.port, deadline)
        if service.tls is None:
            return Connection(sock)
        try:
            sock.settimeout(deadline.left())
            return Connection(service.tls.wrap_socket(sock, server_hostname=service.host))
        except BaseException:
            sock.close()
            raise

    def close(self) -> None:
        """Close what is kept now, and what is in use as soon as its answer is there."""
        with self._lock:
            self._round += 1
            kept, self._kept = self._kept, deque()
        for connection in kept:
            connection.close()


def _reach(host: str, port: int, deadline: Deadline) -> socket.socket:
    """Connect to the first of a host's addresses that takes the connection."""
    failure: OSError = ConnectionRefusedError("The host has no address")
    for family, kind, protocol, _, address in socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM
    ):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(deadline.left())
            sock.connect(address)
            no_delay(sock)
            return sock
        except TimeoutError:
            sock.close()
            raise
        except OSError as error:
            sock.close()
            failure = error
    raise failure
