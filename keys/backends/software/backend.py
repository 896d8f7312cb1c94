"""The software key store: pyca/cryptography, material wrapped under the root key.

Loaded key objects stay in a bounded cache of this process. destroy() deletes the row and forgets
the object *here*; another process may keep its copy until it is pushed out. That is why no use
reaches a backend before the version's state was looked at (keys.lifecycle): a destroyed version
is refused there, in every process at once.
"""

from __future__ import annotations

import functools
import hmac
import os
import threading
import uuid
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from django.core.exceptions import SynchronousOnlyOperation
from django.db import Error as DatabaseError

from keys.algorithms import SPECS, Algorithm, Family, KeySpec, MessageType, Usage
from keys.backends import materials
from keys.backends.base import (
    Backend,
    Capabilities,
    Health,
    Material,
    NoMaterial,
    Parent,
    Protection,
)
from keys.backends.software import symmetric
from keys.backends.software.models import WrappedMaterial
from keys.errors import (
    BackendUnavailable,
    Conflict,
    Invalid,
    KeyServiceError,
    StateForbids,
    Unsupported,
)
from keys.primitives import kem, pairs, post_quantum, signatures, wrapping
from keys.root_keys import opening, seals
from keys.root_keys.seals import purpose as _purpose  # noqa: F401 (what a reader of rows needs)
from keys.secret import Secret

CACHE_SIZE = 10_000
RANDOM_LIMIT = 1024

# What an event loop may run itself: well under a millisecond whatever the operation. RSA's private
# operations, ML-DSA's and SLH-DSA's signatures are not.
_QUICK = frozenset(
    {
        Family.AES,
        Family.AES_SIV,
        Family.XCHACHA20,
        Family.HMAC,
        Family.EC,
        Family.EDWARDS,
        Family.MONTGOMERY,
        Family.ML_KEM,
        Family.X_WING,
    }
)


@functools.cache
def offers() -> Mapping[str, tuple[str, ...]]:
    """Return what this process can do: everything, less what an absent library would."""
    return {
        spec.name: spec.algorithms
        for spec in SPECS.values()
        if post_quantum.installed() or not _optional(spec)
    }


def _optional(spec: KeySpec) -> bool:
    return spec.family is Family.SLH_DSA or spec.name == "ML_KEM_512"


@dataclass(frozen=True, slots=True, repr=False)
class _Loaded:
    """Material ready for use: a secret and its ciphers, or a pair's private and public key."""

    spec: KeySpec
    secret: Secret | None = None
    private: pairs.PrivateKey | None = None
    public: pairs.PublicKey | None = None
    ciphers: dict[str, symmetric.Cipher] = field(default_factory=dict)

    def cipher(self, algorithm: str) -> symmetric.Cipher:
        made = self.ciphers.get(algorithm)
        if made is None:
            made = self.ciphers[algorithm] = symmetric.cipher(algorithm, self.raw())
        return made

    def raw(self) -> Secret:
        assert self.secret is not None
        return self.secret

    def pair(self) -> tuple[pairs.PrivateKey, pairs.PublicKey]:
        assert self.private is not None
        assert self.public is not None
        return self.private, self.public


