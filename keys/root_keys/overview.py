"""What there is to be seen of root keys: who holds each, and how much is sealed under it."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime

from django.db import DatabaseError
from django.db.models import Count

from keys import gate
from keys.actions import Action
from keys.backends.software.models import RootKey, WrappedMaterial
from keys.callers import Caller
from keys.errors import BackendUnavailable
from keys.models import KeyStore
from keys.root_keys import log, rows, succession
from keys.root_keys.rows import RootState

BY_FILE = "file or variable"


@dataclass(frozen=True, slots=True)
class Root:
    """One root key. `held_by`: a key store's name, or "file or variable"; `materials`: sealed under it.

    `state`: making, current, retiring, retired. `at_store`: whether the key that holds it
    is still at its store; it is destroyed at `until` where the store has a window of its own.
    """

    id: str
    state: str
    held_by: str
    algorithm: str
    materials: int
    created_at: datetime | None
    until: datetime | None = None
    at_store: bool = False


@dataclass(frozen=True, slots=True)
class Overview:
    """Every root key that there is or that something is sealed under, the one that seals first.

    `filed`: id of the root key in this host's file or variable, "" where there is none to be read.
    """

    roots: tuple[Root, ...]
    filed: str

    @property
    def current(self) -> Root | None:
        return next((root for root in self.roots if root.state == RootState.CURRENT), None)

    @property
    def held_by_store(self) -> bool:
        return self.current is not None and self.current.held_by != BY_FILE

    @property
    def under_way(self) -> bool:
        """Whether a root key is being made, or material is still to be sealed anew."""
        own = self.current.id if self.current else ""
        waiting = any(root.state == RootState.MAKING for root in self.roots)
        return waiting or any(root.materials for root in self.roots if root.id != own)

    @property
    def file_needed(self) -> bool:
        """Whether the file or the variable is still needed: it seals, or something is under it alone."""
        if not self.held_by_store:
            return True
        return any(root.held_by == BY_FILE and root.materials for root in self.roots)

    @property
    def file_to_remove(self) -> bool:
        """Whether a root key still lies in a file or a variable that nothing needs any more."""
        return bool(self.filed) and not self.file_needed


def overview(caller: Caller) -> Overview:
    """Return how root keys stand, for whoever may see key stores. Raises Denied, Unavailable."""
    gate.read(caller, Action.READ_KEY_STORES)
    return standing()


def standing() -> Overview:
    """Return the same for the house's own parts. Asks no key store."""
    try:
        counted = WrappedMaterial.objects.order_by("root_id").values_list("root_id")
        counts = dict(counted.annotate(count=Count("label")))
        written = list(RootKey.objects.order_by("created_at"))
    except DatabaseError:
        raise BackendUnavailable("The material database can't be reached.") from None
    names = {store.id: store.name for store in KeyStore.objects.all()}
    filed = succession.file_root()
    # Where a store ever held one, the file's seals nothing any more, whatever the rows say.
    otherwise = "" if log.newest() else filed
    current = next((row.id for row in written if row.state == RootState.CURRENT), otherwise)
    roots = [_root(row, counts.pop(row.id, 0), names) for row in written]
    if filed and filed not in {root.id for root in roots}:
        state = RootState.CURRENT if filed == current else RootState.RETIRED
        roots.append(Root(filed, state, BY_FILE, "", counts.pop(filed, 0), None))
    for root_id, count in counts.items():  # nobody here can open these
        roots.append(Root(root_id, RootState.RETIRING, BY_FILE, "", count, None))
    roots.sort(key=lambda root: root.id != current)
    return Overview(tuple(roots), filed)


def _root(row: RootKey, materials: int, names: dict[uuid.UUID, str]) -> Root:
    filed = row.store_id == rows.NOWHERE
    ended = row.state == RootState.RETIRED
    return Root(
        id=row.id,
        state=row.state,
        held_by=BY_FILE if filed else names.get(row.store_id, str(row.store_id)),
        algorithm=row.algorithm,
        materials=materials,
        created_at=row.created_at,
        until=row.retired_at if ended else None,
        at_store=bool(row.handle) and not filed,
    )
