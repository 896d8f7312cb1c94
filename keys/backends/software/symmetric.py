"""Ciphers with a secret key: one object a key and algorithm, which threads may share.

Each puts what it needs in front: a random nonce, XAES its commitment too, AES-SIV its synthetic IV.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESGCMSIV, AESSIV
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from nacl import bindings
from nacl.exceptions import CryptoError

from keys.algorithms import Algorithm
from keys.errors import CannotDecrypt, Invalid
from keys.primitives.signatures import HASHES
from keys.primitives.xaes import CommittingXaes
from keys.secret import Secret

NONCE_BYTES = 12  # SP 800-38D, 8.2.2; RFC 8452, 4
TAG_BYTES = 16
X_NONCE_BYTES = bindings.crypto_aead_xchacha20poly1305_ietf_NPUBBYTES


class Cipher(Protocol):
    def encrypt(self, plaintext: bytes, aad: bytes) -> bytes: ...

    def decrypt(self, sealed: bytes, aad: bytes) -> bytes:
        """Raises CannotDecrypt."""


class _RandomNonce:
    """AES-GCM (SP 800-38D) or AES-GCM-SIV (RFC 8452): nonce, ciphertext, tag."""

    __slots__ = ("_cipher",)

    def __init__(self, cipher: AESGCM | AESGCMSIV) -> None:
        self._cipher = cipher

    def encrypt(self, plaintext: bytes, aad: bytes) -> bytes:
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, plaintext, aad)

    def decrypt(self, sealed: bytes, aad: bytes) -> bytes:
        if len(sealed) < NONCE_BYTES + TAG_BYTES:
            raise CannotDecrypt
        try:
            return self._cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], aad)
        except InvalidTag:
            raise CannotDecrypt from None


class _Siv:
    """AES-SIV-CMAC-512 (RFC 5297): the synthetic IV, the ciphertext; one string of data beside it."""

    __slots__ = ("_cipher",)

    def __init__(self, key: bytes) -> None:
        self._cipher = AESSIV(key)

    def encrypt(self, plaintext: bytes, aad: bytes) -> bytes:
        return self._cipher.encrypt(plaintext, [aad])

    def decrypt(self, sealed: bytes, aad: bytes) -> bytes:
        try:
            return self._cipher.decrypt(sealed, [aad])
        except InvalidTag:
            raise CannotDecrypt from None


class _XChaCha20Poly1305:
    """draft-irtf-cfrg-xchacha: nonce (24), ciphertext, tag."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        self._key = Secret(key)

    def encrypt(self, plaintext: bytes, aad: bytes) -> bytes:
        nonce = os.urandom(X_NONCE_BYTES)
        sealed = bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(
            plaintext, aad, nonce, self._key.reveal()
        )
        return nonce + bytes(sealed)

    def decrypt(self, sealed: bytes, aad: bytes) -> bytes:
        if len(sealed) < X_NONCE_BYTES + TAG_BYTES:
            raise CannotDecrypt
        nonce, rest = sealed[:X_NONCE_BYTES], sealed[X_NONCE_BYTES:]
        try:
            opened = bindings.crypto_aead_xchacha20poly1305_ietf_decrypt(
                rest, aad, nonce, self._key.reveal()
            )
        except CryptoError:
            raise CannotDecrypt from None
        return bytes(opened)


_CIPHERS: dict[str, Callable[[bytes], Cipher]] = {
    "XAES_256_GCM": CommittingXaes,
    "AES_256_GCM": lambda key: _RandomNonce(AESGCM(key)),
    "AES_128_GCM": lambda key: _RandomNonce(AESGCM(key)),
    "AES_256_GCM_SIV": lambda key: _RandomNonce(AESGCMSIV(key)),
    "AES_SIV_CMAC_512": _Siv,
    "XCHACHA20_POLY1305": _XChaCha20Poly1305,
}


def cipher(algorithm: str, key: Secret) -> Cipher:
    """Return the cipher of an algorithm, ready for use with `key`."""
    return _CIPHERS[algorithm](key.reveal())


def derive(key: Secret, algorithm: Algorithm, *, salt: bytes, info: bytes, length: int) -> bytes:
    """Return `length` bytes of HKDF (RFC 5869). Raises Invalid over 255 digests, or for none."""
    digest = HASHES[algorithm.digest]
    most = 255 * digest.digest_size
    if not 1 <= length <= most:
        raise Invalid(f"{algorithm.name} derives 1 to {most} bytes.")
    return HKDF(digest, length, salt, info).derive(key.reveal())
