"""A key store of kind `watched`: the software store, with stops at which a test can act.

Registered for one test by the fixture `watched`, or in a process of its own by `register()`.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any, ClassVar

from keys.algorithms import Usage
from keys.backends import registry
from keys.backends.base import Material, Parent, Protection
from keys.backends.registry import Kind
from keys.backends.software.backend import SoftwareBackend
from keys.secret import Secret

KIND = Kind("watched", "Watched", "For tests.", Protection.SOFTWARE, f"{__name__}.WatchedBackend")


class WatchedBackend(SoftwareBackend):
    """Calls `stops[place]` where there is one; a stop may wait, raise, or end the process."""

    kind: ClassVar[str] = "watched"
    stops: ClassVar[dict[str, Callable[[], None]]] = {}
    calls: ClassVar[list[str]] = []

    def _at(self, place: str) -> None:
        self.calls.append(place)
        if stop := self.stops.get(place):
            stop()

    def generate(
        self,
        label: uuid.UUID,
        spec: str,
        *,
        usage: Usage | None = None,
        exportable: bool = False,
        parent: Parent | None = None,
    ) -> Material:
        self._at("before generate")
        made = super().generate(label, spec, usage=usage, exportable=exportable, parent=parent)
        self._at("after generate")
        return made

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
        self._at("before import")
        made = super().import_material(
            label, spec, material, usage=usage, exportable=exportable, parent=parent
        )
        self._at("after import")
        return made

    def destroy(self, handle: str) -> None:
        self._at("before destroy")
        super().destroy(handle)
        self._at("after destroy")

    def encrypt(self, handle: str, algorithm: str, plaintext: bytes, aad: bytes) -> bytes:
        self._at("before encrypt")
        sealed = super().encrypt(handle, algorithm, plaintext, aad)
        self._at("after encrypt")
        return sealed


def register(stops: dict[str, Callable[[], None]] | None = None) -> None:
    """Make the kind known to this process, with these stops."""
    kinds: Any = registry.KINDS
    kinds["watched"] = KIND
    WatchedBackend.stops.clear()
    WatchedBackend.stops.update(stops or {})
    WatchedBackend.calls.clear()


def unregister() -> None:
    kinds: Any = registry.KINDS
    kinds.pop("watched", None)
    WatchedBackend.stops.clear()