class SoftwareBackend(Backend):
    """Keys computed in this process. Settings: none. Credential: none."""

    kind: ClassVar[str] = "software"
    protection: ClassVar[Protection] = Protection.SOFTWARE
    # What is sealed under the root key can't hold it.
    needs_root_key: ClassVar[bool] = True

    def __init__(
        self, store_id: uuid.UUID, settings: Mapping[str, Any], credential: Secret | None
    ) -> None:
        self.check_settings(settings)
        self._store_id = store_id
        self._cache: OrderedDict[str, _Loaded] = OrderedDict()
        self._lock = threading.Lock()

    @classmethod
    def check_settings(cls, settings: Mapping[str, Any]) -> None:
        for name in settings:
            raise Invalid(f"A software key store has no setting {name!r}.")

    def capabilities(self) -> Capabilities:
        able = offers()
        notes = (
            ()
            if len(able) == len(SPECS)
            else ("SLH-DSA and ML-KEM-512 need the optional library pqcrypto.",)
        )
        return Capabilities(
            algorithms=able, imports=frozenset(able), exports=frozenset(able), notes=notes
        )

    def health(self) -> Health:
        try:
            key_id, _ = opening.present()
            count = WrappedMaterial.objects.filter(store_id=self._store_id).count()
        except DatabaseError:
            return Health(False, "The material database can't be reached.")
        except KeyServiceError as error:
            return Health(False, error.detail)
        return Health(True, "Ready.", {"root key id": key_id, "materials": str(count)})

    def close(self) -> None:
        with self._lock:
            self._cache.clear()

    # --- a version's life

    def generate(
        self,
        label: uuid.UUID,
        spec: str,
        *,
        usage: Usage | None = None,
        exportable: bool = False,
        parent: Parent | None = None,
    ) -> Material:
        row = _offered(spec, usage)
        existing = self._row(label)
        if existing is None:
            existing = self._store(label, row, _generated(row), exportable)
        _check_same(existing, spec, exportable)
        return _material(existing)

    def find(self, label: uuid.UUID, parent: Parent | None = None) -> Material | None:
        existing = self._row(label)
        return None if existing is None else _material(existing)

    def import_material(
        self,
        label: uuid.UUID,
        spec: str,
        material: Secret,
        *,
        usage: Usage | None = None,
        exportable: bool = False,
        parent: Parent | None = None,
    ) -> Material:
        row = _offered(spec, usage)
        key: bytes | pairs.PrivateKey = (
            pairs.imported(row, material)
            if row.asymmetric
            else materials.imported_secret(row, material)
        )
        stored = self._store(label, row, key, exportable)
        _check_same(stored, spec, exportable)
        if stored.check_value != _described(row, key)[0]:
            raise Conflict("There is other material under this label already.")
        return _material(stored)

    def export_material(self, handle: str) -> Secret:
        row = self._row(_label(handle))
        if row is None:
            raise NoMaterial
        if not row.exportable:
            raise StateForbids("This material was not made exportable, and never leaves.")
        return seals.unseal(row)

    def destroy(self, handle: str) -> None:
        label = _label(handle)
        try:
            WrappedMaterial.objects.filter(label=label, store_id=self._store_id).delete()
        except DatabaseError:
            raise BackendUnavailable("The material database can't be reached.") from None
        finally:
            with self._lock:
                self._cache.pop(handle, None)

    # --- use

    def inline(self, handle: str) -> bool:
        with self._lock:
            loaded = self._cache.get(handle)
            if loaded is None:
                return False
            self._cache.move_to_end(handle)
        return loaded.spec.family in _QUICK

    def encrypt(self, handle: str, algorithm: str, plaintext: bytes, aad: bytes) -> bytes:
        loaded, row = self._ready(handle, algorithm, Usage.ENCRYPT_DECRYPT)
        if loaded.spec.asymmetric:
            return wrapping.oaep_encrypt(loaded.pair()[1], row, plaintext, aad)
        return loaded.cipher(algorithm).encrypt(plaintext, aad)

    def decrypt(self, handle: str, algorithm: str, ciphertext: bytes, aad: bytes) -> bytes:
        loaded, row = self._ready(handle, algorithm, Usage.ENCRYPT_DECRYPT)
        if loaded.spec.asymmetric:
            return wrapping.oaep_decrypt(loaded.pair()[0], row, ciphertext, aad)
        return loaded.cipher(algorithm).decrypt(ciphertext, aad)

    def sign(
        self,
        handle: str,
        algorithm: str,
        message: bytes,
        *,
        message_type: MessageType = MessageType.MESSAGE,
    ) -> bytes:
        loaded, row = self._ready(handle, algorithm, Usage.SIGN_VERIFY)
        return signatures.sign(loaded.pair()[0], row, message, message_type)

    def verify(
        self,
        handle: str,
        algorithm: str,
        message: bytes,
        signature: bytes,
        *,
        message_type: MessageType = MessageType.MESSAGE,
    ) -> bool:
        loaded, row = self._ready(handle, algorithm, Usage.SIGN_VERIFY)
        return signatures.verify(loaded.pair()[1], row, message, signature, message_type)

    def mac(self, handle: str, algorithm: str, message: bytes) -> bytes:
        loaded, row = self._ready(handle, algorithm, Usage.GENERATE_VERIFY_MAC)
        return hmac.digest(loaded.raw().reveal(), message, row.digest)

    def verify_mac(self, handle: str, algorithm: str, message: bytes, tag: bytes) -> bool:
        return hmac.compare_digest(self.mac(handle, algorithm, message), tag)

    def wrap(self, handle: str, algorithm: str, target: bytes) -> bytes:
        loaded, row = self._ready(handle, algorithm, Usage.WRAP_UNWRAP)
        if loaded.spec.asymmetric:
            return wrapping.wrap(loaded.pair()[1], row, target)
        return wrapping.aes_wrap(loaded.raw().reveal(), target)

    def unwrap(self, handle: str, algorithm: str, wrapped: bytes) -> bytes:
        loaded, row = self._ready(handle, algorithm, Usage.WRAP_UNWRAP)
        if loaded.spec.asymmetric:
            return wrapping.unwrap(loaded.pair()[0], row, wrapped)
        return wrapping.aes_unwrap(loaded.raw().reveal(), wrapped)

    def agree(self, handle: str, algorithm: str, peer: bytes) -> bytes:
        loaded, _ = self._ready(handle, algorithm, Usage.KEY_AGREEMENT)
        return kem.agree(loaded.spec, loaded.pair()[0], peer)

    def decapsulate(self, handle: str, algorithm: str, ciphertext: bytes) -> bytes:
        loaded, _ = self._ready(handle, algorithm, Usage.KEY_ENCAPSULATION)
        return kem.decapsulate(loaded.pair()[0], ciphertext)

    def derive(
        self, handle: str, algorithm: str, *, salt: bytes, info: bytes, length: int
    ) -> bytes:
        loaded, row = self._ready(handle, algorithm, Usage.DERIVE_KEY)
        return symmetric.derive(loaded.raw(), row, salt=salt, info=info, length=length)

    def random(self, count: int) -> bytes:
        if not 1 <= count <= RANDOM_LIMIT:
            raise Invalid(f"Ask for 1 to {RANDOM_LIMIT} random bytes.")
        return os.urandom(count)

    # --- rows and the cache

    def _row(self, label: uuid.UUID) -> WrappedMaterial | None:
        try:
            return WrappedMaterial.objects.filter(label=label, store_id=self._store_id).first()
        except SynchronousOnlyOperation:
            raise BackendUnavailable("The key is not loaded yet.") from None
        except DatabaseError:
            raise BackendUnavailable("The material database can't be reached.") from None

    def _store(
        self, label: uuid.UUID, spec: KeySpec, key: bytes | pairs.PrivateKey, exportable: bool
    ) -> WrappedMaterial:
        """Insert unless the label is taken, and return the row that is there: one racer wins."""
        check_value, public_key = _described(spec, key)
        secret = Secret(key if isinstance(key, bytes) else pairs.private_der(key))
        row = WrappedMaterial(
            label=label,
            store_id=self._store_id,
            spec=spec.name,
            check_value=check_value,
            public_key=public_key,
            exportable=exportable,
        )
        seals.seal(row, secret)
        try:
            WrappedMaterial.objects.bulk_create([row], ignore_conflicts=True)
            stored = self._row(label)
            if stored is None:
                raise Conflict("Another key store has material under this label.")
            if bytes(stored.wrapped) == row.wrapped:
                seals.settle(row, secret)
        except DatabaseError:
            raise BackendUnavailable("The material database can't be reached.") from None
        return stored

    def _ready(self, handle: str, algorithm: str, usage: Usage) -> tuple[_Loaded, Algorithm]:
        with self._lock:
            loaded = self._cache.get(handle)
            if loaded is not None:
                self._cache.move_to_end(handle)
        if loaded is None:
            loaded = self._load(handle)
        row = materials.algorithm_for(offers(), loaded.spec, algorithm)
        if usage not in row.usages:
            able = ", ".join(one.label.lower() for one in row.usages)
            raise Unsupported(f"{row.name} is there to {able}.")
        return loaded, row

    def _load(self, handle: str) -> _Loaded:
        row = self._row(_label(handle))
        if row is None:
            raise NoMaterial
        loaded = _loaded(materials.spec_named(row.spec), seals.unseal(row))
        with self._lock:
            self._cache[handle] = loaded
            while len(self._cache) > CACHE_SIZE:
                self._cache.popitem(last=False)
        return loaded


