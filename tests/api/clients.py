"""Callers of the API for tests: through Django as a server would call it, and through the event loop's table."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from django.contrib.auth import get_user_model
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

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


class Api:
    """One caller's way to the API through Django: an application's token, or a signed-in person."""

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
        """Send one request; `path` begins after /api/v1/."""
        more = {name.replace("_", "-"): value for name, value in headers.items()}
        response = self.client.generic(
            method,
            PREFIX + path,
            encoded(body),
            content_type=content_type if body is not None else "",
            headers={**self.headers, **more},
        )
        streamed = getattr(response, "streaming", False)
        content = b"".join(response.streaming_content) if streamed else response.content  # type: ignore[attr-defined]
        return Answer(
            response.status_code,
            {name.lower(): value for name, value in response.headers.items()},
            content,
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
    headers = {name.decode(): value.decode() for name, value in start["headers"]}
    content = b"".join(message.get("body", b"") for message in rest)
    return Answer(start["status"], headers, content)


def part(content: bytes = b"", more: bool = False) -> Message:
    return {"type": "http.request", "body": content, "more_body": more}


def use(app: App, path: str, body: Any, token: str = "", **headers: str) -> Answer:
    """Use a key through an ASGI application and return its answer."""
    content = encoded(body)
    wanted = {"content-type": "application/json", "content-length": str(len(content))}
    if token:
        wanted["authorization"] = f"Bearer {token}"
    answer = asyncio.run(talk(app, scope(path, wanted | headers), part(content)))
    assert answer is not None
    return answer


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
        methods = [m for m in ("get", "post", "patch", "delete") if hasattr(view, m)]
        assert methods, item
        found += [Route(m.upper(), str(item.pattern), str(item.name)) for m in methods]
    return found
