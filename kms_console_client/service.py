"""Which service is asked, how it is trusted, and what goes over the wire; once for both clients."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
import socket
import ssl
import uuid
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NoReturn, TypeVar
from urllib.parse import urlsplit

from kms_console_client.calls import Call, Odd
from kms_console_client.errors import (
    BadAnswer,
    KmsError,
    TimedOut,
    Unreachable,
    Untrusted,
    problem,
)
from kms_console_client.http import Answer, BadHttp

T = TypeVar("T")

# Longer than any token of the service's.
TOKEN_LIMIT = 200
_TOKEN = re.compile(rf"[!-~]{{1,{TOKEN_LIMIT}}}")
_HOST = re.compile(r"[0-9A-Za-z.\-_]{1,253}|[0-9A-Fa-f:.]{2,45}")
_BASE = re.compile(r"(?:/[0-9A-Za-z._~\-]+)*")


class Service:
    """One service and one token. Neither printing nor pickling shows the token.

    `url` is the console's address, "https://kms.example" say, with a path in front where it has
    one. Without TLS only this machine is spoken to, unless `allow_http`. `ca_file`: a PEM file of
    the authorities to trust, instead of the system's. Raises ValueError for what is none of these;
    the text holds neither.
    """

    def __init__(self, url: str, token: str, ca_file: str | None, *, allow_http: bool) -> None:
        self.tls: ssl.SSLContext | None = None
        self.host, self.port, self._base, secure = _parse(url)
        if secure:
            self.tls = _trust(ca_file)
        elif not allow_http and not _is_loopback(self.host):
            raise ValueError("Without TLS the token could be read on the way: use https://")
        if not isinstance(token, str) or not _TOKEN.fullmatch(token):
            raise ValueError("That is no token.")
        self._token = token
        name = f"[{self.host}]" if ":" in self.host else self.host
        self.name = f"{name}:{self.port}"
        self.url = f"{'https' if secure else 'http'}://{self.name}{self._base}"
        # Keys that one token was given are not for another's use, nor another service's.
        self.owner = hashlib.sha256(f"{self.url}\0{token}".encode()).digest()

    def __repr__(self) -> str:
        return f"Service({self.url!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("A client holds a token and connections: make one in each process.")

    def request(self, call: Call[Any], request_id: str) -> bytes:
        """Return a request's bytes."""
        head = (
            f"POST {self._base}/api/v1/{call.path} HTTP/1.1\r\n"
            f"Host: {self.name}\r\n"
            f"Authorization: Bearer {self._token}\r\n"
            "Content-Type: application/json\r\n"
            "Accept: application/json\r\n"
            f"Content-Length: {len(call.body)}\r\n"
            f"X-Request-Id: {request_id}\r\n"
            "User-Agent: kms-console-client\r\n\r\n"
        )
        return head.encode("ascii") + call.body

    def read(self, call: Call[T], answer: Answer, request_id: str) -> T:
        """Return what an answer says. Raises KmsError where that is an error, or makes no sense."""
        if answer.status != 200:
            raise self._refusal(answer, request_id)
        said = _members(answer)
        trouble = "The answer is not JSON of an object."
        if said is not None:
            try:
                return call.read(said)
            except Odd as odd:
                trouble = str(odd)
        # Outside of the handlers: no error that holds the answer's text hangs on this one.
        raise BadAnswer(trouble, status=answer.status, request_id=request_id)

    def _refusal(self, answer: Answer, request_id: str) -> KmsError:
        if 300 <= answer.status < 400 or 200 <= answer.status < 300:
            kind = "a redirect, which is not followed" if answer.status >= 300 else "nothing"
            detail = f"The service answered with {kind}."
            return BadAnswer(detail, status=answer.status, request_id=request_id)
        return problem(
            answer.status,
            _members(answer) or {},
            request_id=request_id,
            retry_after=_retry_after(answer.headers.get("retry-after", "")),
            token=self._token,
        )

    def trouble(self, error: Exception, request_id: str, timeout: float) -> KmsError:
        """Return what went wrong on the way as an error of ours."""
        if isinstance(error, BadHttp):
            return BadAnswer(str(error), request_id=request_id)
        if isinstance(error, TimeoutError):
            detail = f"{self.name} did not answer within {timeout:g} seconds."
            return TimedOut(detail, request_id=request_id)
        if isinstance(error, ssl.CertificateError):
            detail = f"The certificate of {self.name} is not trusted: {error.verify_message}."
            return Untrusted(detail, request_id=request_id)
        reason = getattr(error, "strerror", None) or type(error).__name__
        return Unreachable(f"{self.name} can't be reached: {reason}.", request_id=request_id)


def new_request_id() -> str:
    """Return an id that all tries of a call carry; it stands in the audit trail."""
    return str(uuid.uuid4())


def _parse(url: str) -> tuple[str, int, str, bool]:
    """Return host, port, path and whether TLS is spoken. Raises ValueError, without the address in it."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, port = "", None
    if not _HOST.fullmatch(host) or parts.scheme not in ("http", "https"):
        raise ValueError("The address must look like https://kms.example.")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise ValueError("The address must have no user, password, query or fragment.")
    base = parts.path.rstrip("/")
    if not _BASE.fullmatch(base) or {".", ".."} & set(base.split("/")):
        raise ValueError("The address must look like https://kms.example/path.")
    secure = parts.scheme == "https"
    return host, port or (443 if secure else 80), base, secure


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _trust(ca_file: str | None) -> ssl.SSLContext:
    """Return a context that verifies. Made by hand, so that no variable makes it write its keys to a file."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca_file is None:
        context.load_default_certs()
    else:
        context.load_verify_locations(cafile=ca_file)
    return context


def _members(answer: Answer) -> dict[str, Any] | None:
    try:
        said = json.loads(answer.body)
    except (ValueError, RecursionError):
        return None
    return said if isinstance(said, dict) else None


def _retry_after(text: str) -> float | None:
    """Return the seconds that Retry-After asks for (RFC 9110, 10.2.3), None where it doesn't say."""
    if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,3})?", text):
        return float(text)
    try:
        when = parsedate_to_datetime(text)
    except ValueError:
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0.0, (when - datetime.now(UTC)).total_seconds())


def no_delay(sock: socket.socket) -> None:
    """Send a small request at once, whatever went before it."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
