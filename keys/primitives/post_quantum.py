"""SLH-DSA (FIPS 205) and ML-KEM-512 (FIPS 203) by the library pqcrypto, where it is installed.

It is an optional part, loaded at the first need. Whatever it raises becomes an error of this
module's callers: InvalidSignature for a signature it refuses, ValueError for a key.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import importlib
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature

from keys.errors import BackendError, Unsupported
from keys.primitives import der
from keys.secret import Secret

# RFC 9909, 3: id-slh-dsa-sha2-*; the key of a pair is 4n bytes, of which 2n are its public key.
SLH_DSA_OIDS = {
    "128S": "2.16.840.1.101.3.4.3.20",
    "128F": "2.16.840.1.101.3.4.3.21",
    "192S": "2.16.840.1.101.3.4.3.22",
    "192F": "2.16.840.1.101.3.4.3.23",
    "256S": "2.16.840.1.101.3.4.3.24",
    "256F": "2.16.840.1.101.3.4.3.25",
}
# RFC 9935, 3: id-alg-ml-kem-512. The library takes the expanded key only (FIPS 203, 7.1): dk_PKE,
# the public key, its SHA3-256, z.
ML_KEM_512_OID = "2.16.840.1.101.3.4.4.1"
_EXPANDED, _PKE, _PUBLIC, _HASH, _CIPHERTEXT = 1632, 768, 800, 32, 768


def installed() -> bool:
    """Whether the library can be loaded here."""
    try:
        _module("kem.ml_kem_512")
    except ImportError:
        return False
    return True


@functools.cache
def _module(name: str) -> Any:
    # The submodules exist once their package was imported, and not before.
    package, _, leaf = name.partition(".")
    return getattr(importlib.import_module(f"pqcrypto.{package}"), leaf)


def _library(name: str) -> Any:
    try:
        return _module(name)
    except ImportError:
        raise Unsupported(
            "This needs the optional library pqcrypto, which is not installed here."
        ) from None


def _slh_dsa(parameters: str) -> Any:
    return _library(f"sign.slh_dsa_sha2_{parameters.lower()}")


@dataclass(frozen=True, slots=True)
class SlhDsaPublicKey:
    """PK.seed and PK.root: 2n bytes (FIPS 205, 9.1)."""

    parameters: str
    raw: bytes

    def verify(self, signature: bytes, message: bytes) -> None:
        """Check a pure signature with an empty context. Raises InvalidSignature."""
        try:
            _slh_dsa(self.parameters).verify(self.raw, message, signature)
        except ValueError:  # the library's own error for it, and its error for a wrong length
            raise InvalidSignature from None

    def der(self) -> bytes:
        return der.public_key_info(SLH_DSA_OIDS[self.parameters], self.raw)


@dataclass(frozen=True, slots=True)
class SlhDsaPrivateKey:
    """SK.seed, SK.prf, PK.seed, PK.root: 4n bytes."""

    parameters: str
    raw: Secret

    @classmethod
    def generate(cls, parameters: str) -> SlhDsaPrivateKey:
        _, private = _slh_dsa(parameters).keygen()
        return cls(parameters, Secret(private))

    def public_key(self) -> SlhDsaPublicKey:
        raw = self.raw.reveal()
        return SlhDsaPublicKey(self.parameters, raw[len(raw) // 2 :])

    def sign(self, message: bytes) -> bytes:
        """Return a pure signature with an empty context, hedged (FIPS 205, 10.2.1)."""
        try:
            return bytes(_slh_dsa(self.parameters).sign(self.raw.reveal(), message))
        except ValueError:
            raise BackendError("The key can't sign.") from None

    def check(self) -> None:
        """Raise ValueError where the root is not the seeds' own: a signature tells."""
        try:
            self.public_key().verify(self.sign(b""), b"")
        except (InvalidSignature, BackendError):
            raise ValueError("The parts of the key don't belong together.") from None

    def der(self) -> bytes:
        return der.private_key_info(SLH_DSA_OIDS[self.parameters], self.raw.reveal())


