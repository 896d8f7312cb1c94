"""Importing material: wrapped for the engine (RSA-OAEP with SHA-256, then AES-KWP), and proved there.

Transit says nothing of a secret's value, and keeps no note beside a key. So that it holds the very
material is proved by use: of a pair the public key is compared, of a MAC key a MAC, and of a cipher
key what transit encrypted is decrypted here.
"""

from __future__ import annotations

import hmac
import os
from dataclasses import dataclass
from datetime import datetime

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from nacl import bindings
from nacl.exceptions import CryptoError

from keys.algorithms import ALGORITHMS, SPECS, Family, KeySpec
from keys.backends import materials
from keys.backends.base import Material
from keys.backends.vault import names, offers
from keys.backends.vault.acts import Acts
from keys.backends.vault.engine import Engine
from keys.backends.vault.records import TransitKey, encoded, pem_to_der, text
from keys.errors import BackendError, Unsupported
from keys.primitives import wrapping
from keys.secret import Secret

# How many imports are remembered.
REMEMBERED = 1024
_PROBE = b"kms-console proof"
_CONTEXT = b"kms-console import"


@dataclass(frozen=True, slots=True)
class Brought:
    """Checked material: `raw` as transit takes it, `public_key` DER for pairs."""

    spec: KeySpec
    raw: Secret
    check_value: str
    public_key: bytes | None


def checked(spec: KeySpec, material: Secret) -> Brought:
    """Raises Invalid for what does not fit."""
    if spec.asymmetric:
        pair = materials.imported_private_key(spec, material)
        public = materials.public_der(pair)
        value = materials.check_value_of_public_key(public)
        return Brought(spec, Secret(materials.private_der(pair)), value, public)
    raw = materials.imported_secret(spec, material)
    return Brought(spec, Secret(raw), materials.check_value_of_secret(spec, raw), None)


class Bringer:
    """Imports at one mount."""

    def __init__(self, engine: Engine, acts: Acts) -> None:
        self._engine = engine
        self._acts = acts
        # Check values of what this process imported and proved, with the version's own date: under
        # the same handle there may be something else one day.
        self._proved: dict[str, tuple[datetime | None, str]] = {}

    def bring(self, name: str, brought: Brought, *, first: bool) -> None:
        """Import as the first version of a key, or as the next of an imported one."""
        body: dict[str, object] = {"ciphertext": self._wrapped(brought), "hash_function": "SHA256"}
        if first:
            # Rotated by the engine it would be an imported key no more: versions are brought, too.
            body |= {"type": offers.TYPES[brought.spec.name], "allow_rotation": False}
        self._engine.do("POST", f"keys/{name}/{'import' if first else 'import_version'}", body)

    def holds(self, key: TransitKey, version: int, brought: Brought) -> bool:
        """Whether a version is the very material that was brought."""
        handle = names.handle(key.name, version)
        if not self._is(handle, key, version, brought):
            return False
        if len(self._proved) >= REMEMBERED:
            self._proved.clear()
        self._proved[handle] = (key.created.get(version), brought.check_value)
        return True

    def _is(self, handle: str, key: TransitKey, version: int, brought: Brought) -> bool:
        if brought.public_key is not None:
            return key.public.get(version) == brought.public_key
        raw = brought.raw.reveal()
        algorithm = ALGORITHMS[offers.EVERY[brought.spec.name][0]]
        if brought.spec.family is Family.HMAC:
            expected = hmac.digest(raw, materials.CHECK_TEXT, algorithm.digest)
            tag = self._acts.mac(handle, algorithm.name, materials.CHECK_TEXT)
            return hmac.compare_digest(expected, tag)
        probe = _PROBE + os.urandom(16)
        sealed = self._acts.encrypt(handle, algorithm.name, probe, _CONTEXT)
        return _opened(brought.spec, raw, sealed) == probe

    def described(self, key: TransitKey, version: int) -> Material:
        """Return a version's material. Transit tells nothing of a cipher key that it keeps.

        So its check value is "" but where this process brought it.
        """
        handle, public = names.handle(key.name, version), key.public.get(version)
        if key.spec is None:
            raise Unsupported(f"The console does not use such keys: {key.kind}.")
        if key.spec.asymmetric:
            if public is None:
                raise BackendError("The store does not show the version's public key.")
            return Material(handle, materials.check_value_of_public_key(public), public)
        if key.spec.family is Family.HMAC and _makes_macs(key, version):
            algorithm = offers.EVERY[key.spec.name][0]
            tag = self._acts.mac(handle, algorithm, materials.CHECK_TEXT)
            return Material(handle, tag[: materials.CHECK_BYTES].hex())
        created, check_value = self._proved.get(handle, (None, ""))
        return Material(handle, check_value if created == key.created.get(version) else "")

    def _wrapped(self, brought: Brought) -> str:
        pem = text(self._engine.do("GET", "wrapping_key"), "public_key")
        try:
            public = materials.load_public_key(pem_to_der(pem), SPECS["RSA_4096"])
        except Exception:  # whatever a library says of it, none of it is a key
            raise BackendError("The store's wrapping key makes no sense.") from None
        row = ALGORITHMS["RSA_AES_KEY_WRAP_SHA_256"]
        return encoded(wrapping.wrap(public, row, brought.raw.reveal()))


def _opened(spec: KeySpec, raw: bytes, sealed: bytes) -> bytes | None:
    """Return what transit's own ciphertext decrypts to under `raw`, None where it doesn't."""
    try:
        if spec.family is Family.AES:
            return AESGCM(raw).decrypt(sealed[:12], sealed[12:], _CONTEXT)
        opened = bindings.crypto_aead_xchacha20poly1305_ietf_decrypt(
            sealed[24:], _CONTEXT, sealed[:24], raw
        )
        return bytes(opened)
    except (InvalidTag, CryptoError, ValueError):
        return None


def _makes_macs(key: TransitKey, version: int) -> bool:
    return version >= key.min_encryption and not key.soft_deleted
