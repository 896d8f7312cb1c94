"""What is in a key store already: list it, and adopt keys as they are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from audit.events import Outcome
from keys import gate, lifecycle, names, parameters, queue, root_keys, stores, targets
from keys.actions import Action
from keys.administration.following import as_compromised, known_as_compromised, new_version
from keys.administration.intents import watch_end
from keys.administration.keys import (
    alias_from,
    allowed_algorithm,
    allowed_spec,
    allowed_store,
    own_period,
)
from keys.backends import registry
from keys.backends.base import Capabilities
from keys.backends.views import KeyView
from keys.drift import beliefs, noting
from keys.drift.plain import to_plain
from keys.errors import AlreadyExists, NotFound, StateForbids, Unsupported
from keys.gate.changes import Change
from keys.models import Classification, Key, KeyStore, KeyVersion, Listing, StoreView
from keys.models.discovery import ListingState
from keys.models.key import ManagementModel, Origin
from keys.states import GONE, Condition, KeyState

# An adopted key is never rotated sooner: who uses it past the console needs time to follow.
QUIET = timedelta(days=7)


@gate.change(Action.DISCOVER_KEYS, on=targets.key_store)
def discover_keys(change: Change[KeyStore], *, reason: str = "") -> Listing:
    """Begin to list what is in a key store; returns the listing, or the one that runs already.

    A worker walks through the store, page by page. Raises Unsupported where the store can't be listed.
    """
    store = KeyStore.objects.select_for_update().get(pk=change.row.pk)
    _check_remote(store)
    if not store.enabled:
        raise StateForbids(f"The key store {store.name} is switched off.")
    running = Listing.objects.filter(key_store=store, state=ListingState.RUNNING).first()
    listing = running or Listing.objects.create(
        key_store=store,
        requested_by_id=change.caller.principal_id,
        created_at=change.now,
        run_after=change.now,
    )
    change.outcome = Outcome.STARTED
    change.facts["listing"] = str(listing.id)
    change.also(lambda: queue.send(queue.LIST_KEYS, [str(listing.id)]))
    return listing


@dataclass(frozen=True, slots=True)
class Found:
    """A key that is to be adopted: as its store shows it, under the classification that allows it."""

    classification: Classification
    store: KeyStore
    view: KeyView
    algorithm: str


def _inspect(change: Change[Any], arguments: dict[str, Any]) -> None:
    """Look at the key, before any transaction is open, and refuse what can't be adopted."""
    row: Classification = change.row
    store = allowed_store(row, arguments["key_store"])
    _check_remote(store)
    reference = arguments["reference"]
    if not isinstance(reference, str) or not reference or len(reference) > 500:
        raise NotFound("There is no such key in the key store.")
    backend = stores.backend(stores.facts(store))
    view = backend.inspect(reference)
    if view is None:
        raise NotFound(f"There is no such key in {store.title}.")
    algorithm = _adoptable(row, store, view, backend.capabilities())
    change.target = replace(change.target, row=Found(row, store, view, algorithm))


@gate.change(Action.ADOPT_KEY, on=targets.classification, prepare=_inspect)
def adopt_key(
    change: Change[Any],
    *,
    key_store: str,
    reference: str,
    name: str = "",
    alias: str = "",
    description: str = "",
    owner: str = "",
    labels: dict[str, str] | None = None,
    rotation_days: int | None = None,
    reason: str = "",
) -> Key:
    """Take over a key that is in a key store already, by its `reference` there; returns it.

    Nothing is changed at the store: states, versions, tags and the store's own rotation are taken as
    they are, and later differences are shown; only a version that the console knows as compromised
    is compromised still, whatever the store says. It is rotated when its classification asks for it,
    but never sooner than 7 days from now (`rotate_at` says when); usage periods that are over, or
    nearly, end 30 days from now.

    Raises NotFound, AlreadyExists, Invalid and Unsupported (saying why it can't be adopted),
    StateForbids, and what the store fails with.
    """
    found: Found = change.row
    store = found.store
    _check_new(store, found.view)
    shown = names.display_name(name or found.view.name[:128] or "Adopted key")
    chosen = names.slug(alias or alias_from(shown))
    if Key.objects.filter(alias=chosen).exists():
        raise AlreadyExists(f"There is a key {chosen} already.", field="alias")
    key = Key.objects.create(
        name=shown,
        alias=chosen,
        description=names.prose(description, "description"),
        labels=parameters.text_pairs({} if labels is None else labels, "labels"),
        owner=names.prose(owner, "owner", 128),
        classification=found.classification,
        key_store=store,
        spec=found.view.spec,
        usage=found.view.usage,
        algorithm=found.algorithm,
        origin=Origin.IMPORTED if found.view.imported else Origin.GENERATED,
        model=_model(found.view),
        state=found.view.state,
        adopted=True,
        rotation_days=own_period(rotation_days, found.classification),
        created_at=change.now,
        created_by_id=change.caller.principal_id,
    )
    versions = _add_versions(change, key, found.view)
    _set_rotation(change, key)
    StoreView.objects.create(
        key=key,
        seen=to_plain(found.view),
        seen_at=change.now,
        rotation_days=found.view.rotation_days,
        tags=to_plain(found.view)["tags"],
        look_at=noting.next_look(change.now),
    )
    change.about = targets.key_subject(key)
    change.facts |= {
        "classification": found.classification.name,
        "key_store": store.name,
        "reference": found.view.reference,
        "spec": key.spec,
        "usage": key.usage,
        "model": key.model,
        "versions": versions,
    }
    change.touch("key", key.id)
    return key


