"""X-Wing, the hybrid KEM of X25519 and ML-KEM-768: draft-connolly-cfrg-xwing-kem-10.

It is secure as long as one of the two is. The secret is a seed of 32 bytes, from which SHAKE-256
makes the seed of ML-KEM (64) and the scalar of X25519 (32). A public key is ML-KEM's and X25519's
(1,184 + 32 bytes), a ciphertext likewise (1,088 + 32).
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from keys.primitives import der
from keys.secret import Secret

OID = "1.3.6.1.4.1.62253.25722"
SEED_BYTES, PUBLIC_BYTES, CIPHERTEXT_BYTES = 32, 1216, 1120
LABEL = rb"\./" + rb"/^" + b"\\"
_KEM_PUBLIC, _KEM_CIPHERTEXT, _KEM_SEED = 1184, 1088, 64


@dataclass(frozen=True, slots=True)
class XWingPublicKey:
    kem: MLKEM768PublicKey
    curve: X25519PublicKey

    @classmethod
    def from_raw(cls, raw: bytes) -> XWingPublicKey:
        """Raises ValueError for a wrong length, or where ML-KEM's check of the key fails."""
        if len(raw) != PUBLIC_BYTES:
            raise ValueError("Not a public key of X-Wing.")
        kem = MLKEM768PublicKey.from_public_bytes(raw[:_KEM_PUBLIC])
        return cls(kem, X25519PublicKey.from_public_bytes(raw[_KEM_PUBLIC:]))

    @property
    def raw(self) -> bytes:
        return self.kem.public_bytes_raw() + self.curve.public_bytes_raw()

    def encapsulate(self) -> tuple[bytes, bytes]:
        """Return a fresh shared secret of 32 bytes and its ciphertext."""
        passing = X25519PrivateKey.generate()
        sent = passing.public_key().public_bytes_raw()
        kem_secret, kem_ciphertext = self.kem.encapsulate()
        secret = _combined(kem_secret, _exchanged(passing, self.curve), sent, self.curve)
        return secret, kem_ciphertext + sent

    def der(self) -> bytes:
        return der.public_key_info(OID, self.raw)


@dataclass(frozen=True, slots=True, repr=False)
class XWingPrivateKey:
    seed: Secret
    kem: MLKEM768PrivateKey
    curve: X25519PrivateKey

    @classmethod
    def from_seed(cls, seed: bytes) -> XWingPrivateKey:
        """Raises ValueError for a wrong length."""
        if len(seed) != SEED_BYTES:
            raise ValueError("A seed of X-Wing has 32 bytes.")
        expanded = hashlib.shake_256(seed).digest(_KEM_SEED + SEED_BYTES)
        kem = MLKEM768PrivateKey.from_seed_bytes(expanded[:_KEM_SEED])
        return cls(Secret(seed), kem, X25519PrivateKey.from_private_bytes(expanded[_KEM_SEED:]))

    @classmethod
    def generate(cls) -> XWingPrivateKey:
        return cls.from_seed(os.urandom(SEED_BYTES))

    def public_key(self) -> XWingPublicKey:
        return XWingPublicKey(self.kem.public_key(), self.curve.public_key())

    def decapsulate(self, ciphertext: bytes) -> bytes:
        """Return the shared secret. Raises ValueError for a ciphertext of a wrong length."""
        if len(ciphertext) != CIPHERTEXT_BYTES:
            raise ValueError("A ciphertext of X-Wing has 1,120 bytes.")
        sent = ciphertext[_KEM_CIPHERTEXT:]
        kem_secret = self.kem.decapsulate(ciphertext[:_KEM_CIPHERTEXT])
        exchanged = _exchanged(self.curve, X25519PublicKey.from_public_bytes(sent))
        return _combined(kem_secret, exchanged, sent, self.curve.public_key())

    def der(self) -> bytes:
        return der.private_key_info(OID, self.seed.reveal())


def read_private(encoded: bytes) -> XWingPrivateKey:
    """Return the key of a PKCS#8 structure. Raises ValueError; the public key must be absent."""
    seed, public = der.read_private_key(OID, encoded)
    if public is not None:
        raise ValueError("A private key of X-Wing comes without its public key.")
    return XWingPrivateKey.from_seed(seed)


def read_public(encoded: bytes) -> XWingPublicKey:
    """Return the key of a SubjectPublicKeyInfo. Raises ValueError."""
    return XWingPublicKey.from_raw(der.read_public_key(OID, encoded))


def _exchanged(own: X25519PrivateKey, peer: X25519PublicKey) -> bytes:
    # The library refuses a peer of small order, whose output is all zeros. X-Wing wants the output:
    # its combiner and ML-KEM's half keep the secret (5.5 of the draft has no check).
    try:
        return own.exchange(peer)
    except ValueError:
        return bytes(32)


def _combined(kem_secret: bytes, exchanged: bytes, sent: bytes, curve: X25519PublicKey) -> bytes:
    return hashlib.sha3_256(
        kem_secret + exchanged + sent + curve.public_bytes_raw() + LABEL
    ).digest()
