"""Key pairs as attributes of objects, and back: SubjectPublicKeyInfo, points, private values."""

from __future__ import annotations

from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa, utils, x25519
from pkcs11 import Attribute, KeyType, ObjectClass

from keys.algorithms import SPECS, Family, KeySpec
from keys.backends import materials
from keys.backends.pkcs11 import mechanisms
from keys.errors import BackendError

Attributes = dict[Attribute, Any]

# RFC 8410, 4: what stands before the 32 or 57 bytes of such a public key.
_SPKI: dict[str, bytes] = {
    "ed25519": bytes.fromhex("302a300506032b6570032100"),
    "ed448": bytes.fromhex("3043300506032b6571033a00"),
    "x25519": bytes.fromhex("302a300506032b656e032100"),
}
_POINT_BYTES = {"ed25519": 32, "ed448": 57, "x25519": 32}
# Curves that name themselves in text, as PKCS#11 3.0 allows.
_CURVE_NAMES = {
    b"\x13\x0cedwards25519": "ed25519",
    b"\x13\x0aedwards448": "ed448",
    b"\x13\x0acurve25519": "x25519",
}
_UNKNOWN = "The token holds a key of an unknown kind under this id."
_NO_SENSE = "The token holds a public key that makes no sense."


def spec_of_secret(key: Any) -> KeySpec:
    """Return the spec of a secret key object. Raises BackendError where there is none such."""
    try:
        family = mechanisms.SECRET_FAMILIES.get(key[Attribute.KEY_TYPE])
    except ValueError:  # a type for which python-pkcs11 has no name
        raise BackendError(_UNKNOWN) from None
    bits = 8 * int(key[Attribute.VALUE_LEN])
    return _spec(lambda spec: spec.family is family and spec.bits == bits)


def spec_of_public(public_key: bytes) -> KeySpec:
    """Return the spec of a pair by its SubjectPublicKeyInfo. Raises BackendError."""
    key = serialization.load_der_public_key(public_key)
    if isinstance(key, rsa.RSAPublicKey):
        size = key.key_size
        return _spec(lambda spec: spec.family is Family.RSA and spec.bits == size)
    curve = _curve_of(key)
    return _spec(lambda spec: bool(curve) and spec.curve == curve)


def _curve_of(key: object) -> str:
    if isinstance(key, ec.EllipticCurvePublicKey):
        return key.curve.name
    if isinstance(key, ed25519.Ed25519PublicKey):
        return "ed25519"
    if isinstance(key, ed448.Ed448PublicKey):
        return "ed448"
    return "x25519" if isinstance(key, x25519.X25519PublicKey) else ""


def _spec(fits: Any) -> KeySpec:
    for spec in SPECS.values():
        if fits(spec):
            return spec
    raise BackendError(_UNKNOWN)


# --- public keys


def subject_public_key_info(public: Any) -> bytes:
    """Return the DER of a public key object. Raises BackendError for what is no valid key."""
    try:
        if public[Attribute.KEY_TYPE] is KeyType.RSA:
            numbers = rsa.RSAPublicNumbers(
                int.from_bytes(public[Attribute.PUBLIC_EXPONENT], "big"),
                int.from_bytes(public[Attribute.MODULUS], "big"),
            )
            return materials.public_der(numbers.public_key())
        curve, point = _curve_named(public[Attribute.EC_PARAMS]), public[Attribute.EC_POINT]
        return public_of_point(curve, point)
    except (ValueError, UnsupportedAlgorithm):
        raise BackendError(_NO_SENSE) from None


def public_of_point(curve: str, point: bytes) -> bytes:
    """Return the DER of the public key that CKA_EC_POINT names. Raises ValueError."""
    if curve in _SPKI:
        return _SPKI[curve] + _unpacked(point, _POINT_BYTES[curve])
    on = materials.CURVES[curve]
    raw = _unpacked(point, 1 + 2 * field_bytes(curve))
    return materials.public_der(ec.EllipticCurvePublicKey.from_encoded_point(on, raw))


