"""The software key store: pyca/cryptography, material wrapped under the root key.

Loaded key objects stay in a bounded cache of this process. destroy() deletes the row and forgets
the object *here*; another process may keep its copy until it is pushed out. That is why no use
reaches a backend before the version's state was looked at (keys.lifecycle): a destroyed version
is refused there, in every process at once.
"""

from __future__ import annotations

import hmac
import os
import threading
import uuid
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from django.core.exceptions import SynchronousOnlyOperation
from django.db import Error as DatabaseError

from keys import sealing
from keys.algorithms import SPECS, Algorithm, Family, KeySpec
from keys.backends import materials
from keys.backends.base import Backend, Capabilities, Health, Material, NoMaterial, Protection
from keys.backends.software.models import WrappedMaterial
from keys.errors import BackendUnavailable, CannotDecrypt, Conflict, Invalid, KeyServiceError
from keys.secret import Secret
from keys.xaes import Xaes

PURPOSE = "software key material"
CACHE_SIZE = 10_000
RANDOM_LIMIT = 1024
GCM_NONCE_BYTES = 12
GCM_TAG_BYTES = 16
RSA_EXPONENT = 65537

OFFERS: Mapping[str, tuple[str, ...]] = {spec.name: spec.algorithms for spec in SPECS.values()}


@dataclass(frozen=True, slots=True, repr=False)
class _AesKey:
    xaes: Xaes
    gcm: AESGCM


@dataclass(frozen=True, slots=True, repr=False)
class _Loaded:
    """A key object ready for use, and what is public about it."""

    spec: KeySpec
    key: _AesKey | Secret | materials.PrivateKey
    public: materials.PublicKey | None


class SoftwareBackend(Backend):
    """Keys computed in this process. Settings: none. Credential: none."""

    kind: ClassVar[str] = "software"
    protection: ClassVar[Protection] = Protection.SOFTWARE

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
        return Capabilities(algorithms=OFFERS, imports=frozenset(OFFERS))

    def health(self) -> Health:
        try:
            key_id = sealing.root_key_id(sealing.root_key()).hex()
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

    def generate(self, label: uuid.UUID, spec: str) -> Material:
        row = materials.spec_named(spec)
        existing = self._row(label)
        if existing is None:
            existing = self._store(label, row, _generated(row))
        if existing.spec != spec:
            raise Conflict(f"There is {existing.spec} material under this label already.")
        return _material(existing)

    def find(self, label: uuid.UUID) -> Material | None:
        existing = self._row(label)
        return None if existing is None else _material(existing)

    def import_material(self, label: uuid.UUID, spec: str, material: Secret) -> Material:
        row = materials.spec_named(spec)
        key: bytes | materials.PrivateKey = (
            materials.imported_private_key(row, material)
            if row.asymmetric
            else materials.imported_secret(row, material)
        )
        stored = self._store(label, row, key)
        if (stored.spec, stored.check_value) != (spec, _described(row, key)[0]):
            raise Conflict("There is other material under this label already.")
        return _material(stored)

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
        return loaded.spec.family is not Family.RSA

    def encrypt(self, handle: str, algorithm: str, plaintext: bytes, aad: bytes) -> bytes:
        loaded, row = self._ready(handle, algorithm)
        assert isinstance(loaded.key, _AesKey)
        if row.name == "XAES_256_GCM":
            return loaded.key.xaes.encrypt(plaintext, aad)
        nonce = os.urandom(GCM_NONCE_BYTES)
        return nonce + loaded.key.gcm.encrypt(nonce, plaintext, aad)

    def decrypt(self, handle: str, algorithm: str, ciphertext: bytes, aad: bytes) -> bytes:
        loaded, row = self._ready(handle, algorithm)
        assert isinstance(loaded.key, _AesKey)
        if row.name == "XAES_256_GCM":
            return loaded.key.xaes.decrypt(ciphertext, aad)
        if len(ciphertext) < GCM_NONCE_BYTES + GCM_TAG_BYTES:
            raise CannotDecrypt
        nonce, sealed = ciphertext[:GCM_NONCE_BYTES], ciphertext[GCM_NONCE_BYTES:]
        try:
            return loaded.key.gcm.decrypt(nonce, sealed, aad)
        except InvalidTag:
            raise CannotDecrypt from None

    def sign(
        self, handle: str, algorithm: str, message: bytes, *, prehashed: bool = False
    ) -> bytes:
        loaded, row = self._ready(handle, algorithm)
        if prehashed:
            materials.check_digest_length(row, message)
        digest = materials.hash_for(row, prehashed)
        if isinstance(loaded.key, rsa.RSAPrivateKey):
            return loaded.key.sign(message, materials.rsa_padding(row), digest)
        assert isinstance(loaded.key, ec.EllipticCurvePrivateKey)
        return loaded.key.sign(message, ec.ECDSA(digest))

    def verify(
        self,
        handle: str,
        algorithm: str,
        message: bytes,
        signature: bytes,
        *,
        prehashed: bool = False,
    ) -> bool:
        loaded, row = self._ready(handle, algorithm)
        assert loaded.public is not None
        return materials.verify_signature(loaded.public, row, message, signature, prehashed)

    def mac(self, handle: str, algorithm: str, message: bytes) -> bytes:
        loaded, row = self._ready(handle, algorithm)
        assert isinstance(loaded.key, Secret)
        return hmac.digest(loaded.key.reveal(), message, row.digest)

    def verify_mac(self, handle: str, algorithm: str, message: bytes, tag: bytes) -> bool:
        return hmac.compare_digest(self.mac(handle, algorithm, message), tag)

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
        self, label: uuid.UUID, spec: KeySpec, key: bytes | materials.PrivateKey
    ) -> WrappedMaterial:
        """Insert unless the label is taken, and return the row that is there: one racer wins."""
        check_value, public_key = _described(spec, key)
        secret = Secret(key if isinstance(key, bytes) else materials.private_der(key))
        row = WrappedMaterial(
            label=label,
            store_id=self._store_id,
            spec=spec.name,
            wrapped=sealing.seal(_purpose(self._store_id, spec.name), label, secret),
            check_value=check_value,
            public_key=public_key,
        )
        try:
            WrappedMaterial.objects.bulk_create([row], ignore_conflicts=True)
        except DatabaseError:
            raise BackendUnavailable("The material database can't be reached.") from None
        stored = self._row(label)
        if stored is None:
            raise Conflict("Another key store has material under this label.")
        return stored

    def _ready(self, handle: str, algorithm: str) -> tuple[_Loaded, Algorithm]:
        with self._lock:
            loaded = self._cache.get(handle)
            if loaded is not None:
                self._cache.move_to_end(handle)
        if loaded is None:
            loaded = self._load(handle)
        return loaded, materials.algorithm_for(OFFERS, loaded.spec, algorithm)

    def _load(self, handle: str) -> _Loaded:
        label = _label(handle)
        row = self._row(label)
        if row is None:
            raise NoMaterial
        # The spec and the store are part of the purpose: a row edited to name others does not open.
        purpose = _purpose(self._store_id, row.spec)
        loaded = _loaded(SPECS[row.spec], sealing.unseal(purpose, label, bytes(row.wrapped)))
        with self._lock:
            self._cache[handle] = loaded
            while len(self._cache) > CACHE_SIZE:
                self._cache.popitem(last=False)
        return loaded


