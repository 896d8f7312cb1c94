"""Signatures and MACs."""

from __future__ import annotations

from dataclasses import dataclass

from django.conf import settings

from keys import gate
from keys.actions import Action
from keys.algorithms import ALGORITHMS, MessageType
from keys.errors import Invalid
from keys.gate import Use
from keys.operations.parts import (
    SIGNATURE_LIMIT,
    Served,
    Verified,
    admitted,
    at_most,
    chosen_algorithm,
    chosen_version,
)


@dataclass(frozen=True, slots=True)
class Signed(Served):
    signature: bytes


@dataclass(frozen=True, slots=True)
class Maced(Served):
    mac: bytes


@gate.use(Action.SIGN)
def sign(
    use: Use, message: bytes, *, algorithm: str = "", message_type: str = MessageType.MESSAGE.value
) -> Signed:
    """Sign with the primary version. ECDSA signatures are DER (RFC 3279, 2.2.3).

    `message_type` says what `message` is: the message, its digest, or ML-DSA's mu of 64 bytes. Raises
    Invalid, naming what the algorithm takes, StateForbids, Unsupported, BackendUnavailable.
    """
    at_most(message, settings.PLAINTEXT_LIMIT, "message")
    key, version = admitted(use), use.version()
    chosen = chosen_algorithm(key, algorithm)
    kind = _message_type(chosen, message_type)
    signature = use.backend(version).sign(version.handle, chosen, message, message_type=kind)
    use.evidence = signature
    return Signed(key.id, version.number, chosen, signature)


@gate.use(Action.VERIFY)
def verify(
    use: Use,
    message: bytes,
    signature: bytes,
    *,
    algorithm: str = "",
    message_type: str = MessageType.MESSAGE.value,
    version: int | None = None,
) -> Verified:
    """Verify a signature with the version named, else the primary. A wrong one is an answer, not an error."""
    at_most(message, settings.PLAINTEXT_LIMIT, "message")
    at_most(signature, SIGNATURE_LIMIT, "signature")
    key, by = admitted(use), chosen_version(use, version)
    chosen = chosen_algorithm(key, algorithm)
    kind = _message_type(chosen, message_type)
    valid = use.backend(by).verify(by.handle, chosen, message, signature, message_type=kind)
    use.facts["valid"], use.evidence = valid, signature + bytes([valid])
    return Verified(key.id, by.number, chosen, valid)


@gate.use(Action.MAC)
def mac(use: Use, message: bytes) -> Maced:
    """Compute a MAC over a message with the primary version."""
    at_most(message, settings.PLAINTEXT_LIMIT, "message")
    key, version = admitted(use), use.version()
    tag = use.backend(version).mac(version.handle, key.algorithm, message)
    use.evidence = tag
    return Maced(key.id, version.number, key.algorithm, tag)


@gate.use(Action.VERIFY_MAC)
def verify_mac(use: Use, message: bytes, mac: bytes, *, version: int | None = None) -> Verified:
    """Verify a MAC with the version named, else the primary, in constant time."""
    at_most(message, settings.PLAINTEXT_LIMIT, "message")
    at_most(mac, SIGNATURE_LIMIT, "mac")
    key, by = admitted(use), chosen_version(use, version)
    valid = use.backend(by).verify_mac(by.handle, key.algorithm, message, mac)
    use.facts["valid"], use.evidence = valid, mac + bytes([valid])
    return Verified(key.id, by.number, key.algorithm, valid)


def _message_type(algorithm: str, wanted: str) -> MessageType:
    able = ALGORITHMS[algorithm].messages
    if wanted not in able:
        raise Invalid(f"{algorithm} signs one of: {', '.join(able)}.", field="message_type")
    return MessageType(wanted)
