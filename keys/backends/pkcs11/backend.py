"""The PKCS#11 key store: keys made in a token, sensitive, non-extractable, and used only there.

Signatures are verified here, from the public key: that needs no secret and spares the token. So a
suspended pair's old signatures can still be verified as far as this store is concerned; the console
decides.
"""

from __future__ import annotations

import hmac
import os
import threading
import uuid
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

import pkcs11
from cryptography.hazmat.primitives import hashes
from pkcs11 import GCMParams, Mechanism

from keys.algorithms import Algorithm, KeySpec
from keys.backends import materials
from keys.backends.base import Backend, Capabilities, Health, Material, NoMaterial, Protection
from keys.backends.pkcs11 import failures, mechanisms, objects
from keys.backends.pkcs11.configuration import read
from keys.backends.pkcs11.connection import MANAGE, Connection, Pooled, release, share
from keys.errors import (
    BackendError,
    BackendUnavailable,
    CannotDecrypt,
    Conflict,
    Invalid,
    KeyServiceError,
    Unsupported,
)
from keys.secret import Secret

Answer = TypeVar("Answer")

GCM_NONCE_BYTES = 12
GCM_TAG_BYTES = 16
RANDOM_LIMIT = 1024
PUBLIC_CACHE_SIZE = 10_000
ATTEMPTS = 4

# How tokens say that a tag is wrong: in the standard's words, or (SoftHSM) in vague ones.
_REFUSED = (pkcs11.EncryptedDataInvalid, pkcs11.EncryptedDataLenRange, pkcs11.DataInvalid)
_MAYBE_REFUSED = (pkcs11.GeneralError, pkcs11.FunctionFailed)


class _NotAble(Exception):
    """The object as it was found has not the use; it may have been found while suspended."""


