"""What is public, and what is random: public keys, the set of a key's public keys, random bytes."""

from __future__ import annotations

import secrets
import uuid
from dataclasses import dataclass

from keys import gate
from keys.actions import Action
from keys.algorithms import SPECS
from keys.errors import StateForbids, Unsupported
from keys.gate import Use
from keys.operations.parts import Served, admitted, chosen_version, whole_number
from keys.secret import Secret
from keys.snapshot import KeyFacts, VersionFacts
from keys.states import Direction, KeyState, VersionState

RANDOM_LIMIT = 1024


@dataclass(frozen=True, slots=True)
class PublicKey(Served):
    """DER SubjectPublicKeyInfo (RFC 5280)."""

    spec: str
    usage: str
    public_key: bytes


@dataclass(frozen=True, slots=True)
class KeySet:
    """The public keys of a key's versions, by number: those in use and the one published ahead."""

    key_id: uuid.UUID
    keys: tuple[PublicKey, ...]


@gate.use(Action.PUBLIC_KEY)
def public_key(use: Use, *, version: int | None = None) -> PublicKey:
    """Return the public key of the version named, else of the primary."""
    key = _pair(use)
    by = chosen_version(use, version)
    if by.public_key is None:
        raise StateForbids("The version has no public key yet.")
    use.evidence = by.public_key
    return _shown(key, by, by.public_key)


@gate.use(Action.PUBLIC_KEY)
def key_set(use: Use) -> KeySet:
    """Return the public keys of all versions that others may rely on, in one use.

    Active and deactivated versions, which still verify, and pre-active ones, published ahead of the
    rotation that lets them sign. Never compromised, suspended or destroyed ones. Raises StateForbids
    where the key is not enabled.
    """
    key = _pair(use)
    if key.state != KeyState.ENABLED:
        raise StateForbids(f"The key is {KeyState(key.state).label.lower()}.", state=key.state)
    found = [
        _shown(key, version, version.public_key)
        for _, version in sorted(key.versions.items())
        if version.public_key is not None and _published(use, version)
    ]
    use.facts["versions"] = [one.version for one in found]
    return KeySet(key.id, tuple(found))


@gate.use(Action.RANDOM)
def random(use: Use, *, count: int = 32) -> Secret:
    """Return 1 to 1,024 random bytes of the operating system's generator. No key is involved."""
    whole_number(count, 1, RANDOM_LIMIT, "count")
    return Secret(secrets.token_bytes(count))


def _pair(use: Use) -> KeyFacts:
    key = admitted(use)
    if not SPECS[key.spec].asymmetric:
        raise Unsupported("This key is a secret key and has no public part.")
    return key


def _shown(key: KeyFacts, version: VersionFacts, public: bytes) -> PublicKey:
    return PublicKey(key.id, version.number, key.algorithm, key.spec, key.usage, public)


def _published(use: Use, version: VersionFacts) -> bool:
    """Whether a version's public key is published: it may process now, or waits to take over."""
    if version.state == VersionState.PRE_ACTIVE:
        return not version.condition
    try:
        use.check(version, Direction.PROCESS, suspended_processes=False)
    except StateForbids:
        return False
    return True
