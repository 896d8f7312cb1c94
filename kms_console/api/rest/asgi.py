"""Key use on the event loop: the table of codecs.use, without Django's request cycle and without the ORM.

What isn't a program's request with a token falls through to Django, whose views call the same rows.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from django.conf import settings
from django.db import close_old_connections

from keys import gate
from keys.callers import Caller
from keys.errors import Busy, KeyServiceError, NotFound, TooLarge, Unavailable
from keys.snapshot import Miss
from kms_console import identity
from kms_console.api.rest import problems
from kms_console.api.rest.codecs.strict import reference
from kms_console.api.rest.codecs.use import RANDOM, RANDOM_BATCH, TABLE, AnyRow
from kms_console.middleware import request_id as decent_id

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

# How long a body may take to arrive, in seconds.
BODY_SECONDS = 30.0
# How many bodies over KMS_BODY_LIMIT a process holds at once.
LARGE_BODIES = 16
STOPPING = "The service is being stopped; what became of the request is not known."
PREFIX = "/api/v1/"
USE_PATHS = re.compile(
    rf"{PREFIX}(?:keys/([^/]+)/({'|'.join(map(re.escape, TABLE))})|random(/batch)?)"
)

_JSON = re.compile(r"application/json\s*(?:;\s*charset=\"?utf-8\"?\s*)?", re.IGNORECASE)
_threads = ThreadPoolExecutor(max_workers=4, thread_name_prefix="bearer")


class _Stopping(Unavailable):
    """The server ends, and has cancelled what it could wait for no longer."""


class _TooManyLarge(Busy):
    """A batch was refused for its size, before it was read."""


class _Gone(Exception):
    """The client went away before its request was whole; nobody reads an answer."""


def takes(scope: Scope) -> bool:
    """Whether this table answers a request that it has the path of: a token came with it, no page is asked for."""
    headers = Headers(scope)
    return headers.get("authorization")[:7].lower() == "bearer " and not wants_page(
        headers.get("accept")
    )


def wants_page(accept: str) -> bool:
    """Whether an Accept header asks for a page to look at, as browsers' do."""
    return "text/html" in accept.lower()


def is_json(content_type: str) -> bool:
    """Whether a Content-Type announces JSON, which is always UTF-8 (RFC 8259, 8.1)."""
    return _JSON.fullmatch(content_type.strip()) is not None


def check_length(announced: str, limit: int) -> int:
    """Return the length that a Content-Length announces, 0 for none. Raises MalformedRequest, TooLarge."""
    if not announced:
        return 0
    if not (announced.isascii() and announced.isdigit()):
        raise problems.MalformedRequest("Content-Length is not a number.")
    if len(announced) > 18 or int(announced) > limit:
        raise too_large(limit)
    return int(announced)


def too_large(limit: int) -> TooLarge:
    return TooLarge(f"The body is limited to {limit} bytes.")


class Headers:
    """A request's headers; what stands twice is joined, as WSGI joins it."""

    def __init__(self, scope: Scope) -> None:
        found: dict[bytes, bytes] = {}
        for name, value in scope["headers"]:
            found[name] = found[name] + b"," + value if name in found else value
        self._found = found

    def get(self, name: str) -> str:
        return self._found.get(name.encode(), b"").decode("latin-1")


