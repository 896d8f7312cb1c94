"""The signer's private keys: made at its first start, kept in its folder, and never shown."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from audit.checkpoints import vkeys
from audit.checkpoints.files import flush_folder, private_folder
from audit.checkpoints.notes import Signature
from audit.checkpoints.vkeys import VerifierKey
from audit.errors import SignerError

# The words of KMS_SIGNER_ALGORITHMS, each with its signature type.
ALGORITHMS = {
    "ed25519": vkeys.ED25519,
    "ecdsa-p384": vkeys.ECDSA_P384,
    "ml-dsa-87": vkeys.ML_DSA_87,
}


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key that signs notes under a name."""

    verifier: VerifierKey
    _private: Any

    def sign(self, body: str, seconds: int) -> Signature:
        """Return this key's signature line over a note's text, at a time in Unix seconds."""
        kind, data = self.verifier.kind, body.encode()
        if kind == vkeys.ED25519:
            value = self._private.sign(data)
        else:
            message = vkeys.timestamped(kind, seconds, data)
            value = seconds.to_bytes(8, "big") + self._signed(message)
        return Signature(self.verifier.name, self.verifier.key_id, value)

    def _signed(self, message: bytes) -> bytes:
        if self.verifier.kind == vkeys.ECDSA_P384:
            return bytes(self._private.sign(message, ec.ECDSA(hashes.SHA384())))
        return bytes(self._private.sign(message))


def load_or_make(folder: Path, algorithms: Sequence[str], name: str) -> list[SigningKey]:
    """Return the keys of these algorithms, made where they aren't there, signing as `name`.

    Raises SignerError where an algorithm is unknown, or a key can't be read or is open to others.
    """
    unknown = [word for word in algorithms if word not in ALGORITHMS]
    if unknown or not algorithms:
        words = ", ".join(ALGORITHMS)
        raise SignerError(f"KMS_SIGNER_ALGORITHMS takes the words {words}; not {unknown}.")
    private_folder(folder)
    return [_key(folder / f"{word}.pem", ALGORITHMS[word], name) for word in algorithms]


def witness_key(path: Path, name: str) -> SigningKey:
    """Return a witness's Ed25519 key, made where it isn't there. Raises SignerError."""
    return _key(path, vkeys.COSIGNATURE, name)


def _key(path: Path, kind: bytes, name: str) -> SigningKey:
    if not vkeys.sound_name(name):
        raise SignerError("The name that a log or a witness signs with has no blanks and no '+'.")
    if not path.exists():
        _make(path, kind)
    private = _load(path)
    return SigningKey(VerifierKey(name, kind, _public(private, kind, path)), private)


def _make(path: Path, kind: bytes) -> None:
    pem = _generated(kind).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    draft = path.with_suffix(".draft")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb") as file:
        file.write(pem)
        file.flush()
        os.fsync(file.fileno())
    os.link(draft, path)  # never over a key that is there
    draft.unlink()
    flush_folder(path.parent)


def _generated(kind: bytes) -> Any:
    if kind == vkeys.ECDSA_P384:
        return ec.generate_private_key(ec.SECP384R1())
    if kind == vkeys.ML_DSA_87:
        from cryptography.hazmat.primitives.asymmetric import mldsa

        try:
            return mldsa.MLDSA87PrivateKey.generate()
        except UnsupportedAlgorithm:
            raise SignerError("This machine's cryptographic library has no ML-DSA-87.") from None
    return ed25519.Ed25519PrivateKey.generate()


def _load(path: Path) -> Any:
    try:
        if path.stat().st_mode & 0o077:
            raise SignerError(f"The key {path.name} is open to others: give it mode 0600.")
        return serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm):
        raise SignerError(f"The key {path.name} can't be read.") from None


def _public(private: Any, kind: bytes, path: Path) -> bytes:
    public = private.public_key()
    if kind == vkeys.ECDSA_P384 and isinstance(private, ec.EllipticCurvePrivateKey):
        encoding, form = serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
        data = bytes(public.public_bytes(encoding, form))
    elif kind != vkeys.ECDSA_P384 and hasattr(public, "public_bytes_raw"):
        data = bytes(public.public_bytes_raw())
    else:
        data = b""
    if len(data) != vkeys.KEY_SIZES[kind]:
        raise SignerError(f"The key {path.name} is of another algorithm than its name says.")
    return data
