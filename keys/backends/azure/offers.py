"""What Azure offers: key types, algorithms and operations, by the console's names.

Vaults have RSA and EC keys, managed HSMs also AES. Azure's AES key wrap is RFC 3394, of whole blocks
only; the console's AES-KWP is RFC 5649, which Azure does not promise, so wrapping is with RSA.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache

from keys.algorithms import SPECS, Family, KeySpec, Usage
from keys.backends import materials
from keys.backends.azure.configuration import Configuration
from keys.backends.base import Capabilities
from keys.errors import Unsupported

_ALGORITHMS = {
    "RSASSA_PSS_SHA_256": "PS256",
    "RSASSA_PSS_SHA_384": "PS384",
    "RSASSA_PSS_SHA_512": "PS512",
    "RSASSA_PKCS1_V1_5_SHA_256": "RS256",
    "RSASSA_PKCS1_V1_5_SHA_384": "RS384",
    "RSASSA_PKCS1_V1_5_SHA_512": "RS512",
    "RSAES_OAEP_SHA_256": "RSA-OAEP-256",
    "RSAES_OAEP_SHA_1": "RSA-OAEP",
    "ECDSA_SHA_256": "ES256",
    "ECDSA_SHA_384": "ES384",
    "ECDSA_SHA_512": "ES512",
    "AES_256_GCM": "A256GCM",
    "AES_128_GCM": "A128GCM",
}
# What a key made for a purpose may do at Azure (key_ops).
OPERATIONS: Mapping[Usage, tuple[str, ...]] = {
    Usage.SIGN_VERIFY: ("sign", "verify"),
    Usage.ENCRYPT_DECRYPT: ("encrypt", "decrypt"),
    Usage.WRAP_UNWRAP: ("wrapKey", "unwrapKey"),
}
# A key that others let do everything is here for what Azure's own services use such keys for.
_PREFERRED = (Usage.WRAP_UNWRAP, Usage.ENCRYPT_DECRYPT, Usage.SIGN_VERIFY)

# Soft delete: 7 to 90 days, chosen for each vault when it is made.
WINDOW = (7, 90)
# A managed HSM holds at most so many versions of a key.
HSM_VERSIONS = 100

_NOTES = (
    "Azure destroys a key only as a whole: no version can be destroyed alone.",
    "A deactivated or compromised version gets an expiry date, after which Azure signs, encrypts and "
    "wraps nothing with it (it may allow for a few minutes); it still decrypts, unwraps and verifies.",
    "An expiry date can be moved, not taken back: a version made active again expires in 2999.",
)
_VAULT_NOTES = (
    "A vault has no generator of its own for callers: random bytes come from the console's machine.",
    "A vault has no symmetric keys; a managed HSM has.",
)
_HSM_NOTES = (
    "Random bytes come from the managed HSM.",
    f"A managed HSM holds at most {HSM_VERSIONS} versions of a key.",
    "Nonces of AES-GCM are chosen by Azure.",
)


def azure_name(algorithm: str, spec: KeySpec) -> str:
    """Return Azure's name of an algorithm for a key of `spec`."""
    if spec.curve == "secp256k1":
        return "ES256K"
    return _ALGORITHMS[algorithm]


@cache
def algorithms(managed: bool) -> Mapping[str, tuple[str, ...]]:
    """Return the algorithms that a vault, or a managed HSM, has for each spec, default first."""
    families = {Family.RSA, Family.EC} | ({Family.AES} if managed else set())
    found = {
        spec.name: tuple(name for name in spec.algorithms if name in _ALGORITHMS)
        for spec in SPECS.values()
        if spec.family in families
    }
    return {name: offered for name, offered in found.items() if offered}


def capabilities(configuration: Configuration) -> Capabilities:
    offered = algorithms(configuration.managed)
    notes = _NOTES + (_HSM_NOTES if configuration.managed else _VAULT_NOTES)
    return Capabilities(
        algorithms=offered,
        # A secret goes into a managed HSM only sealed to that HSM, by Azure's own tools.
        imports=frozenset(name for name in offered if SPECS[name].asymmetric),
        destroys_at_once=False,
        suspends=True,
        window=WINDOW,
        notes=notes,
    )


def offered_spec(managed: bool, spec: str, usage: Usage | None) -> tuple[KeySpec, Usage]:
    """Return a spec and the purpose of a key of it. Raises Unsupported for what is not offered."""
    row, offers = materials.spec_named(spec), algorithms(managed)
    if spec not in offers:
        raise Unsupported(
            f"{'A managed HSM' if managed else 'A key vault'} at Azure makes no {row.label} keys. "
            f"It makes {', '.join(offers)}."
        )
    able = [one for one in row.usages if row.algorithms_for(one, offers[spec])]
    purpose = usage or able[0]
    if purpose not in able:
        raise Unsupported(f"{row.label} keys at Azure are for: {', '.join(able)}.")
    return row, purpose


def purpose_of(spec: KeySpec, operations: Iterable[str], managed: bool) -> Usage | None:
    """Return the purpose of a key that may do `operations`; None where there is none of the console's."""
    may = set(operations)
    able = [
        usage
        for usage in _PREFERRED
        if may.issuperset(OPERATIONS[usage])
        and spec.algorithms_for(usage, algorithms(managed).get(spec.name, ()))
    ]
    return able[0] if able else None


def key_type(spec: KeySpec, hardware: bool) -> str:
    """Return Azure's key type: RSA, EC or oct, and -HSM for those in hardware."""
    kind = {Family.RSA: "RSA", Family.EC: "EC", Family.AES: "oct"}[spec.family]
    return f"{kind}-HSM" if hardware else kind
