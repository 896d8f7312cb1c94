"""A key store that can hold the root key: a real SoftHSM token, with stops at which a test can act.

    with holding.furnished(softhsm) as store:    # the key store `hsm`
        holding.agreed(house, hold_root_key, key_store="hsm")

A store that is away is one whose PIN is not in the environment.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from keys import snapshot
from keys.algorithms import Usage
from keys.backends import registry
from keys.backends.base import Material, Parent
from keys.backends.pkcs11.backend import Pkcs11Backend
from keys.backends.registry import Kind
from keys.models import KeyStore
from keys.root_keys import opening
from keys.stores import COMPONENTS, WRAPPING_KEYS
from tests.hsm import Token

if TYPE_CHECKING:
    from tests.house import House

PIN = "HOLDER_PIN"


class Holder(Pkcs11Backend):
    """Calls `stops[place]` where there is one; a stop may wait, raise, or end the process."""

    kind: ClassVar[str] = "holder"
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

    def encrypt(self, handle: str, algorithm: str, plaintext: bytes, aad: bytes) -> bytes:
        self._at("encrypt")
        return super().encrypt(handle, algorithm, plaintext, aad)

    def decrypt(self, handle: str, algorithm: str, ciphertext: bytes, aad: bytes) -> bytes:
        self._at("decrypt")
        return super().decrypt(handle, algorithm, ciphertext, aad)

    def destroy(self, handle: str) -> None:
        self._at("before destroy")
        super().destroy(handle)
        self._at("after destroy")


KIND = replace(registry.KINDS["pkcs11"], name="holder", path=f"{__name__}.Holder")


def register(stops: dict[str, Callable[[], None]] | None = None) -> None:
    """Make the kind known to this process, with these stops."""
    kinds: dict[str, Kind] = registry.KINDS  # type: ignore[assignment]
    kinds["holder"] = KIND
    Holder.stops.clear()
    Holder.stops.update(stops or {})
    Holder.calls.clear()


@contextmanager
def furnished(token: Token) -> Iterator[KeyStore]:
    """Add the key store `hsm`; afterwards this process has forgotten every root key and the kind."""
    from keys import administration
    from keys.services import operator

    register()
    os.environ[PIN] = token.pin
    opening.forget()
    store = administration.create_key_store(
        operator(),
        name="hsm",
        kind="holder",
        settings=dict(token.settings),
        credentials=f"env:{PIN}",
    )
    try:
        yield store
    finally:
        os.environ.pop(PIN, None)
        opening.forget()
        Holder.stops.clear()
        registry.forget(store.id)
        registry.KINDS.pop("holder", None)  # type: ignore[attr-defined]


def restarted() -> None:
    """Forget what a process that starts does not know: root keys, backends, loaded keys."""
    opening.forget()
    for store in [*KeyStore.objects.values_list("id", flat=True), WRAPPING_KEYS, COMPONENTS]:
        registry.forget(store)
    snapshot.cache.forget()


def agreed(house: House, change: Any, **arguments: Any) -> Any:
    """Have the operator ask for a change, the officers agree, and the operator's call carried out."""
    from keys.services import operator

    asked = house.pending(change, operator(), "", **arguments)
    house.approve(str(asked.id), execute=False)
    return change(replace(operator(), approval_id=asked.id), "", **asked.parameters)
