"""What all backends say alike about material: check values, strict imports, public keys' own work."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB

from keys.algorithms import ALGORITHMS, SPECS, Algorithm, Family, KeySpec
from keys.errors import Invalid, Unsupported
from keys.primitives import kem, pairs, signatures
from keys.primitives.pairs import CURVES, PrivateKey, PublicKey, private_der, public_der
from keys.primitives.signatures import HASHES, check_message
from keys.secret import Secret

__all__ = [
    "CHECK_BLOCK",
    "CHECK_BYTES",
    "CHECK_TEXT",
    "CURVES",
    "HASHES",
    "PrivateKey",
    "PublicKey",
    "agreed",
    "algorithm_for",
    "check_message",
    "check_value",
    "check_value_of_public_key",
    "check_value_of_secret",
    "encapsulate",
    "imported_private_key",
    "imported_secret",
    "load_public_key",
    "new_pair",
    "private_der",
    "public_der",
    "spec_named",
    "verify_signature",
]

CHECK_BYTES = 8
# What a check value is computed over. For AES it is the *decryption* of one block: an HSM computes
# it as long as the key may decrypt, it is never the zero block (whose encryption is GCM's hash key
# and CMAC's subkey), and the forward direction of GCM and XAES never meets it.
CHECK_BLOCK = b"kms-console:chk\x01"
CHECK_TEXT = b"kms-console check value"

# Backends verify with these from a public key alone.
verify_signature = signatures.verify


def spec_named(name: str) -> KeySpec:
    """Return a key spec. Raises Unsupported for an unknown name."""
    try:
        return SPECS[name]
    except KeyError:
        raise Unsupported(f"There is no key spec {name!r}.") from None


def algorithm_for(offers: Mapping[str, tuple[str, ...]], spec: KeySpec, name: str) -> Algorithm:
    """Return the algorithm that `offers` has for `spec`. Raises Unsupported: what would work."""
    offered = offers.get(spec.name, ())
    if name not in offered:
        instead = (
            f"It offers {', '.join(offered)}." if offered else "It offers nothing for such keys."
        )
        raise Unsupported(f"This key store has no {name} for {spec.name} keys. {instead}")
    return ALGORITHMS[name]


def check_value_of_secret(spec: KeySpec, material: bytes) -> str:
    """Return the check value of a secret, 8 bytes in hex; the same everywhere.

    AES: the decryption of CHECK_BLOCK. HMAC: the MAC of CHECK_TEXT with the spec's own hash. AES-SIV
    and XChaCha20: HMAC-SHA-256 of CHECK_TEXT under the material.
    """
    if spec.family is Family.AES:
        block_cipher = Cipher(AES(material), ECB()).decryptor()  # noqa: S305 one block
        return block_cipher.update(CHECK_BLOCK)[:CHECK_BYTES].hex()
    digest = f"sha{spec.bits}" if spec.family is Family.HMAC else "sha256"
    return hmac.digest(material, CHECK_TEXT, digest)[:CHECK_BYTES].hex()


def check_value_of_public_key(public_key: bytes) -> str:
    """Return the check value of a pair: SHA-256 of its SubjectPublicKeyInfo, 8 bytes in hex."""
    return hashlib.sha256(public_key).digest()[:CHECK_BYTES].hex()


def imported_secret(spec: KeySpec, material: Secret) -> bytes:
    """Return the raw bytes of a secret that is imported. Raises Invalid for what is no such key."""
    if len(material) * 8 != spec.bits:
        raise Invalid(f"{spec.label} material has {spec.bits // 8} bytes, not {len(material)}.")
    raw = material.reveal()
    if not any(raw):
        raise Invalid("The material is all zeros, which is no key.")
    half = len(raw) // 2
    if spec.family is Family.AES_SIV and hmac.compare_digest(raw[:half], raw[half:]):
        # RFC 5297, 2.2: two independent keys.
        raise Invalid("The two halves of AES-SIV material are two keys, and must differ.")
    return raw


def imported_private_key(spec: KeySpec, material: Secret) -> PrivateKey:
    """Return the validated private key of an import. Raises Invalid where it isn't one of `spec`."""
    return pairs.imported(spec, material)


def load_public_key(public_key: bytes, spec: KeySpec | None = None) -> PublicKey:
    """Return a public key from DER SubjectPublicKeyInfo. Raises Invalid.

    Keys of SLH-DSA, ML-KEM-512 and X-Wing are only known where `spec` names them.
    """
    return pairs.load_public(public_key, spec)


def check_value(spec: KeySpec, material: Secret) -> str:
    """Return the check value that an import will have. Raises Invalid where it doesn't fit `spec`."""
    if spec.asymmetric:
        return check_value_of_public_key(public_der(imported_private_key(spec, material)))
    return check_value_of_secret(spec, imported_secret(spec, material))


def new_pair(spec: KeySpec) -> tuple[Secret, bytes]:
    """Return a fresh pair: PKCS#8 DER, unencrypted, and DER SubjectPublicKeyInfo.

    Raises Unsupported where a library for it is missing.
    """
    key = pairs.generate(spec)
    return Secret(private_der(key)), public_der(key)


def agreed(spec: KeySpec, private: Secret, peer: bytes) -> bytes:
    """Return the raw ECDH secret of a PKCS#8 private key and a peer's SubjectPublicKeyInfo.

    Raises Invalid for a peer that is no good (Backend.agree).
    """
    return kem.agree(spec, pairs.load_private(spec, private), peer)


def encapsulate(spec: KeySpec, public_key: bytes) -> tuple[bytes, bytes]:
    """Return a fresh shared secret of 32 bytes, and its ciphertext. Raises Invalid, Unsupported."""
    return kem.encapsulate(spec, public_key)
