"""What is asked of every system: the same work, as requests that go over the wire as they are."""

from __future__ import annotations

import base64
import http.client
import json
import random
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

# Distinct requests of a kind of work, which connections take turns through.
DISTINCT, DISTINCT_BATCHES = 8, 2
ITEMS = 100


class Work(StrEnum):
    """A kind of work."""

    ENCRYPT = "encrypt 1 KiB"
    DECRYPT = "decrypt 1 KiB"
    DATA_KEY = "data key"
    SIGN_P256 = "sign, P-256"
    SIGN_ED25519 = "sign, Ed25519"
    BATCH_1K = "batch of 100 encrypts of 1 KiB"
    BATCH_100 = "batch of 100 encrypts of 100 bytes"
    BATCH_1K_GCM = "batch of 100 encrypts of 1 KiB, plain AES-GCM"
    BATCH_100_GCM = "batch of 100 encrypts of 100 bytes, plain AES-GCM"

    @property
    def items(self) -> int:
        """How many items a request of it has."""
        return ITEMS if self.name.startswith("BATCH") else 1


Requests = Mapping[Work, list[bytes]]


def encode(data: bytes) -> str:
    return base64.b64encode(data).decode()


def texts(work: Work) -> list[bytes]:
    """Return what one request after the other works on, the same in every run: random bytes."""
    source = random.Random(work.value)
    size = {Work.BATCH_100: 100, Work.BATCH_100_GCM: 100, Work.SIGN_P256: 256}.get(work, 1024)
    size = 256 if work is Work.SIGN_ED25519 else size
    count = DISTINCT_BATCHES * ITEMS if work.items > 1 else DISTINCT
    return [source.randbytes(size) for _ in range(count)]


def batches(work: Work) -> list[list[bytes]]:
    """Return the items of one batch after the other."""
    found = texts(work)
    return [found[at : at + ITEMS] for at in range(0, len(found), ITEMS)]


class Door:
    """How one system is spoken to: its address and the headers that every request has."""

    def __init__(self, address: str, headers: Mapping[str, str]) -> None:
        self.address, self.headers = address, dict(headers)

    def request(self, path: str, body: object, **more: str) -> bytes:
        """Return a POST as it goes over the wire. In `more` a name's underscores are hyphens."""
        content = json.dumps(body, separators=(",", ":")).encode()
        named = {"Host": self.address, **self.headers, **_named(more)}
        named["Content-Length"] = str(len(content))
        lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in named.items())]
        return "\r\n".join([*lines, "", ""]).encode() + content

    def ask(self, path: str, body: object, method: str = "POST", **more: str) -> Any:
        """Return an answer's JSON, {} where it has none. Raises RuntimeError for anything but success."""
        connection = http.client.HTTPConnection(self.address, timeout=30)
        try:
            headers = {**self.headers, **_named(more)}
            content = None if body is None else json.dumps(body).encode()
            connection.request(method, path, content, headers)
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {text[:300]!r}")
        return json.loads(text) if text else {}


def _named(more: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in more.items()}


def native(
    door: Door, aliases: Mapping[str, str], works: Mapping[Work, dict[str, str]]
) -> Requests:
    """Return requests in the form of our API, which two of the peers speak, too.

    `aliases` names the keys `data`, `p256` and `ed25519`; `works` are the kinds of work and what
    else stands in a body or an item of it.
    """
    makers: Mapping[Work, Callable[[], list[tuple[str, Any]]]] = {
        Work.DECRYPT: lambda: [
            ("data/decrypt", {"ciphertext": sealed}) for sealed in _sealed(door, aliases)
        ],
        Work.DATA_KEY: lambda: [("data/generate-data-key", {"length": 32})],
    }
    made: dict[Work, list[bytes]] = {}
    for work, more in works.items():
        maker = makers.get(work, lambda work=work: _plain(work))
        rows = []
        for path, body in maker():
            key, _, operation = path.partition("/")
            for item in body.get("items", [body]):
                item.update(more)
            rows.append(door.request(f"/api/v1/keys/{aliases[key]}/{operation}", body))
        made[work] = rows
    return made


def _plain(work: Work) -> list[tuple[str, Any]]:
    if work.items > 1:
        return [
            ("data/encrypt/batch", {"items": [{"plaintext": encode(text)} for text in batch]})
            for batch in batches(work)
        ]
    if work is Work.ENCRYPT:
        return [("data/encrypt", {"plaintext": encode(text)}) for text in texts(work)]
    key = "p256" if work is Work.SIGN_P256 else "ed25519"
    return [(f"{key}/sign", {"message": encode(text)}) for text in texts(work)]


def _sealed(door: Door, aliases: Mapping[str, str]) -> list[str]:
    """Return ciphertexts to decrypt. Raises RuntimeError where they don't come back as they were."""
    made = []
    place = f"/api/v1/keys/{aliases['data']}"
    for text in texts(Work.DECRYPT):
        sealed = str(door.ask(f"{place}/encrypt", {"plaintext": encode(text)})["ciphertext"])
        opened = door.ask(f"{place}/decrypt", {"ciphertext": sealed})["plaintext"]
        if opened != encode(text):
            raise RuntimeError("what was encrypted does not come back")
        made.append(sealed)
    return made
