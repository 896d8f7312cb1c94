"""One address, two applications: keys are used on the event loop, the rest is Django as WSGI.

Django's own ASGI handler starts a thread per request and ran ten times slower than its WSGI handler
in a pool of threads (docs/adr/0004), so that is how it is served here.

Each of them takes on so many requests at once and turns the others away, before their bodies are
read: what has waited too long is of no use to anybody. Whether the process is well can always be
asked: those pages have threads of their own.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, cast
from urllib.parse import quote_from_bytes

from a2wsgi import WSGIMiddleware
from django.conf import settings
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from keys.callers import Door
from keys.errors import Busy, KeyServiceError, TooLarge, Unavailable
from kms_console import wsgi  # sets Django up, which what follows needs
from kms_console.api.rest import problems
from kms_console.api.rest.asgi import STOPPING, USE_PATHS, Headers, handle, takes, wants_page
from kms_console.identity import forwarded
from kms_console.middleware import request_id
from kms_console.outbox import Outbox

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

log = logging.getLogger(__name__)

DJANGO_THREADS = 8
# Whoever watches over the process asks these, and never waits behind anybody's pages.
PROBES = frozenset({"/healthz", "/readyz"})
PROBE_THREADS, PROBES_IN_FLIGHT = 2, 32
BODY_SECONDS = 30.0
# Who is turned away keeps the connection where no more than this is still to come, in bytes.
SMALL_BODY = 64 * 1024
# How often the log says that requests are turned away, in seconds.
TELL_SECONDS = 10.0
# At the end: how long those that had to be cut short may take to answer, and what is written, to leave.
LAST_ANSWERS_SECONDS, FLUSH_SECONDS = 3.0, 0.02
TOO_MANY = "Too many requests are under way; try again in a moment."
ASCII = "".join(map(chr, range(128)))

# Any: a2wsgi and django-stubs describe the same protocol in two ways that don't match.
_django: Any = WSGIMiddleware(cast(Any, wsgi.application), workers=DJANGO_THREADS)
_django_for_probes: Any = WSGIMiddleware(cast(Any, wsgi.application), workers=PROBE_THREADS)


class Hall:
    """How many requests of one kind are under way, of `limit` at most. Of one event loop."""

    def __init__(self, name: str, limit: int) -> None:
        self.name, self.limit, self.inside = name, limit, 0
        self._away, self._told = 0, float("-inf")

    @property
    def full(self) -> bool:
        return self.inside >= self.limit

    def turn_away(self) -> None:
        """Count who is turned away, and say so from time to time."""
        self._away += 1
        now = time.monotonic()
        if now - self._told >= TELL_SECONDS:
            log.warning("%d %s turned away: %d are under way.", self._away, self.name, self.inside)
            self._away, self._told = 0, now


USES = Hall("uses of keys", settings.IN_FLIGHT)
PAGES = Hall("pages", settings.PAGES_IN_FLIGHT)
QUESTIONS = Hall("probes", PROBES_IN_FLIGHT)
HALLS = (USES, PAGES, QUESTIONS)


async def _answer(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer one request, or follow the server's start and stop."""
    kind = scope["type"]
    if kind == "http":
        hall, answer = _destination(scope)
        if hall.full:
            await _turn_away(hall, scope, send)
            return
        hall.inside += 1
        try:
            await answer(scope, receive, send)
        finally:
            hall.inside -= 1
    elif kind == "lifespan":
        await _lifespan(receive, send)
    elif kind == "websocket":
        await send({"type": "websocket.close", "code": 1000})


def _destination(scope: Scope) -> tuple[Hall, Application]:
    """Return who answers this request, and with how many others at once."""
    path = scope["path"]
    if match(scope["method"], path) and takes(scope):
        return USES, handle
    return (QUESTIONS, _probe) if path in PROBES else (PAGES, _page)


async def _turn_away(hall: Hall, scope: Scope, send: Send) -> None:
    """Answer that it is too much just now. Nothing was read, hashed or looked up; it is counted."""
    from audit import refusals

    hall.turn_away()
    headers = Headers(scope)
    peer = (scope.get("client") or ("",))[0]
    source = forwarded(str(peer), headers.get("x-forwarded-for"))
    refusals.note(source, (Door.REST if hall is USES else Door.CONSOLE).value, Busy.code)
    announced = headers.get("content-length") or "0"
    small = announced.isdigit() and len(announced) < 10 and int(announced) <= SMALL_BODY
    whole = small and not headers.get("transfer-encoding")
    page = hall is PAGES and wants_page(headers.get("accept"))
    await _refuse(send, Busy(TOO_MANY), _request_id(scope), close=not whole, page=page)


