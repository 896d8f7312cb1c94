"""Which of the console's specs and algorithms transit's key types are."""

from __future__ import annotations

from collections.abc import Mapping

from keys.algorithms import ALGORITHMS, SPECS, Algorithm, Family, KeySpec, Usage
from keys.backends import materials
from keys.errors import Unsupported

# Key spec to the type of a transit key. HMAC keys have their size beside it.
TYPES: Mapping[str, str] = {
    "AES_256": "aes256-gcm96",
    "AES_128": "aes128-gcm96",
    "XCHACHA20": "xchacha20-poly1305",
    "HMAC_256": "hmac",
    "HMAC_384": "hmac",
    "HMAC_512": "hmac",
    "RSA_2048": "rsa-2048",
    "RSA_3072": "rsa-3072",
    "RSA_4096": "rsa-4096",
    "ECC_NIST_P256": "ecdsa-p256",
    "ECC_NIST_P384": "ecdsa-p384",
    "ECC_NIST_P521": "ecdsa-p521",
    "ECC_NIST_EDWARDS25519": "ed25519",
}
# HashiCorp Vault has no such type.
ONLY_OPENBAO = frozenset({"XCHACHA20"})

_SIGNATURES = tuple(name for name in SPECS["RSA_2048"].algorithms if name.startswith("RSASSA_"))
# Transit's RSA-OAEP is with SHA-256 throughout; the AES part of the key wrap is done here.
_RSA = (*_SIGNATURES, "RSAES_OAEP_SHA_256", "RSA_AES_KEY_WRAP_SHA_256")
_OF_FAMILY: Mapping[Family, tuple[str, ...]] = {
    Family.AES: ("AES_256_GCM", "AES_128_GCM"),
    Family.XCHACHA20: ("XCHACHA20_POLY1305",),
    Family.HMAC: ("HMAC_SHA_256", "HMAC_SHA_384", "HMAC_SHA_512"),
    Family.RSA: _RSA,
    Family.EC: ("ECDSA_SHA_256", "ECDSA_SHA_384", "ECDSA_SHA_512"),
    Family.EDWARDS: ("ED25519_SHA_512",),
}

EVERY: Mapping[str, tuple[str, ...]] = {
    spec: tuple(name for name in SPECS[spec].algorithms if name in _OF_FAMILY[SPECS[spec].family])
    for spec in TYPES
}


def here(openbao: bool) -> Mapping[str, tuple[str, ...]]:
    """Return key spec to algorithms, of this kind of server."""
    return {spec: row for spec, row in EVERY.items() if openbao or spec not in ONLY_OPENBAO}


def spec_of(kind: str, key_size: int) -> KeySpec | None:
    """Return the spec of a transit type (`key_size` in bytes, of HMAC only), or None."""
    for name, row in TYPES.items():
        spec = SPECS[name]
        if row == kind and (spec.family is not Family.HMAC or spec.bits == 8 * key_size):
            return spec
    return None


def chosen(
    offers: Mapping[str, tuple[str, ...]], name: str, usage: Usage | None
) -> tuple[KeySpec, Usage]:
    """Return the spec and the purpose of new material. Raises Unsupported."""
    spec = materials.spec_named(name)
    if name not in offers:
        raise Unsupported(f"Transit has no {spec.label} keys. It has {', '.join(offers)}.")
    able = tuple(one for one in spec.usages if spec.algorithms_for(one, offers[name]))
    purpose = able[0] if usage is None else usage
    if purpose not in able:
        raise Unsupported(f"Transit's {spec.name} keys are for {', '.join(able)}, not {purpose}.")
    return spec, purpose


def algorithm(spec: KeySpec, name: str, usage: Usage) -> Algorithm:
    """Return the algorithm for a use of a key. Raises Unsupported: what would work."""
    row = materials.algorithm_for(EVERY, spec, name)
    if usage not in row.usages:
        able = ", ".join(spec.algorithms_for(usage, EVERY[spec.name])) or "none"
        raise Unsupported(f"{name} is not for {usage}; of {spec.name} keys these are: {able}.")
    return ALGORITHMS[row.name]
