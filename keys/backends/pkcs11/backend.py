"""The PKCS#11 key store: keys made in a token, sensitive, non-extractable, and used only there.

What needs only a public key is done here: verifying, encrypting and wrapping to RSA. That needs no
secret and spares the token. So a suspended pair's old signatures can still be verified as far as
this store is concerned; the console decides.
"""

from __future__ import annotations

import hmac
import uuid
from collections.abc import Mapping
from typing import Any, ClassVar, NoReturn

from keys.algorithms import Algorithm, MessageType, Usage
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
from keys.backends.pkcs11 import acts, checking, mechanisms, objects
from keys.backends.pkcs11.configuration import read
from keys.backends.pkcs11.connection import Connection
from keys.backends.pkcs11.keyring import Keyring
from keys.errors import BackendError, Conflict, Invalid, KeyServiceError, Unsupported
from keys.secret import Secret

RANDOM_LIMIT = 1024


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
        self._keyring = Keyring(self._configuration, credential)
        self._attributes_fixed = False

    @classmethod
    def check_settings(cls, settings: Mapping[str, Any]) -> None:
        read(settings)

    def capabilities(self) -> Capabilities:
        abilities = self._keyring.abilities()
        notes = ["Nonces of AES-GCM are random, so a key is limited to 2^32 messages."]
        notes += abilities.notes()
        if self._attributes_fixed:
            notes.append(
                "The token lets no attribute change: only the console refuses suspended keys."
            )
        return Capabilities(
            algorithms=abilities.algorithms,
            imports=frozenset(abilities.algorithms),
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
        self._keyring.close()

    def _connection(self) -> Connection:
        return self._keyring.connection()

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
        _check_stays(exportable)
        row, purpose = self._keyring.offered(spec, usage)
        with self._connection().managing() as session:
            found = self._keyring.complete(session, label)
            if found is None:
                abilities = self._keyring.abilities()
                objects.generate(session, label, row, purpose, abilities)
                found = self._keyring.complete(session, label)
            if found is None:
                raise BackendError("The token does not show the key it made.")
            if found.spec is not row or (usage is not None and found.usage is not purpose):
                raise Conflict(
                    f"There is {found.spec.name} material for {found.usage} under this label already."
                )
            return self._described(label, found)

    def find(self, label: uuid.UUID, parent: Parent | None = None) -> Material | None:
        with self._connection().managing() as session:
            found = self._keyring.complete(session, label)
            return None if found is None else self._described(label, found)

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
        _check_stays(exportable)
        row, purpose = self._keyring.offered(spec, usage)
        if row.asymmetric:
            pair = materials.imported_private_key(row, material)
            wanted = materials.check_value_of_public_key(materials.public_der(pair))
        else:
            raw = materials.imported_secret(row, material)
            wanted = materials.check_value_of_secret(row, raw)
        with self._connection().managing() as session:
            found = self._keyring.complete(session, label)
            if found is None:
                if row.asymmetric:
                    objects.import_pair(session, label, row, purpose, pair)
                else:
                    abilities = self._keyring.abilities()
                    objects.import_secret(session, label, row, purpose, raw, abilities)
                found = self._keyring.complete(session, label)
            if found is None:
                raise BackendError("The token does not show the key it took.")
            if found.spec is not row or (usage is not None and found.usage is not purpose):
                raise Conflict("There is other material under this label already.")
            described = self._described(label, found)
            if described.check_value != wanted:
                raise Conflict("There is other material under this label already.")
            return described

    def export_material(self, handle: str) -> NoReturn:
        raise Unsupported("Nothing ever leaves a token; export needs a software key store.")

    def destroy(self, handle: str) -> None:
        label, _ = checking.parsed(handle)
        with self._connection().managing() as session:
            found = self._keyring.complete(session, label)
            if found is not None:
                checking.check(found, handle)
                for item in found.everything():
                    item.destroy()
        self._keyring.forget(handle)

    def suspend(self, handle: str) -> None:
        self._set_uses(handle, protect=False, process=False)

    def resume(self, handle: str) -> None:
        self._set_uses(handle, protect=True, process=True)

    def deactivate(self, handle: str) -> None:
        self._set_uses(handle, protect=False, process=True)

    def _set_uses(self, handle: str, *, protect: bool, process: bool) -> None:
        label, _ = checking.parsed(handle)
        with self._connection().managing() as session:
            found = self._keyring.complete(session, label)
            if found is None:
                raise NoMaterial
            checking.check(found, handle)
            try:
                objects.set_uses(found, protect=protect, process=process)
            except objects.FIXED:
                self._attributes_fixed = True
        self._keyring.forget(handle)

    def _described(self, label: uuid.UUID, found: objects.Found) -> Material:
        fingerprint = checking.fingerprint(found)
        try:
            objects.record_fingerprint(found, fingerprint)
        except objects.FIXED:
            self._attributes_fixed = True
        check_value = checking.check_value_of(fingerprint)
        return Material(objects.handle_of(label, fingerprint), check_value, found.public_key)

    # --- use

    def encrypt(self, handle: str, algorithm: str, plaintext: bytes, aad: bytes) -> bytes:
        by_token = self._configuration.iv_by_token
        return self._keyring.use(
            handle,
            Usage.ENCRYPT_DECRYPT,
            algorithm,
            lambda found, row: acts.seal(found, row, plaintext, aad, iv_by_token=by_token),
        )

    def decrypt(self, handle: str, algorithm: str, ciphertext: bytes, aad: bytes) -> bytes:
        return self._keyring.use(
            handle,
            Usage.ENCRYPT_DECRYPT,
            algorithm,
            lambda found, row: acts.open_sealed(found, handle, row, ciphertext, aad),
        )

    def sign(
        self,
        handle: str,
        algorithm: str,
        message: bytes,
        *,
        message_type: MessageType = MessageType.MESSAGE,
    ) -> bytes:
        def act(found: objects.Found, row: Algorithm) -> bytes:
            materials.check_message(row, message, message_type)
            return acts.sign(found, row, message, digest=message_type is MessageType.DIGEST)

        return self._keyring.use(handle, Usage.SIGN_VERIFY, algorithm, act)

    def verify(
        self,
        handle: str,
        algorithm: str,
        message: bytes,
        signature: bytes,
        *,
        message_type: MessageType = MessageType.MESSAGE,
    ) -> bool:
        public, row = self._keyring.public(handle, algorithm)
        return materials.verify_signature(public, row, message, signature, message_type)

    def mac(self, handle: str, algorithm: str, message: bytes) -> bytes:
        def act(found: objects.Found, row: Algorithm) -> bytes:
            mechanism = mechanisms.HMACS[row.digest]
            return bytes(acts.able(found.key, "sign")(message, mechanism=mechanism))

        return self._keyring.use(handle, Usage.GENERATE_VERIFY_MAC, algorithm, act)

    def verify_mac(self, handle: str, algorithm: str, message: bytes, tag: bytes) -> bool:
        def act(found: objects.Found, row: Algorithm) -> bool:
            mechanism = mechanisms.HMACS[row.digest]
            if hasattr(found.key, "sign"):
                expected = bytes(found.key.sign(message, mechanism=mechanism))
                return hmac.compare_digest(expected, tag)
            # Deactivated: the token computes no MAC for us any more, but compares one.
            if len(tag) != materials.HASHES[row.digest].digest_size:
                return False
            return bool(acts.able(found.key, "verify")(message, tag, mechanism=mechanism))

        return self._keyring.use(handle, Usage.GENERATE_VERIFY_MAC, algorithm, act)

    def wrap(self, handle: str, algorithm: str, target: bytes) -> bytes:
        return self._keyring.use(
            handle, Usage.WRAP_UNWRAP, algorithm, lambda found, row: acts.wrap(found, row, target)
        )

    def unwrap(self, handle: str, algorithm: str, wrapped: bytes) -> bytes:
        return self._keyring.use(
            handle,
            Usage.WRAP_UNWRAP,
            algorithm,
            lambda found, row: acts.unwrap(found, handle, row, wrapped),
        )

    def agree(self, handle: str, algorithm: str, peer: bytes) -> bytes:
        return self._keyring.use(
            handle, Usage.KEY_AGREEMENT, algorithm, lambda found, row: acts.agree(found, peer)
        )

    def decapsulate(self, handle: str, algorithm: str, ciphertext: bytes) -> bytes:
        return self._keyring.use(handle, Usage.KEY_ENCAPSULATION, algorithm, _no_such)

    def derive(
        self, handle: str, algorithm: str, *, salt: bytes, info: bytes, length: int
    ) -> bytes:
        return self._keyring.use(handle, Usage.DERIVE_KEY, algorithm, _no_such)

    def random(self, count: int) -> bytes:
        if not 1 <= count <= RANDOM_LIMIT:
            raise Invalid(f"Ask for 1 to {RANDOM_LIMIT} random bytes.")
        return self._keyring.in_session(
            None, lambda pooled: bytes(pooled.session.generate_random(8 * count))
        )


def _check_stays(exportable: bool) -> None:
    if exportable:
        raise Unsupported("Nothing ever leaves a token; exportable keys need a software key store.")


def _no_such(found: objects.Found, row: Algorithm) -> NoReturn:
    # Not reached by any algorithm that a token offers: Keyring.use() told what the key can do.
    raise Unsupported(f"A token has no such use of {found.spec.name} keys.")