@dataclass(frozen=True, slots=True)
class MlKem512PublicKey:
    raw: bytes

    def encapsulate(self) -> tuple[bytes, bytes]:
        """Return a fresh shared secret and its ciphertext. Raises ValueError for a wrong key."""
        ciphertext, secret = _library("kem.ml_kem_512").encaps(self.raw)
        return bytes(secret), bytes(ciphertext)

    def der(self) -> bytes:
        return der.public_key_info(ML_KEM_512_OID, self.raw)


@dataclass(frozen=True, slots=True)
class MlKem512PrivateKey:
    """The expanded key of 1,632 bytes."""

    raw: Secret

    @classmethod
    def generate(cls) -> MlKem512PrivateKey:
        _, private = _library("kem.ml_kem_512").keygen()
        return cls(Secret(private))

    def public_key(self) -> MlKem512PublicKey:
        return MlKem512PublicKey(self.raw.reveal()[_PKE : _PKE + _PUBLIC])

    def decapsulate(self, ciphertext: bytes) -> bytes:
        """Return the shared secret. Raises ValueError for a ciphertext of a wrong length."""
        return bytes(_library("kem.ml_kem_512").decaps(self.raw.reveal(), ciphertext))

    def check(self) -> None:
        """FIPS 203, 7.3: the hash of the public key; and that both halves are of one pair."""
        raw, public = self.raw.reveal(), self.public_key()
        kept = raw[_PKE + _PUBLIC : _PKE + _PUBLIC + _HASH]
        if not hmac.compare_digest(hashlib.sha3_256(public.raw).digest(), kept):
            raise ValueError("The parts of the key don't belong together.")
        secret, ciphertext = public.encapsulate()
        if not hmac.compare_digest(self.decapsulate(ciphertext), secret):
            raise ValueError("The parts of the key don't belong together.")

    def der(self) -> bytes:
        # RFC 9935, 6: a CHOICE of seed [0], expandedKey (an OCTET STRING) and both (a SEQUENCE).
        return der.private_key_info(ML_KEM_512_OID, der.octet_string(self.raw.reveal()))


def read_slh_dsa_private(parameters: str, encoded: bytes) -> SlhDsaPrivateKey:
    """Return the key of a PKCS#8 structure. Raises ValueError."""
    raw, public = der.read_private_key(SLH_DSA_OIDS[parameters], encoded)
    key = SlhDsaPrivateKey(parameters, Secret(raw))
    if len(raw) != _n(parameters) * 4 or public not in (None, key.public_key().raw):
        raise ValueError("Not a private key of this parameter set.")
    return key


def read_slh_dsa_public(parameters: str, encoded: bytes) -> SlhDsaPublicKey:
    """Return the key of a SubjectPublicKeyInfo. Raises ValueError."""
    raw = der.read_public_key(SLH_DSA_OIDS[parameters], encoded)
    if len(raw) != _n(parameters) * 2:
        raise ValueError("Not a public key of this parameter set.")
    return SlhDsaPublicKey(parameters, raw)


def read_ml_kem_512_private(encoded: bytes) -> MlKem512PrivateKey:
    """Return the key of a PKCS#8 structure in its expanded form. Raises ValueError."""
    content, public = der.read_private_key(ML_KEM_512_OID, encoded)
    raw = der.read_octet_string(content)
    key = MlKem512PrivateKey(Secret(raw))
    if len(raw) != _EXPANDED or public not in (None, key.public_key().raw):
        raise ValueError("Not an expanded private key of ML-KEM-512.")
    return key


def read_ml_kem_512_public(encoded: bytes) -> MlKem512PublicKey:
    """Return the key of a SubjectPublicKeyInfo. Raises ValueError."""
    raw = der.read_public_key(ML_KEM_512_OID, encoded)
    if len(raw) != _PUBLIC:
        raise ValueError("Not a public key of ML-KEM-512.")
    return MlKem512PublicKey(raw)


def _n(parameters: str) -> int:
    return int(parameters[:3]) // 8
