"""From what key stores say of their keys to what the API shows of it (shapes)."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Annotated, Any

from keys import models, queries_stores
from keys.backends import registry
from keys.backends.views import KeyView
from keys.callers import Caller
from keys.drift.plain import from_plain
from keys.root_keys import Overview
from keys.root_keys.overview import BY_FILE
from keys.root_keys.rows import RootState
from kms_console.api.rest import shapes
from kms_console.api.rest.shapes import Name
from kms_console.api.rest.shown import utc

RootKeyState = Annotated[str, shapes.one_of([state.value for state in RootState], "RootKeyState")]


class RootKey(shapes.Shape):
    """One root key. `key_store` is its holder's name, null where only a file or a variable has it.

    `materials` are sealed under it. `at_store`: the key that holds it is still there, where the store
    keeps what is destroyed for a while, until `until`.
    """

    id: str
    state: RootKeyState
    key_store: str | None
    algorithm: str
    materials: int
    created_at: shapes.Moment
    at_store: bool
    until: shapes.Moment


class RootKeys(shapes.Shape):
    """How root keys stand; `current` is the one that seals, null where there is none to be read.

    `trouble` says why the process that answers can't open it now, and is empty where it can.
    """

    current: str | None
    held_by_store: bool
    under_way: bool
    file_needed: bool
    file_to_remove: bool
    trouble: str
    root_keys: list[RootKey]


def root_keys(seen: Overview, trouble: str) -> RootKeys:
    return RootKeys(
        current=seen.current.id if seen.current else None,
        held_by_store=seen.held_by_store,
        under_way=seen.under_way,
        file_needed=seen.file_needed,
        file_to_remove=seen.file_to_remove,
        trouble=trouble,
        root_keys=[
            RootKey(
                id=root.id,
                state=root.state,
                key_store=None if root.held_by == BY_FILE else root.held_by,
                algorithm=root.algorithm,
                materials=root.materials,
                created_at=utc(root.created_at),
                at_store=root.at_store,
                until=utc(root.until),
            )
            for root in seen.roots
        ],
    )


def listing(row: models.Listing, caller: Caller) -> shapes.Listing:
    return shapes.Listing(
        id=row.id,
        key_store=_store(row.key_store),
        state=row.state,
        pages=row.pages,
        found=row.found,
        total=row.total,
        error=row.error,
        requested_by=Name(id=row.requested_by.id, name=row.requested_by.name),
        created_at=utc(row.created_at),  # type: ignore[arg-type]
        run_after=utc(row.run_after),  # type: ignore[arg-type]
        finished_at=utc(row.finished_at),
    )


def found_key(row: tuple[models.FoundKey, models.Key | None], caller: Caller) -> shapes.FoundKey:
    found, key = row
    own = _key(key) if key is not None else None
    return shapes.FoundKey(**_told(from_plain(found.view), {}), key=own)


def store_view(
    key: models.Key, row: models.StoreView | None, open_differences: int
) -> shapes.StoreView:
    budget = queries_stores.seen_budget(key)
    seen = None
    if row is not None and row.seen:
        numbers = {version.handle: version.number for version in key.versions.all()}
        seen = shapes.StoreKey(**_told(from_plain(row.seen), numbers))
    return shapes.StoreView(
        key=_key(key),
        compared=registry.KINDS[key.key_store.kind].remote,
        seen=seen,
        seen_at=utc(row.seen_at) if row else None,
        trouble=row.trouble if row else "",
        look_at=utc(row.look_at) if row else None,
        rotation_days=row.rotation_days if row else None,
        tags=row.tags if row else None,
        rotations=shapes.RotationBudget(used=budget[0], limit=budget[1]) if budget else None,
        open_differences=open_differences,
    )


def drift(row: models.Drift, caller: Caller) -> shapes.Drift:
    decided = row.decided_by
    return shapes.Drift(
        id=row.id,
        key=_key(row.key),
        key_store=_store(row.key.key_store),
        field=row.field,
        version=row.number or None,
        handle=row.handle,
        believed=row.believed,
        observed=row.observed,
        state=row.state,
        found_at=utc(row.found_at),  # type: ignore[arg-type]
        seen_at=utc(row.seen_at),  # type: ignore[arg-type]
        decided_at=utc(row.decided_at),
        decided_by=Name(id=decided.id, name=decided.name) if decided else None,
        reason=row.reason,
    )


def _told(view: KeyView, numbers: Mapping[str, int]) -> dict[str, Any]:
    """Return the members of a StoreKey; `numbers` are the console's, by the versions' handles."""
    return {
        "reference": view.reference,
        "name": view.name,
        "state": view.state,
        "spec": view.spec,
        "usage": view.usage,
        "algorithm": view.algorithm,
        "imported": view.imported,
        "provider_managed": view.provider_managed,
        "rotation_days": view.rotation_days,
        "destroy_at": utc(view.destroy_at),
        "tags": dict(view.tags),
        "facts": dict(view.facts),
        "problem": view.problem,
        "versions": [
            shapes.StoreVersion(
                number=numbers.get(version.handle),
                handle=version.handle,
                state=version.state,
                primary=version.primary,
                created_at=utc(version.created_at),
                destroy_at=utc(version.destroy_at),
            )
            for version in view.versions
        ],
    }


def _key(row: models.Key) -> Name:
    return Name(id=row.id, name=row.alias)


def _store(row: models.KeyStore) -> Name:
    identity: uuid.UUID = row.id
    return Name(id=identity, name=row.name)
