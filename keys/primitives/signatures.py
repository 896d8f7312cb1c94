"""Signatures of every family, in this process."""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

from keys.algorithms import Algorithm, MessageType
from keys.errors import Invalid, Unsupported
from keys.primitives.pairs import (
    EdwardsPrivateKey,
    EdwardsPublicKey,
    MlDsaPrivateKey,
    MlDsaPublicKey,
    PrivateKey,
    PublicKey,
)
from keys.primitives.post_quantum import SlhDsaPrivateKey, SlhDsaPublicKey

HASHES: dict[str, hashes.HashAlgorithm] = {
    "sha1": hashes.SHA1(),  # noqa: S303 for OAEP with old peers, where no collision matters
    "sha224": hashes.SHA224(),
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}
MU_BYTES = 64  # FIPS 204, algorithm 7, line 6


def check_message(algorithm: Algorithm, message: bytes, message_type: MessageType) -> None:
    """Raise Invalid where the algorithm doesn't take such a message, or not of this length."""
    if message_type not in algorithm.messages:
        able = ", ".join(algorithm.messages)
        raise Invalid(f"{algorithm.name} signs one of: {able}.")
    if message_type is MessageType.DIGEST:
        size, what = HASHES[algorithm.digest].digest_size, "digest"
    elif message_type is MessageType.EXTERNAL_MU:
        size, what = MU_BYTES, "mu"
    else:
        return
    if len(message) != size:
        raise Invalid(f"A {what} for {algorithm.name} has {size} bytes, not {len(message)}.")


def rsa_padding(algorithm: Algorithm) -> padding.AsymmetricPadding:
    """Return the padding; PSS with a salt of the digest's length (FIPS 186-5, 5.4)."""
    if algorithm.name.startswith("RSASSA_PSS"):
        return padding.PSS(padding.MGF1(HASHES[algorithm.digest]), padding.PSS.DIGEST_LENGTH)
    return padding.PKCS1v15()


def hash_for(
    algorithm: Algorithm, message_type: MessageType
) -> hashes.HashAlgorithm | utils.Prehashed:
    """Return what pyca/cryptography wants for a message or for its digest."""
    digest = HASHES[algorithm.digest]
    return utils.Prehashed(digest) if message_type is MessageType.DIGEST else digest


def sign(key: PrivateKey, algorithm: Algorithm, message: bytes, message_type: MessageType) -> bytes:
    """Return the signature (ECDSA: DER). Raises Invalid for a message of a wrong kind."""
    check_message(algorithm, message, message_type)
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(message, rsa_padding(algorithm), hash_for(algorithm, message_type))
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(message, ec.ECDSA(hash_for(algorithm, message_type)))
    if isinstance(key, MlDsaPrivateKey):
        if message_type is MessageType.EXTERNAL_MU:
            return key.sign_mu(message)
        return key.sign(message)
    if isinstance(key, EdwardsPrivateKey | SlhDsaPrivateKey):
        return key.sign(message)
    raise Unsupported("Such a key doesn't sign.")


def verify(
    key: PublicKey,
    algorithm: Algorithm,
    message: bytes,
    signature: bytes,
    message_type: MessageType = MessageType.MESSAGE,
) -> bool:
    """Whether `signature` (ECDSA: DER) is valid. Raises Invalid for a message of a wrong kind."""
    check_message(algorithm, message, message_type)
    try:
        if isinstance(key, rsa.RSAPublicKey):
            digest = hash_for(algorithm, message_type)
            key.verify(signature, message, rsa_padding(algorithm), digest)
        elif isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, message, ec.ECDSA(hash_for(algorithm, message_type)))
        elif isinstance(key, MlDsaPublicKey):
            if message_type is MessageType.EXTERNAL_MU:
                key.verify_mu(signature, message)
            else:
                key.verify(signature, message)
        elif isinstance(key, EdwardsPublicKey | SlhDsaPublicKey):
            key.verify(signature, message)
        else:
            raise Unsupported("Such a key verifies nothing.")
    except InvalidSignature:
        return False
    return True
