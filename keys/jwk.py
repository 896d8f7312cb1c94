"""Public keys as JSON Web Keys: from DER SubjectPublicKeyInfo to the members that verifiers look for.

RFC 7517 and 7518 (RSA, EC), 8812 (secp256k1), 8037 (Ed25519, Ed448, X25519), 9964 (ML-DSA, and the
key type AKP). SLH-DSA and ML-KEM stand in AKP by the names that their drafts use
(draft-ietf-cose-sphincs-plus, draft-ietf-jose-pqc-kem), X-Wing by its own: readers skip keys of a
type that they don't know (RFC 7517, 5).
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from keys.algorithms import SPECS, Family, KeySpec, Usage

Jwk = dict[str, Any]

_CURVES = {
    "secp256r1": "P-256",
    "secp384r1": "P-384",
    "secp521r1": "P-521",
    "secp256k1": "secp256k1",
    "ed25519": "Ed25519",
    "ed448": "Ed448",
    "x25519": "X25519",
}
_ALGORITHMS = {
    "RSASSA_PSS_SHA_256": "PS256",
    "RSASSA_PSS_SHA_384": "PS384",
    "RSASSA_PSS_SHA_512": "PS512",
    "RSASSA_PKCS1_V1_5_SHA_256": "RS256",
    "RSASSA_PKCS1_V1_5_SHA_384": "RS384",
    "RSASSA_PKCS1_V1_5_SHA_512": "RS512",
    "RSAES_OAEP_SHA_1": "RSA-OAEP",
    "RSAES_OAEP_SHA_256": "RSA-OAEP-256",
    "RSAES_OAEP_SHA_384": "RSA-OAEP-384",
    "RSAES_OAEP_SHA_512": "RSA-OAEP-512",
    # RFC 9864 has Ed25519 and Ed448 for it; what verifies today knows mostly this name.
    "ED25519_SHA_512": "EdDSA",
    "ED448_SHAKE_256": "EdDSA",
}
# RFC 7518, 3.4, and RFC 8812, 3.2: each has one curve.
_ECDSA = {
    ("ECDSA_SHA_256", "secp256r1"): "ES256",
    ("ECDSA_SHA_384", "secp384r1"): "ES384",
    ("ECDSA_SHA_512", "secp521r1"): "ES512",
    ("ECDSA_SHA_256", "secp256k1"): "ES256K",
}


def jwk(spec: str, usage: str, algorithm: str, public_key: bytes, kid: str) -> Jwk:
    """Return the JWK of a public key (DER SubjectPublicKeyInfo) of a key spec, named `kid`.

    `use` follows the key's purpose; `alg` is there where JOSE has one name for `algorithm` on such
    a key, and always for AKP keys, whose type it is.
    """
    row = SPECS[spec]
    found = _numbers(row, public_key)
    found["kid"] = kid
    # Not key_ops beside it: RFC 7517, 4.3.
    found["use"] = "sig" if usage == Usage.SIGN_VERIFY else "enc"
    named = _ALGORITHMS.get(algorithm) or _ECDSA.get((algorithm, row.curve))
    if named and "alg" not in found:
        found["alg"] = named
    return found


def _numbers(spec: KeySpec, public_key: bytes) -> Jwk:
    if spec.family is Family.RSA:
        return _rsa(public_key)
    if spec.family is Family.EC:
        return _ec(spec, public_key)
    if spec.family in (Family.EDWARDS, Family.MONTGOMERY):
        return {"kty": "OKP", "crv": _CURVES[spec.curve], "x": encoded(raw(public_key))}
    return {"kty": "AKP", "alg": _parameter_set(spec), "pub": encoded(raw(public_key))}


def _rsa(public_key: bytes) -> Jwk:
    key = load_der_public_key(public_key)
    assert isinstance(key, rsa.RSAPublicKey)
    numbers = key.public_numbers()
    return {"kty": "RSA", "n": _integer(numbers.n), "e": _integer(numbers.e)}


def _ec(spec: KeySpec, public_key: bytes) -> Jwk:
    """Coordinates have the length of the field, zeros in front (RFC 7518, 6.2.1.2)."""
    key = load_der_public_key(public_key)
    assert isinstance(key, ec.EllipticCurvePublicKey)
    numbers, length = key.public_numbers(), (key.key_size + 7) // 8
    return {
        "kty": "EC",
        "crv": _CURVES[spec.curve],
        "x": encoded(numbers.x.to_bytes(length, "big")),
        "y": encoded(numbers.y.to_bytes(length, "big")),
    }


def _parameter_set(spec: KeySpec) -> str:
    """Return the name of a parameter set as its standard writes it: SLH-DSA-SHA2-128s, ML-KEM-768."""
    if spec.family is Family.X_WING:
        return "X-Wing"
    name = spec.name.replace("_", "-")
    return name[:-1] + name[-1].lower() if spec.family is Family.SLH_DSA else name


def _integer(number: int) -> str:
    return encoded(number.to_bytes((number.bit_length() + 7) // 8, "big"))


def encoded(data: bytes) -> str:
    """Return base64url without padding (RFC 7515, 2)."""
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def raw(public_key: bytes) -> bytes:
    """Return the subjectPublicKey inside a DER SubjectPublicKeyInfo (RFC 5280, 4.1.2.7).

    For keys whose standard puts its own bytes there and nothing around them. Raises ValueError for
    what is not that.
    """
    outer, end = _element(public_key, 0, 0x30)
    _, after = _element(outer, 0, 0x30)
    bits, last = _element(outer, after, 0x03)
    if end != len(public_key) or last != len(outer) or bits[:1] != b"\x00":
        raise ValueError("That is no SubjectPublicKeyInfo.")
    return bits[1:]


def _element(data: bytes, at: int, tag: int) -> tuple[bytes, int]:
    """Return the content of the DER element at an offset, and where the next one begins."""
    if len(data) < at + 2 or data[at] != tag:
        raise ValueError("That is no SubjectPublicKeyInfo.")
    length, start = data[at + 1], at + 2
    if length & 0x80:
        more = length & 0x7F
        length, start = int.from_bytes(data[start : start + more], "big"), start + more
    if len(data) < start + length:
        raise ValueError("That is no SubjectPublicKeyInfo.")
    return data[start : start + length], start + length