def field_bytes(curve: str) -> int:
    """Return the size of a coordinate, and so of an ECDH secret."""
    return _POINT_BYTES[curve] if curve in _SPKI else (materials.CURVES[curve].key_size + 7) // 8


def raw_point(public_key: bytes) -> bytes:
    """Return the point of an EC, Edwards or X25519 key in DER, as mechanisms take it."""
    key = serialization.load_der_public_key(public_key)
    if isinstance(key, ec.EllipticCurvePublicKey):
        return key.public_bytes(
            serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
        )
    return public_key[len(_SPKI[_curve_of(key)]) :]


def octet_string(value: bytes) -> bytes:
    """Return the DER OCTET STRING of up to 255 bytes."""
    return b"\x04" + _length(len(value)) + value


def _length(size: int) -> bytes:
    return bytes([size]) if size < 128 else bytes([0x81, size])


def _curve_named(parameters: bytes) -> str:
    for name, known in mechanisms.CURVES.items():
        if parameters == known:
            return name
    if parameters in _CURVE_NAMES:
        return _CURVE_NAMES[parameters]
    raise ValueError("an unknown curve")


def _unpacked(point: bytes, size: int) -> bytes:
    """Return the bare point: the standard's OCTET STRING, 3.0's BIT STRING, and bare ones are about."""
    for head in (b"", b"\x04" + _length(size), b"\x03" + _length(size + 1) + b"\x00"):
        if len(point) == len(head) + size and point.startswith(head):
            return bytes(point[len(head) :])
    raise ValueError("a point of a wrong length")


# --- pairs to be made objects of


def attributes_of_pair(spec: KeySpec, key: Any) -> tuple[Attributes, Attributes]:
    """Return what is particular to a private and a public key object of an imported pair."""
    kind, _ = mechanisms.PAIRS[spec.family]
    private: Attributes = {Attribute.CLASS: ObjectClass.PRIVATE_KEY, Attribute.KEY_TYPE: kind}
    public: Attributes = {Attribute.CLASS: ObjectClass.PUBLIC_KEY, Attribute.KEY_TYPE: kind}
    if isinstance(key, rsa.RSAPrivateKey):
        numbers = key.private_numbers()
        parts = {
            Attribute.MODULUS: numbers.public_numbers.n,
            Attribute.PUBLIC_EXPONENT: numbers.public_numbers.e,
        }
        public |= {name: _integer(value) for name, value in parts.items()}
        parts |= {
            Attribute.PRIVATE_EXPONENT: numbers.d,
            Attribute.PRIME_1: numbers.p,
            Attribute.PRIME_2: numbers.q,
            Attribute.EXPONENT_1: numbers.dmp1,
            Attribute.EXPONENT_2: numbers.dmq1,
            Attribute.COEFFICIENT: numbers.iqmp,
        }
        return private | {name: _integer(value) for name, value in parts.items()}, public
    curve = {Attribute.EC_PARAMS: mechanisms.CURVES[spec.curve]}
    point = octet_string(raw_point(materials.public_der(key)))
    return private | curve | {Attribute.VALUE: _scalar(spec, key)}, (
        public | curve | {Attribute.EC_POINT: point}
    )


def _scalar(spec: KeySpec, key: Any) -> bytes:
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.private_numbers().private_value.to_bytes(field_bytes(spec.curve), "big")
    raw: bytes = key.private_bytes_raw()
    return raw


def _integer(value: int) -> bytes:
    return value.to_bytes((value.bit_length() + 7) // 8, "big")


# --- signatures


def signature_from_token(spec: KeySpec, signature: bytes) -> bytes:
    """Return a signature as the console gives it: ECDSA in DER, not r and s side by side."""
    if spec.family is not Family.EC:
        return signature
    half = len(signature) // 2
    return utils.encode_dss_signature(
        int.from_bytes(signature[:half], "big"), int.from_bytes(signature[half:], "big")
    )
