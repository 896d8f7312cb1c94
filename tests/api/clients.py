"""Callers of the API for tests, and the two doors that their requests go through.

A door is open for a whole test (tests/api/conftest.py), so that a test says what is asked and
answered and never how it is sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol
from urllib.parse import unquote

from django.contrib.auth import get_user_model
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

from kms_console import asgi
from kms_console.api.rest.asgi import USE_PATHS, takes
from kms_console.middleware import LAST_SEEN, SIGNED_IN
from tests.house import House

PREFIX = "/api/v1/"
PROBLEM = "application/problem+json"
Message = MutableMapping[str, Any]
App = Callable[..., Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes
    cookies: tuple[str, ...] = ()

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def type(self) -> str:
        return self.headers.get("content-type", "")

    def problem(self, status: int, code: str) -> dict[str, Any]:
        """Return the problem document, which must be this one."""
        assert (self.status, self.type) == (status, PROBLEM), (self.status, self.body)
        document = self.json
        assert document["status"] == status
        assert document["code"] == code, document
        assert document["type"] == f"/api/v1/problems/{code}"
        assert document["request_id"] == self.headers["x-request-id"]
        assert {"title", "detail"} <= document.keys()
        return document  # type: ignore[no-any-return]


def encoded(body: Any) -> bytes:
    if body is None:
        return b""
    return body if isinstance(body, bytes) else json.dumps(body).encode()


class Door(Protocol):
    """One way to the API. `path` is as a request line has it; `client` keeps the caller's cookies."""

    name: ClassVar[str]

    def send(
        self, client: Client, method: str, path: str, headers: Mapping[str, str], body: bytes
    ) -> Answer: ...


class Views:
    """Django alone, without the event loop: its views answer everything, key use by programs too."""

    name: ClassVar[str] = "views"

    def send(
        self, client: Client, method: str, path: str, headers: Mapping[str, str], body: bytes
    ) -> Answer:
        more = dict(headers)
        response = client.generic(
            method, path, body, content_type=more.pop("Content-Type", ""), headers=more
        )
        streamed = getattr(response, "streaming", False)
        content = b"".join(response.streaming_content) if streamed else response.content  # type: ignore[attr-defined]
        told = {name.lower(): value for name, value in response.headers.items()}
        return Answer(response.status_code, told, content)


class Loop:
    """The whole ASGI application, as users reach it: its table of key use, and Django behind it."""

    name: ClassVar[str] = "loop"

    def __init__(self, runner: asyncio.Runner) -> None:
        self.runner = runner
        self.uses = 0  # how many requests the table answered

    def send(
        self, client: Client, method: str, path: str, headers: Mapping[str, str], body: bytes
    ) -> Answer:
        more = dict(headers)
        if body or method in ("POST", "PUT", "PATCH"):
            more["Content-Length"] = str(len(body))
        if client.cookies:
            more["Cookie"] = "; ".join(f"{c.key}={c.coded_value}" for c in client.cookies.values())
        raw, _, query = path.partition("?")
        asked = scope(unquote(raw).removeprefix(PREFIX), more, method=method)
        asked["query_string"] = query.encode()
        self.uses += method == "POST" and bool(USE_PATHS.fullmatch(asked["path"])) and takes(asked)
        answer = self.runner.run(talk(asgi.application, asked, part(body)))
        assert answer is not None
        for cookie in answer.cookies:
            client.cookies.load(cookie)
        return answer


_open: list[Door] = [Views()]


@contextlib.contextmanager
def opened(door: Door) -> Iterator[None]:
    """Send what is sent meanwhile through this door."""
    _open.append(door)
    try:
        yield
    finally:
        _open.pop()


