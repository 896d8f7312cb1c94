"""Keys for others: wrapping and unwrapping, encapsulation, shared secrets, derived keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from django.conf import settings

from keys import envelope, gate
from keys.actions import Action
from keys.algorithms import SPECS
from keys.backends import materials
from keys.errors import Invalid, StateForbids
from keys.gate import Use
from keys.operations.parts import (
    CIPHERTEXT_OVERHEAD,
    PUBLIC_KEY_LIMIT,
    Served,
    SharedSecret,
    admitted,
    at_most,
    chosen_algorithm,
    chosen_version,
    either_way,
    whole_number,
)
from keys.secret import Secret

# RFC 5869 allows 255 digests; a derived key needs a fraction of it.
LEAST_DERIVED, MOST_DERIVED = 16, 1024
SALT_LIMIT = 1024
KEM_CIPHERTEXT_LIMIT = 4096
# What derived keys are for, at the front of HKDF's info (docs/ciphertext.md).
DERIVE_LABEL = b"kms-console derive key 1\x00"


@dataclass(frozen=True, slots=True)
class Wrapped(Served):
    wrapped_key: bytes


@dataclass(frozen=True, slots=True)
class Unwrapped(Served):
    key_material: Secret


@dataclass(frozen=True, slots=True)
class Encapsulated(Served):
    """A fresh shared secret, and the ciphertext from which the private key recovers it."""

    shared_secret: Secret
    ciphertext: bytes


@dataclass(frozen=True, slots=True)
class DerivedKey(Served):
    key_material: Secret


@gate.use(Action.WRAP_KEY)
def wrap_key(use: Use, key_material: bytes, *, algorithm: str = "") -> Wrapped:
    """Wrap another key's bytes under the primary version, in the algorithm's standard form.

    The form has no header: keep the version that the answer names. Raises Invalid, TooLarge,
    StateForbids, BackendUnavailable.
    """
    at_most(key_material, settings.PLAINTEXT_LIMIT, "key_material")
    if not key_material:
        raise Invalid("There is no key in zero bytes.", field="key_material")
    key, version = admitted(use), use.version()
    chosen = chosen_algorithm(key, algorithm)
    wrapped = use.backend(version).wrap(version.handle, chosen, key_material)
    use.evidence = wrapped
    return Wrapped(key.id, version.number, chosen, wrapped)


@gate.use(Action.UNWRAP_KEY)
def unwrap_key(
    use: Use, wrapped_key: bytes, *, algorithm: str = "", version: int | None = None
) -> Unwrapped:
    """Unwrap a key with the version named, else the primary. Raises CannotDecrypt for anything else."""
    at_most(wrapped_key, settings.PLAINTEXT_LIMIT + CIPHERTEXT_OVERHEAD, "wrapped_key")
    use.evidence = wrapped_key
    key, by = admitted(use), chosen_version(use, version)
    chosen = chosen_algorithm(key, algorithm)
    material = use.backend(by).unwrap(by.handle, chosen, wrapped_key)
    return Unwrapped(key.id, by.number, chosen, Secret(material))


@gate.use(Action.ENCAPSULATE)
def encapsulate(use: Use) -> Encapsulated:
    """Make a shared secret of 32 bytes and its ciphertext, from the primary version's public key.

    Anybody with the public key can do the same; here it is recorded. FIPS 203, 7.2.
    """
    key, version = admitted(use), use.version()
    if version.public_key is None:
        raise StateForbids("The version has no public key yet.")
    use.backend()  # where the store is switched off, nobody could open it
    secret, ciphertext = materials.encapsulate(SPECS[key.spec], version.public_key)
    use.evidence = ciphertext
    return Encapsulated(key.id, version.number, key.algorithm, Secret(secret), ciphertext)


@gate.use(Action.DECAPSULATE)
def decapsulate(use: Use, ciphertext: bytes, *, version: int | None = None) -> SharedSecret:
    """Recover a shared secret with the version named, else the primary.

    A forged ciphertext of the right length gives another secret, not an error (FIPS 203, 6.3).
    Raises CannotDecrypt for any other length.
    """
    at_most(ciphertext, KEM_CIPHERTEXT_LIMIT, "ciphertext")
    use.evidence = ciphertext
    key, by = admitted(use), chosen_version(use, version)
    secret = use.backend(by).decapsulate(by.handle, key.algorithm, ciphertext)
    return SharedSecret(key.id, by.number, key.algorithm, Secret(secret))


@gate.use(Action.DERIVE_SHARED_SECRET)
def derive_shared_secret(
    use: Use, peer_public_key: bytes, *, version: int | None = None
) -> SharedSecret:
    """Return the raw ECDH secret with a peer's public key (DER SubjectPublicKeyInfo).

    Feed it to a key derivation function before use (SP 800-56C). Left out, the primary version
    agrees; a version that is named may be one that only processes. Raises Invalid.
    """
    at_most(peer_public_key, PUBLIC_KEY_LIMIT, "peer_public_key")
    use.evidence = peer_public_key
    key, by = admitted(use), either_way(use, version)
    secret = use.backend(by).agree(by.handle, key.algorithm, peer_public_key)
    return SharedSecret(key.id, by.number, key.algorithm, Secret(secret))


@gate.use(Action.DERIVE_KEY)
def derive_key(
    use: Use,
    *,
    context: Mapping[str, str] | None = None,
    length: int = 32,
    salt: bytes = b"",
    version: int | None = None,
) -> DerivedKey:
    """Derive a key of 16 to 1,024 bytes: HKDF (RFC 5869) with the context in its info.

    The same version, salt and context give the same key, of any length the same beginning. Keep the
    version that the answer names: after a rotation only it derives the same. Raises Invalid.
    """
    whole_number(length, LEAST_DERIVED, MOST_DERIVED, "length")
    at_most(salt, SALT_LIMIT, "salt")
    key, by = admitted(use), either_way(use, version)
    # No evidence: what goes in can be guessed, and a batch of one would confirm the guess.
    info = DERIVE_LABEL + envelope.encoded_context(context or {})
    material = use.backend(by).derive(by.handle, key.algorithm, salt=salt, info=info, length=length)
    return DerivedKey(key.id, by.number, key.algorithm, Secret(material))
