"""What all backends say alike about material: check values, strict imports, verification."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import ECB

from keys.algorithms import ALGORITHMS, SPECS, Algorithm, Family, KeySpec
from keys.errors import Invalid, Unsupported
from keys.secret import Secret

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey

CHECK_BYTES = 8
# What a check value is computed over. For AES it is the *decryption* of one block: an HSM computes
# it as long as the key may decrypt, it is never the zero block (whose encryption is GCM's hash key
# and CMAC's subkey), and the forward direction of GCM and XAES never meets it.
CHECK_BLOCK = b"kms-console:chk\x01"
CHECK_TEXT = b"kms-console check value"

HASHES: dict[str, hashes.HashAlgorithm] = {
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}
CURVES: dict[str, ec.EllipticCurve] = {
    "secp256r1": ec.SECP256R1(),
    "secp384r1": ec.SECP384R1(),
    "secp521r1": ec.SECP521R1(),
}


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
    """Return the check value of AES or HMAC material, 8 bytes in hex; the same everywhere."""
    if spec.family is Family.AES:
        block_cipher = Cipher(AES256(material), ECB()).decryptor()  # noqa: S305 one block
        return block_cipher.update(CHECK_BLOCK)[:CHECK_BYTES].hex()
    digest = f"sha{spec.bits}"
    return hmac.digest(material, CHECK_TEXT, digest)[:CHECK_BYTES].hex()


def check_value_of_public_key(public_key: bytes) -> str:
    """Return the check value of a pair: SHA-256 of its SubjectPublicKeyInfo, 8 bytes in hex."""
    return hashlib.sha256(public_key).digest()[:CHECK_BYTES].hex()


def public_der(key: PrivateKey | PublicKey) -> bytes:
    """Return DER SubjectPublicKeyInfo."""
    public = (
        key.public_key() if isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) else key
    )
    return public.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def private_der(key: PrivateKey) -> bytes:
    """Return DER PKCS#8, not encrypted: for sealing only."""
    return key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def imported_secret(spec: KeySpec, material: Secret) -> bytes:
    """Return the raw bytes of an AES or HMAC import. Raises Invalid for a wrong length."""
    if len(material) * 8 != spec.bits:
        raise Invalid(f"{spec.label} material has {spec.bits // 8} bytes, not {len(material)}.")
    raw = material.reveal()
    if not any(raw):
        raise Invalid("The material is all zeros, which is no key.")
    return raw


def imported_private_key(spec: KeySpec, material: Secret) -> PrivateKey:
    """Return the validated private key of an import. Raises Invalid where it isn't one of `spec`."""
    try:
        key = serialization.load_der_private_key(material.reveal(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # The library's message could quote the input.
        raise Invalid(
            "The material is not a valid private key in PKCS#8 DER, unencrypted."
        ) from None
    if spec.family is Family.RSA and isinstance(key, rsa.RSAPrivateKey):
        if key.key_size != spec.bits:
            raise Invalid(f"{spec.name} needs a modulus of {spec.bits} bits, not {key.key_size}.")
        # FIPS 186-5, A.1.1: an odd exponent above 2^16 and below 2^256.
        if not 2**16 < key.public_key().public_numbers().e < 2**256:
            raise Invalid("The RSA public exponent must be above 65536 and below 2^256.")
        return key
    if spec.family is Family.EC and isinstance(key, ec.EllipticCurvePrivateKey):
        if key.curve.name != spec.curve:
            raise Invalid(f"{spec.name} needs the curve {spec.curve}, not {key.curve.name}.")
        return key
    raise Invalid(f"The material is not a private key of the kind {spec.name} names.")


def load_public_key(public_key: bytes) -> PublicKey:
    """Return a public key from our own DER SubjectPublicKeyInfo."""
    key = serialization.load_der_public_key(public_key)
    assert isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey)
    return key


def check_digest_length(algorithm: Algorithm, digest: bytes) -> None:
    """Raise Invalid where a prehashed message can't be the algorithm's digest."""
    size = HASHES[algorithm.digest].digest_size
    if len(digest) != size:
        raise Invalid(f"A digest for {algorithm.name} has {size} bytes, not {len(digest)}.")


def rsa_padding(algorithm: Algorithm) -> padding.AsymmetricPadding:
    """Return the padding; PSS with a salt of the digest's length (FIPS 186-5, 5.4)."""
    if algorithm.name.startswith("RSA_PSS"):
        return padding.PSS(padding.MGF1(HASHES[algorithm.digest]), padding.PSS.DIGEST_LENGTH)
    return padding.PKCS1v15()


def hash_for(algorithm: Algorithm, prehashed: bool) -> hashes.HashAlgorithm | utils.Prehashed:
    """Return what pyca/cryptography wants for a message or for its digest."""
    digest = HASHES[algorithm.digest]
    return utils.Prehashed(digest) if prehashed else digest


def verify_signature(
    key: PublicKey, algorithm: Algorithm, message: bytes, signature: bytes, prehashed: bool
) -> bool:
    """Whether `signature` (ECDSA: DER) is valid. Raises Invalid for a digest of a wrong length."""
    if prehashed:
        check_digest_length(algorithm, message)
    try:
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, message, rsa_padding(algorithm), hash_for(algorithm, prehashed))
        else:
            key.verify(signature, message, ec.ECDSA(hash_for(algorithm, prehashed)))
    except InvalidSignature:
        return False
    return True


def check_value(spec: KeySpec, material: Secret) -> str:
    """Return the check value that an import will have. Raises Invalid where it doesn't fit `spec`."""
    if spec.asymmetric:
        return check_value_of_public_key(public_der(imported_private_key(spec, material)))
    return check_value_of_secret(spec, imported_secret(spec, material))
