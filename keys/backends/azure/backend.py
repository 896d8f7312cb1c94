"""The key store `azure`: keys in one Azure key vault or managed HSM.

One key of Azure's for each key of the console, `kms-console-<key id>`, and one of its versions for
each version; a version carries its label as a tag, so that a crash can be reconciled.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NoReturn
from urllib.parse import urlsplit

from keys.algorithms import MessageType, Usage
from keys.backends import materials
from keys.backends.azure import acts, alignment, destruction, listing, offers, states
from keys.backends.azure.configuration import read
from keys.backends.azure.connection import Connection
from keys.backends.azure.failures import asked
from keys.backends.azure.keyring import Keyring
from keys.backends.azure.naming import Handle, parsed
from keys.backends.base import (
    Backend,
    Capabilities,
    Health,
    Material,
    NoMaterial,
    Parent,
    Protection,
)
from keys.backends.views import KeyView, Page
from keys.errors import BackendError, Invalid, KeyServiceError, Unsupported
from keys.secret import Secret
from keys.states import VersionState

RANDOM_LIMIT = 1024
# What a managed HSM gives in one call.
RANDOM_PART = 128


class AzureBackend(Backend):
    """One vault. Settings: see configuration.py. Credential: a client secret, or the SDK's own chain."""

    kind: ClassVar[str] = "azure"
    protection: ClassVar[Protection] = Protection.SOFTWARE

    def __init__(
        self, store_id: uuid.UUID, settings: Mapping[str, Any], credential: Secret | None
    ) -> None:
        self._configuration = read(settings)
        self._connection = Connection(self._configuration, credential)
        self._keyring = Keyring(self._connection, self._configuration)

    @classmethod
    def protection_with(cls, settings: Mapping[str, Any]) -> Protection:
        return Protection.HSM if read(settings).hardware else Protection.SOFTWARE

    @classmethod
    def check_settings(cls, settings: Mapping[str, Any]) -> None:
        read(settings)

    def capabilities(self) -> Capabilities:
        return offers.capabilities(self._configuration)

    def health(self) -> Health:
        try:
            _, headers = self._connection.send("GET", "/keys?maxresults=1")
        except KeyServiceError as error:
            return Health(False, error.detail)
        facts = {
            "vault": urlsplit(self._configuration.vault_url).netloc,
            "kind": "managed HSM" if self._configuration.managed else "key vault",
        }
        region = headers.get("x-ms-keyvault-region")
        if region:
            facts["region"] = region
        return Health(True, "Ready.", facts)

    def close(self) -> None:
        self._connection.close()

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
        return self._keyring.generate(label, spec, usage, parent)

    def find(self, label: uuid.UUID, parent: Parent | None = None) -> Material | None:
        return self._keyring.find(label, parent)

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
        row, purpose = offers.offered_spec(self._configuration.managed, spec, usage)
        if not row.asymmetric:
            raise Unsupported(
                "A managed HSM takes a secret only where it is sealed to that HSM, by Azure's own "
                "tools (az keyvault key import). RSA and EC keys can be imported here."
            )
        pair = materials.imported_private_key(row, material)
        return self._keyring.import_pair(label, row, usage, purpose, pair, parent)

    def export_material(self, handle: str) -> NoReturn:
        raise Unsupported("Nothing leaves Azure; export needs a software key store.")

    def destroy(self, handle: str) -> None:
        at = parsed(handle)
        self._keyring.forget(at.name)
        destruction.destroy_version(self._connection, at)

    def destroy_all(self, handles: Sequence[str]) -> None:
        names: dict[str, set[str]] = {}
        for at in map(parsed, handles):
            names.setdefault(at.name, set()).add(at.version)
        for name, versions in names.items():
            self._keyring.forget(name)
            destruction.destroy_key(self._connection, name, versions)

    def check_destroyable(self, handle: str, among: Sequence[str]) -> None:
        name = parsed(handle).name
        if any(other != handle and parsed(other).name == name for other in among):
            raise Unsupported(
                "Azure destroys a key only as a whole. Suspend this version, or destroy the key."
            )

    def suspend(self, handle: str) -> None:
        self._set_state(handle, VersionState.SUSPENDED)

    def resume(self, handle: str) -> None:
        at = parsed(handle)
        asked(
            lambda: self._connection.client.update_key_properties(at.name, at.version, enabled=True)
        )

    def deactivate(self, handle: str) -> None:
        self._set_state(handle, VersionState.DEACTIVATED)

    def _set_state(self, handle: str, state: VersionState) -> None:
        at = parsed(handle)
        rows = self._connection.versions(at.name)
        row = next((one for one in rows if one.version == at.version), None)
        if row is None:
            raise NoMaterial
        change = states.change(row, state, states.now())
        if change.needed:
            arguments = states.arguments(change)
            asked(
                lambda: self._connection.client.update_key_properties(
                    at.name, at.version, **arguments
                )
            )

    # --- the store's own view

    def discover(self, cursor: str = "", limit: int = 100) -> Page:
        return listing.discover(self._keyring, cursor, limit)

    def inspect(self, reference: str) -> KeyView | None:
        return listing.inspect(self._keyring, reference)

    def observe(self, wanted: KeyView) -> KeyView | None:
        return listing.observe(self._keyring, wanted)

    def expressed(self, wanted: KeyView) -> KeyView:
        return states.expressed(wanted)

    def conform(self, wanted: KeyView) -> None:
        alignment.conform(self._connection, wanted)

    # --- use

    def encrypt(self, handle: str, algorithm: str, plaintext: bytes, aad: bytes) -> bytes:
        return acts.encrypt(self._keyring, handle, algorithm, plaintext, aad)

    def decrypt(self, handle: str, algorithm: str, ciphertext: bytes, aad: bytes) -> bytes:
        return acts.decrypt(self._keyring, handle, algorithm, ciphertext, aad)

    def sign(
        self,
        handle: str,
        algorithm: str,
        message: bytes,
        *,
        message_type: MessageType = MessageType.MESSAGE,
    ) -> bytes:
        return acts.sign(self._keyring, handle, algorithm, message, message_type)

    def verify(
        self,
        handle: str,
        algorithm: str,
        message: bytes,
        signature: bytes,
        *,
        message_type: MessageType = MessageType.MESSAGE,
    ) -> bool:
        return acts.verify(self._keyring, handle, algorithm, message, signature, message_type)

    def mac(self, handle: str, algorithm: str, message: bytes) -> bytes:
        raise self._no_such(parsed(handle), algorithm)

    def verify_mac(self, handle: str, algorithm: str, message: bytes, tag: bytes) -> bool:
        raise self._no_such(parsed(handle), algorithm)

    def wrap(self, handle: str, algorithm: str, target: bytes) -> bytes:
        return acts.wrap(self._keyring, handle, algorithm, target)

    def unwrap(self, handle: str, algorithm: str, wrapped: bytes) -> bytes:
        return acts.unwrap(self._keyring, handle, algorithm, wrapped)

    def agree(self, handle: str, algorithm: str, peer: bytes) -> bytes:
        raise self._no_such(parsed(handle), algorithm)

    def decapsulate(self, handle: str, algorithm: str, ciphertext: bytes) -> bytes:
        raise self._no_such(parsed(handle), algorithm)

    def derive(
        self, handle: str, algorithm: str, *, salt: bytes, info: bytes, length: int
    ) -> bytes:
        raise self._no_such(parsed(handle), algorithm)

    def _no_such(self, at: Handle, algorithm: str) -> Unsupported:
        """Return the refusal of a use that Azure has for no key, naming what would work."""
        known = self._keyring.known(at)
        if known.spec is not None:
            offered = offers.algorithms(self._configuration.managed).get(known.spec.name, ())
            return Unsupported(
                f"This key store has no {algorithm} for {known.spec.name} keys. "
                f"It offers {', '.join(offered)}."
            )
        return Unsupported(f"This key store has no {algorithm}.")

    def random(self, count: int) -> bytes:
        if not 1 <= count <= RANDOM_LIMIT:
            raise Invalid(f"Ask for 1 to {RANDOM_LIMIT} random bytes.")
        if not self._configuration.managed:
            return os.urandom(count)
        whole, rest = divmod(count, RANDOM_PART)
        return b"".join(map(self._random_part, [RANDOM_PART] * whole + [rest] * bool(rest)))

    def _random_part(self, count: int) -> bytes:
        given = asked(lambda: self._connection.client.get_random_bytes(count))
        if not isinstance(given, bytes) or len(given) != count:
            raise BackendError("The managed HSM gave another number of random bytes than asked.")
        return given


def _check_stays(exportable: bool) -> None:
    if exportable:
        raise Unsupported("Nothing leaves Azure; exportable keys need a software key store.")
