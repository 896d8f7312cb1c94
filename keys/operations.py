"""Using a key. Bytes in, bytes out; every answer names the key and the version that served.

Each function is performed by the gate: decided on before, recorded after, and only then returned.
Call one as `encrypt(caller, key, plaintext, context=…)`, or await `encrypt.aio(…)` on an event loop.
"""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Mapping
from dataclasses import dataclass

from django.conf import settings

from keys import envelope, gate
from keys.actions import Action
from keys.algorithms import ALGORITHMS, SPECS
from keys.errors import CannotDecrypt, Invalid, NotFound, StateForbids, TooLarge
from keys.gate import Use
from keys.secret import Secret
from keys.snapshot import KeyFacts, VersionFacts

# A store's own overhead and our header, generously.
CIPHERTEXT_OVERHEAD = 1024
SIGNATURE_LIMIT = 8192
RANDOM_LIMIT = 1024


@dataclass(frozen=True, slots=True)
class Served:
    """Who served a use: the key, its version's number, the algorithm."""

    key_id: uuid.UUID
    version: int
    algorithm: str


@dataclass(frozen=True, slots=True)
class Encrypted(Served):
    ciphertext: bytes


@dataclass(frozen=True, slots=True)
class Decrypted(Served):
    plaintext: Secret


@dataclass(frozen=True, slots=True)
class DataKey(Served):
    """A fresh key for envelope encryption: use `plaintext` and forget it, keep `ciphertext` with the data."""

    plaintext: Secret
    ciphertext: bytes


@dataclass(frozen=True, slots=True)
class Signed(Served):
    signature: bytes


@dataclass(frozen=True, slots=True)
class Verified(Served):
    valid: bool


@dataclass(frozen=True, slots=True)
class Maced(Served):
    mac: bytes


@dataclass(frozen=True, slots=True)
class PublicKey(Served):
    """DER SubjectPublicKeyInfo (RFC 5280)."""

    spec: str
    public_key: bytes


@gate.use(Action.ENCRYPT)
def encrypt(use: Use, plaintext: bytes, *, context: Mapping[str, str] | None = None) -> Encrypted:
    """Encrypt up to KMS_PLAINTEXT_LIMIT bytes under the key's primary version.

    The context is bound as associated data: only the same pairs decrypt. Raises TooLarge, StateForbids,
    Unsupported, BackendUnavailable.
    """
    _at_most(plaintext, settings.PLAINTEXT_LIMIT, "plaintext")
    key, version = _admitted(use), use.version()
    return _sealed(use, key, version, plaintext, context or {})


@gate.use(Action.DECRYPT)
def decrypt(use: Use, ciphertext: bytes, *, context: Mapping[str, str] | None = None) -> Decrypted:
    """Decrypt what encrypt() or generate_data_key() returned, under the version that its header names.

    Raises CannotDecrypt for whatever is not exactly that, StateForbids where the version's state
    doesn't allow it.
    """
    _at_most(ciphertext, settings.PLAINTEXT_LIMIT + CIPHERTEXT_OVERHEAD, "ciphertext")
    key = _admitted(use)
    parts = envelope.parse(ciphertext)
    if parts.key_id != key.id or parts.version not in key.versions:
        raise CannotDecrypt
    version = use.version(parts.version)
    backend = use.backend(version)
    aad = envelope.associated_data(parts.header, context or {})
    plaintext = backend.decrypt(version.handle, parts.algorithm, parts.body, aad)
    return Decrypted(key.id, version.number, parts.algorithm, Secret(plaintext))


@gate.use(Action.GENERATE_DATA_KEY)
def generate_data_key(
    use: Use, *, length: int = 32, context: Mapping[str, str] | None = None
) -> DataKey:
    """Make a data key of 16 to 64 bytes; returns it in the clear and encrypted under the primary version."""
    if isinstance(length, bool) or not isinstance(length, int) or not 16 <= length <= 64:
        raise Invalid("A data key has 16 to 64 bytes.", field="length")
    key, version = _admitted(use), use.version()
    fresh = use.backend(version).random(length)
    sealed = _sealed(use, key, version, fresh, context or {})
    return DataKey(key.id, version.number, sealed.algorithm, Secret(fresh), sealed.ciphertext)


