"""RSA-OAEP, and the standard forms in which keys are wrapped: they have no header."""

from __future__ import annotations

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke, keywrap
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from keys.algorithms import Algorithm
from keys.errors import CannotDecrypt, Invalid, TooLarge, Unsupported
from keys.primitives.pairs import PrivateKey, PublicKey
from keys.primitives.signatures import HASHES
from keys.primitives.x_wing import XWingPrivateKey, XWingPublicKey

WRAPPING_KEY_BYTES = 32
_SUITE = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)


def oaep_encrypt(key: PublicKey, algorithm: Algorithm, plaintext: bytes, label: bytes) -> bytes:
    """Return RSAES-OAEP (RFC 8017, 7.1.1). Raises TooLarge over k - 2 hLen - 2 bytes."""
    assert isinstance(key, rsa.RSAPublicKey)
    most = key.key_size // 8 - 2 * HASHES[algorithm.digest].digest_size - 2
    if len(plaintext) > most:
        raise TooLarge(f"{algorithm.name} with RSA-{key.key_size} takes at most {most} bytes.")
    return key.encrypt(plaintext, _oaep(algorithm, label))


def oaep_decrypt(key: PrivateKey, algorithm: Algorithm, ciphertext: bytes, label: bytes) -> bytes:
    """Undo oaep_encrypt(). Raises CannotDecrypt."""
    assert isinstance(key, rsa.RSAPrivateKey)
    try:
        return key.decrypt(ciphertext, _oaep(algorithm, label))
    except ValueError:
        raise CannotDecrypt from None


def aes_wrap(key: bytes, target: bytes) -> bytes:
    """Return AES-KWP (RFC 5649, SP 800-38F). Raises Invalid for no bytes."""
    if not target:
        raise Invalid("There is no key in zero bytes.")
    return keywrap.aes_key_wrap_with_padding(key, target)


def aes_unwrap(key: bytes, wrapped: bytes) -> bytes:
    """Undo aes_wrap(). Raises CannotDecrypt."""
    try:
        return keywrap.aes_key_unwrap_with_padding(key, wrapped)
    except (keywrap.InvalidUnwrap, ValueError):
        raise CannotDecrypt from None


def wrap(key: PublicKey, algorithm: Algorithm, target: bytes) -> bytes:
    """Return `target` wrapped to a public key; keys.backends.base.Backend.wrap() tells the forms."""
    if not target:
        raise Invalid("There is no key in zero bytes.")
    if isinstance(key, XWingPublicKey):
        return _SUITE.encrypt(target, hpke.MLKEM768X25519PublicKey(key.kem, key.curve))
    if algorithm.name != "RSA_AES_KEY_WRAP_SHA_256":
        return oaep_encrypt(key, algorithm, target, b"")
    passing = os.urandom(WRAPPING_KEY_BYTES)
    return oaep_encrypt(key, algorithm, passing, b"") + aes_wrap(passing, target)


def unwrap(key: PrivateKey, algorithm: Algorithm, wrapped: bytes) -> bytes:
    """Undo wrap(). Raises CannotDecrypt."""
    if isinstance(key, XWingPrivateKey):
        try:
            return _SUITE.decrypt(wrapped, hpke.MLKEM768X25519PrivateKey(key.kem, key.curve))
        except (InvalidTag, ValueError):
            raise CannotDecrypt from None
    if not isinstance(key, rsa.RSAPrivateKey):
        raise Unsupported("Such a key unwraps nothing.")
    if algorithm.name != "RSA_AES_KEY_WRAP_SHA_256":
        return oaep_decrypt(key, algorithm, wrapped, b"")
    size = key.key_size // 8
    passing = oaep_decrypt(key, algorithm, wrapped[:size], b"")
    if len(passing) != WRAPPING_KEY_BYTES:
        raise CannotDecrypt
    return aes_unwrap(passing, wrapped[size:])


def _oaep(algorithm: Algorithm, label: bytes) -> padding.OAEP:
    # MGF1 with the same hash (RFC 8017, B.1): what other services mean by the names.
    digest = HASHES[algorithm.digest]
    return padding.OAEP(padding.MGF1(digest), digest, label or None)
