"""Uses of a version: what is sent to Azure, and what its answers are worth."""

from __future__ import annotations

import hashlib

from keys.algorithms import Algorithm, Family, KeySpec, MessageType, Usage
from keys.backends import materials
from keys.backends.azure import forms, offers
from keys.backends.azure.failures import BadRequest
from keys.backends.azure.keyring import Keyring
from keys.backends.azure.naming import parsed
from keys.errors import BackendError, CannotDecrypt, Invalid, TooLarge, Unsupported

NONCE, TAG = 12, 16
# What a single call may carry; Azure names no limit, and refuses larger bodies.
GCM_LIMIT = 64 * 1024


def encrypt(keyring: Keyring, handle: str, algorithm: str, plaintext: bytes, aad: bytes) -> bytes:
    at = parsed(handle)
    _, spec, row = keyring.usable(at, algorithm, Usage.ENCRYPT_DECRYPT, "encrypt")
    body = {"alg": offers.azure_name(row.name, spec), "value": forms.encoded(plaintext)}
    if spec.family is not Family.AES:
        _check_oaep(spec, row, plaintext, aad)
        return _sealed(keyring.connection.use(at, "encrypt", body).get("value"), spec)
    if len(plaintext) > GCM_LIMIT:
        raise TooLarge(f"A managed HSM encrypts up to {GCM_LIMIT} bytes at once.")
    if aad:
        body["aad"] = forms.encoded(aad)
    found = keyring.connection.use(at, "encrypt", body)
    parts = [forms.decoded(found.get(name)) for name in ("iv", "value", "tag")]
    if [len(part) for part in parts] != [NONCE, len(plaintext), TAG]:
        raise BackendError("Azure's ciphertext has a length that AES-GCM does not make.")
    return b"".join(parts)


def decrypt(keyring: Keyring, handle: str, algorithm: str, ciphertext: bytes, aad: bytes) -> bytes:
    at = parsed(handle)
    _, spec, row = keyring.usable(at, algorithm, Usage.ENCRYPT_DECRYPT, "decrypt")
    body = {"alg": offers.azure_name(row.name, spec)}
    if spec.family is Family.AES:
        if len(ciphertext) < NONCE + TAG:
            raise CannotDecrypt
        body["iv"] = forms.encoded(ciphertext[:NONCE])
        body["tag"] = forms.encoded(ciphertext[-TAG:])
        body["value"] = forms.encoded(ciphertext[NONCE:-TAG])
        if aad:
            body["aad"] = forms.encoded(aad)
    else:
        if aad or len(ciphertext) != spec.bits // 8:
            raise CannotDecrypt
        body["value"] = forms.encoded(ciphertext)
    return _opened(keyring, handle, "decrypt", body)


def wrap(keyring: Keyring, handle: str, algorithm: str, target: bytes) -> bytes:
    at = parsed(handle)
    _, spec, row = keyring.usable(at, algorithm, Usage.WRAP_UNWRAP, "wrapKey")
    _check_oaep(spec, row, target, b"")
    body = {"alg": offers.azure_name(row.name, spec), "value": forms.encoded(target)}
    return _sealed(keyring.connection.use(at, "wrapkey", body).get("value"), spec)


def unwrap(keyring: Keyring, handle: str, algorithm: str, wrapped: bytes) -> bytes:
    at = parsed(handle)
    _, spec, row = keyring.usable(at, algorithm, Usage.WRAP_UNWRAP, "unwrapKey")
    if len(wrapped) != spec.bits // 8:
        raise CannotDecrypt
    body = {"alg": offers.azure_name(row.name, spec), "value": forms.encoded(wrapped)}
    return _opened(keyring, handle, "unwrapkey", body)


def sign(
    keyring: Keyring, handle: str, algorithm: str, message: bytes, message_type: MessageType
) -> bytes:
    """Return the signature of a digest that is computed here: Azure signs nothing else."""
    at = parsed(handle)
    _, spec, row = keyring.usable(at, algorithm, Usage.SIGN_VERIFY, "sign")
    materials.check_message(row, message, message_type)
    digest = message
    if message_type is MessageType.MESSAGE:
        digest = hashlib.new(row.digest, message).digest()
    body = {"alg": offers.azure_name(row.name, spec), "value": forms.encoded(digest)}
    raw = forms.decoded(keyring.connection.use(at, "sign", body).get("value"))
    if spec.family is Family.EC:
        return forms.der_signature(raw, spec)
    if len(raw) != spec.bits // 8:
        raise BackendError("Azure's signature has a length that no such key makes.")
    return raw


def verify(
    keyring: Keyring,
    handle: str,
    algorithm: str,
    message: bytes,
    signature: bytes,
    message_type: MessageType,
) -> bool:
    """Verify in this process, from the public key."""
    known, spec, row = keyring.usable(parsed(handle), algorithm, Usage.SIGN_VERIFY, "verify")
    if known.public_key is None:
        raise BackendError("Azure gave no public key.")
    public = materials.load_public_key(known.public_key, spec)
    return materials.verify_signature(public, row, message, signature, message_type)


def _check_oaep(spec: KeySpec, row: Algorithm, plaintext: bytes, aad: bytes) -> None:
    if aad:
        raise Unsupported("Azure binds no context to RSA-OAEP; leave it out, or use AES.")
    if not row.digest:
        raise Invalid("That is no algorithm for RSA keys.")
    # RFC 8017, 7.1.1.
    most = spec.bits // 8 - 2 * hashlib.new(row.digest).digest_size - 2
    if len(plaintext) > most:
        raise TooLarge(f"{row.label} with {spec.label} takes up to {most} bytes.")


def _sealed(value: object, spec: KeySpec) -> bytes:
    found = forms.decoded(value)
    if len(found) != spec.bits // 8:
        raise BackendError("Azure's ciphertext has a length that no such key makes.")
    return found


def _opened(keyring: Keyring, handle: str, operation: str, body: dict[str, str]) -> bytes:
    try:
        found = keyring.connection.use(parsed(handle), operation, body)
    except BadRequest:
        # 400 BadParameter is all that Azure says of a ciphertext that is not the key's.
        raise CannotDecrypt from None
    return forms.decoded(found.get("value"))
