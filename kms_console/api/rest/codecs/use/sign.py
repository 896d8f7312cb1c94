"""Signatures and MACs: their requests, answers and rows."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta

from keys import operations
from kms_console.api.rest.codecs.use.row import (
    HELLO,
    SOME,
    Algorithm,
    Asked,
    Binary,
    Row,
    Served,
    Version,
    answered,
    row,
)

MessageKind = Annotated[
    Literal["message", "digest", "external_mu"],
    Meta(description="What `message` is: itself, its digest, or ML-DSA's mu (FIPS 204)."),
]


class SignRequest(Asked):
    message: Binary
    algorithm: Algorithm = ""
    message_type: MessageKind = "message"


class SignResponse(Served):
    signature: Binary


class VerifyRequest(Asked):
    message: Binary
    signature: Binary
    algorithm: Algorithm = ""
    message_type: MessageKind = "message"
    version: Version | None = None


class VerifyResponse(Served):
    valid: bool


class MacRequest(Asked):
    message: Binary


class MacResponse(Served):
    mac: Binary


class VerifyMacRequest(Asked):
    message: Binary
    mac: Binary
    version: Version | None = None


ROWS: tuple[Row[Any], ...] = (
    row(
        "sign",
        operations.sign,
        SignRequest,
        SignResponse,
        ("message",),
        "Sign a message, its digest or its mu",
        {"message": HELLO},
        answered("ECDSA_SHA_256", signature=SOME),
    ),
    row(
        "verify",
        operations.verify,
        VerifyRequest,
        VerifyResponse,
        ("message", "signature"),
        "Verify a signature",
        {"message": HELLO, "signature": SOME, "version": 3},
        answered("ECDSA_SHA_256", valid=True),
    ),
    row(
        "mac",
        operations.mac,
        MacRequest,
        MacResponse,
        ("message",),
        "Compute a MAC",
        {"message": HELLO},
        answered("HMAC_SHA_256", mac=SOME),
    ),
    row(
        "verify-mac",
        operations.verify_mac,
        VerifyMacRequest,
        VerifyResponse,
        ("message", "mac"),
        "Verify a MAC",
        {"message": HELLO, "mac": SOME, "version": 3},
        answered("HMAC_SHA_256", valid=True),
    ),
)