class Pkcs11Backend(Backend):
    """One token. Settings: see configuration.py. Credential: the user PIN."""

    kind: ClassVar[str] = "pkcs11"
    protection: ClassVar[Protection] = Protection.HSM

    def __init__(
        self, store_id: uuid.UUID, settings: Mapping[str, Any], credential: Secret | None
    ) -> None:
        if credential is None:
            raise Invalid("A PKCS#11 key store needs the token's PIN as its credential.")
        self._configuration = read(settings)
        self._pin = credential
        self._lock = threading.Lock()
        self._shared: Connection | None = None
        self._closed = False
        self._offers: Mapping[str, tuple[str, ...]] | None = None
        self._attributes_fixed = False
        self._publics: OrderedDict[str, tuple[KeySpec, materials.PublicKey]] = OrderedDict()

    @classmethod
    def check_settings(cls, settings: Mapping[str, Any]) -> None:
        read(settings)

    def capabilities(self) -> Capabilities:
        notes = ["Nonces of AES-256-GCM are random, so a key is limited to 2^32 messages."]
        if self._attributes_fixed:
            notes.append(
                "The token lets no attribute change: only the console refuses suspended keys."
            )
        offers = self._offered()
        return Capabilities(
            algorithms=offers,
            imports=frozenset(offers),
            destroys_at_once=True,
            suspends=not self._attributes_fixed,
            notes=tuple(notes),
        )

    def health(self) -> Health:
        try:
            connection = self._connection()
            with connection.managing():
                module, token = connection.connected()
                free = module.free_memory(token.slot.slot_id)
                facts = {
                    "token": token.label,
                    "serial number": token.serial.decode("ascii", "replace"),
                    "model": f"{token.manufacturer_id} {token.model}".strip(),
                    "firmware": ".".join(str(part) for part in token.firmware_version),
                }
        except KeyServiceError as error:
            return Health(False, error.detail)
        if free is not None:
            facts["free memory"] = f"{free} bytes"
        return Health(True, "Ready.", facts)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            connection, self._shared = self._shared, None
        if connection is not None:
            release(connection)

    # --- a version's life

    def generate(self, label: uuid.UUID, spec: str) -> Material:
        row = self._offered_spec(spec)
        with self._connection().managing() as session:
            found = self._complete(session, label)
            if found is None:
                objects.generate(session, label, row)
                found = self._complete(session, label)
            if found is None:
                raise BackendError("The token does not show the key it made.")
            if found.spec is not row:
                raise Conflict(f"There is {found.spec.name} material under this label already.")
            return self._described(label, found)

    def find(self, label: uuid.UUID) -> Material | None:
        with self._connection().managing() as session:
            found = self._complete(session, label)
            return None if found is None else self._described(label, found)

    def import_material(self, label: uuid.UUID, spec: str, material: Secret) -> Material:
        row = self._offered_spec(spec)
        wanted: str
        if row.asymmetric:
            pair = materials.imported_private_key(row, material)
            wanted = materials.check_value_of_public_key(materials.public_der(pair))
        else:
            raw = materials.imported_secret(row, material)
            wanted = materials.check_value_of_secret(row, raw)
        with self._connection().managing() as session:
            found = self._complete(session, label)
            if found is None:
                if row.asymmetric:
                    objects.import_pair(session, label, pair)
                else:
                    objects.import_secret(session, label, row, raw)
                found = self._complete(session, label)
            if found is None:
                raise BackendError("The token does not show the key it took.")
            if found.spec is not row or objects.check_value(found) != wanted:
                raise Conflict("There is other material under this label already.")
            return self._described(label, found)

    def destroy(self, handle: str) -> None:
        label, _ = _parsed(handle)
        connection = self._connection()
        with connection.managing() as session:
            found = self._complete(session, label)
            if found is not None:
                _check(found, handle)
                for item in found.everything():
                    item.destroy()
        connection.evict(handle)
        with self._lock:
            self._publics.pop(handle, None)

    def suspend(self, handle: str) -> None:
        self._set_uses(handle, protect=False, process=False)

    def resume(self, handle: str) -> None:
        self._set_uses(handle, protect=True, process=True)

    def deactivate(self, handle: str) -> None:
        self._set_uses(handle, protect=False, process=True)

    def _set_uses(self, handle: str, *, protect: bool, process: bool) -> None:
        label, _ = _parsed(handle)
        connection = self._connection()
        with connection.managing() as session:
            found = self._complete(session, label)
            if found is None:
                raise NoMaterial
            _check(found, handle)
            try:
                objects.set_uses(found, protect=protect, process=process)
            except objects.FIXED:
                self._attributes_fixed = True
        connection.evict(handle)

    # --- use

    def encrypt(self, handle: str, algorithm: str, plaintext: bytes, aad: bytes) -> bytes:
        by_token = self._configuration.iv_by_token

        def act(found: objects.Found, row: Algorithm) -> bytes:
            # A token that makes nonces writes into these bytes, so nobody else may hold them.
            nonce = bytes(bytearray(GCM_NONCE_BYTES)) if by_token else os.urandom(GCM_NONCE_BYTES)
            parameters = GCMParams(nonce, aad, 8 * GCM_TAG_BYTES)
            sealed = _able(found.key, "encrypt")(
                plaintext, mechanism=Mechanism.AES_GCM, mechanism_param=parameters
            )
            if not any(parameters.nonce):
                raise BackendError("The token made no nonce of its own: switch iv_by_token off.")
            return bytes(parameters.nonce) + bytes(sealed)

        return self._use(handle, algorithm, act)

    def decrypt(self, handle: str, algorithm: str, ciphertext: bytes, aad: bytes) -> bytes:
        def act(found: objects.Found, row: Algorithm) -> bytes:
            if len(ciphertext) < GCM_NONCE_BYTES + GCM_TAG_BYTES:
                raise CannotDecrypt
            parameters = GCMParams(ciphertext[:GCM_NONCE_BYTES], aad, 8 * GCM_TAG_BYTES)
            try:
                plaintext = _able(found.key, "decrypt")(
                    ciphertext[GCM_NONCE_BYTES:],
                    mechanism=Mechanism.AES_GCM,
                    mechanism_param=parameters,
                )
            except _REFUSED:
                raise CannotDecrypt from None
            except _MAYBE_REFUSED:
                # If the key works otherwise, then it was the ciphertext.
                _check(found, handle)
                raise CannotDecrypt from None
            return bytes(plaintext)

        return self._use(handle, algorithm, act)

    def sign(
        self, handle: str, algorithm: str, message: bytes, *, prehashed: bool = False
    ) -> bytes:
        def act(found: objects.Found, row: Algorithm) -> bytes:
            data, keywords = mechanisms.signing(row, _digest(row, message, prehashed))
            signature = _able(found.key, "sign")(data, **keywords)
            return objects.signature_from_token(found.spec, bytes(signature))

        return self._use(handle, algorithm, act)

    def verify(
        self,
        handle: str,
        algorithm: str,
        message: bytes,
        signature: bytes,
        *,
        prehashed: bool = False,
    ) -> bool:
        offers = self._offered()
        with self._lock:
            known = self._publics.get(handle)
        if known is None:
            known = self._load_public(handle)
        spec, public = known
        row = materials.algorithm_for(offers, spec, algorithm)
        return materials.verify_signature(public, row, message, signature, prehashed)

    def mac(self, handle: str, algorithm: str, message: bytes) -> bytes:
        def act(found: objects.Found, row: Algorithm) -> bytes:
            mechanism = mechanisms.HMACS[row.digest]
            return bytes(_able(found.key, "sign")(message, mechanism=mechanism))

        return self._use(handle, algorithm, act)

    def verify_mac(self, handle: str, algorithm: str, message: bytes, tag: bytes) -> bool:
        def act(found: objects.Found, row: Algorithm) -> bool:
            mechanism = mechanisms.HMACS[row.digest]
            if hasattr(found.key, "sign"):
                expected = bytes(found.key.sign(message, mechanism=mechanism))
                return hmac.compare_digest(expected, tag)
            # Deactivated: the token computes no MAC for us any more, but compares one.
            if len(tag) != materials.HASHES[row.digest].digest_size:
                return False
            return bool(_able(found.key, "verify")(message, tag, mechanism=mechanism))

        return self._use(handle, algorithm, act)

    def random(self, count: int) -> bytes:
        if not 1 <= count <= RANDOM_LIMIT:
            raise Invalid(f"Ask for 1 to {RANDOM_LIMIT} random bytes.")
        return self._in_session(
            None, lambda pooled: bytes(pooled.session.generate_random(8 * count))
        )

    # --- inside

    def _connection(self) -> Connection:
        with self._lock:
            if self._closed:
                raise BackendUnavailable("This key store was closed.")
            if self._shared is None:
                selector, sessions = self._configuration.selector, self._configuration.sessions
                self._shared = share(selector, self._pin, sessions)
            return self._shared

    def _offered(self) -> Mapping[str, tuple[str, ...]]:
        if self._offers is None:
            connection = self._connection()
            with connection.managing():
                _, token = connection.connected()
                self._offers = mechanisms.offered(token.slot)
        return self._offers

    def _offered_spec(self, name: str) -> KeySpec:
        row = materials.spec_named(name)
        if name not in self._offered():
            raise Unsupported(f"This token makes no {name} keys.")
        return row

    def _complete(self, session: pkcs11.Session, label: uuid.UUID) -> objects.Found | None:
        found = objects.find(session, label)
        if found is None:
            objects.clear_half_made(session, label)
        return found

    def _described(self, label: uuid.UUID, found: objects.Found) -> Material:
        material = objects.described(label, found)
        try:
            objects.record_check_value(found, material.check_value)
        except objects.FIXED:
            self._attributes_fixed = True
        return material

    def _use(
        self, handle: str, algorithm: str, act: Callable[[objects.Found, Algorithm], Answer]
    ) -> Answer:
        offers = self._offered()

        def run(pooled: Pooled) -> Answer:
            found = self._loaded(pooled, handle)
            return act(found, materials.algorithm_for(offers, found.spec, algorithm))

        return self._in_session(handle, run)

    def _in_session(self, handle: str | None, act: Callable[[Pooled], Answer]) -> Answer:
        """Run `act` on a session; again where the session or an object handle had become void.

        Every use may be run twice: none changes the token. That a key is not there is believed only
        of a search by a session that is surely logged in (_loaded), never of a void handle.
        """
        connection, looked_again = self._connection(), False
        for _ in range(ATTEMPTS):
            with connection.session(handle) as pooled:
                try:
                    return act(pooled)
                except _NotAble:
                    if looked_again:
                        raise failures.forbidden() from None
                    looked_again = True
                    pooled.keys.pop(handle or "", None)
                except pkcs11.PKCS11Error as error:
                    if failures.is_lost(error) or connection.is_void(pooled):
                        connection.lost(pooled.generation)
                    elif isinstance(error, failures.STALE):
                        pooled.keys.pop(handle or "", None)
                    else:
                        raise failures.translated(error) from None
        raise BackendUnavailable("The token keeps going away.")

    def _loaded(self, pooled: Pooled, handle: str) -> objects.Found:
        found: objects.Found | None = pooled.keys.get(handle)
        if found is not None:
            pooled.keys.move_to_end(handle)
            return found
        label, _ = _parsed(handle)
        with MANAGE:
            if not pooled.is_logged_in():
                raise pkcs11.SessionHandleInvalid
            found = objects.find(pooled.session, label)
            if found is None:
                raise NoMaterial
            _check(found, handle)
        pooled.remember(handle, found)
        return found

    def _load_public(self, handle: str) -> tuple[KeySpec, materials.PublicKey]:
        found = self._in_session(handle, lambda pooled: self._loaded(pooled, handle))
        if found.public_key is None:
            raise Unsupported(f"{found.spec.name} keys don't sign.")
        known = (found.spec, materials.load_public_key(found.public_key))
        with self._lock:
            self._publics[handle] = known
            while len(self._publics) > PUBLIC_CACHE_SIZE:
                self._publics.popitem(last=False)
        return known


def _parsed(handle: str) -> tuple[uuid.UUID, str]:
    parsed = objects.parse_handle(handle)
    if parsed is None:
        raise NoMaterial
    return parsed


def _check(found: objects.Found, handle: str) -> None:
    """Raise BackendError where what was found isn't the material that the handle was made for."""
    if objects.check_value(found) != _parsed(handle)[1]:
        raise BackendError("The token holds other material under this id than the console knows.")


def _able(key: Any, use: str) -> Callable[..., Any]:
    method: Callable[..., Any] | None = getattr(key, use, None)
    if method is None:
        raise _NotAble
    return method


def _digest(row: Algorithm, message: bytes, prehashed: bool) -> bytes:
    if prehashed:
        materials.check_digest_length(row, message)
        return message
    state = hashes.Hash(materials.HASHES[row.digest])
    state.update(message)
    return state.finalize()
