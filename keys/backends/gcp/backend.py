"""The key store of the kind gcp: keys in one key ring of Google Cloud KMS.

A handle is a CryptoKeyVersion's resource name. What a key can do is fixed when it is made, so its
`Parent.algorithm` decides (forms); states are told in picture, windows in states.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from keys.algorithms import MessageType, Usage
from keys.backends.base import Backend, Capabilities, Health, Material, Parent, Protection
from keys.backends.gcp import forms
from keys.backends.gcp.acts import Acts
from keys.backends.gcp.configuration import LEVELS, WINDOW_LIMITS, read
from keys.backends.gcp.connection import Connection
from keys.backends.gcp.keyring import Keyring
from keys.backends.gcp.labels import Labels
from keys.backends.gcp.making import Making
from keys.backends.gcp.picture import DISABLED, ENABLED
from keys.backends.gcp.states import States
from keys.backends.views import KeyView, Page
from keys.errors import Invalid, KeyServiceError, Unsupported
from keys.secret import Secret

RANDOM_LIMIT = 1024


class GcpBackend(Backend):
    """One key ring. Settings: configuration.py. Credential: a service account's key file, or none."""

    kind: ClassVar[str] = "gcp"
    protection: ClassVar[Protection] = Protection.SOFTWARE

    def __init__(
        self,
        store_id: uuid.UUID,
        settings: Mapping[str, Any],
        credential: Secret | None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._configuration = read(settings)
        self._connection = Connection(self._configuration, credential)
        self._keyring = Keyring(self._configuration, self._connection, clock)
        labels = Labels(self._keyring)
        self._making = Making(self._keyring, labels)
        self._states = States(self._keyring, labels)
        self._acts = Acts(self._keyring)

    @classmethod
    def protection_with(cls, settings: Mapping[str, Any]) -> Protection:
        return LEVELS[read(settings).level]

    @classmethod
    def check_settings(cls, settings: Mapping[str, Any]) -> None:
        read(settings)

    def capabilities(self) -> Capabilities:
        level, window = self._configuration.level, self._configuration.window
        return Capabilities(
            algorithms=forms.offered(level),
            imports=forms.importable(level),
            destroys_at_once=False,
            suspends=True,
            # The least is that of keys made here; one taken over may have any up to Google's most.
            window=(window, WINDOW_LIMITS[1]),
            notes=(
                "At Google a key's algorithm is fixed when it is made: each key has one only.",
                f"Google waits {window} days before it destroys a version of a key made here.",
                "Google knows no compromised and no pre-active version: there only the console refuses.",
            ),
        )

    def health(self) -> Health:
        try:
            self._connection.call("get_key_ring", {"name": self._configuration.key_ring})
        except KeyServiceError as error:
            return Health(False, error.detail)
        facts = {
            "key ring": self._configuration.key_ring,
            "protection level": self._configuration.level,
            "endpoint": self._configuration.target,
        }
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
        return self._making.generate(label, spec, usage, parent)

    def find(self, label: uuid.UUID, parent: Parent | None = None) -> Material | None:
        return self._making.find(label, parent)

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
        return self._making.bring(label, spec, material, usage, parent)

    def destroy(self, handle: str) -> None:
        self._states.destroy(handle)

    def destroy_all(self, handles: Sequence[str]) -> None:
        self._states.destroy_all(handles)

    def suspend(self, handle: str) -> None:
        self._states.set_state(handle, DISABLED)

    def resume(self, handle: str) -> None:
        self._states.set_state(handle, ENABLED)

    # --- the store's own view

    def discover(self, cursor: str = "", limit: int = 100) -> Page:
        return self._states.discover(cursor, limit)

    def inspect(self, reference: str) -> KeyView | None:
        return self._states.inspect(reference)

    def observe(self, wanted: KeyView) -> KeyView | None:
        return self._states.observe(wanted)

    def expressed(self, wanted: KeyView) -> KeyView:
        return self._states.expressed(wanted)

    def conform(self, wanted: KeyView) -> None:
        self._states.conform(wanted)

    # --- use

    def encrypt(self, handle: str, algorithm: str, plaintext: bytes, aad: bytes) -> bytes:
        return self._acts.encrypt(handle, algorithm, plaintext, aad)

    def decrypt(self, handle: str, algorithm: str, ciphertext: bytes, aad: bytes) -> bytes:
        return self._acts.decrypt(handle, algorithm, ciphertext, aad)

    def sign(
        self,
        handle: str,
        algorithm: str,
        message: bytes,
        *,
        message_type: MessageType = MessageType.MESSAGE,
    ) -> bytes:
        return self._acts.sign(handle, algorithm, message, message_type)

    def verify(
        self,
        handle: str,
        algorithm: str,
        message: bytes,
        signature: bytes,
        *,
        message_type: MessageType = MessageType.MESSAGE,
    ) -> bool:
        return self._acts.verify(handle, algorithm, message, signature, message_type)

    def mac(self, handle: str, algorithm: str, message: bytes) -> bytes:
        return self._acts.mac(handle, algorithm, message)

    def verify_mac(self, handle: str, algorithm: str, message: bytes, tag: bytes) -> bool:
        return self._acts.verify_mac(handle, algorithm, message, tag)

    def wrap(self, handle: str, algorithm: str, target: bytes) -> bytes:
        return self._acts.wrap(handle, algorithm, target)

    def unwrap(self, handle: str, algorithm: str, wrapped: bytes) -> bytes:
        return self._acts.unwrap(handle, algorithm, wrapped)

    def agree(self, handle: str, algorithm: str, peer: bytes) -> bytes:
        self._acts.known(handle, Usage.KEY_AGREEMENT, algorithm)
        raise Unsupported("Google Cloud KMS agrees on no shared secrets.")

    def decapsulate(self, handle: str, algorithm: str, ciphertext: bytes) -> bytes:
        return self._acts.decapsulate(handle, algorithm, ciphertext)

    def derive(
        self, handle: str, algorithm: str, *, salt: bytes, info: bytes, length: int
    ) -> bytes:
        self._acts.known(handle, Usage.DERIVE_KEY, algorithm)
        raise Unsupported("Google Cloud KMS derives no keys.")

    def random(self, count: int) -> bytes:
        if not 1 <= count <= RANDOM_LIMIT:
            raise Invalid(f"Ask for 1 to {RANDOM_LIMIT} random bytes.")
        return self._acts.random(count)


def _check_stays(exportable: bool) -> None:
    if exportable:
        raise Unsupported(
            "Nothing ever leaves Google Cloud KMS; exportable keys need a software key store."
        )
