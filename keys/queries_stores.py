"""Reads about what key stores say: what was found in them, and where they differ from the console."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from django.db.models import Q, QuerySet

from audit.events import Subject
from keys import gate, names, queries, targets
from keys.actions import Action
from keys.callers import Caller
from keys.errors import Invalid, NotFound
from keys.gate.reads import not_found
from keys.models import Drift, FoundKey, Key, KeyStore, KeyVersion, Listing, StoreView
from keys.models.drift import DriftField, DriftState
from keys.parameters import one_of
from keys.queries import PAGE, Page
from keys.states import KeyState

# How many found keys are read at a time while those that a filter wants are looked for.
STRIDE = 500


def list_listings(caller: Caller, key_store: KeyStore | str, limit: int = 20) -> list[Listing]:
    """Return a key store's listings, newest first; the store as a row, or by id or name."""
    row = _store(caller, key_store)
    found = Listing.objects.filter(key_store=row).select_related("key_store", "requested_by")
    return list(found.order_by("-created_at")[:limit])


def find_listing(caller: Caller, reference: str) -> Listing:
    """Return one listing by id. Raises NotFound."""
    return _find(caller, Action.READ_KEY_STORES, "listing", reference)  # type: ignore[no-any-return]


def found_keys(
    caller: Caller,
    listing: Listing | str,
    *,
    text: str = "",
    only: str = "",
    limit: int = PAGE,
    cursor: str = "",
) -> Page:
    """Return what a listing found, by name: pairs (FoundKey, the console's Key or None).

    `text` looks in name and reference. `only`: "new" (can be adopted), "ours", "problem" (can't be).
    Which are the console's is as of now. `cursor` is a page's `next`; raises Invalid for another.
    """
    row = listing if isinstance(listing, Listing) else find_listing(caller, listing)
    gate.read(caller, Action.READ_KEY_STORES, Subject("listing", str(row.id), row.key_store.name))
    if only:
        one_of(only, "only", ("new", "ours", "problem"))
    rows = FoundKey.objects.filter(listing=row).order_by("name", "reference")
    for word in names.storable(text).split()[:8]:
        rows = rows.filter(Q(name__icontains=word) | Q(reference__icontains=word))
    found: list[tuple[FoundKey, Key | None]] = []
    last = _last_found(row, cursor)
    while len(found) <= limit:
        stride = list(_after(rows, last)[:STRIDE])
        ours = _ours(row.key_store_id, stride)
        found += [(key, ours.get(key.pk)) for key in stride if _wanted(key, ours.get(key.pk), only)]
        if len(stride) < STRIDE:
            break
        last = stride[-1]
    return Page(found[:limit], str(found[limit - 1][0].pk) if len(found) > limit else "")


def drifts(
    caller: Caller,
    *,
    state: str = DriftState.OPEN.value,
    key: Key | str = "",
    key_store: KeyStore | str = "",
    field: str = "",
    limit: int = PAGE,
    cursor: str = "",
) -> Page:
    """Return differences, the newest first. `state` "" means any; `cursor` is a page's `next`.

    A key or key store is given as a row, or by id or name; one that isn't there has none.
    """
    gate.read(caller, Action.READ_DRIFT)
    rows = Drift.objects.select_related(
        "key", "key__key_store", "key__classification", "decided_by"
    )
    if state:
        rows = rows.filter(state=one_of(state, "state", DriftState.values))
    if field:
        rows = rows.filter(field=one_of(field, "field", DriftField.values))
    if key:
        rows = rows.filter(_named(key, "key", "alias"))
    if key_store:
        rows = rows.filter(_named(key_store, "key__key_store", "name"))
    if cursor:
        wanted = names.as_uuid(cursor)
        last = Drift.objects.filter(pk=wanted).first() if wanted else None
        if last is None:
            raise Invalid("There is no such page; begin with the first.", field="cursor")
        earlier = Q(found_at=last.found_at, pk__gt=last.pk) | Q(found_at__lt=last.found_at)
        rows = rows.filter(earlier)
    found = list(rows.order_by("-found_at", "pk")[: limit + 1])
    return Page(found[:limit], str(found[limit - 1].pk) if len(found) > limit else "")


def find_drift(caller: Caller, reference: str) -> Drift:
    """Return one difference by id. Raises NotFound."""
    return _find(caller, Action.READ_DRIFT, "drift", reference)  # type: ignore[no-any-return]


def drift_count(caller: Caller) -> int:
    """Return how many differences wait for a decision."""
    gate.read(caller, Action.READ_DRIFT)
    return Drift.objects.filter(state=DriftState.OPEN).count()


def store_view(caller: Caller, key: Key | str) -> StoreView | None:
    """Return what a key's store last said of it; None where the store keeps no states of its own."""
    row = key if isinstance(key, Key) else queries.find_key(caller, key)
    gate.read(caller, Action.READ_KEYS, key=row)
    return StoreView.objects.filter(key=row).first()


def seen_budget(key: Key) -> tuple[int, int] | None:
    """Return how many of a store's own rotations a key has used, and how many it has; None: no limit."""
    row = StoreView.objects.filter(key=key).first()
    facts = (row.seen.get("facts") or {}) if row else {}
    try:
        return int(facts["rotations_used"]), int(facts["rotations_limit"])
    except (KeyError, TypeError, ValueError):
        return None


# --- the parts


def _find(caller: Caller, action: Action, kind: str, reference: str) -> Any:
    try:
        target = getattr(targets, kind)(reference, {})
    except NotFound as error:
        raise not_found(caller, action, kind, reference, error) from None
    gate.read(caller, action, target.subject())
    return target.row


def _store(caller: Caller, key_store: KeyStore | str) -> KeyStore:
    if not isinstance(key_store, KeyStore):
        return queries.find_key_store(caller, key_store)
    gate.read(
        caller, Action.READ_KEY_STORES, Subject("key_store", str(key_store.id), key_store.name)
    )
    return key_store


def _named(row: Any, path: str, column: str) -> Q:
    """Return the filter for a row, or for what is named by id or name."""
    if not isinstance(row, str):
        return Q(**{path: row})
    wanted = names.as_uuid(row)
    return Q(**{f"{path}_id" if wanted else f"{path}__{column}": wanted or names.folded(row)})


def _last_found(listing: Listing, cursor: str) -> FoundKey | None:
    if not cursor:
        return None
    number = int(cursor) if cursor.isascii() and cursor.isdigit() and len(cursor) < 19 else 0
    last = FoundKey.objects.filter(listing=listing, pk=number).first()
    if last is None:
        raise Invalid("There is no such page; begin with the first.", field="cursor")
    return last


def _after(rows: QuerySet[FoundKey], last: FoundKey | None) -> QuerySet[FoundKey]:
    if last is None:
        return rows
    same = Q(name=last.name, reference__gt=last.reference)
    return rows.filter(Q(name__gt=last.name) | same)


def _ours(store_id: uuid.UUID, found: Sequence[FoundKey]) -> dict[int, Key]:
    """Return the console's key for those of the found that it has: a version's handle tells."""
    holder = {
        version["handle"]: key.pk for key in found for version in key.view.get("versions", [])
    }
    rows = KeyVersion.objects.filter(handle__in=holder, key__key_store_id=store_id)
    rows = rows.exclude(key__state=KeyState.DESTROYED).select_related("key")
    return {holder[version.handle]: version.key for version in rows}


def _wanted(found: FoundKey, ours: Key | None, only: str) -> bool:
    problem = bool(found.view.get("problem"))
    return {
        "": True,
        "new": ours is None and not problem,
        "ours": ours is not None,
        "problem": ours is None and problem,
    }[only]
