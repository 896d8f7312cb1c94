"""The switch between key use and Django, spoken to as an ASGI server speaks to it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import MutableMapping
from typing import Any

import pytest
from django.conf import settings

from kms_console import asgi
from kms_console.api.rest.codecs.use import TABLE

Message = MutableMapping[str, Any]


def scope(method: str = "GET", path: str = "/healthz", **more: Any) -> dict[str, Any]:
    return {
        "type": "http",
        "http_version": "1.1",
        "scheme": "http",
        "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", 50000),
        "method": method,
        "path": path,
        "query_string": b"",
        "headers": [(b"host", b"localhost")],
        **more,
    }


async def talk(scope: dict[str, Any], *messages: Message) -> list[Message]:
    """Send these messages to the application and return its own."""
    waiting, sent = list(messages), []

    async def receive() -> Message:
        if not waiting:
            await asyncio.sleep(3600)
        return waiting.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    await asyncio.wait_for(asgi.application(scope, receive, send), 60)
    return sent


def body(content: bytes = b"", more: bool = False) -> Message:
    return {"type": "http.request", "body": content, "more_body": more}


@pytest.mark.parametrize("name", ["alias", "0190f0a0-0000-7000-8000-000000000000", "a%2Fb"])
@pytest.mark.parametrize("operation", TABLE)
def test_using_a_key_goes_to_the_table(name: str, operation: str) -> None:
    assert asgi.match("POST", f"/api/v1/keys/{name}/{operation}")
    assert not asgi.match("GET", f"/api/v1/keys/{name}/{operation}")


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/keys",
        "/api/v1/keys/k",
        "/api/v1/keys/k/rotate",
        "/api/v1/keys/k/jwks.json",
        "/api/v1/keys/k/rotate/batch",
        "/api/v1/keys/k/encrypt/batch/batch",
        "/api/v1/keys/k/encrypt/",
        "/api/v1/batch",
        "/x/api/v1/random",
        "/",
        "",
    ],
)
def test_all_else_is_djangos(path: str) -> None:
    assert not asgi.match("POST", path)


@pytest.mark.asyncio
async def test_django_answers_behind_the_switch() -> None:
    start, *rest = await talk(scope(), body())
    assert start["status"] == 200
    assert b"".join(message.get("body", b"") for message in rest) == b"ok\n"


def test_a_use_without_a_token_is_djangos_who_asks_for_one() -> None:
    """A browser's own request for the address of a use: no token, so the table leaves it alone."""
    path = "/api/v1/keys/some-key/encrypt"
    assert asgi.match("POST", path)
    assert not asgi.takes(scope("POST", path))
    assert asgi.takes(scope("POST", path, headers=[(b"authorization", b"Bearer kms_x")]))


@pytest.mark.asyncio
async def test_a_body_over_the_limit_is_refused_before_django_sees_it() -> None:
    half = bytes(settings.BODY_LIMIT // 2 + 1)
    start, answer = await talk(scope("POST", "/api/v1/keys"), body(half, True), body(half, True))
    assert start["status"] == 413
    assert json.loads(answer["body"])["code"] == "too_large"


@pytest.mark.asyncio
@pytest.mark.parametrize("path", ["/api/v1/keys/k/encrypt/batch", "/api/v1/random/batch"])
async def test_a_batch_of_nobody_is_not_read_beyond_the_ordinary_limit(path: str) -> None:
    """Without a token it is Django's, who would only then look for a session."""
    half = bytes(settings.BODY_LIMIT // 2 + 1)
    start, answer = await talk(scope("POST", path), body(half, True), body(half, True))
    assert start["status"] == 413
    assert json.loads(answer["body"])["code"] == "too_large"


@pytest.mark.asyncio
async def test_a_body_that_never_comes_holds_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asgi, "BODY_SECONDS", 0.05)
    start, answer = await talk(scope("POST", "/api/v1/keys"), body(b"{", True))
    assert start["status"] == 408
    assert json.loads(answer["body"])["code"] == "timeout"


@pytest.mark.asyncio
async def test_a_client_that_goes_away_gets_no_answer() -> None:
    assert await talk(scope("POST", "/api/v1/keys"), {"type": "http.disconnect"}) == []


@pytest.mark.asyncio
async def test_a_websocket_is_closed() -> None:
    assert await talk({"type": "websocket", "path": "/"}) == [
        {"type": "websocket.close", "code": 1000}
    ]


@pytest.mark.asyncio
async def test_the_server_may_start_and_stop_it() -> None:
    sent = await talk(
        {"type": "lifespan"}, {"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}
    )
    assert [message["type"] for message in sent] == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
    ]


def test_headers_that_wsgi_would_mistake_for_others_go() -> None:
    headers = [
        (b"host", b"localhost"),
        (b"x_forwarded_for", b"10.0.0.1"),
        (b"content-length", b"999"),
        (b"transfer-encoding", b"chunked"),
    ]
    plain = asgi._plain(scope("POST", "/", headers=headers, query_string=b"q=\xff%20x"), 4)
    assert plain["headers"] == [(b"host", b"localhost"), (b"content-length", b"4")]
    assert plain["query_string"] == b"q=%FF%20x"
