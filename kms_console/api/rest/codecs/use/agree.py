"""Keys for others: wrapping, encapsulation, shared secrets, derived keys. Requests, answers and rows."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta

from keys import operations
from kms_console.api.rest.codecs.use.row import (
    HELLO,
    SOME,
    WITH,
    Algorithm,
    Asked,
    Binary,
    Row,
    Served,
    Version,
    answered,
    row,
)


class WrapKeyRequest(Asked):
    key_material: Binary
    algorithm: Algorithm = ""


class WrapKeyResponse(Served):
    """The standard form has no header: keep `version` beside it."""

    wrapped_key: Binary


class UnwrapKeyRequest(Asked):
    wrapped_key: Binary
    algorithm: Algorithm = ""
    version: Version | None = None


class UnwrapKeyResponse(Served):
    key_material: Binary


class EncapsulateRequest(Asked):
    """No members."""


class EncapsulateResponse(Served):
    """A fresh shared secret of 32 bytes, and the ciphertext from which the private key recovers it."""

    shared_secret: Binary
    ciphertext: Binary


class DecapsulateRequest(Asked):
    ciphertext: Binary
    version: Version | None = None


class DecapsulateResponse(Served):
    shared_secret: Binary


class DeriveSharedSecretRequest(Asked):
    peer_public_key: Annotated[
        bytes, Meta(description="The peer's DER SubjectPublicKeyInfo (RFC 5280), base64.")
    ]
    version: Version | None = None


class DeriveSharedSecretResponse(Served):
    """The raw ECDH secret: put it through a key derivation function (SP 800-56C) before use."""

    shared_secret: Binary


class DeriveKeyRequest(Asked):
    context: Annotated[
        dict[str, str], Meta(description="What the key is for; the same pairs give the same key.")
    ] = {}
    length: Annotated[int, Meta(ge=16, le=1024, description="Bytes.")] = 32
    salt: Binary = b""
    version: Version | None = None


class DeriveKeyResponse(Served):
    """Keep `version`: after a rotation only it derives the same key."""

    key_material: Binary


ROWS: tuple[Row[Any], ...] = (
    row(
        "wrap-key",
        operations.wrap_key,
        WrapKeyRequest,
        WrapKeyResponse,
        ("key_material",),
        "Wrap another key",
        {"key_material": HELLO},
        answered("AES_KWP", wrapped_key=SOME),
    ),
    row(
        "unwrap-key",
        operations.unwrap_key,
        UnwrapKeyRequest,
        UnwrapKeyResponse,
        ("wrapped_key",),
        "Unwrap another key",
        {"wrapped_key": SOME, "version": 3},
        answered("AES_KWP", key_material=HELLO),
    ),
    row(
        "encapsulate",
        operations.encapsulate,
        EncapsulateRequest,
        EncapsulateResponse,
        (),
        "Encapsulate a fresh shared secret",
        {},
        answered("ML_KEM", shared_secret=HELLO, ciphertext=SOME),
    ),
    row(
        "decapsulate",
        operations.decapsulate,
        DecapsulateRequest,
        DecapsulateResponse,
        ("ciphertext",),
        "Decapsulate a shared secret",
        {"ciphertext": SOME, "version": 3},
        answered("ML_KEM", shared_secret=HELLO),
    ),
    row(
        "derive-shared-secret",
        operations.derive_shared_secret,
        DeriveSharedSecretRequest,
        DeriveSharedSecretResponse,
        ("peer_public_key",),
        "Agree on a shared secret with a peer's public key",
        {"peer_public_key": SOME},
        answered("ECDH", shared_secret=HELLO),
    ),
    row(
        "derive-key",
        operations.derive_key,
        DeriveKeyRequest,
        DeriveKeyResponse,
        (),
        "Derive a key for a context",
        {"context": WITH, "length": 32},
        answered("HKDF_SHA_256", key_material=HELLO),
    ),
)
