"""A key's life: create, describe, disable, destroy. Rotation and import have rooms of their own."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from keys import gate, jobs, lifecycle, names, parameters, stores, targets
from keys.actions import Action
from keys.administration.intents import add_job, bring_in_line, check_ours, intend, settled
from keys.algorithms import ALGORITHMS, SPECS, KeySpec
from keys.backends import registry
from keys.backends.base import Capabilities, Protection
from keys.errors import AlreadyExists, Invalid, StateForbids, Unsupported
from keys.gate.changes import Change
from keys.models import Classification, Key, KeyStore
from keys.models.job import JobKind
from keys.models.key import ManagementModel, Origin
from keys.states import KeyState


def _choose_algorithm(change: Change[Classification], arguments: dict[str, Any]) -> None:
    """Ask the store, before any transaction is open, what it can do for such a key."""
    spec = allowed_spec(change.row, arguments["spec"])
    store = allowed_store(change.row, arguments["key_store"])
    imported = _imported(arguments["origin"])
    usage = parameters.one_of(arguments["usage"] or spec.usages[0], "usage", spec.usages)
    capabilities = stores.backend(stores.facts(store)).capabilities()
    if imported and spec.name not in capabilities.imports:
        raise _cant(store, spec, capabilities.imports)
    if arguments["exportable"] and spec.name not in capabilities.exports:
        raise Unsupported(f"Nothing leaves {store.title}.", field="exportable")
    wanted = arguments["algorithm"]
    arguments["algorithm"] = allowed_algorithm(store, spec, usage, wanted, capabilities)
    arguments["usage"] = usage


@gate.change(Action.CREATE_KEY, on=targets.classification, prepare=_choose_algorithm)
def create_key(
    change: Change[Classification],
    *,
    name: str,
    spec: str,
    usage: str = "",
    algorithm: str = "",
    alias: str = "",
    key_store: str = "",
    description: str = "",
    labels: dict[str, str] | None = None,
    owner: str = "",
    rotation_days: int | None = None,
    publish_days: int | None = None,
    origin: str = Origin.GENERATED.value,
    exportable: bool = False,
    reason: str = "",
) -> Key:
    """Create a key in a classification; returns it with its first version, or waiting for its import.

    `usage`: the key's one purpose, the spec's first where left out; `algorithm`: the store's default
    for both. `publish_days`: how long before a rotation the next version's public key is published.
    `exportable`: whether its material may ever leave, by votes; it can't be changed later. Where
    the store can't be reached any more, the key is there and its job is tried again until it can.
    Raises Invalid, Unsupported, AlreadyExists or BackendUnavailable.
    """
    row, store = allowed_spec(change.row, spec), allowed_store(change.row, key_store)
    shown = names.display_name(name)
    chosen = names.slug(alias or alias_from(shown))
    if Key.objects.filter(alias=chosen).exists():
        raise AlreadyExists(f"There is a key {chosen} already.", field="alias")
    imported = _imported(origin)
    key = Key.objects.create(
        name=shown,
        alias=chosen,
        description=names.prose(description, "description"),
        labels=parameters.text_pairs({} if labels is None else labels, "labels"),
        owner=names.prose(owner, "owner", 128),
        classification=change.row,
        key_store=store,
        spec=row.name,
        usage=usage,
        algorithm=algorithm,
        origin=origin,
        exportable=_may_leave(exportable, change.row),
        publish_days=_published(publish_days, row, rotation_days, change.row),
        model=_model(store, imported),
        state=KeyState.PENDING_IMPORT if imported else KeyState.ENABLED,
        rotation_days=own_period(rotation_days, change.row),
        created_at=change.now,
        created_by_id=change.caller.principal_id,
    )
    change.about = targets.key_subject(key)
    change.facts |= {
        "classification": change.row.name,
        "spec": key.spec,
        "key_store": store.name,
        "origin": origin,
        "usage": usage,
        "exportable": exportable,
    }
    change.touch("key", key.id)
    if not imported:
        job = intend(change, key, JobKind.CREATE)
        change.after(lambda: settled(key, jobs.run(job.id)))
    return key


@gate.change(Action.UPDATE_KEY, on=targets.key)
def update_key(
    change: Change[Key],
    *,
    name: str | None = None,
    description: str | None = None,
    labels: dict[str, str] | None = None,
    owner: str | None = None,
    reason: str = "",
) -> Key:
    """Change what people read about a key; what is left out stays."""
    key = change.row
    if name is not None:
        key.name = names.display_name(name)
    if description is not None:
        key.description = names.prose(description, "description")
    if labels is not None:
        key.labels = parameters.text_pairs(labels, "labels")
    if owner is not None:
        key.owner = names.prose(owner, "owner", 128)
    key.save(update_fields=["name", "description", "labels", "owner"])
    change.touch("key", key.id)
    return key


@gate.change(Action.DISABLE_KEY, on=targets.key)
def disable_key(change: Change[Key], *, reason: str = "") -> Key:
    """Stop every use of a key at once. Its versions keep their states."""
    lifecycle.move_key(change.row, KeyState.DISABLED)
    change.touch("key", change.row.id)
    bring_in_line(change, change.row)
    return change.row


@gate.change(Action.ENABLE_KEY, on=targets.key)
def enable_key(change: Change[Key], *, reason: str = "") -> Key:
    """Let a disabled key be used again."""
    if change.row.state == KeyState.PENDING_IMPORT:
        raise StateForbids("The key waits for its material; import it.")
    lifecycle.move_key(change.row, KeyState.ENABLED)
    change.touch("key", change.row.id)
    bring_in_line(change, change.row)
    return change.row


@gate.change(Action.SCHEDULE_DESTRUCTION, on=targets.key)
def schedule_destruction(change: Change[Key], *, days: int | None = None, reason: str = "") -> Key:
    """Stop a key and destroy it when its window is over; until then it can be cancelled.

    `days` is the window, at least the classification's.
    """
    key, least = change.row, change.row.classification.destruction_days
    check_ours(key)
    window = least if days is None else parameters.whole(days, "days", least, 120)
    at = change.now + timedelta(days=window)
    lifecycle.move_key(key, KeyState.PENDING_DESTRUCTION, destroy_at=at)
    # A version under way stays with its job, which finds the key gone and takes back what it made.
    add_job(change, key, JobKind.DESTROY, run_after=at)
    change.facts["destroy_at"] = at.isoformat()
    change.touch("key", key.id)
    bring_in_line(change, key)
    return key


@gate.change(Action.CANCEL_DESTRUCTION, on=targets.key)
def cancel_destruction(change: Change[Key], *, reason: str = "") -> Key:
    """Take a scheduled destruction back, as long as it is not being carried out. The key returns disabled.

    One that never got its material waits for its import again.
    """
    key = change.row
    check_ours(key)
    if key.state != KeyState.PENDING_DESTRUCTION:
        raise StateForbids("The key is not waiting for destruction.")
    jobs.cancel(key, JobKind.DESTROY, 0, change.now)
    waits = (
        key.origin == Origin.IMPORTED
        and not key.versions.exclude(check_value="", handle="").exists()
    )
    lifecycle.move_key(key, KeyState.PENDING_IMPORT if waits else KeyState.DISABLED)
    change.touch("key", key.id)
    bring_in_line(change, key)
    return key


# --- the parts


def allowed_spec(classification: Classification, spec: Any) -> KeySpec:
    """Return a spec that the classification allows. Raises Invalid, naming those that it does."""
    parameters.one_of(spec, "spec", SPECS)
    if spec not in classification.allowed_specs:
        allowed = ", ".join(sorted(classification.allowed_specs))
        raise Invalid(f"{classification.title} allows these specs: {allowed}.", field="spec")
    return SPECS[spec]


def allowed_algorithm(
    store: KeyStore, spec: KeySpec, usage: str, wanted: Any, capabilities: Capabilities
) -> str:
    """Return `wanted`, or the store's default for the spec and purpose. Raises Unsupported, Invalid."""
    every = capabilities.algorithms.get(spec.name, ())
    if not every:
        raise _cant(store, spec, capabilities.algorithms)
    offered = spec.algorithms_for(usage, every)
    if not offered:
        purposes = sorted({one for name in every for one in ALGORITHMS[name].usages})
        raise Unsupported(
            f"{store.title} has {spec.label} keys only for: {', '.join(purposes)}.", field="usage"
        )
    modern = [name for name in offered if not ALGORITHMS[name].legacy]
    if not wanted and not modern:
        raise Invalid(
            f"{store.title} has only {', '.join(offered)} for this, which is for old peers: name it.",
            field="algorithm",
        )
    return parameters.one_of(wanted or modern[0], "algorithm", offered)


