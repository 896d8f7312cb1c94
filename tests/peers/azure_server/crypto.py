"""Key material of one version, and what can be done with it: real cryptography, JOSE's forms."""

from __future__ import annotations

import base64
import os
from typing import Any

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes, keywrap
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

CURVES: dict[str, type[ec.EllipticCurve]] = {
    "P-256": ec.SECP256R1,
    "P-384": ec.SECP384R1,
    "P-521": ec.SECP521R1,
    "P-256K": ec.SECP256K1,
}
SHA = {"256": hashes.SHA256, "384": hashes.SHA384, "512": hashes.SHA512}
EC_ALGORITHMS = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512", "P-256K": "ES256K"}


class Refused(Exception):
    """An error as Azure answers it."""

    def __init__(self, status: int, code: str, message: str, inner: str = "") -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.inner = status, code, message, inner


def bad(message: str) -> Refused:
    return Refused(400, "BadParameter", message)


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(value: Any, name: str) -> bytes:
    if not isinstance(value, str):
        raise bad(f"The request body must specify {name}.")
    try:
        return base64.b64decode(value + "=" * (-len(value) % 4), b"-_", validate=True)
    except ValueError:
        raise bad(f"The value of {name} is not base64url.") from None


def integer(value: Any, name: str) -> int:
    return int.from_bytes(unb64(value, name), "big")


