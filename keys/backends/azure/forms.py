"""Encodings: JSON Web Keys as Azure writes them, base64url, and ECDSA signatures both ways."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from azure.keyvault.keys import JsonWebKey
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from keys.algorithms import SPECS, Family, KeySpec
from keys.backends import materials
from keys.errors import BackendError

# As Azure writes them: its secp256k1 is P-256K, and was SECP256K1 in early versions of the API.
_CURVES = {
    "P-256": "secp256r1",
    "P-384": "secp384r1",
    "P-521": "secp521r1",
    "P-256K": "secp256k1",
    "SECP256K1": "secp256k1",
}
_CURVE_NAMES = {curve: name for name, curve in reversed(list(_CURVES.items()))}


def text(value: Any) -> str:
    """Return a value of the SDK that is text or one of its enumerations as text."""
    found = getattr(value, "value", value)
    return found if isinstance(found, str) else ""


def encoded(data: bytes) -> str:
    """Return base64url without padding (RFC 7515, 2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decoded(value: Any) -> bytes:
    """Undo encoded(). Raises BackendError for what is not that."""
    try:
        if not isinstance(value, str):
            raise TypeError
        return base64.b64decode(value + "=" * (-len(value) % 4), b"-_", validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise BackendError("Azure's answer holds no base64url where it should.") from None


def curve_name(spec: KeySpec) -> str:
    return _CURVE_NAMES[spec.curve]


def public_of(key: Any) -> tuple[KeySpec | None, bytes | None]:
    """Return spec and SubjectPublicKeyInfo of a JsonWebKey; None where the console has no such spec.

    Raises BackendError for numbers that are no public key.
    """
    kind = text(key.kty)
    try:
        if kind.startswith("RSA"):
            return _rsa(int.from_bytes(key.n, "big"), int.from_bytes(key.e, "big"))
        if kind.startswith("EC"):
            return _ec(text(key.crv), int.from_bytes(key.x, "big"), int.from_bytes(key.y, "big"))
    except (ValueError, TypeError):
        raise BackendError("Azure gave a public key that is none.") from None
    return None, None


def _rsa(modulus: int, exponent: int) -> tuple[KeySpec | None, bytes]:
    public = rsa.RSAPublicNumbers(exponent, modulus).public_key()
    return SPECS.get(f"RSA_{public.key_size}"), materials.public_der(public)


def _ec(curve: str, x: int, y: int) -> tuple[KeySpec | None, bytes | None]:
    name = _CURVES.get(curve)
    if name is None:
        return None, None
    public = ec.EllipticCurvePublicNumbers(x, y, materials.CURVES[name]).public_key()
    spec = next(row for row in SPECS.values() if row.curve == name and row.family is Family.EC)
    return spec, materials.public_der(public)


def private_web_key(
    private: materials.PrivateKey, spec: KeySpec, operations: list[str]
) -> JsonWebKey:
    """Return a private RSA or EC key as the JSON Web Key that an import takes (RFC 7518, 6.2 and 6.3)."""
    if isinstance(private, rsa.RSAPrivateKey):
        numbers = private.private_numbers()
        public = numbers.public_numbers
        return JsonWebKey(
            kty="RSA",
            key_ops=operations,
            n=_bytes(public.n),
            e=_bytes(public.e),
            d=_bytes(numbers.d),
            p=_bytes(numbers.p),
            q=_bytes(numbers.q),
            dp=_bytes(numbers.dmp1),
            dq=_bytes(numbers.dmq1),
            qi=_bytes(numbers.iqmp),
        )
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    point, size = private.private_numbers(), coordinate_bytes(spec)
    return JsonWebKey(
        kty="EC",
        key_ops=operations,
        crv=curve_name(spec),
        x=point.public_numbers.x.to_bytes(size, "big"),
        y=point.public_numbers.y.to_bytes(size, "big"),
        d=point.private_value.to_bytes(size, "big"),
    )


def _bytes(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


def coordinate_bytes(spec: KeySpec) -> int:
    return (spec.bits + 7) // 8


def der_signature(raw: bytes, spec: KeySpec) -> bytes:
    """Return an ECDSA signature, r then s (RFC 7518, 3.4), as DER. Raises BackendError for others."""
    size = coordinate_bytes(spec)
    if len(raw) != 2 * size:
        raise BackendError("Azure's signature has a length that no such key makes.")
    return encode_dss_signature(
        int.from_bytes(raw[:size], "big"), int.from_bytes(raw[size:], "big")
    )
