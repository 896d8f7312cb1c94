"""Requests to the whole ASGI application of this process, as a server hands them over."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from kms_console import asgi
from tests.house import House
from tests.shell.test_asgi import scope as plain

Message = MutableMapping[str, Any]
ENCRYPT = json.dumps({"plaintext": "c2VjcmV0"}).encode()


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        return str(json.loads(self.body)["code"])


def scope(method: str, path: str, headers: dict[str, str]) -> dict[str, Any]:
    rows = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
    return plain(method, path, headers=[(b"host", b"localhost"), *rows])


async def ask(
    method: str,
    path: str,
    body: bytes | None = b"",
    app: Callable[..., Any] = asgi.application,
    **headers: str,
) -> Answer:
    """Return the answer. A body of None never comes."""
    waiting, sent = [body], list[Message]()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if body:
        named.setdefault("content-length", str(len(body)))

    async def receive() -> Message:
        if not waiting or waiting[0] is None:
            await asyncio.sleep(3600)
        return {"type": "http.request", "body": waiting.pop(), "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope(method, path, named), receive, send)
    start, *rest = sent
    told = {name.decode().lower(): value.decode() for name, value in start["headers"]}
    return Answer(start["status"], told, b"".join(part.get("body", b"") for part in rest))


class Billing:
    """The application `billing`, which uses keys at both doors."""

    def __init__(self, house: House) -> None:
        self.token = house.token("billing")

    async def use(
        self, key: str, body: bytes | None = ENCRYPT, operation: str = "encrypt"
    ) -> Answer:
        """Use a key on the event loop."""
        return await self._ask(key, operation, body, accept="application/json")

    async def use_by_page(self, key: str) -> Answer:
        """Use a key in one of Django's threads, as the browsable API does."""
        return await self._ask(key, "encrypt", ENCRYPT, accept="text/html")

    async def _ask(self, key: str, operation: str, body: bytes | None, accept: str) -> Answer:
        return await ask(
            "POST",
            f"/api/v1/keys/{key}/{operation}",
            body,
            authorization=f"Bearer {self.token}",
            content_type="application/json",
            accept=accept,
        )


async def soon(what: Callable[[], bool], seconds: float = 60.0) -> None:
    """Return once `what` holds; fail after a patience that no test relies on."""
    until = asyncio.get_running_loop().time() + seconds
    while not what():
        assert asyncio.get_running_loop().time() < until, "it did not happen"
        await asyncio.sleep(0.01)
