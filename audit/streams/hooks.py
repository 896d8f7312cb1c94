"""Batches to a webhook: lines of JSON (or CEF) in one signed request; a 2xx answer takes them all."""

from __future__ import annotations

import hashlib

from audit.places import http, signing
from audit.places.http import Cutter
from audit.streams.addresses import Stream
from audit.streams.batches import Batch

SECONDS = 30.0
_TYPES = {"cef": "text/plain; charset=utf-8"}


class HookSender:
    """Sends batches to one receiver. Made anew after a failure, so that renewed files are read."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        secure = stream.url.scheme == "https"
        self._context = http.tls(stream.ca, stream.certificate, stream.key) if secure else None
        self._secret = signing.secret()

    def send(self, batch: Batch, cutter: Cutter) -> None:
        """Deliver a batch. Raises PlaceUnavailable or PlaceError where it may not have been taken.

        PlaceOverfull where fewer entries may be taken.
        """
        body = b"".join(message.line + b"\n" for message in batch.messages)
        # The same batch again has the same id.
        digest = hashlib.sha256(self._stream.identity.encode() + body).hexdigest()[:16]
        identity = f"entries_{batch.start}_{batch.end - 1}_{digest}"
        headers = {
            "Content-Type": _TYPES.get(self._stream.format, "application/x-ndjson"),
            "User-Agent": "kms-console",
            **signing.headers(identity, body, self._secret),
        }
        answer = http.post(
            self._stream.url, body, headers, self._context, seconds=SECONDS, cutter=cutter
        )
        http.require_success(answer)
