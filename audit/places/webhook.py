"""A webhook as a place to publish at: each thing is posted as signed JSON. Nothing is read back."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from audit.errors import PlaceError
from audit.places import http, signing
from audit.places.base import Place, checked, stream

POST_LIMIT = 16 * 1024 * 1024


class WebhookPlace(Place):
    """Posts {"name", "sha256", "text" or "data" (base64)}; a 2xx answer means that it is kept.

    The option `ca` names a file of CAs to trust instead of the system's; the rest of the query is the
    receiver's.
    """

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._parts, options = http.options(http.split(url), frozenset({"ca"}))
        self._secret = signing.secret()
        secure = self._parts.scheme == "https"
        self._context = http.tls(options.get("ca")) if secure else None

    def put(
        self,
        name: str,
        data: bytes | Path,
        *,
        retain_until: datetime | None = None,
        hold: bool = False,
        replace: bool = False,
    ) -> None:
        content = bytearray()
        for chunk in stream(data):
            content += chunk
            if len(content) > POST_LIMIT:
                raise PlaceError("that is too long for a webhook")
        body = _body(checked(name), bytes(content), retain_until, hold)
        # The same thing again has the same id: the receiver can tell.
        identity = f"put_{hashlib.sha256(body).hexdigest()[:32]}"
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "kms-console",
            **signing.headers(identity, body, self._secret),
        }
        http.require_success(http.post(self._parts, body, headers, self._context))

    def get(self, name: str) -> bytes:
        raise PlaceError("nothing can be read from a webhook")

    def read(self, name: str) -> Iterator[bytes]:
        raise PlaceError("nothing can be read from a webhook")

    def names(self, prefix: str = "") -> list[str]:
        raise PlaceError("nothing can be read from a webhook")

    def hold(self, name: str, on: bool) -> None:
        raise PlaceError("a webhook knows no holds")


def _body(name: str, content: bytes, retain_until: datetime | None, hold: bool) -> bytes:
    told: dict[str, str | bool] = {"name": name, "sha256": hashlib.sha256(content).hexdigest()}
    try:
        told["text"] = content.decode()
    except UnicodeDecodeError:
        told["data"] = base64.b64encode(content).decode()
    if retain_until is not None:
        told["retain_until"] = retain_until.isoformat()
    if hold:
        told["hold"] = True
    return json.dumps(told, sort_keys=True).encode()