async def handle(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer one use of a key."""
    headers = Headers(scope)
    request_id = decent_id(headers.get("x-request-id"))
    extra: dict[str, str] = {}
    whole, large, caller = False, False, None
    try:
        caller = await _caller(scope, headers, request_id)
        row, key = _row(scope["path"])
        # A large body is read only for somebody who is known by now, and few of them at once.
        large = row.limit > settings.BODY_LIMIT and _large.enter(headers)
        body = await _body(headers, receive, row.limit)
        whole = True
        _check(headers, body)
        status, content, media = 200, await row.aio(caller, key, body), "application/json"
    except _Gone:
        return
    except (Exception, asyncio.CancelledError) as error:
        known = await _told(caller, scope["path"], _known(error))
        answer = problems.answer_of(known)
        status, content = answer.status, problems.document(known, request_id)
        media, extra = problems.MEDIA_TYPE, dict(answer.headers)
        if not whole:
            extra["Connection"] = "close"  # what of the body is still to come is not read
    finally:
        _large.inside -= large
    await _send(send, status, content, media, extra | {"X-Request-Id": request_id})


class _LargeBodies:
    """How many bodies over the ordinary limit are in memory: of batches, up to 16 MiB each."""

    def __init__(self) -> None:
        self.inside, self.limit = 0, LARGE_BODIES

    def enter(self, headers: Headers) -> bool:
        """Take a place where the body may be large; return whether one was taken. Raises Busy."""
        announced = headers.get("content-length")
        known = len(announced) < 10 and announced.isascii() and announced.isdigit()
        if known and int(announced) <= settings.BODY_LIMIT:
            return False
        if self.inside >= self.limit:
            raise _TooManyLarge("Too many large requests are under way; try again in a moment.")
        self.inside += 1
        return True


_large = _LargeBodies()


def _known(error: BaseException) -> KeyServiceError:
    """Return what was raised as one of our errors. Only a server that ends cancels a request."""
    if isinstance(error, asyncio.CancelledError):
        return _Stopping(STOPPING)
    return problems.known(error)


async def _told(caller: Caller | None, path: str, error: KeyServiceError) -> KeyServiceError:
    """Leave an entry of what a known caller sent and the gate never saw; return what to answer."""
    if caller is None or not (
        problems.unrecorded(error) or isinstance(error, _Stopping | _TooManyLarge)
    ):
        return error
    try:
        await gate.refused_aio(caller, path, error)
    except KeyServiceError as trouble:
        return trouble
    return error


def _row(path: str) -> tuple[AnyRow, str]:
    found = USE_PATHS.fullmatch(path)
    if found is None:
        raise NotFound
    key, operation, many = found.groups()
    if operation is None:
        return (RANDOM_BATCH if many else RANDOM), ""
    return TABLE[operation], reference(key)


async def _caller(scope: Scope, headers: Headers, request_id: str) -> Caller:
    """Return who asks: from memory, or by a thread that may wait for the database."""
    peer = (scope.get("client") or ("",))[0]
    source = identity.forwarded(str(peer), headers.get("x-forwarded-for"))
    prove = partial(
        identity.bearer, headers.get("authorization"), source=source, request_id=request_id
    )
    try:
        return prove(load=False)
    except Miss:
        return await asyncio.get_running_loop().run_in_executor(_threads, _loading, prove)


def _loading(prove: Callable[[], Caller]) -> Caller:
    close_old_connections()
    try:
        return prove()
    finally:
        close_old_connections()


async def _body(headers: Headers, receive: Receive, limit: int) -> bytes:
    """Return the whole body. Reads no more than the limit allows, and no longer than BODY_SECONDS."""
    check_length(headers.get("content-length"), limit)
    # What asyncio.timeout() does, at half its price: nearly always the body is here already.
    task, late = asyncio.current_task(), False
    assert task is not None

    def give_up() -> None:
        nonlocal late
        late = True
        task.cancel()

    timer = asyncio.get_running_loop().call_later(BODY_SECONDS, give_up)
    try:
        return await _chunks(receive, limit)
    except asyncio.CancelledError:
        if late and not task.uncancel():
            raise problems.TimedOut from None
        raise
    finally:
        timer.cancel()


def _check(headers: Headers, body: bytes) -> None:
    """Raise MalformedRequest or NotJson where a whole body isn't what its headers say."""
    announced = headers.get("content-length")
    if announced and len(body) != int(announced):
        raise problems.MalformedRequest("The body has another length than was announced.")
    if body and not is_json(headers.get("content-type")):
        raise problems.NotJson


async def _chunks(receive: Receive, limit: int) -> bytes:
    chunks = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Gone
        chunks += message.get("body", b"")
        if len(chunks) > limit:
            raise too_large(limit)
        if not message.get("more_body", False):
            return bytes(chunks)


async def _send(send: Send, status: int, content: bytes, media: str, extra: dict[str, str]) -> None:
    headers = [
        (b"content-type", media.encode()),
        (b"content-length", str(len(content)).encode()),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
        *((name.lower().encode(), value.encode()) for name, value in extra.items()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
