"""Encrypting, decrypting, re-encrypting, and data keys for envelope encryption."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from django.conf import settings

from keys import envelope, gate
from keys.actions import Action
from keys.algorithms import SPECS
from keys.backends import materials
from keys.errors import CannotDecrypt, Invalid, TooLarge
from keys.gate import Use
from keys.operations.parts import (
    CIPHERTEXT_OVERHEAD,
    Served,
    able,
    admitted,
    at_most,
    chosen_algorithm,
    chosen_version,
    pair_spec,
    whole_number,
)
from keys.secret import Secret
from keys.snapshot import VersionFacts

Context = Mapping[str, str]

LEAST_DATA_KEY, MOST_DATA_KEY = 16, 64


@dataclass(frozen=True, slots=True)
class Encrypted(Served):
    ciphertext: bytes


@dataclass(frozen=True, slots=True)
class Decrypted(Served):
    plaintext: Secret


@dataclass(frozen=True, slots=True)
class ReEncrypted(Served):
    """The new ciphertext and who made it; `source` is the version that had made the old one."""

    ciphertext: bytes
    source: Served


@dataclass(frozen=True, slots=True)
class DataKey(Served):
    """A fresh key for envelope encryption: use `plaintext` and forget it, keep `ciphertext` with the data.

    `plaintext` is None where only the encrypted key was asked for.
    """

    plaintext: Secret | None
    ciphertext: bytes


@dataclass(frozen=True, slots=True)
class DataKeyPair(Served):
    """A fresh key pair: DER SubjectPublicKeyInfo, and PKCS#8 DER in the clear (or None) and encrypted."""

    spec: str
    public_key: bytes
    private_key: Secret | None
    ciphertext: bytes


@gate.use(Action.ENCRYPT)
def encrypt(
    use: Use,
    plaintext: bytes,
    *,
    context: Context | None = None,
    algorithm: str = "",
    raw: bool = False,
) -> Encrypted:
    """Encrypt up to KMS_PLAINTEXT_LIMIT bytes under the key's primary version.

    The context is bound as associated data: only the same pairs decrypt. `raw`, for RSA keys, gives
    the bare RSA ciphertext that other programs understand: no header, no context. Raises TooLarge,
    StateForbids, Unsupported, BackendUnavailable.
    """
    at_most(plaintext, settings.PLAINTEXT_LIMIT, "plaintext")
    key, version = admitted(use), use.version()
    chosen = chosen_algorithm(key, algorithm)
    if raw:
        _check_raw(key.spec, context)
        sealed = use.backend(version).encrypt(version.handle, chosen, plaintext, b"")
        use.evidence = sealed
        return Encrypted(key.id, version.number, chosen, sealed)
    return _sealed(use, version, plaintext, context or {}, chosen)


@gate.use(Action.DECRYPT)
def decrypt(
    use: Use,
    ciphertext: bytes,
    *,
    context: Context | None = None,
    algorithm: str = "",
    raw: bool = False,
    version: int | None = None,
) -> Decrypted:
    """Decrypt what encrypt() or generate_data_key() returned, under the version that its header names.

    `raw`, for RSA keys: a bare RSA ciphertext that was made with the public key of the version named
    (else the primary's), by the algorithm named (else the key's own). Raises CannotDecrypt for
    whatever is not exactly that, StateForbids where the version's state doesn't allow it.
    """
    at_most(ciphertext, settings.PLAINTEXT_LIMIT + CIPHERTEXT_OVERHEAD, "ciphertext")
    use.evidence = ciphertext
    if not raw:
        if algorithm or version is not None:
            raise Invalid("The ciphertext names its algorithm and version itself.", field="raw")
        return _opened(use, ciphertext, context or {})
    key = admitted(use)
    _check_raw(key.spec, context)
    chosen, by = chosen_algorithm(key, algorithm), chosen_version(use, version)
    plaintext = use.backend(by).decrypt(by.handle, chosen, ciphertext, b"")
    return Decrypted(key.id, by.number, chosen, Secret(plaintext))


@gate.use(Action.RE_ENCRYPT_FROM)
def re_encrypt(
    use: Use,
    ciphertext: bytes,
    *,
    context: Context | None = None,
    to: str = "",
    to_context: Context | None = None,
) -> ReEncrypted:
    """Decrypt under this key and encrypt under the primary version of `to` (left out: of this key).

    The plaintext stays inside. `to_context` left out is the context it had. Needs re_encrypt_from on
    the one key and re_encrypt_to on the other. Raises as decrypt() and encrypt() do.
    """
    at_most(ciphertext, settings.PLAINTEXT_LIMIT + CIPHERTEXT_OVERHEAD, "ciphertext")
    if to_context is not None and not isinstance(to_context, Mapping):
        raise Invalid("to_context must be an object of text pairs.", field="to_context")
    key, given = admitted(use), context or {}
    wanted = given if to_context is None else to_context
    other = use.also(to or str(key.id), Action.RE_ENCRYPT_TO, wanted)
    opened = _opened(use, ciphertext, given)
    sealed = _sealed(other, other.version(), opened.plaintext.reveal(), wanted)
    use.evidence = sealed.ciphertext
    use.facts["to"] = {"key": str(sealed.key_id), "version": sealed.version}
    other.facts["from"] = {"key": str(key.id), "version": opened.version}
    source = Served(opened.key_id, opened.version, opened.algorithm)
    return ReEncrypted(sealed.key_id, sealed.version, sealed.algorithm, sealed.ciphertext, source)