def _purpose(store_id: uuid.UUID, spec: str) -> str:
    return f"{PURPOSE} {store_id} {spec}"


def _label(handle: str) -> uuid.UUID:
    try:
        return uuid.UUID(hex=handle)
    except ValueError:
        raise NoMaterial from None


def _material(row: WrappedMaterial) -> Material:
    public_key = None if row.public_key is None else bytes(row.public_key)
    return Material(row.label.hex, row.check_value, public_key)


def _generated(spec: KeySpec) -> bytes | materials.PrivateKey:
    if spec.family is Family.RSA:
        return rsa.generate_private_key(RSA_EXPONENT, spec.bits)
    if spec.family is Family.EC:
        return ec.generate_private_key(materials.CURVES[spec.curve])
    return os.urandom(spec.bits // 8)


def _described(spec: KeySpec, key: bytes | materials.PrivateKey) -> tuple[str, bytes | None]:
    """Return the check value and, for a pair, the public key."""
    if isinstance(key, bytes):
        return materials.check_value_of_secret(spec, key), None
    public_key = materials.public_der(key)
    return materials.check_value_of_public_key(public_key), public_key


def _loaded(spec: KeySpec, secret: Secret) -> _Loaded:
    if spec.family is Family.AES:
        raw = secret.reveal()
        return _Loaded(spec, _AesKey(Xaes(raw), AESGCM(raw)), None)
    if spec.family is Family.HMAC:
        return _Loaded(spec, secret, None)
    # Validation takes 45 ms for RSA-2048. It was done before sealing, and the seal authenticates.
    key = serialization.load_der_private_key(
        secret.reveal(), password=None, unsafe_skip_rsa_key_validation=True
    )
    assert isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey)
    return _Loaded(spec, key, key.public_key())
