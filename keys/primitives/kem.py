"""Shared secrets: Diffie-Hellman on curves, and key encapsulation."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric import ec, x25519

from keys.algorithms import KeySpec
from keys.errors import CannotDecrypt, Invalid, Unsupported
from keys.primitives import pairs
from keys.primitives.pairs import MlKemPrivateKey, MlKemPublicKey, PrivateKey
from keys.primitives.post_quantum import MlKem512PrivateKey, MlKem512PublicKey
from keys.primitives.x_wing import XWingPrivateKey, XWingPublicKey


def agree(spec: KeySpec, private: PrivateKey, peer: bytes) -> bytes:
    """Return the raw ECDH secret with a DER SubjectPublicKeyInfo (SP 800-56A, 5.7.1.2; RFC 7748).

    Raises Invalid for a key of another curve, not on it, or of small order.
    """
    public = pairs.load_public(peer, spec)
    try:
        if isinstance(private, ec.EllipticCurvePrivateKey) and isinstance(
            public, ec.EllipticCurvePublicKey
        ):
            return private.exchange(ec.ECDH(), public)
        if isinstance(private, x25519.X25519PrivateKey) and isinstance(
            public, x25519.X25519PublicKey
        ):
            return private.exchange(public)
    except ValueError:
        raise Invalid("The peer's public key is of small order, or no good for this.") from None
    raise Unsupported("Such a key agrees on nothing.")


def encapsulate(spec: KeySpec, public_key: bytes) -> tuple[bytes, bytes]:
    """Return a fresh shared secret of 32 bytes and its ciphertext (FIPS 203, 7.2; X-Wing, 5.4).

    Raises Invalid for what is no public key of `spec`, Unsupported for a spec that is no KEM's.
    """
    public = pairs.load_public(public_key, spec)
    if not isinstance(public, MlKemPublicKey | MlKem512PublicKey | XWingPublicKey):
        raise Unsupported(f"{spec.label} is no key encapsulation mechanism.")
    try:
        return public.encapsulate()
    except ValueError:  # ML-KEM-512's library checks the key here and not before
        raise Invalid(f"That is not a public key of {spec.label}.") from None


def decapsulate(private: PrivateKey, ciphertext: bytes) -> bytes:
    """Return the shared secret. Raises CannotDecrypt for a ciphertext of a wrong length."""
    if not isinstance(private, MlKemPrivateKey | MlKem512PrivateKey | XWingPrivateKey):
        raise Unsupported("Such a key decapsulates nothing.")
    try:
        return private.decapsulate(ciphertext)
    except ValueError:
        raise CannotDecrypt from None
