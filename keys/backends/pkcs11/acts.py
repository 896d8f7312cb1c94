"""What is done with a key once it is found: one function an operation.

All raise NotAble where the object as it was found has not the use.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pkcs11
from cryptography.hazmat.primitives import keywrap
from pkcs11 import GCMParams, Mechanism

from keys.algorithms import Algorithm, Family
from keys.backends import materials
from keys.backends.pkcs11 import forms, mechanisms, passing
from keys.backends.pkcs11.abilities import oaep_seal
from keys.backends.pkcs11.checking import check, digested
from keys.backends.pkcs11.objects import Found
from keys.errors import BackendError, CannotDecrypt, Invalid, TooLarge, Unsupported

GCM_NONCE_BYTES = 12
GCM_TAG_BYTES = 16
BLOCK = 8  # of RFC 3394 and RFC 5649
WRAPPING_KEY_BYTES = 32

# How tokens say that a ciphertext is wrong: in the standard's words, or (SoftHSM) in vague ones.
_REFUSED = (
    pkcs11.EncryptedDataInvalid,
    pkcs11.EncryptedDataLenRange,
    pkcs11.DataInvalid,
    pkcs11.WrappedKeyInvalid,
    pkcs11.WrappedKeyLenRange,
)
_MAYBE_REFUSED = (pkcs11.GeneralError, pkcs11.FunctionFailed)


class NotAble(Exception):
    """The object as it was found has not the use; it may have been found while suspended."""


def able(item: Any, use: str) -> Callable[..., Any]:
    method: Callable[..., Any] | None = getattr(item, use, None)
    if method is None:
        raise NotAble
    return method


def _opened(found: Found, handle: str, act: Callable[[], Any]) -> bytes:
    """Return what the token decrypts or unwraps. Raises CannotDecrypt where it was the ciphertext."""
    try:
        return bytes(act())
    except _REFUSED:
        raise CannotDecrypt from None
    except _MAYBE_REFUSED:
        # If the key works otherwise, then it was the ciphertext.
        check(found, handle)
        raise CannotDecrypt from None


# --- encrypting


def seal(found: Found, row: Algorithm, plaintext: bytes, aad: bytes, *, iv_by_token: bool) -> bytes:
    """Return nonce, ciphertext and tag; for RSA the bare ciphertext, computed here."""
    if found.spec.family is Family.RSA:
        able(found.public, "encrypt")
        return _oaep_sealed(found, row, plaintext, aad)
    # A token that makes nonces writes into these bytes, so nobody else may hold them.
    nonce = bytes(bytearray(GCM_NONCE_BYTES)) if iv_by_token else os.urandom(GCM_NONCE_BYTES)
    parameters = GCMParams(nonce, aad, 8 * GCM_TAG_BYTES)
    sealed = able(found.key, "encrypt")(
        plaintext, mechanism=Mechanism.AES_GCM, mechanism_param=parameters
    )
    if not any(parameters.nonce):
        raise BackendError("The token made no nonce of its own: switch iv_by_token off.")
    return bytes(parameters.nonce) + bytes(sealed)


def open_sealed(found: Found, handle: str, row: Algorithm, ciphertext: bytes, aad: bytes) -> bytes:
    """Undo seal(). Raises CannotDecrypt."""
    decrypt = able(found.key, "decrypt")
    if found.spec.family is Family.RSA:
        _check_label(found, row, aad)
        if len(ciphertext) != found.spec.bits // 8:
            raise CannotDecrypt
        how = mechanisms.oaep(row.digest, aad)
        return _opened(found, handle, lambda: decrypt(ciphertext, **how))
    if len(ciphertext) < GCM_NONCE_BYTES + GCM_TAG_BYTES:
        raise CannotDecrypt
    parameters = GCMParams(ciphertext[:GCM_NONCE_BYTES], aad, 8 * GCM_TAG_BYTES)
    body = ciphertext[GCM_NONCE_BYTES:]
    return _opened(
        found,
        handle,
        lambda: decrypt(body, mechanism=Mechanism.AES_GCM, mechanism_param=parameters),
    )


def _oaep_sealed(found: Found, row: Algorithm, plaintext: bytes, label: bytes) -> bytes:
    _check_label(found, row, label)
    most = found.spec.bits // 8 - 2 * materials.HASHES[row.digest].digest_size - 2
    if len(plaintext) > most:
        raise TooLarge(f"{row.name} with {found.spec.label} takes at most {most} bytes.")
    assert found.public_key is not None
    return oaep_seal(found.public_key, row.digest, plaintext, label)


def _check_label(found: Found, row: Algorithm, label: bytes) -> None:
    if label and row.digest not in found.abilities.oaep_labels:
        raise Unsupported(
            f"This token binds no label with {row.name}, so no context and no header; "
            "it takes bare RSA ciphertexts (raw)."
        )


# --- signing


def sign(found: Found, row: Algorithm, message: bytes, *, digest: bool) -> bytes:
    """Return the signature of a message, or of its digest."""
    data, keywords = mechanisms.signing(row, message if digest else digested(row, message))
    signature = able(found.key, "sign")(data, **keywords)
    return forms.signature_from_token(found.spec, bytes(signature))


# --- wrapping


def wrap(found: Found, row: Algorithm, target: bytes) -> bytes:
    """Return `target` wrapped. To a public key that is done here."""
    if not target:
        raise Invalid("There is no key in zero bytes.")
    if found.spec.family is Family.RSA:
        able(found.public, "wrap_key")
        if row.name != "RSA_AES_KEY_WRAP_SHA_256":
            return _oaep_sealed(found, row, target, b"")
        return wrapped_in_two(found, row, target)
    able(found.key, "wrap_key")
    if len(target) % BLOCK and not found.abilities.kwp_pads:
        raise Unsupported(
            f"This token pads wrongly in {row.name}: it wraps keys of whole {BLOCK} bytes, not of "
            f"{len(target)}."
        )
    assert found.abilities.kwp is not None
    return passing.wrapped(found.key, found.abilities.kwp, target)


def unwrap(found: Found, handle: str, row: Algorithm, wrapped: bytes) -> bytes:
    """Undo wrap(). Raises CannotDecrypt."""
    able(found.key, "unwrap_key")
    if found.spec.family is Family.RSA:
        if row.name != "RSA_AES_KEY_WRAP_SHA_256":
            return _oaep_unwrapped(found, handle, row, wrapped)
        return unwrapped_in_two(found, handle, row, wrapped)
    if len(wrapped) < 2 * BLOCK or len(wrapped) % BLOCK:
        raise CannotDecrypt
    mechanism = found.abilities.kwp
    return _opened(
        found, handle, lambda: passing.unwrapped(found.key, wrapped, mechanism=mechanism)
    )


def _oaep_unwrapped(found: Found, handle: str, row: Algorithm, wrapped: bytes) -> bytes:
    if len(wrapped) != found.spec.bits // 8:
        raise CannotDecrypt
    how = mechanisms.oaep(row.digest)
    return _opened(found, handle, lambda: passing.unwrapped(found.key, wrapped, **how))


def wrapped_in_two(found: Found, row: Algorithm, target: bytes) -> bytes:
    """Return RSA_AES_KEY_WRAP (PKCS#11 3.1, 6.1.21): a fresh AES key in OAEP, then KWP under it."""
    fresh = os.urandom(WRAPPING_KEY_BYTES)
    first = _oaep_sealed(found, row, fresh, b"")
    return first + keywrap.aes_key_wrap_with_padding(fresh, target)


def unwrapped_in_two(found: Found, handle: str, row: Algorithm, wrapped: bytes) -> bytes:
    """Undo wrapped_in_two(). The token opens the first part; the second is under that AES key."""
    size = found.spec.bits // 8
    fresh = _oaep_unwrapped(found, handle, row, wrapped[:size])
    if len(fresh) != WRAPPING_KEY_BYTES:
        raise CannotDecrypt
    try:
        return keywrap.aes_key_unwrap_with_padding(fresh, wrapped[size:])
    except (keywrap.InvalidUnwrap, ValueError):
        raise CannotDecrypt from None


# --- agreeing


def agree(found: Found, peer: bytes) -> bytes:
    """Return the raw ECDH secret. The peer's key is checked here first; tokens differ in what they do."""
    able(found.key, "derive_key")
    materials.load_public_key(peer, found.spec)
    if found.spec.family is Family.MONTGOMERY:
        # Any X25519 agreement with a point of small order gives zeros, and this one says so.
        passer_by, _ = materials.new_pair(found.spec)
        materials.agreed(found.spec, passer_by, peer)
    return passing.agreed(found.key, found.point(peer), forms.field_bytes(found.spec.curve))
