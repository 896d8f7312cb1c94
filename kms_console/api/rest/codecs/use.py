"""The table of key use: one row an operation, from the body's bytes to the answer's bytes.

The event loop awaits a row's `aio`; Django's threads call the row. Both are the same reader, the
same operation behind the gate, and the same writer, so both doors give the same bytes.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar

import msgspec
from msgspec import Meta

from keys import operations
from keys.callers import Caller
from keys.gate import Operation
from keys.secret import Secret
from kms_console.api.rest.codecs.strict import Reader

Q = TypeVar("Q", bound=msgspec.Struct)

Arguments = tuple[tuple[Any, ...], dict[str, Any]]

Binary = Annotated[bytes, Meta(description="Base64 (RFC 4648, section 4), with padding.")]
Context = Annotated[
    dict[str, str],
    Meta(
        description="Pairs bound to the ciphertext: only the same pairs decrypt it. Not secret, and "
        "their names stand in the audit trail."
    ),
]
Number = Annotated[int, Meta(ge=1, le=2**31 - 1, description="A version's number.")]
Algorithm = Annotated[str, Meta(max_length=64, description="Left out: the key's own.")]
Prehashed = Annotated[bool, Meta(description="`message` is the digest itself.")]


class _Asked(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    pass


class _Served(msgspec.Struct, kw_only=True):
    """What every answer names: the key, its version, the algorithm."""

    key_id: uuid.UUID
    version: int
    algorithm: str


class EncryptRequest(_Asked):
    plaintext: Binary
    context: Context = {}


class EncryptResponse(_Served):
    ciphertext: Binary


class DecryptRequest(_Asked):
    ciphertext: Binary
    context: Context = {}


class DecryptResponse(_Served):
    plaintext: Binary


class SignRequest(_Asked):
    message: Binary
    algorithm: Algorithm = ""
    prehashed: Prehashed = False


class SignResponse(_Served):
    signature: Binary


class VerifyRequest(_Asked):
    message: Binary
    signature: Binary
    algorithm: Algorithm = ""
    prehashed: Prehashed = False
    version: Number | None = None


class VerifyResponse(_Served):
    valid: bool


class MacRequest(_Asked):
    message: Binary


class MacResponse(_Served):
    mac: Binary


class VerifyMacRequest(_Asked):
    message: Binary
    mac: Binary
    version: Number | None = None


class GenerateDataKeyRequest(_Asked):
    length: Annotated[int, Meta(ge=16, le=64, description="Bytes.")] = 32
    context: Context = {}


class GenerateDataKeyResponse(_Served):
    """Use `plaintext` and forget it; keep `ciphertext` beside the data."""

    plaintext: Binary
    ciphertext: Binary


class PublicKeyRequest(_Asked):
    version: Number | None = None


class PublicKeyResponse(_Served):
    spec: str
    public_key: Annotated[bytes, Meta(description="DER SubjectPublicKeyInfo (RFC 5280), base64.")]


class RandomRequest(_Asked):
    count: Annotated[int, Meta(ge=1, le=operations.RANDOM_LIMIT, description="Bytes.")] = 32


class RandomResponse(msgspec.Struct, kw_only=True):
    random_bytes: Binary


@dataclass(frozen=True, slots=True)
class Row(Generic[Q]):
    """One operation. `arguments` says how its request is handed to it, `answer` what it returns becomes."""

    path: str
    operation: Operation[Any, Any]
    request: type[Q]
    response: type[msgspec.Struct]
    arguments: Callable[[Q], Arguments]
    answer: Callable[[Any], msgspec.Struct]
    summary: str
    example: Mapping[str, Any]
    answer_example: Mapping[str, Any]
    reader: Reader[Q]

    def __call__(self, caller: Caller, key: str, body: bytes) -> bytes:
        """Perform the operation, waiting. Raises the errors of keys.errors."""
        positional, named = self.read(body)
        return self.write(self.operation(caller, key, *positional, **named))

    async def aio(self, caller: Caller, key: str, body: bytes) -> bytes:
        """Perform the operation on an event loop."""
        positional, named = self.read(body)
        return self.write(await self.operation.aio(caller, key, *positional, **named))

    def read(self, body: bytes) -> Arguments:
        return self.arguments(self.reader(body))

    def write(self, result: Any) -> bytes:
        return msgspec.json.encode(self.answer(result))


# --- what an operation's answer becomes


def _served(result: operations.Served) -> dict[str, Any]:
    return {"key_id": result.key_id, "version": result.version, "algorithm": result.algorithm}


def _encrypted(result: operations.Encrypted) -> EncryptResponse:
    return EncryptResponse(**_served(result), ciphertext=result.ciphertext)


def _decrypted(result: operations.Decrypted) -> DecryptResponse:
    return DecryptResponse(**_served(result), plaintext=result.plaintext.reveal())


def _data_key(result: operations.DataKey) -> GenerateDataKeyResponse:
    return GenerateDataKeyResponse(
        **_served(result), plaintext=result.plaintext.reveal(), ciphertext=result.ciphertext
    )


def _signed(result: operations.Signed) -> SignResponse:
    return SignResponse(**_served(result), signature=result.signature)


def _verified(result: operations.Verified) -> VerifyResponse:
    return VerifyResponse(**_served(result), valid=result.valid)


def _maced(result: operations.Maced) -> MacResponse:
    return MacResponse(**_served(result), mac=result.mac)


def _public(result: operations.PublicKey) -> PublicKeyResponse:
    return PublicKeyResponse(**_served(result), spec=result.spec, public_key=result.public_key)


def _random(result: Secret) -> RandomResponse:
    return RandomResponse(random_bytes=result.reveal())


# --- how a request is handed to its operation: what the operation names first, then the rest by name


def _with(*first: str) -> Callable[[Any], Arguments]:
    def arguments(asked: msgspec.Struct) -> Arguments:
        rest = {n: getattr(asked, n) for n in asked.__struct_fields__ if n not in first}
        return tuple(getattr(asked, name) for name in first), rest

    return arguments


_KEY_ID = "0d5f0c0e-2f6a-4c58-9d3e-5c6f7a1b2c3d"
_HELLO, _SOME = "SGVsbG8sIHdvcmxkIQ==", "S01TQQEBDV8MDi9qTFidPlxvehssPQ=="


def _shown(algorithm: str, **members: Any) -> dict[str, Any]:
    return {"key_id": _KEY_ID, "version": 3, "algorithm": algorithm, **members}


def _row(
    path: str,
    operation: Operation[Any, Any],
    request: type[Q],
    response: type[msgspec.Struct],
    arguments: Callable[[Q], Arguments],
    answer: Callable[[Any], msgspec.Struct],
    summary: str,
    example: Mapping[str, Any],
    shown: Mapping[str, Any],
) -> Row[Q]:
    return Row(
        path,
        operation,
        request,
        response,
        arguments,
        answer,
        summary,
        example,
        shown,
        Reader(request),
    )


_WITH = {"patient": "4711"}

ROWS: tuple[Row[Any], ...] = (
    _row(
        "encrypt",
        operations.encrypt,
        EncryptRequest,
        EncryptResponse,
        _with("plaintext"),
        _encrypted,
        "Encrypt",
        {"plaintext": _HELLO, "context": _WITH},
        _shown("XAES_256_GCM", ciphertext=_SOME),
    ),
    _row(
        "decrypt",
        operations.decrypt,
        DecryptRequest,
        DecryptResponse,
        _with("ciphertext"),
        _decrypted,
        "Decrypt",
        {"ciphertext": _SOME, "context": _WITH},
        _shown("XAES_256_GCM", plaintext=_HELLO),
    ),
    _row(
        "sign",
        operations.sign,
        SignRequest,
        SignResponse,
        _with("message"),
        _signed,
        "Sign a message or its digest",
        {"message": _HELLO},
        _shown("ECDSA_SHA_256", signature=_SOME),
    ),
    _row(
        "verify",
        operations.verify,
        VerifyRequest,
        VerifyResponse,
        _with("message", "signature"),
        _verified,
        "Verify a signature",
        {"message": _HELLO, "signature": _SOME, "version": 3},
        _shown("ECDSA_SHA_256", valid=True),
    ),
    _row(
        "mac",
        operations.mac,
        MacRequest,
        MacResponse,
        _with("message"),
        _maced,
        "Compute a MAC",
        {"message": _HELLO},
        _shown("HMAC_SHA_256", mac=_SOME),
    ),
    _row(
        "verify-mac",
        operations.verify_mac,
        VerifyMacRequest,
        VerifyResponse,
        _with("message", "mac"),
        _verified,
        "Verify a MAC",
        {"message": _HELLO, "mac": _SOME, "version": 3},
        _shown("HMAC_SHA_256", valid=True),
    ),
    _row(
        "generate-data-key",
        operations.generate_data_key,
        GenerateDataKeyRequest,
        GenerateDataKeyResponse,
        _with(),
        _data_key,
        "Generate a data key for envelope encryption",
        {"length": 32, "context": _WITH},
        _shown("XAES_256_GCM", plaintext=_HELLO, ciphertext=_SOME),
    ),
    _row(
        "public-key",
        operations.public_key,
        PublicKeyRequest,
        PublicKeyResponse,
        _with(),
        _public,
        "Read a public key",
        {"version": 3},
        _shown("ECDSA_SHA_256", spec="ECC_NIST_P256", public_key=_SOME),
    ),
)
USES: dict[str, Row[Any]] = {row.path: row for row in ROWS}

RANDOM: Row[RandomRequest] = _row(
    "random",
    operations.random,
    RandomRequest,
    RandomResponse,
    _with(),
    _random,
    "Get random bytes",
    {"count": 16},
    {"random_bytes": "b2Zmc2V0IG9mIGNoYW5jZQ=="},
)
