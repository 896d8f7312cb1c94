"""Signatures of what is posted to webhooks, as in Standard Webhooks (version 1, HMAC-SHA256).

Signed is `<id>.<seconds>.<body>`. The receiver recomputes it with the shared secret, refuses old
times, and knows a repeated message by its id.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import time

from django.conf import settings

from audit.errors import PlaceError

PREFIX = "whsec_"
LEAST = 24  # bytes, as Standard Webhooks demands


def secret() -> bytes:
    """Return the shared secret of settings.AUDIT_WEBHOOK_SECRET. Raises PlaceError where none will do.

    `whsec_` and base64, as Standard Webhooks writes secrets; any other text is taken as it is. Either
    has 24 bytes at least.
    """
    text = settings.AUDIT_WEBHOOK_SECRET
    if not text:
        raise PlaceError("a webhook needs KMS_AUDIT_WEBHOOK_SECRET, to sign what it sends")
    found = _decoded(text) if text.startswith(PREFIX) else text.encode()
    if len(found) < LEAST:
        raise PlaceError(f"KMS_AUDIT_WEBHOOK_SECRET is too short: it needs {LEAST} bytes")
    return found


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise PlaceError("KMS_AUDIT_WEBHOOK_SECRET is not whsec_ and base64") from None


def headers(identity: str, body: bytes, key: bytes, now: int | None = None) -> dict[str, str]:
    """Return the three headers of a message. `now` is in Unix seconds."""
    seconds = str(int(time.time()) if now is None else now)
    signed = b".".join((identity.encode(), seconds.encode(), body))
    signature = base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
    return {
        "webhook-id": identity,
        "webhook-timestamp": seconds,
        "webhook-signature": f"v1,{signature}",
    }