def match(method: str, path: str) -> bool:
    """Whether this is the address of a use of a key. A browser's request for it is Django's."""
    return method == "POST" and USE_PATHS.fullmatch(path) is not None


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            await _answered()
            await asyncio.get_running_loop().run_in_executor(None, _drain)
            await send({"type": "lifespan.shutdown.complete"})
            return


async def _answered() -> None:
    """Return once nothing is under way: those that the server has just cancelled still answer.

    The process ends as soon as the log is closed, and what is not on its way by then is lost.
    """
    until = time.monotonic() + LAST_ANSWERS_SECONDS
    while any(hall.inside for hall in HALLS) and time.monotonic() < until:
        await asyncio.sleep(FLUSH_SECONDS)
    await asyncio.sleep(FLUSH_SECONDS)


def _drain() -> None:
    """Write what waits for the log. Whatever fails here was not acknowledged to anybody."""
    from audit import refusals
    from audit.writer import close_appender

    for finish in (refusals.flush, close_appender):
        try:
            finish()
        except Exception:
            log.exception("The audit log could not be drained.")


async def _probe(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer how this process is, in threads of its own."""
    await _page(scope, receive, send, _django_for_probes)


async def _page(scope: Scope, receive: Receive, send: Send, django: Any = _django) -> None:
    """Let Django answer, once the whole body is here: a slow sender or reader must not hold a thread."""
    limit = settings.BODY_LIMIT  # held in memory before anybody is asked who they are
    try:
        body = await asyncio.wait_for(_body(receive, limit), BODY_SECONDS)
    except TimeoutError:
        await _refuse(send, problems.TimedOut(), _request_id(scope))
        return
    except ConnectionResetError:
        return  # the client has gone; nobody reads an answer
    if body is None:
        await _refuse(send, TooLarge(f"The body is limited to {limit} bytes."), _request_id(scope))
        return
    waiting = [body]

    async def whole() -> Message:
        if waiting:
            return {"type": "http.request", "body": waiting.pop(), "more_body": False}
        return await receive()

    outbox = Outbox(send)
    try:
        await django(_plain(scope, len(body)), whole, outbox.put)
        await outbox.delivered()
    except asyncio.CancelledError:  # the server ends, and has waited as long as it may
        if outbox.started:
            raise
        await _refuse(send, Unavailable(STOPPING), _request_id(scope))


def _request_id(scope: Scope) -> str:
    headers = dict(scope["headers"])
    return request_id(headers.get(b"x-request-id", b"").decode("latin-1"))


async def _body(receive: Receive, limit: int) -> bytes | None:
    """Return the body, None where it is over `limit` bytes.

    Raises ConnectionResetError where the client went away.
    """
    chunks = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionResetError
        chunks += message.get("body", b"")
        if len(chunks) > limit:
            return None
        if not message.get("more_body", False):
            return bytes(chunks)


def _plain(scope: Scope, length: int) -> Scope:
    """Return the scope as WSGI can say it.

    WSGI writes `-` in a header's name as `_`, so a client could send X_Name for X-Name: such
    headers go. The length is the one that arrived, whatever was announced. A query may be any bytes
    on the wire and must be ASCII here.
    """
    headers = [
        (name, value)
        for name, value in scope["headers"]
        if b"_" not in name and name not in {b"content-length", b"transfer-encoding"}
    ]
    if length:
        headers.append((b"content-length", str(length).encode()))
    query = quote_from_bytes(scope["query_string"], safe=ASCII).encode()
    return {**scope, "headers": headers, "query_string": query}


async def _refuse(
    send: Send, error: KeyServiceError, request_id: str, *, close: bool = True, page: bool = False
) -> None:
    """Answer before Django has seen the request: with a problem document (RFC 9457), or a `page`."""
    answer = problems.answer_of(error)
    body = f"{error.detail}\n".encode() if page else problems.document(error, request_id)
    media = "text/plain; charset=utf-8" if page else problems.MEDIA_TYPE
    headers = {**answer.headers, "X-Request-Id": request_id, "Content-Type": media}
    headers |= {"Content-Length": str(len(body)), "Cache-Control": "no-store"}
    if close:
        headers["Connection"] = "close"
    rows = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": answer.status, "headers": rows})
    await send({"type": "http.response.body", "body": body})


# Who asks and whether over TLS is what a trusted proxy says it is, and nobody else's word.
application = (
    ProxyHeadersMiddleware(_answer, settings.TRUSTED_PROXIES)  # type: ignore[arg-type]
    if settings.TRUSTED_PROXIES
    else _answer
)