def _cant(store: KeyStore, spec: KeySpec, able: Iterable[str]) -> Unsupported:
    can = ", ".join(sorted(able))
    return Unsupported(f"{store.title} can't do {spec.label} here. It can do: {can}.", field="spec")


def allowed_store(classification: Classification, key_store: Any) -> KeyStore:
    """Return a key store that the classification allows. Raises Invalid, naming those that it does."""
    stores = list(classification.key_stores.all())
    if not isinstance(key_store, str):
        raise Invalid("key_store must be text.", field="key_store")
    wanted = names.folded(key_store)
    store = next(
        (s for s in stores if wanted in (s.name, str(s.id)) or (not wanted and len(stores) == 1)),
        None,
    )
    if store is None:
        allowed = ", ".join(sorted(s.name for s in stores)) or "none yet"
        raise Invalid(
            f"{classification.title} allows these key stores: {allowed}. Name one.",
            field="key_store",
        )
    if Protection(store.protection).rank < Protection(classification.minimum_protection).rank:
        raise Invalid(
            f"{store.title} protects less than {classification.title} asks for.", field="key_store"
        )
    return store


def _imported(origin: Any) -> bool:
    return parameters.one_of(origin, "origin", Origin.values) == Origin.IMPORTED


def alias_from(name: str) -> str:
    return "-".join(
        "".join(c if c.isascii() and c.isalnum() else " " for c in name.lower()).split()
    )


def own_period(days: Any, classification: Classification) -> int | None:
    """A key may rotate more often than its classification asks, never less."""
    return parameters.whole_or_none(days, "rotation_days", 1, classification.rotation_days)


def _may_leave(exportable: Any, classification: Classification) -> bool:
    wanted = parameters.yes_or_no(exportable, "exportable")
    if wanted and not classification.allows_export:
        raise Invalid(f"{classification.title} allows no exportable keys.", field="exportable")
    return wanted


def _published(
    days: Any, spec: KeySpec, rotation_days: Any, classification: Classification
) -> int | None:
    """Publishing ahead needs a public key, and must be shorter than the key's own period."""
    if days is None:
        return None
    if not spec.asymmetric:
        raise Invalid(f"{spec.label} keys have nothing to publish.", field="publish_days")
    period = own_period(rotation_days, classification) or classification.rotation_days
    return parameters.whole(days, "publish_days", 1, max(1, period - 1))


def _model(store: KeyStore, imported: bool) -> str:
    if imported:
        return ManagementModel.CUSTOMER_PROVIDED
    own_hsm = store.protection == Protection.HSM and not registry.KINDS[store.kind].remote
    return ManagementModel.HSM_BACKED if own_hsm else ManagementModel.CUSTOMER_MANAGED
