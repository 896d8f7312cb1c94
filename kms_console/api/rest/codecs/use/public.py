"""What is public, and what is random: public keys, certificate requests, random bytes."""

from __future__ import annotations

from base64 import b64encode
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from keys import jwk, operations
from keys.secret import Secret
from kms_console.api.rest.codecs.use.row import (
    SOME,
    Algorithm,
    Arguments,
    Asked,
    Binary,
    Row,
    Served,
    Version,
    answered,
    row,
)

Names = Annotated[
    list[Annotated[str, Meta(max_length=255)]],
    Meta(max_length=100, description="Alternative names of the subject."),
]


class PublicKeyRequest(Asked):
    version: Version | None = None
    format: Annotated[
        Literal["der", "pem", "jwk"], Meta(description="How the answer writes the key.")
    ] = "der"


class PublicKeyResponse(Served):
    """One of `public_key`, `pem` and `jwk`, as the request's `format` asks."""

    spec: str
    public_key: (
        Annotated[bytes, Meta(description="DER SubjectPublicKeyInfo (RFC 5280), base64.")]
        | UnsetType
    ) = UNSET
    pem: Annotated[str, Meta(description="The same in PEM (RFC 7468).")] | UnsetType = UNSET
    jwk: (
        Annotated[dict[str, Any], Meta(description="The same as a JWK (RFC 7517).")] | UnsetType
    ) = UNSET


class CertificateRequestRequest(Asked):
    subject: Annotated[
        str,
        Meta(max_length=1024, description="A distinguished name (RFC 4514): CN=shop,O=Company."),
    ] = ""
    dns_names: Names = []
    emails: Names = []
    ip_addresses: Names = []
    uris: Names = []
    algorithm: Algorithm = ""
    version: Version | None = None


class CertificateRequestResponse(Served):
    """A certificate signing request (PKCS#10, RFC 2986): DER as base64, and PEM."""

    request: Binary
    pem: str


class RandomRequest(Asked):
    count: Annotated[int, Meta(ge=1, le=operations.RANDOM_LIMIT, description="Bytes.")] = 32


class RandomResponse(msgspec.Struct, kw_only=True):
    random_bytes: Binary


class JwkSet(msgspec.Struct, kw_only=True):
    """A JWK set (RFC 7517, 5): the public keys of a key's versions. Each `kid` is the key's id, a dot, the version."""

    keys: list[dict[str, Any]]


def _public_arguments(asked: PublicKeyRequest) -> Arguments:
    return (), {"version": asked.version}


def _public(result: operations.PublicKey, asked: PublicKeyRequest) -> PublicKeyResponse:
    found = PublicKeyResponse(
        key_id=result.key_id,
        version=result.version,
        algorithm=result.algorithm,
        spec=result.spec,
    )
    if asked.format == "pem":
        found.pem = _pem(result.public_key)
    elif asked.format == "jwk":
        found.jwk = as_jwk(result)
    else:
        found.public_key = result.public_key
    return found


def _pem(der: bytes) -> str:
    """Return DER as PEM: base64 in lines of 64 characters (RFC 7468, 2)."""
    text = b64encode(der).decode()
    lines = [text[at : at + 64] for at in range(0, len(text), 64)]
    return "\n".join(["-----BEGIN PUBLIC KEY-----", *lines, "-----END PUBLIC KEY-----", ""])


def as_jwk(result: operations.PublicKey) -> dict[str, Any]:
    """Return a public key as a JWK, named by its key's id and version."""
    kid = f"{result.key_id}.{result.version}"
    return jwk.jwk(result.spec, result.usage, result.algorithm, result.public_key, kid)


def _random(result: Secret, _: Any) -> RandomResponse:
    return RandomResponse(random_bytes=result.reveal())


_REQUEST = "-----BEGIN CERTIFICATE REQUEST-----\n…\n-----END CERTIFICATE REQUEST-----\n"

ROWS: tuple[Row[Any], ...] = (
    row(
        "public-key",
        operations.public_key,
        PublicKeyRequest,
        PublicKeyResponse,
        (),
        "Read a public key",
        {"version": 3},
        answered("ECDSA_SHA_256", spec="ECC_NIST_P256", public_key=SOME),
        arguments_of=_public_arguments,
        answer=_public,
    ),
    row(
        "certificate-request",
        operations.certificate_request,
        CertificateRequestRequest,
        CertificateRequestResponse,
        (),
        "Make a certificate signing request",
        {"subject": "CN=shop.example,O=Company,C=AT", "dns_names": ["shop.example"]},
        answered("ECDSA_SHA_256", request=SOME, pem=_REQUEST),
    ),
)

RANDOM: Row[RandomRequest] = row(
    "random",
    operations.random,
    RandomRequest,
    RandomResponse,
    (),
    "Get random bytes",
    {"count": 16},
    {"random_bytes": "b2Zmc2V0IG9mIGNoYW5jZQ=="},
    answer=_random,
)