def number(value: int, size: int | None = None) -> str:
    return b64(value.to_bytes(size or (value.bit_length() + 7) // 8, "big"))


def generate(kind: str, size: int | None, curve: str | None) -> Any:
    """Return new material: a private key, or the bytes of a symmetric key."""
    family = kind.removesuffix("-HSM")
    if family == "RSA":
        if (size or 2048) not in (2048, 3072, 4096):
            raise bad("The key size is not supported.")
        return rsa.generate_private_key(65537, size or 2048)
    if family == "EC":
        if (curve or "P-256") not in CURVES:
            raise bad("The curve is not supported.")
        return ec.generate_private_key(CURVES[curve or "P-256"]())
    if family == "oct":
        if (size or 256) not in (128, 192, 256):
            raise bad("The key size is not supported.")
        return os.urandom((size or 256) // 8)
    raise bad(f"The key type {kind} is not supported.")


def imported(jwk: dict[str, Any]) -> Any:
    """Return the private key of a JSON Web Key (RFC 7518, 6.2 and 6.3)."""
    family = str(jwk.get("kty")).removesuffix("-HSM")
    try:
        if family == "RSA":
            public = rsa.RSAPublicNumbers(integer(jwk.get("e"), "e"), integer(jwk.get("n"), "n"))
            parts = (integer(jwk.get(name), name) for name in ("p", "q", "d", "dp", "dq", "qi"))
            return rsa.RSAPrivateNumbers(*parts, public).private_key()
        if family == "EC" and jwk.get("crv") in CURVES:
            point = ec.EllipticCurvePublicNumbers(
                integer(jwk.get("x"), "x"), integer(jwk.get("y"), "y"), CURVES[jwk["crv"]]()
            )
            return ec.EllipticCurvePrivateNumbers(integer(jwk.get("d"), "d"), point).private_key()
    except ValueError:
        raise bad("The key's numbers do not belong together.") from None
    raise bad("Only RSA and EC keys can be imported in the clear.")


def curve_of(material: ec.EllipticCurvePrivateKey) -> str:
    return next(name for name, one in CURVES.items() if isinstance(material.curve, one))


def public_members(material: Any) -> dict[str, str]:
    """Return the public part as members of a JSON Web Key; of a symmetric key nothing."""
    if isinstance(material, rsa.RSAPrivateKey):
        numbers = material.public_key().public_numbers()
        return {"n": number(numbers.n), "e": number(numbers.e)}
    if isinstance(material, ec.EllipticCurvePrivateKey):
        point, size = material.public_key().public_numbers(), (material.key_size + 7) // 8
        curve = curve_of(material)
        return {"crv": curve, "x": number(point.x, size), "y": number(point.y, size)}
    return {}


def _oaep(algorithm: str) -> padding.OAEP:
    digest = {"RSA-OAEP": hashes.SHA1, "RSA-OAEP-256": hashes.SHA256}.get(algorithm)
    if digest is None:
        raise bad(f"The algorithm {algorithm} is not supported for this key.")
    return padding.OAEP(padding.MGF1(digest()), digest(), None)


def encrypt(material: Any, algorithm: str, body: dict[str, Any]) -> dict[str, str]:
    value = unb64(body.get("value"), "value")
    try:
        if isinstance(material, rsa.RSAPrivateKey):
            return {"value": b64(material.public_key().encrypt(value, _oaep(algorithm)))}
        if isinstance(material, bytes) and algorithm == f"A{8 * len(material)}GCM":
            iv, aad = os.urandom(12), unb64(body.get("aad", ""), "aad")
            sealed = AESGCM(material).encrypt(iv, value, aad or None)
            return {"value": b64(sealed[:-16]), "iv": b64(iv), "tag": b64(sealed[-16:])}
        if isinstance(material, bytes) and algorithm == f"A{8 * len(material)}KW":
            return {"value": b64(keywrap.aes_key_wrap(material, value))}
    except ValueError:
        raise bad("The parameter is incorrect.") from None
    raise bad(f"The algorithm {algorithm} is not supported for this key.")


def decrypt(material: Any, algorithm: str, body: dict[str, Any]) -> dict[str, str]:
    value = unb64(body.get("value"), "value")
    try:
        if isinstance(material, rsa.RSAPrivateKey):
            return {"value": b64(material.decrypt(value, _oaep(algorithm)))}
        if isinstance(material, bytes) and algorithm == f"A{8 * len(material)}GCM":
            iv, tag = unb64(body.get("iv"), "iv"), unb64(body.get("tag"), "tag")
            aad = unb64(body.get("aad", ""), "aad")
            return {"value": b64(AESGCM(material).decrypt(iv, value + tag, aad or None))}
        if isinstance(material, bytes) and algorithm == f"A{8 * len(material)}KW":
            return {"value": b64(keywrap.aes_key_unwrap(material, value))}
    except (ValueError, InvalidTag, keywrap.InvalidUnwrap):
        raise bad("The parameter is incorrect.") from None
    raise bad(f"The algorithm {algorithm} is not supported for this key.")


def _digest(algorithm: str, value: bytes) -> utils.Prehashed:
    digest = SHA.get(algorithm[2:5])
    if digest is None:
        raise bad(f"The algorithm {algorithm} is not supported.")
    if len(value) != digest.digest_size:
        raise bad(f"Invalid length of 'value': a digest for {algorithm} was expected.")
    return utils.Prehashed(digest())


def _rsa_padding(algorithm: str) -> padding.AsymmetricPadding:
    if algorithm.startswith("PS"):
        return padding.PSS(padding.MGF1(SHA[algorithm[2:5]]()), padding.PSS.DIGEST_LENGTH)
    if algorithm.startswith("RS"):
        return padding.PKCS1v15()
    raise bad(f"The algorithm {algorithm} is not supported for this key.")


def sign(material: Any, algorithm: str, body: dict[str, Any]) -> dict[str, str]:
    value = unb64(body.get("value"), "value")
    digest = _digest(algorithm, value)
    if isinstance(material, rsa.RSAPrivateKey):
        return {"value": b64(material.sign(value, _rsa_padding(algorithm), digest))}
    if isinstance(material, ec.EllipticCurvePrivateKey):
        if EC_ALGORITHMS[curve_of(material)] != algorithm:
            raise bad(f"The algorithm {algorithm} is not supported for this key.")
        size = (material.key_size + 7) // 8
        pair = utils.decode_dss_signature(material.sign(value, ec.ECDSA(digest)))
        return {"value": b64(b"".join(part.to_bytes(size, "big") for part in pair))}
    raise bad(f"The algorithm {algorithm} is not supported for this key.")


def verify(material: Any, algorithm: str, body: dict[str, Any]) -> dict[str, bool]:
    value, signature = unb64(body.get("digest"), "digest"), unb64(body.get("value"), "value")
    digest = _digest(algorithm, value)
    try:
        if isinstance(material, rsa.RSAPrivateKey):
            material.public_key().verify(signature, value, _rsa_padding(algorithm), digest)
        elif isinstance(material, ec.EllipticCurvePrivateKey):
            half = len(signature) // 2
            der = utils.encode_dss_signature(
                int.from_bytes(signature[:half], "big"), int.from_bytes(signature[half:], "big")
            )
            material.public_key().verify(der, value, ec.ECDSA(digest))
        else:
            raise bad(f"The algorithm {algorithm} is not supported for this key.")
    except InvalidSignature:
        return {"value": False}
    return {"value": True}
