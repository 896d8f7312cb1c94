"""Which mechanism stands for which algorithm, and what a token must have to offer a key spec."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pkcs11
from pkcs11 import MGF, KeyType, Mechanism

from keys.algorithms import SPECS, Algorithm, Family, KeySpec

KEY_TYPES: Mapping[Family, KeyType] = {
    Family.AES: KeyType.AES,
    Family.HMAC: KeyType.GENERIC_SECRET,
    Family.RSA: KeyType.RSA,
    Family.EC: KeyType.EC,
}
HMACS: Mapping[str, Mechanism] = {
    "sha256": Mechanism.SHA256_HMAC,
    "sha384": Mechanism.SHA384_HMAC,
    "sha512": Mechanism.SHA512_HMAC,
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
_GENERATE: Mapping[Family, Mechanism] = {
    Family.AES: Mechanism.AES_KEY_GEN,
    Family.HMAC: Mechanism.GENERIC_SECRET_KEY_GEN,
    Family.RSA: Mechanism.RSA_PKCS_KEY_PAIR_GEN,
    Family.EC: Mechanism.EC_KEY_PAIR_GEN,
}
# XAES-256-GCM needs a key derived for each message: outside the token that would be a leak.
NOT_IN_TOKENS = frozenset({"XAES_256_GCM"})


def hmac_of(spec: KeySpec) -> Mechanism:
    return HMACS[f"sha{spec.bits}"]


def signing(algorithm: Algorithm, digest: bytes) -> tuple[bytes, dict[str, Any]]:
    """Return what to hand to C_Sign for a digest, and the keywords naming the mechanism.

    Digests are always computed here: then a message and its digest take one way, and the raw
    mechanisms are the ones every token has (SoftHSM's ECDSA has no other).
    """
    if algorithm.name.startswith("RSA_PSS"):
        parameters = _PSS[algorithm.digest]
        return digest, {"mechanism": Mechanism.RSA_PKCS_PSS, "mechanism_param": parameters}
    if algorithm.name.startswith("RSA_PKCS1"):
        return _DIGEST_INFO[algorithm.digest] + digest, {"mechanism": Mechanism.RSA_PKCS}
    return digest, {"mechanism": Mechanism.ECDSA}


def offered(slot: Any) -> dict[str, tuple[str, ...]]:
    """Return what a token's mechanism list allows: key spec to algorithms, default first."""
    present = set(slot.get_mechanisms())
    offers: dict[str, tuple[str, ...]] = {}
    for spec in SPECS.values():
        generate = _GENERATE[spec.family]
        if generate not in present or not _takes_size(slot, generate, spec):
            continue
        algorithms = tuple(
            name
            for name in spec.algorithms
            if name not in NOT_IN_TOKENS and _needs(spec, name) <= present
        )
        if algorithms:
            offers[spec.name] = algorithms
    return offers


def _needs(spec: KeySpec, algorithm: str) -> set[Mechanism]:
    if algorithm == "AES_256_GCM":
        return {Mechanism.AES_GCM, Mechanism.AES_ECB}  # ECB: for check values
    if spec.family is Family.HMAC:
        return {hmac_of(spec)}
    if algorithm.startswith("RSA_PSS"):
        return {Mechanism.RSA_PKCS_PSS}
    if algorithm.startswith("RSA_PKCS1"):
        return {Mechanism.RSA_PKCS}
    return {Mechanism.ECDSA}


def _takes_size(slot: Any, generate: Mechanism, spec: KeySpec) -> bool:
    """Whether the token makes pairs of this size. For secrets the unit is not sure: not asked."""
    if not spec.asymmetric:
        return True
    try:
        info = slot.get_mechanism_info(generate)
    except pkcs11.PKCS11Error:
        return False
    return bool(info.min_key_length <= spec.bits <= info.max_key_length)