class Api:
    """One caller's way to the API: an application's token, or a signed-in person."""

    def __init__(self, token: str = "", username: str = "", csrf: bool = False) -> None:
        self.client = Client(enforce_csrf_checks=True, raise_request_exception=True)
        self.headers: dict[str, str] = {}
        if token:
            self.headers["Authorization"] = f"Bearer {token}"
        if username:
            self.client.force_login(get_user_model().objects.get(username=username))
            session = self.client.session
            session[SIGNED_IN] = session[LAST_SEEN] = int(time.time())
            session.save()
        if username and csrf:
            from django.conf import settings

            secret = "a" * 32
            self.client.cookies[settings.CSRF_COOKIE_NAME] = secret
            self.headers["X-CSRFToken"] = secret

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content_type: str = "application/json",
        **headers: str,
    ) -> Answer:
        """Send one request through the open door; `path` begins after /api/v1/."""
        wanted = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None:
            wanted["Content-Type"] = content_type
        return _open[-1].send(
            self.client, method, PREFIX + path, {**self.headers, **wanted}, encoded(body)
        )

    def get(self, path: str, **headers: str) -> Answer:
        return self.call("GET", path, **headers)

    def post(self, path: str, body: Any = None, **headers: str) -> Answer:
        return self.call("POST", path, {} if body is None else body, **headers)

    def patch(self, path: str, body: Any, **headers: str) -> Answer:
        return self.call("PATCH", path, body, **headers)


def application(house: House, name: str) -> Api:
    return Api(token=house.token(name))


def person(username: str) -> Api:
    return Api(username=username, csrf=True)


def scope(
    path: str,
    headers: dict[str, str] | None = None,
    *,
    method: str = "POST",
    client: tuple[str, int] | None = ("127.0.0.1", 50000),
) -> dict[str, Any]:
    """Return an ASGI scope as a server makes it."""
    rows = [
        (name.replace("_", "-").lower().encode(), value.encode("latin-1"))
        for name, value in (headers or {}).items()
    ]
    return {
        "type": "http",
        "http_version": "1.1",
        "scheme": "http",
        "server": ("127.0.0.1", 8000),
        "client": client,
        "method": method,
        "path": PREFIX + path,
        "query_string": b"",
        "headers": [(b"host", b"localhost"), *rows],
    }


async def talk(app: App, scope: dict[str, Any], *messages: Message) -> Answer | None:
    """Speak to an ASGI application as a server does; None where it said nothing."""
    waiting, sent = list(messages), list[Message]()

    async def receive() -> Message:
        if not waiting:
            await asyncio.sleep(3600)
        return waiting.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    await asyncio.wait_for(app(scope, receive, send), 60)
    if not sent:
        return None
    start, *rest = sent
    rows = [(name.decode(), value.decode("latin-1")) for name, value in start["headers"]]
    content = b"".join(message.get("body", b"") for message in rest)
    cookies = tuple(value for name, value in rows if name == "set-cookie")
    return Answer(start["status"], dict(rows), content, cookies)


def part(content: bytes = b"", more: bool = False) -> Message:
    return {"type": "http.request", "body": content, "more_body": more}


def use(path: str, body: Any, token: str, **headers: str) -> Answer:
    """Use a key as the program that has this token."""
    return Api(token=token).call("POST", path, body, **headers)


@dataclass(frozen=True, slots=True)
class Route:
    """One address of the API with one method."""

    method: str
    pattern: str
    name: str

    def path(self, **parts: str) -> str:
        """Return the address with its parts filled in."""
        found = self.pattern
        for part, value in parts.items():
            found = found.replace(f"<{part}>", value)
        assert "<" not in found, f"no value for a part of {self.pattern}"
        return found

    def __str__(self) -> str:
        return f"{self.method} {self.pattern}"


# Addresses for everybody, or for nothing.
OPEN = {"docs", "document", "problem", "not-here"}


def routes() -> list[Route]:
    """Return every address below /api/v1/ with every method it knows, read from the URLconf."""
    resolver = next(
        item
        for item in get_resolver().url_patterns
        if isinstance(item, URLResolver) and item.app_name == "rest"
    )
    found = []
    for item in resolver.url_patterns:
        assert isinstance(item, URLPattern)
        if item.name in OPEN:
            continue
        view = item.callback.cls  # type: ignore[attr-defined]
        methods = [m for m in ("get", "post", "put", "patch", "delete") if hasattr(view, m)]
        assert methods, item
        found += [Route(m.upper(), str(item.pattern), str(item.name)) for m in methods]
    return found
