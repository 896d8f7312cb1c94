"""The key store over the transit secrets engine of HashiCorp Vault and OpenBao.

A key of the console is one transit key, a version one of its versions. Signatures are verified here
from the public key; all else is done at the server.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from keys.algorithms import MessageType, Usage
from keys.backends.base import (
    Backend,
    Capabilities,
    Health,
    Material,
    Parent,
    Protection,
)
from keys.backends.vault import configuration, floors, making, names, offers, views
from keys.backends.vault.acts import Acts
from keys.backends.vault.engine import Engine
from keys.backends.vault.records import decoded
from keys.backends.views import KeyView, Page
from keys.errors import (
    BackendError,
    BackendRefused,
    Invalid,
    KeyServiceError,
    Unsupported,
)
from keys.secret import Secret

RANDOM_LIMIT = 1024
# Each key of a page is a request of its own.
PAGE = 100
# Seconds for which a listing goes on with the names that it began with.
LISTED = 600.0


class VaultBackend(Backend):
    """One transit engine. Settings: see configuration.py. Credential: a token or a secret id."""

    kind: ClassVar[str] = "vault"
    protection: ClassVar[Protection] = Protection.SOFTWARE

    def __init__(
        self, store_id: uuid.UUID, settings: Mapping[str, Any], credential: Secret | None
    ) -> None:
        if credential is None:
            raise Invalid("A Vault key store needs a token, or an AppRole's secret id.")
        self._engine = Engine(configuration.read(settings), credential)
        self._acts = Acts(self._engine)
        self._maker = making.Maker(self._engine, self._acts)
        self._listed: tuple[float, list[str]] = (0.0, [])
        self._listing = threading.Lock()

    @classmethod
    def check_settings(cls, settings: Mapping[str, Any]) -> None:
        configuration.read(settings)

    def capabilities(self) -> Capabilities:
        openbao = self._engine.find_soft_deletion()
        offered = offers.here(openbao)
        notes = [
            "Nonces of AES-GCM are random, so a key is limited to 2^32 messages.",
            "RSA-OAEP binds no label, so such ciphertexts carry no context (raw).",
            "Versions are destroyed oldest first, and the newest only with the whole key.",
            "The server refuses a suspended version only where no older one has to decrypt; "
            "elsewhere only the console does.",
        ]
        if openbao:
            notes.append("A disabled key is soft-deleted at the server, which then refuses it.")
        else:
            notes.append("The server knows no disabled keys: only the console refuses them.")
        return Capabilities(
            algorithms=offered,
            imports=frozenset(offered),
            destroys_at_once=True,
            suspends=False,
            notes=tuple(notes),
        )

    def health(self) -> Health:
        try:
            return self._health()
        except KeyServiceError as error:
            return Health(False, error.detail)

    def _health(self) -> Health:
        server = self._engine.server()
        facts = {
            name.replace("_", " "): value[:100]
            for name in ("version", "cluster_name")
            if isinstance(value := server.whole.get(name), str) and value
        }
        if server.status == 501:
            return Health(False, "The server is not initialised.", facts)
        if server.whole.get("sealed") is True:
            return Health(False, "The server is sealed.", facts)
        if not server.ok:
            return Health(False, server.failure().detail, facts)
        self._engine.check_mount()
        # A key that isn't there: says whether the token may read keys.
        self._engine.read(f"{names.PREFIX}health")
        facts["server"] = "OpenBao" if self._engine.find_soft_deletion() else "HashiCorp Vault"
        facts["mount"] = self._engine.mount
        return Health(True, "Ready.", facts)

    def close(self) -> None:
        self._engine.close()

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
        row, _ = offers.chosen(self._offered(spec), spec, usage)
        return self._maker.generate(label, row, parent)

    def find(self, label: uuid.UUID, parent: Parent | None = None) -> Material | None:
        return self._maker.find(label, parent)

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
        row, _ = offers.chosen(self._offered(spec), spec, usage)
        return self._maker.bring(label, row, material, parent)

    def _offered(self, spec: str) -> Mapping[str, tuple[str, ...]]:
        """What is offered; the server is asked only about what not every one has."""
        if spec not in offers.ONLY_OPENBAO:
            return offers.EVERY
        return offers.here(self._engine.find_soft_deletion())

    def destroy(self, handle: str) -> None:
        self._maker.destroy(handle)

    def destroy_all(self, handles: Sequence[str]) -> None:
        self._maker.destroy_all(handles)

    def check_destroyable(self, handle: str, among: Sequence[str]) -> None:
        making.check_destroyable(handle, among)

    def remove(self, handle: str) -> None:
        self._maker.remove(handle)

    # --- the store's own view

    def discover(self, cursor: str = "", limit: int = PAGE) -> Page:
        listed = self._names(cursor)
        left = [name for name in listed if name > cursor]
        page = left[: max(1, min(limit, PAGE))]
        found = (self._viewed(name) for name in page)
        return Page(
            keys=tuple(view for view in found if view is not None),
            cursor=page[-1] if len(left) > len(page) else "",
            total=len(listed),
        )

    def _names(self, cursor: str) -> list[str]:
        """Return all names; a listing that goes on keeps to those it began with."""
        with self._listing:
            at, listed = self._listed
            if not cursor or not listed or time.monotonic() - at > LISTED:
                listed = self._engine.names()
                self._listed = (time.monotonic(), listed)
            return listed

    def _viewed(self, name: str) -> KeyView | None:
        """Return a key of a listing: one that can't be read doesn't hide the others."""
        if not names.is_name(name):
            return views.unreadable(
                name[:500], "The name of this key is not one that the console can call it by."
            )
        try:
            key = self._engine.read(name)
        except BackendRefused:
            return views.unreadable(name, "The token may not read this key.")
        except BackendError as error:
            return views.unreadable(name, error.detail)
        return None if key is None else views.view(key)

    def inspect(self, reference: str) -> KeyView | None:
        if not names.is_name(reference):
            return None
        key = self._engine.read(reference)
        return None if key is None else views.view(key)

    def observe(self, wanted: KeyView) -> KeyView | None:
        name = views.name_of(wanted)
        return self.inspect(name) if name else None

    def expressed(self, wanted: KeyView) -> KeyView:
        return views.expressed(wanted, soft_deletes=bool(self._engine.soft_deletes))

    def conform(self, wanted: KeyView) -> None:
        believed = views.states(wanted)
        if not believed:
            return
        name = views.name_of(wanted)
        key = self._engine.there(name)
        rows = floors.wanted(believed)
        shut = views.closed(wanted, rows)
        if shut and key.soft_deleted is False:
            self._engine.do("DELETE", f"keys/{name}/soft-delete")
        least, protecting = rows.nearest(key.min_decryption, key.min_encryption)
        changes: dict[str, object] = {}
        # Trimmed versions don't come back, and a minimum is no version that isn't there.
        least = max(min(least, key.latest), key.lowest)
        protecting = max(min(protecting, key.latest), least)
        if (least, protecting) != (key.min_decryption, key.min_encryption):
            changes["min_decryption_version"] = least
            changes["min_encryption_version"] = protecting
        if wanted.rotation_days != views.view(key).rotation_days:
            changes["auto_rotate_period"] = views.DAY * (wanted.rotation_days or 0)
        if changes:
            self._engine.do("POST", f"keys/{name}/config", changes)
        # Opened last: nothing is usable meanwhile that must not be.
        if not shut and key.soft_deleted:
            self._engine.do("POST", f"keys/{name}/soft-delete-restore", {})
        self._engine.forget(name)

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
        raise _no_such(handle, algorithm)

    def decapsulate(self, handle: str, algorithm: str, ciphertext: bytes) -> bytes:
        raise _no_such(handle, algorithm)

    def derive(
        self, handle: str, algorithm: str, *, salt: bytes, info: bytes, length: int
    ) -> bytes:
        raise _no_such(handle, algorithm)

    def random(self, count: int) -> bytes:
        if not 1 <= count <= RANDOM_LIMIT:
            raise Invalid(f"Ask for 1 to {RANDOM_LIMIT} random bytes.")
        data = self._engine.do("POST", f"random/{count}", {"format": "base64"})
        drawn = decoded(data, "random_bytes")
        if len(drawn) != count:
            raise BackendError("The store's answer makes no sense: random_bytes is too short.")
        return drawn


def _check_stays(exportable: bool) -> None:
    if exportable:
        raise Unsupported(
            "The console takes nothing out of transit; exportable keys need a software key store."
        )


def _no_such(handle: str, algorithm: str) -> Unsupported:
    names.parsed(handle)
    return Unsupported(f"Transit has no {algorithm}.")
