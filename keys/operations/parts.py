"""What all operations share: what an answer names, limits, and how a key and its algorithm are chosen."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from keys.algorithms import SPECS
from keys.errors import Invalid, NotFound, TooLarge, Unsupported
from keys.gate import Use
from keys.secret import Secret
from keys.snapshot import KeyFacts, VersionFacts
from keys.states import Direction

# A store's own overhead and our header, generously: HPKE with X-Wing adds 1,136 bytes.
CIPHERTEXT_OVERHEAD = 2048
# The largest of FIPS 205 (SLH-DSA-SHA2-256f) has 49,856 bytes.
SIGNATURE_LIMIT = 64 * 1024
# The largest public key, ML-KEM-1024's or RSA-4096's with what is around it, has less than half.
PUBLIC_KEY_LIMIT = 4096


@dataclass(frozen=True, slots=True)
class Served:
    """Who served a use: the key, its version's number, the algorithm."""

    key_id: uuid.UUID
    version: int
    algorithm: str


@dataclass(frozen=True, slots=True)
class Verified(Served):
    valid: bool


@dataclass(frozen=True, slots=True)
class SharedSecret(Served):
    shared_secret: Secret


def admitted(use: Use) -> KeyFacts:
    """Return the key. Raises NotFound where an operation that needs one came without."""
    if use.key is None:
        raise NotFound
    return use.key


def chosen_version(
    use: Use, number: int | None, direction: Direction | None = None
) -> VersionFacts:
    """Return the version named, else the primary. Raises Invalid, NotFound, StateForbids."""
    if number is not None and (isinstance(number, bool) or not isinstance(number, int)):
        raise Invalid("version must be a whole number.", field="version")
    return use.version(number, direction)


def either_way(use: Use, number: int | None) -> VersionFacts:
    """Return the primary, to protect with; or the version named, to process with."""
    return chosen_version(use, number, None if number is None else Direction.PROCESS)


def able(key: KeyFacts) -> tuple[str, ...]:
    """Return the algorithms of a key: a secret has one for its life, a pair all of its purpose."""
    spec = SPECS[key.spec]
    return spec.algorithms_for(key.usage) if spec.asymmetric else (key.algorithm,)


def chosen_algorithm(key: KeyFacts, wanted: str) -> str:
    """Return the algorithm asked for, else the key's own. Raises Invalid, naming what the key can do."""
    if not wanted or wanted == key.algorithm:
        return key.algorithm
    if wanted not in able(key):
        raise Invalid(f"This key can do: {', '.join(able(key))}.", field="algorithm")
    return wanted


def at_most(data: bytes, limit: int, what: str) -> None:
    """Raise TooLarge where `data` is over `limit` bytes."""
    if len(data) > limit:
        raise TooLarge(f"The {what} is limited to {limit} bytes.", field=what)


def whole_number(value: object, least: int, most: int, field: str) -> int:
    """Return a whole number in range. Raises Invalid."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise Invalid(f"{field} must be a whole number from {least} to {most}.", field=field)
    return value


def pair_spec(name: str) -> str:
    """Return the spec of a key pair. Raises Unsupported, naming the pairs that there are."""
    spec = SPECS.get(name)
    if spec is None or not spec.asymmetric:
        pairs = ", ".join(row.name for row in SPECS.values() if row.asymmetric)
        raise Unsupported(f"There is no key pair {name[:64]!r}; there are: {pairs}.")
    return name
