"""Which mechanism stands for which algorithm: tables. What a token can do of it is in abilities.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pkcs11 import MGF, KeyType, Mechanism

from keys.algorithms import Algorithm, Family

HMACS: Mapping[str, Mechanism] = {
    "sha224": Mechanism.SHA224_HMAC,
    "sha256": Mechanism.SHA256_HMAC,
    "sha384": Mechanism.SHA384_HMAC,
    "sha512": Mechanism.SHA512_HMAC,
}
# Most tokens compute HMAC with a generic secret; some want a key of the hash's own type.
HMAC_TYPES: Mapping[str, tuple[KeyType, ...]] = {
    "sha224": (KeyType.GENERIC_SECRET, KeyType.SHA224_HMAC),
    "sha256": (KeyType.GENERIC_SECRET, KeyType.SHA256_HMAC),
    "sha384": (KeyType.GENERIC_SECRET, KeyType.SHA384_HMAC),
    "sha512": (KeyType.GENERIC_SECRET, KeyType.SHA512_HMAC),
}
SECRET_FAMILIES: Mapping[KeyType, Family] = {
    KeyType.AES: Family.AES,
    **{one: Family.HMAC for types in HMAC_TYPES.values() for one in types},
}
# SoftHSM and older tokens have RFC 5649 under the name that PKCS#11 3.1 calls ambiguous.
KWPS = (Mechanism.AES_KEY_WRAP_KWP, Mechanism.AES_KEY_WRAP_PAD)
OAEPS: Mapping[str, tuple[Mechanism, MGF]] = {
    "sha256": (Mechanism.SHA256, MGF.SHA256),
    "sha384": (Mechanism.SHA384, MGF.SHA384),
    "sha512": (Mechanism.SHA512, MGF.SHA512),
    "sha1": (Mechanism.SHA_1, MGF.SHA1),
}
_PSS: Mapping[str, tuple[Mechanism, MGF, int]] = {
    "sha256": (Mechanism.SHA256, MGF.SHA256, 32),
    "sha384": (Mechanism.SHA384, MGF.SHA384, 48),
    "sha512": (Mechanism.SHA512, MGF.SHA512, 64),
}
# RFC 8017, 9.2, note 1: what stands before the digest in a DER DigestInfo.
_DIGEST_INFO: Mapping[str, bytes] = {
    "sha256": bytes.fromhex("3031300d060960864801650304020105000420"),
    "sha384": bytes.fromhex("3041300d060960864801650304020205000430"),
    "sha512": bytes.fromhex("3051300d060960864801650304020305000440"),
}
# CKA_EC_PARAMS by the curve's name in keys.algorithms: the DER of its object identifier (SEC 2,
# RFC 8410).
CURVES: Mapping[str, bytes] = {
    "secp256r1": bytes.fromhex("06082a8648ce3d030107"),
    "secp384r1": bytes.fromhex("06052b81040022"),
    "secp521r1": bytes.fromhex("06052b81040023"),
    "secp256k1": bytes.fromhex("06052b8104000a"),
    "ed25519": bytes.fromhex("06032b6570"),
    "ed448": bytes.fromhex("06032b6571"),
    "x25519": bytes.fromhex("06032b656e"),
}
# How pairs are made. X25519 has a mechanism of its own in PKCS#11 3.0, for which python-pkcs11
# 0.10 has no name; SoftHSM makes such pairs with the one for Edwards curves.
PAIRS: Mapping[Family, tuple[KeyType, Mechanism]] = {
    Family.RSA: (KeyType.RSA, Mechanism.RSA_PKCS_KEY_PAIR_GEN),
    Family.EC: (KeyType.EC, Mechanism.EC_KEY_PAIR_GEN),
    Family.EDWARDS: (KeyType.EC_EDWARDS, Mechanism.EC_EDWARDS_KEY_PAIR_GEN),
    Family.MONTGOMERY: (KeyType.EC_EDWARDS, Mechanism.EC_EDWARDS_KEY_PAIR_GEN),
}


def signing(algorithm: Algorithm, data: bytes) -> tuple[bytes, dict[str, Any]]:
    """Return what to hand to C_Sign, and the keywords naming the mechanism.

    `data` is the message for Ed25519 and Ed448, else its digest. Digests are always computed here:
    then a message and its digest take one way, and the raw mechanisms are the ones every token has
    (SoftHSM's ECDSA has no other).
    """
    if algorithm.name.startswith("RSASSA_PSS"):
        parameters = _PSS[algorithm.digest]
        return data, {"mechanism": Mechanism.RSA_PKCS_PSS, "mechanism_param": parameters}
    if algorithm.name.startswith("RSASSA_PKCS1"):
        return _DIGEST_INFO[algorithm.digest] + data, {"mechanism": Mechanism.RSA_PKCS}
    if algorithm.name.startswith("ECDSA"):
        return data, {"mechanism": Mechanism.ECDSA}
    return data, {"mechanism": Mechanism.EDDSA}


def oaep(digest: str, label: bytes = b"") -> dict[str, Any]:
    """Return the keywords that name RSA-OAEP with MGF1 of the same hash."""
    hash_mechanism, mask = OAEPS[digest]
    parameters = (hash_mechanism, mask, label or None)
    return {"mechanism": Mechanism.RSA_PKCS_OAEP, "mechanism_param": parameters}
