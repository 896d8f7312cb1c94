"""Encrypting, decrypting, re-encrypting and data keys: their requests, answers and rows."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from keys import operations
from kms_console.api.rest.codecs.strict import reference
from kms_console.api.rest.codecs.use.row import (
    HELLO,
    KEY_ID,
    SOME,
    WITH,
    Algorithm,
    Arguments,
    Asked,
    Binary,
    Context,
    Row,
    Served,
    Version,
    answered,
    row,
)

Raw = Annotated[
    bool,
    Meta(
        description="For RSA keys: the bare RSA ciphertext that other programs understand, without "
        "a header and without a context."
    ),
]
Length = Annotated[int, Meta(ge=16, le=64, description="Bytes.")]
PairSpec = Annotated[str, Meta(max_length=32, description="The key spec of the new pair.")]
PublicKeyDer = Annotated[bytes, Meta(description="DER SubjectPublicKeyInfo (RFC 5280), base64.")]


class EncryptRequest(Asked):
    plaintext: Binary
    context: Context = {}
    algorithm: Algorithm = ""
    raw: Raw = False


class EncryptResponse(Served):
    ciphertext: Binary


class DecryptRequest(Asked):
    """`algorithm` and `version` go with `raw` only: any other ciphertext names them itself."""

    ciphertext: Binary
    context: Context = {}
    algorithm: Algorithm = ""
    raw: Raw = False
    version: Version | None = None


class DecryptResponse(Served):
    plaintext: Binary


class ReEncryptRequest(Asked):
    """The plaintext stays inside. Needs re_encrypt_from on the one key, re_encrypt_to on the other."""

    ciphertext: Binary
    context: Context = {}
    to: Annotated[
        str,
        Meta(max_length=256, description="The other key's id or alias. Left out: the same key."),
    ] = ""
    to_context: Annotated[
        dict[str, str] | None,
        Meta(description="The new ciphertext's context. Left out or null: the same."),
    ] = None


class ReEncryptResponse(Served):
    """The new ciphertext and who made it; `source` names who had made the old one."""

    ciphertext: Binary
    source: Served


class GenerateDataKeyRequest(Asked):
    length: Length = 32
    context: Context = {}


class GenerateDataKeyResponse(Served):
    """Use `plaintext` and forget it; keep `ciphertext` beside the data."""

    plaintext: Binary
    ciphertext: Binary


class GenerateDataKeyWithoutPlaintextRequest(Asked):
    length: Length = 32
    context: Context = {}


class GenerateDataKeyWithoutPlaintextResponse(Served):
    """Keep `ciphertext`; decrypt it when the key is wanted."""

    ciphertext: Binary


class GenerateDataKeyPairRequest(Asked):
    spec: PairSpec = "ECC_NIST_P256"
    context: Context = {}


class GenerateDataKeyPairResponse(Served):
    """`private_key` is PKCS#8 DER in the clear; `ciphertext` is the same, encrypted."""

    spec: str
    public_key: PublicKeyDer
    private_key: Binary
    ciphertext: Binary


class GenerateDataKeyPairWithoutPlaintextRequest(Asked):
    spec: PairSpec = "ECC_NIST_P256"
    context: Context = {}


class GenerateDataKeyPairWithoutPlaintextResponse(Served):
    """`ciphertext` is the private key's PKCS#8 DER, encrypted."""

    spec: str
    public_key: PublicKeyDer
    ciphertext: Binary


def _re_encrypt_arguments(asked: ReEncryptRequest) -> Arguments:
    named = {"context": asked.context, "to": reference(asked.to), "to_context": asked.to_context}
    return (asked.ciphertext,), named


def _re_encrypted(result: operations.ReEncrypted, _: Any) -> msgspec.Struct:
    source = result.source
    return ReEncryptResponse(
        key_id=result.key_id,
        version=result.version,
        algorithm=result.algorithm,
        ciphertext=result.ciphertext,
        source=Served(key_id=source.key_id, version=source.version, algorithm=source.algorithm),
    )


_PAIR = {"spec": "ECC_NIST_P256", "context": WITH}

ROWS: tuple[Row[Any], ...] = (
    row(
        "encrypt",
        operations.encrypt,
        EncryptRequest,
        EncryptResponse,
        ("plaintext",),
        "Encrypt",
        {"plaintext": HELLO, "context": WITH},
        answered("XAES_256_GCM", ciphertext=SOME),
    ),
    row(
        "decrypt",
        operations.decrypt,
        DecryptRequest,
        DecryptResponse,
        ("ciphertext",),
        "Decrypt",
        {"ciphertext": SOME, "context": WITH},
        answered("XAES_256_GCM", plaintext=HELLO),
    ),
    row(
        "re-encrypt",
        operations.re_encrypt,
        ReEncryptRequest,
        ReEncryptResponse,
        ("ciphertext",),
        "Encrypt again, under the newest version or another key",
        {"ciphertext": SOME, "context": WITH, "to": "archive"},
        answered(
            "XAES_256_GCM",
            ciphertext=SOME,
            source={"key_id": KEY_ID, "version": 2, "algorithm": "XAES_256_GCM"},
        ),
        arguments_of=_re_encrypt_arguments,
        answer=_re_encrypted,
    ),
    row(
        "generate-data-key",
        operations.generate_data_key,
        GenerateDataKeyRequest,
        GenerateDataKeyResponse,
        (),
        "Generate a data key for envelope encryption",
        {"length": 32, "context": WITH},
        answered("XAES_256_GCM", plaintext=HELLO, ciphertext=SOME),
    ),
    row(
        "generate-data-key-without-plaintext",
        operations.generate_data_key_without_plaintext,
        GenerateDataKeyWithoutPlaintextRequest,
        GenerateDataKeyWithoutPlaintextResponse,
        (),
        "Generate a data key, encrypted only",
        {"length": 32, "context": WITH},
        answered("XAES_256_GCM", ciphertext=SOME),
    ),
    row(
        "generate-data-key-pair",
        operations.generate_data_key_pair,
        GenerateDataKeyPairRequest,
        GenerateDataKeyPairResponse,
        (),
        "Generate a key pair",
        _PAIR,
        answered(
            "XAES_256_GCM",
            spec="ECC_NIST_P256",
            public_key=SOME,
            private_key=SOME,
            ciphertext=SOME,
        ),
    ),
    row(
        "generate-data-key-pair-without-plaintext",
        operations.generate_data_key_pair_without_plaintext,
        GenerateDataKeyPairWithoutPlaintextRequest,
        GenerateDataKeyPairWithoutPlaintextResponse,
        (),
        "Generate a key pair, its private key encrypted only",
        _PAIR,
        answered("XAES_256_GCM", spec="ECC_NIST_P256", public_key=SOME, ciphertext=SOME),
    ),
)