@gate.use(Action.SIGN)
def sign(use: Use, message: bytes, *, algorithm: str = "", prehashed: bool = False) -> Signed:
    """Sign a message, or its digest where `prehashed`, with the primary version. ECDSA signatures are DER."""
    _at_most(message, settings.PLAINTEXT_LIMIT, "message")
    key, version = _admitted(use), use.version()
    chosen = _algorithm(use, key, algorithm)
    signature = use.backend(version).sign(version.handle, chosen, message, prehashed=prehashed)
    return Signed(key.id, version.number, chosen, signature)


@gate.use(Action.VERIFY)
def verify(
    use: Use,
    message: bytes,
    signature: bytes,
    *,
    algorithm: str = "",
    prehashed: bool = False,
    version: int | None = None,
) -> Verified:
    """Verify a signature with the version named, else the primary. A wrong one is an answer, not an error."""
    _at_most(message, settings.PLAINTEXT_LIMIT, "message")
    _at_most(signature, SIGNATURE_LIMIT, "signature")
    key, by = _admitted(use), _version(use, version)
    chosen = _algorithm(use, key, algorithm)
    valid = use.backend(by).verify(by.handle, chosen, message, signature, prehashed=prehashed)
    use.facts["valid"] = valid
    return Verified(key.id, by.number, chosen, valid)


@gate.use(Action.MAC)
def mac(use: Use, message: bytes) -> Maced:
    """Compute a MAC over a message with the primary version."""
    _at_most(message, settings.PLAINTEXT_LIMIT, "message")
    key, version = _admitted(use), use.version()
    tag = use.backend(version).mac(version.handle, key.algorithm, message)
    return Maced(key.id, version.number, key.algorithm, tag)


@gate.use(Action.VERIFY_MAC)
def verify_mac(use: Use, message: bytes, mac: bytes, *, version: int | None = None) -> Verified:
    """Verify a MAC with the version named, else the primary, in constant time."""
    _at_most(message, settings.PLAINTEXT_LIMIT, "message")
    _at_most(mac, SIGNATURE_LIMIT, "mac")
    key, by = _admitted(use), _version(use, version)
    valid = use.backend(by).verify_mac(by.handle, key.algorithm, message, mac)
    use.facts["valid"] = valid
    return Verified(key.id, by.number, key.algorithm, valid)


@gate.use(Action.PUBLIC_KEY)
def public_key(use: Use, *, version: int | None = None) -> PublicKey:
    """Return the public key of the version named, else of the primary."""
    key, by = _admitted(use), _version(use, version)
    if by.public_key is None:
        raise StateForbids("The version has no public key yet.")
    return PublicKey(key.id, by.number, key.algorithm, key.spec, by.public_key)


@gate.use(Action.RANDOM)
def random(use: Use, *, count: int = 32) -> Secret:
    """Return 1 to 1,024 random bytes of the operating system's generator. No key is involved."""
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= RANDOM_LIMIT:
        raise Invalid(f"count must be from 1 to {RANDOM_LIMIT}.", field="count")
    return Secret(secrets.token_bytes(count))


def _sealed(
    use: Use, key: KeyFacts, version: VersionFacts, plaintext: bytes, context: Mapping[str, str]
) -> Encrypted:
    header = envelope.seal_header(key.algorithm, key.id, version.number)
    aad = envelope.associated_data(header, context)
    body = use.backend(version).encrypt(version.handle, key.algorithm, plaintext, aad)
    return Encrypted(key.id, version.number, key.algorithm, header + body)


def _admitted(use: Use) -> KeyFacts:
    if use.key is None:
        raise NotFound
    return use.key


def _version(use: Use, number: int | None) -> VersionFacts:
    if number is not None and (isinstance(number, bool) or not isinstance(number, int)):
        raise Invalid("version must be a whole number.", field="version")
    return use.version(number)


def _algorithm(use: Use, key: KeyFacts, wanted: str) -> str:
    """Return the algorithm asked for, else the key's own. Raises Invalid, naming what the key can do."""
    if not wanted:
        return key.algorithm
    if wanted not in SPECS[key.spec].algorithms or ALGORITHMS[wanted].usage != use.action.row.usage:
        raise Invalid(
            f"This key signs with: {', '.join(SPECS[key.spec].algorithms)}.", field="algorithm"
        )
    return wanted


def _at_most(data: bytes, limit: int, what: str) -> None:
    if len(data) > limit:
        raise TooLarge(f"The {what} is limited to {limit} bytes.", field=what)