def _offered(name: str, usage: Usage | None) -> KeySpec:
    """Return a spec that can be made here for that purpose. Raises Unsupported: what would work."""
    spec = materials.spec_named(name)
    if name not in offers():
        raise Unsupported(f"{spec.label} needs the optional library pqcrypto, which is not here.")
    if usage is not None and usage not in spec.usages:
        able = ", ".join(spec.usages)
        raise Unsupported(f"{spec.label} keys are not for {usage}; they are for: {able}.")
    return spec


def _check_same(row: WrappedMaterial, spec: str, exportable: bool) -> None:
    if row.spec != spec:
        raise Conflict(f"There is {row.spec} material under this label already.")
    if row.exportable != exportable:
        can = "can" if row.exportable else "can't"
        raise Conflict(f"There is material under this label already that {can} be exported.")


def _label(handle: str) -> uuid.UUID:
    try:
        return uuid.UUID(hex=handle)
    except ValueError:
        raise NoMaterial from None


def _material(row: WrappedMaterial) -> Material:
    public_key = None if row.public_key is None else bytes(row.public_key)
    return Material(row.label.hex, row.check_value, public_key)


def _generated(spec: KeySpec) -> bytes | pairs.PrivateKey:
    return pairs.generate(spec) if spec.asymmetric else os.urandom(spec.bits // 8)


def _described(spec: KeySpec, key: bytes | pairs.PrivateKey) -> tuple[str, bytes | None]:
    """Return the check value and, for a pair, the public key."""
    if isinstance(key, bytes):
        return materials.check_value_of_secret(spec, key), None
    public_key = pairs.public_der(key)
    return materials.check_value_of_public_key(public_key), public_key


def _loaded(spec: KeySpec, secret: Secret) -> _Loaded:
    if not spec.asymmetric:
        return _Loaded(spec, secret=secret)
    private = pairs.load_private(spec, secret)
    return _Loaded(spec, private=private, public=private.public_key())