@gate.use(Action.GENERATE_DATA_KEY)
def generate_data_key(use: Use, *, length: int = 32, context: Context | None = None) -> DataKey:
    """Make a data key of 16 to 64 bytes; returns it in the clear and encrypted under the primary version."""
    return _data_key(use, length, context or {}, shown=True)


@gate.use(Action.GENERATE_DATA_KEY_WITHOUT_PLAINTEXT)
def generate_data_key_without_plaintext(
    use: Use, *, length: int = 32, context: Context | None = None
) -> DataKey:
    """Make a data key of 16 to 64 bytes; returns it only encrypted, for whoever decrypts it later."""
    return _data_key(use, length, context or {}, shown=False)


@gate.use(Action.GENERATE_DATA_KEY_PAIR)
def generate_data_key_pair(
    use: Use, *, spec: str = "ECC_NIST_P256", context: Context | None = None
) -> DataKeyPair:
    """Make a key pair; returns the private key in the clear and encrypted under the primary version.

    Raises Unsupported for what is no spec of a pair, TooLarge where the key can't encrypt so much.
    """
    return _pair(use, spec, context or {}, shown=True)


@gate.use(Action.GENERATE_DATA_KEY_PAIR_WITHOUT_PLAINTEXT)
def generate_data_key_pair_without_plaintext(
    use: Use, *, spec: str = "ECC_NIST_P256", context: Context | None = None
) -> DataKeyPair:
    """Make a key pair; returns its private key only encrypted."""
    return _pair(use, spec, context or {}, shown=False)


def _sealed(
    use: Use, version: VersionFacts, plaintext: bytes, context: Context, algorithm: str = ""
) -> Encrypted:
    key = admitted(use)
    chosen = algorithm or key.algorithm
    header = envelope.seal_header(chosen, key.id, version.number)
    aad = envelope.associated_data(header, context)
    backend = use.backend(version)
    use.count(version, chosen)
    ciphertext = header + backend.encrypt(version.handle, chosen, plaintext, aad)
    use.evidence = ciphertext
    return Encrypted(key.id, version.number, chosen, ciphertext)


def _opened(use: Use, ciphertext: bytes, context: Context) -> Decrypted:
    key = admitted(use)
    parts = envelope.parse(ciphertext)
    if parts.key_id != key.id or parts.version not in key.versions:
        raise CannotDecrypt
    if parts.algorithm not in able(key):
        raise CannotDecrypt
    version = use.version(parts.version)
    backend = use.backend(version)
    aad = envelope.associated_data(parts.header, context)
    plaintext = backend.decrypt(version.handle, parts.algorithm, parts.body, aad)
    return Decrypted(key.id, version.number, parts.algorithm, Secret(plaintext))


def _data_key(use: Use, length: int, context: Context, *, shown: bool) -> DataKey:
    whole_number(length, LEAST_DATA_KEY, MOST_DATA_KEY, "length")
    version = use.version()
    fresh = Secret(use.backend(version).random(length))
    sealed = _sealed(use, version, fresh.reveal(), context)
    return DataKey(
        sealed.key_id, sealed.version, sealed.algorithm, fresh if shown else None, sealed.ciphertext
    )


def _pair(use: Use, spec: str, context: Context, *, shown: bool) -> DataKeyPair:
    if not isinstance(spec, str):
        raise Invalid("spec must be text.", field="spec")
    version = use.version()
    use.backend(version)
    use.at_leisure()  # an RSA key of 4,096 bits takes seconds
    private, public = materials.new_pair(SPECS[pair_spec(spec)])
    if len(private) > settings.PLAINTEXT_LIMIT:
        raise TooLarge("The private key is over the limit of a plaintext.", field="spec")
    sealed = _sealed(use, version, private.reveal(), context)
    return DataKeyPair(
        sealed.key_id,
        sealed.version,
        sealed.algorithm,
        spec,
        public,
        private if shown else None,
        sealed.ciphertext,
    )


def _check_raw(spec: str, context: Context | None) -> None:
    if not SPECS[spec].asymmetric:
        raise Invalid("Only RSA keys have a raw form.", field="raw")
    if context:
        raise Invalid("The raw form binds no context.", field="context")
