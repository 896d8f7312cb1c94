"""Requests to a configured address: one connection, one answer, no redirects, all of it bounded.

The host's name is resolved once and that address is connected to. Plain HTTP goes to this machine
only. Also the TLS connections of syslog streams are made here.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import os
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit

from audit.errors import PlaceError, PlaceOverfull, PlaceUnavailable

CONNECT_SECONDS = 5.0
ANSWER_LIMIT = 64 * 1024
RETRY_AFTER_LIMIT = 3600.0


class Cutter:
    """Ends connections from another thread, so that nobody has to wait for a slow peer."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._cut = False

    def cut(self) -> None:
        """End what is open; nothing is opened through this any more."""
        with self._lock:
            self._cut = True
            for one in self._open:
                _shut(one)

    @contextlib.contextmanager
    def watching(self, sock: socket.socket, seconds: float) -> Iterator[None]:
        """Let the connection be ended by `cut`, and by itself after so many seconds in all.

        Raises PlaceUnavailable where it was: an end of ours must not look like the peer's.
        """
        # A descriptor of its own: it stays valid whatever TLS does with the original.
        twin = socket.socket(fileno=os.dup(sock.fileno()))
        late = threading.Event()
        timer = threading.Timer(seconds, _end, (twin, late))
        timer.daemon = True
        try:
            with self._lock:
                if self._cut:
                    raise PlaceUnavailable("we are stopping")
                self._open.add(twin)
            timer.start()
            yield
            self._check(late)
        except (OSError, http.client.HTTPException, ValueError, PlaceUnavailable):
            self._check(late)
            raise
        finally:
            timer.cancel()
            with self._lock:
                self._open.discard(twin)
                twin.close()

    def _check(self, late: threading.Event) -> None:
        if late.is_set():
            raise PlaceUnavailable("it took too long") from None
        if self._cut:
            raise PlaceUnavailable("we are stopping") from None


def _end(sock: socket.socket, late: threading.Event) -> None:
    late.set()
    _shut(sock)


def _shut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def split(url: str) -> SplitResult:
    """Return the parts of an address. Raises PlaceError where it has no host or names a user."""
    try:
        parts = urlsplit(url)
        fit = parts.hostname and parts.port != 0
    except ValueError:
        fit = None
    if not fit or parts.username is not None or parts.password is not None or parts.fragment:
        raise PlaceError("an address is scheme://host:port/path, without a user or a fragment")
    return parts


def options(parts: SplitResult, names: frozenset[str]) -> tuple[SplitResult, dict[str, str]]:
    """Return an address without those query parameters that are for us, and these.

    Raises PlaceError where one is given twice.
    """
    try:
        found = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        raise PlaceError("an address's options are name=value, joined by &") from None
    ours = [(name, value) for name, value in found if name in names]
    if len(ours) != len(dict(ours)):
        raise PlaceError("an address has each option once")
    rest = [(name, value) for name, value in found if name not in names]
    return parts._replace(query=urlencode(rest)), dict(ours)


def connect(
    host: str, port: int, context: ssl.SSLContext | None, *, seconds: float = CONNECT_SECONDS
) -> socket.socket:
    """Return a connection, with TLS where there is a context; each step takes up to `seconds`.

    Without TLS only addresses of this machine are connected to. Raises PlaceUnavailable, or
    PlaceError for a certificate or an address that won't do.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise PlaceUnavailable("the host's name can't be resolved") from None
    if context is None and not all(_is_loopback(address[4]) for address in found):
        raise PlaceError("without TLS only this machine is talked to: use https")
    last = "there is no address"
    for family, kind, protocol, _, address in found:
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(seconds)
            sock.connect(address)
            return sock if context is None else context.wrap_socket(sock, server_hostname=host)
        except ssl.SSLCertVerificationError as error:
            sock.close()
            raise PlaceUnavailable(f"its certificate is refused: {error.verify_message}") from None
        except (OSError, ValueError) as error:
            sock.close()
            last = reason(error)
        except BaseException:
            sock.close()
            raise
    raise PlaceUnavailable(f"no connection: {last}")


def reason(error: BaseException) -> str:
    """Return in words of our own why a connection failed: no address, nothing that the peer sent."""
    if isinstance(error, TimeoutError):
        return "it took too long"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed ({error.reason or 'no reason given'})"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return type(error).__name__


def _is_loopback(address: tuple[Any, ...]) -> bool:
    return ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback


def tls(
    ca: str | None = None, certificate: str | None = None, key: str | None = None
) -> ssl.SSLContext:
    """Return a context that verifies: TLS 1.2 at least, by the system's CAs or the given file of them.

    Raises PlaceError where a file can't be used.
    """
    try:
        context = ssl.create_default_context(cafile=ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if certificate is not None:
            # Never ask a terminal for the key's passphrase.
            context.load_cert_chain(certificate, key, password=lambda: b"")
    except (OSError, ValueError):
        raise PlaceError("a file of the TLS settings (ca, cert, key) can't be used") from None
    return context


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said; `body` is cut at ANSWER_LIMIT. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def post(
    url: SplitResult,
    body: bytes,
    headers: Mapping[str, str],
    context: ssl.SSLContext | None,
    *,
    seconds: float = 30.0,
    cutter: Cutter | None = None,
) -> Answer:
    """Send one POST request and return the answer; all of it takes up to `seconds`.

    `context` is needed exactly where the scheme is https. Raises PlaceUnavailable where there is no
    answer that can be read; what the answer says is for the caller to judge (`require_success`).
    """
    assert url.hostname is not None
    port = url.port or (443 if url.scheme == "https" else 80)
    connection = http.client.HTTPConnection(url.hostname, port)
    connection.auto_open = 0
    target = (url.path or "/") + (f"?{url.query}" if url.query else "")
    sock = connect(url.hostname, port, context, seconds=min(seconds, CONNECT_SECONDS))
    with contextlib.closing(connection), contextlib.closing(sock):
        sock.settimeout(seconds)
        connection.sock = sock
        try:
            with (cutter or Cutter()).watching(sock, seconds):
                sent = {"Content-Length": str(len(body)), "Connection": "close", **headers}
                connection.request("POST", target, body, sent)
                with connection.getresponse() as response:
                    told = {name.lower(): value for name, value in response.getheaders()}
                    return Answer(response.status, told, response.read(ANSWER_LIMIT))
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise PlaceUnavailable(f"no answer: {reason(error)}") from None


def require_success(answer: Answer) -> None:
    """Raise PlaceUnavailable or PlaceError unless the answer is a 2xx; PlaceOverfull for a 413."""
    status = answer.status
    if 200 <= status < 300:
        return
    if status in (408, 425, 429) or status >= 500:
        raise PlaceUnavailable(f"it answered with status {status}", _retry_after(answer))
    if status == 413:  # Content Too Large (RFC 9110, 15.5.14)
        raise PlaceOverfull(f"it refused with status {status}: that was too long for it")
    if 300 <= status < 400:
        raise PlaceError(f"it answered with status {status}: redirects are not followed")
    raise PlaceError(f"it refused with status {status}")


def _retry_after(answer: Answer) -> float | None:
    """Return the seconds of a Retry-After header (RFC 9110, 10.2.3), at most an hour; dates as None."""
    word = answer.headers.get("retry-after", "").strip()
    if not (word.isascii() and word.isdigit() and len(word) < 10):
        return None
    return min(float(word), RETRY_AFTER_LIMIT)
