"""Key types for reading: grouped by what one looks for, with a word on when to choose which."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from keys.algorithms import ALGORITHMS, SPECS, Family, KeySpec, Usage

# Families by the heading under which people look for them.
_GROUPS: dict[str, tuple[Family, ...]] = {
    "Encryption": (Family.AES, Family.XCHACHA20, Family.AES_SIV),
    "Message authentication and key derivation": (Family.HMAC,),
    "Signatures and key agreement": (Family.EC, Family.EDWARDS, Family.MONTGOMERY),
    "RSA": (Family.RSA,),
    "Post-quantum": (Family.ML_DSA, Family.SLH_DSA, Family.ML_KEM, Family.X_WING),
}

# When to choose a key type, in one sentence. What no sentence says is said by its group.
_WHEN = {
    "AES_256": "The usual choice for data. Any number of messages.",
    "AES_128": "Where a peer or a policy asks for it. Its messages are counted.",
    "XCHACHA20": "For peers with libsodium, or without AES in hardware.",
    "AES_SIV_512": "Equal texts give equal ciphertexts: for encrypted columns that are looked up.",
    "HMAC_256": "The usual choice for MACs, and for deriving keys.",
    "HMAC_224": "Where a peer asks for it.",
    "ECC_NIST_P256": "The usual choice for signatures: every peer knows it.",
    "ECC_NIST_P384": "As P-256, for data that has to stay safe for long.",
    "ECC_SECG_P256K1": "For ledgers that ask for this curve.",
    "ECC_NIST_EDWARDS25519": "Quick, small, and hard to get wrong.",
    "ECC_NIST_EDWARDS448": "As Ed25519, with more strength.",
    "X25519": "The usual choice for agreeing on a secret.",
    "RSA_2048": "For old peers only: 112 bits of strength.",
    "RSA_3072": "Where peers know nothing but RSA.",
    "RSA_4096": "As RSA-3072, slower.",
    "ML_DSA_44": "The smallest signatures of its kind.",
    "ML_DSA_65": "The usual choice for signatures that outlive quantum computers.",
    "ML_DSA_87": "As ML-DSA-65, with the most strength.",
    "ML_KEM_768": "The usual choice for keys in transit that outlive quantum computers.",
    "ML_KEM_1024": "As ML-KEM-768, with the most strength.",
    "X_WING": "ML-KEM-768 and X25519 together: safe as long as one of the two is.",
}
_OF_FAMILY = {
    Family.HMAC: "As HMAC-SHA-256, with a longer hash.",
    Family.EC: "As P-256, with more strength.",
    Family.ML_KEM: "The smallest of its kind.",
    Family.SLH_DSA: "Rests on its hash alone. Its signatures are large.",
}


@dataclass(frozen=True, slots=True)
class Choice:
    """A key type as it is offered."""

    spec: KeySpec
    when: str
    usages: tuple[Usage, ...]


def grouped(names: Iterable[str]) -> list[tuple[str, list[Choice]]]:
    """Return key types under their headings; headings without any are left out."""
    known = [SPECS[name] for name in SPECS if name in set(names)]
    rows = []
    for title, families in _GROUPS.items():
        found = [
            Choice(spec, when(spec.name), spec.usages)
            for family in families
            for spec in known
            if spec.family is family
        ]
        if found:
            rows.append((title, found))
    return rows


def choices(names: Iterable[str]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return the same as choices of a form, an option group a heading."""
    return [
        (title, [(row.spec.name, row.spec.label) for row in rows]) for title, rows in grouped(names)
    ]


def when(name: str) -> str:
    """Return in a sentence when to choose a key type."""
    spec = SPECS[name]
    told = _WHEN.get(name) or _OF_FAMILY.get(spec.family, "")
    if spec.family is not Family.SLH_DSA:
        return told
    slow = spec.curve.endswith("S")
    return f"{told} {'These are the smaller, slow to make.' if slow else 'Quicker to make, and larger.'}"


def algorithms(spec: KeySpec, usage: str) -> list[tuple[str, str]]:
    """Return the algorithms of a key type for one purpose as choices, the default first."""
    names = sorted(spec.algorithms_for(usage), key=lambda name: ALGORITHMS[name].legacy)
    return [(name, marked(name)) for name in names]


def marked(name: str) -> str:
    """Return an algorithm's name with what has to be known before it is chosen."""
    row = ALGORITHMS[name]
    marks = []
    if row.legacy and "old peers" not in row.label:
        marks.append("for old peers")
    if row.deterministic and "deterministic" not in row.label:
        marks.append("deterministic")
    if row.message_limit:
        marks.append(f"{row.message_limit:,} messages a version")
    return f"{row.label} ({'; '.join(marks)})" if marks else row.label
