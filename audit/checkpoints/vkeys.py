"""Verifier keys as text (C2SP signed-note), and how each kind of signature is verified.

One kind for witnesses of the public ecosystem (Ed25519, `cosignature/v1`), and two for profiles that
want other algorithms: their type is 0xff, "not assigned", followed by a name that nobody else has.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from audit.errors import NoteError

ED25519 = b"\x01"
COSIGNATURE = b"\x04"
ECDSA_P384 = b"\xffkms-console.ecdsa-p384-sha384.v1"
ML_DSA_87 = b"\xffkms-console.ml-dsa-87.v1"
# Bytes of the public key of each type: raw, and for P-384 the uncompressed point.
KEY_SIZES = {ED25519: 32, COSIGNATURE: 32, ECDSA_P384: 97, ML_DSA_87: 2592}

VKEY_LIMIT = 8 * 1024
SECONDS_LIMIT = 2**63
_KEY_ID = re.compile(r"[0-9a-f]{8}")


def sound_name(name: str) -> bool:
    """Whether a key may have this name: not empty, no white space, no plus, no control characters."""
    return bool(name) and "+" not in name and not any(c.isspace() or c < " " for c in name)


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key with its name and its signature type. `text()` is what people note down."""

    name: str
    kind: bytes
    public: bytes

    @property
    def key_id(self) -> bytes:
        """The first four bytes of SHA-256(name || 0x0A || type || public key)."""
        data = self.name.encode() + b"\n" + self.kind + self.public
        return hashlib.sha256(data).digest()[:4]

    def text(self) -> str:
        """Return `<name>+<8 hex of the key id>+<Base64 of type || public key>`."""
        return (
            f"{self.name}+{self.key_id.hex()}+{base64.b64encode(self.kind + self.public).decode()}"
        )

    def verify(self, body: bytes, signature: bytes) -> int | None:
        """Verify a signature over a note's text; return the Unix seconds it says, if its kind does.

        Raises NoteError where it is wrong.
        """
        seconds = None
        message, value = body, signature
        if self.kind != ED25519:
            if len(signature) < 9:
                raise self._wrong()
            seconds, value = int.from_bytes(signature[:8], "big"), signature[8:]
            if seconds >= SECONDS_LIMIT:
                raise self._wrong()
            message = timestamped(self.kind, seconds, body)
        try:
            self._check(message, value)
        except (InvalidSignature, ValueError):
            raise self._wrong() from None
        except UnsupportedAlgorithm:
            raise NoteError(f"Signatures of {self.name} can't be verified here.") from None
        return seconds

    def _check(self, message: bytes, value: bytes) -> None:
        if self.kind == ECDSA_P384:
            point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP384R1(), self.public)
            point.verify(value, message, ec.ECDSA(hashes.SHA384()))
        elif self.kind == ML_DSA_87:
            from cryptography.hazmat.primitives.asymmetric import mldsa

            mldsa.MLDSA87PublicKey.from_public_bytes(self.public).verify(value, message)
        else:
            ed25519.Ed25519PublicKey.from_public_bytes(self.public).verify(value, message)

    def _wrong(self) -> NoteError:
        return NoteError(f"The signature of {self.name} is wrong.")


def timestamped(kind: bytes, seconds: int, body: bytes) -> bytes:
    """Return what is signed where a signature says its time."""
    header = b"cosignature/v1" if kind == COSIGNATURE else b"kms-console/timestamped/v1"
    return header + b"\ntime %d\n" % seconds + body


def parse_vkey(text: str) -> VerifierKey:
    """Return the verifier key that `text` is. Raises NoteError where it is none that is known here."""
    if len(text) > VKEY_LIMIT:
        raise NoteError("The verifier key is too long.")
    name, _, rest = text.strip().partition("+")
    key_id, _, encoded = rest.partition("+")
    try:
        data = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise NoteError("The verifier key's last part is not Base64.") from None
    if not sound_name(name) or not _KEY_ID.fullmatch(key_id):
        raise NoteError("A verifier key is <name>+<8 hex digits>+<Base64>.")
    for kind, size in KEY_SIZES.items():
        if data.startswith(kind) and len(data) == len(kind) + size:
            key = VerifierKey(name, kind, data[len(kind) :])
            if key.key_id.hex() != key_id or key.text() != text.strip():
                raise NoteError(f"The verifier key of {name} does not have the id that it says.")
            return key
    raise NoteError(f"The verifier key of {name} is of a kind that is not known here.")
