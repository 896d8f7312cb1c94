"""What is public, and what is random: public keys, random bytes."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from keys import gate
from keys.actions import Action
from keys.algorithms import SPECS
from keys.errors import StateForbids, Unsupported
from keys.gate import Use
from keys.operations.parts import Served, admitted, chosen_version, whole_number
from keys.secret import Secret

RANDOM_LIMIT = 1024


@dataclass(frozen=True, slots=True)
class PublicKey(Served):
    """DER SubjectPublicKeyInfo (RFC 5280)."""

    spec: str
    public_key: bytes


@gate.use(Action.PUBLIC_KEY)
def public_key(use: Use, *, version: int | None = None) -> PublicKey:
    """Return the public key of the version named, else of the primary."""
    key = admitted(use)
    if not SPECS[key.spec].asymmetric:
        raise Unsupported("This key is a secret key and has no public part.")
    by = chosen_version(use, version)
    if by.public_key is None:
        raise StateForbids("The version has no public key yet.")
    use.evidence = by.public_key
    return PublicKey(key.id, by.number, key.algorithm, key.spec, by.public_key)


@gate.use(Action.RANDOM)
def random(use: Use, *, count: int = 32) -> Secret:
    """Return 1 to 1,024 random bytes of the operating system's generator. No key is involved."""
    whole_number(count, 1, RANDOM_LIMIT, "count")
    return Secret(secrets.token_bytes(count))