# --- what can be adopted


def _check_remote(store: KeyStore) -> None:
    if not registry.KINDS[store.kind].remote:
        raise Unsupported(
            f"{store.title} holds only what the console made in it: there is nothing to list or adopt."
        )


def _adoptable(
    row: Classification, store: KeyStore, view: KeyView, capabilities: Capabilities
) -> str:
    """Return the algorithm that a key is used with. Raises what says why it can't be adopted."""
    if view.problem:
        raise Unsupported(f"It can't be adopted: {view.problem}", field="reference")
    spec = allowed_spec(row, view.spec)
    if view.usage not in spec.usages:
        raise Unsupported(f"The console has no {spec.label} keys for {view.usage}.")
    if view.state not in (KeyState.ENABLED, KeyState.DISABLED):
        raise StateForbids(
            f"The key is {view.state.label.lower()} at its store. Only one that is enabled or disabled "
            "there can be adopted."
        )
    if all(version.state in GONE for version in view.versions):
        raise Unsupported("It can't be adopted: it has no version with material.")
    return allowed_algorithm(store, spec, view.usage, view.algorithm, capabilities)


def _check_new(store: KeyStore, view: KeyView) -> None:
    """Raise AlreadyExists where a key of the console has one of these versions in this place.

    A place may have several key stores (stores.same_place): one more is no way round the policy
    under which the console has a key already.
    """
    places = [place.pk for place in stores.places_like(store)]
    # Of two who adopt the same key, the second sees what the first did.
    list(KeyStore.objects.select_for_update().filter(pk__in=places).order_by("pk"))
    handles = [version.handle for version in view.versions]
    held = root_keys.holders()
    if any((place, handle) in held for place in places for handle in handles):
        raise Unsupported(
            "It holds the console's root key; it is looked after by `root_key`.", field="reference"
        )
    ours = KeyVersion.objects.filter(handle__in=handles, key__key_store__in=places)
    for version in ours.exclude(key__state=KeyState.DESTROYED).select_related("key"):
        if beliefs.standing(version.key).filter(pk=version.pk).exists():
            raise AlreadyExists(
                f"The console has this key already: {version.key.alias}.", field="reference"
            )


def _model(view: KeyView) -> str:
    if view.provider_managed:
        return ManagementModel.PROVIDER_MANAGED
    return ManagementModel.CUSTOMER_PROVIDED if view.imported else ManagementModel.CUSTOMER_MANAGED


def _add_versions(change: Change[Any], key: Key, view: KeyView) -> int:
    """Add the versions that have material; one that the store is to destroy is watched until it is gone."""
    living = [version for version in view.versions if version.state not in GONE]
    for number, version in enumerate(living, 1):
        if known_as_compromised(key.key_store, version):
            version = as_compromised(version)
        row = new_version(key, version, number, change.now, change.caller.principal_id)
        row.save(force_insert=True)
        if row.condition == Condition.PENDING_DESTRUCTION:
            watch_end(change, key, row.destroy_at or change.now, version=row)
    return len(living)


def _set_rotation(change: Change[Any], key: Key) -> None:
    """Write when the key is due by its policy, and not before who uses it can know."""
    if key.model == ManagementModel.PROVIDER_MANAGED:
        return
    serving = key.versions.filter(primary=True).first()
    due = (lifecycle.rotation_date(key, serving) if serving else None) or change.now
    key.rotate_at = max(due, change.now + QUIET)
    key.save(update_fields=["rotate_at"])
