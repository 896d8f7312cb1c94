"""One address, two applications: keys are used on the event loop, the rest is Django as WSGI.

Django's own ASGI handler starts a thread per request and ran ten times slower than its WSGI handler
in a pool of threads (docs/adr/0004), so that is how it is served here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, cast
from urllib.parse import quote_from_bytes

from a2wsgi import WSGIMiddleware
from django.conf import settings
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from keys.errors import KeyServiceError, TooLarge
from kms_console import wsgi  # sets Django up, which what follows needs
from kms_console.api.rest import problems
from kms_console.api.rest.asgi import USE_PATHS, handle, takes
from kms_console.middleware import request_id

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

log = logging.getLogger(__name__)

DJANGO_THREADS = 8
BODY_SECONDS = 30.0
ASCII = "".join(map(chr, range(128)))

# Any: a2wsgi and django-stubs describe the same protocol in two ways that don't match.
_django: Any = WSGIMiddleware(cast(Any, wsgi.application), workers=DJANGO_THREADS)


async def _answer(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer one request, or follow the server's start and stop."""
    kind = scope["type"]
    if kind == "http":
        if match(scope["method"], scope["path"]) and takes(scope):
            await handle(scope, receive, send)
        else:
            await _page(scope, receive, send)
    elif kind == "lifespan":
        await _lifespan(receive, send)
    elif kind == "websocket":
        await send({"type": "websocket.close", "code": 1000})


def match(method: str, path: str) -> bool:
    """Whether this is the address of a use of a key. A browser's request for it is Django's."""
    return method == "POST" and USE_PATHS.fullmatch(path) is not None


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            await asyncio.get_running_loop().run_in_executor(None, _drain)
            await send({"type": "lifespan.shutdown.complete"})
            return


def _drain() -> None:
    """Write what waits for the log. Whatever fails here was not acknowledged to anybody."""
    from audit.refusals import flush
    from audit.writer import close_appender

    for finish in (flush, close_appender):
        try:
            finish()
        except Exception:
            log.exception("The audit log could not be drained.")


async def _page(scope: Scope, receive: Receive, send: Send) -> None:
    """Let Django answer, once the whole body is here: a slow sender must not hold a thread."""
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

    await _django(_plain(scope, len(body)), whole, send)


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


async def _refuse(send: Send, error: KeyServiceError, request_id: str) -> None:
    """Answer with a problem document (RFC 9457) before Django has seen the request."""
    headers = [
        (b"content-type", problems.MEDIA_TYPE.encode()),
        (b"x-request-id", request_id.encode()),
        (b"connection", b"close"),
    ]
    status = problems.answer_of(error).status
    await send({"type": "http.response.start", "status": status, "headers": headers})
    body = problems.document(error, request_id)
    await send({"type": "http.response.body", "body": body})


# Who asks and whether over TLS is what a trusted proxy says it is, and nobody else's word.
application = (
    ProxyHeadersMiddleware(_answer, settings.TRUSTED_PROXIES)  # type: ignore[arg-type]
    if settings.TRUSTED_PROXIES
    else _answer
)
