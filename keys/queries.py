"""Reads: find one, list what a caller may see, count for an overview. Lists page by key, never by OFFSET."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Count, F, Prefetch, Q, QuerySet

from keys import approvals, clock, due, gate, names, stores, targets
from keys.actions import Action
from keys.backends import registry
from keys.callers import Caller, Kind
from keys.errors import Invalid, KeyServiceError, NotFound, Unavailable
from keys.gate.reads import not_found
from keys.models import (
    Approval,
    Classification,
    Credential,
    Grant,
    Heartbeat,
    Installation,
    Job,
    Key,
    KeyStore,
    KeyVersion,
    Principal,
)
from keys.models.job import OPEN_STATES
from keys.policy import Standing
from keys.states import KeyState, VersionState

PAGE = 50


@dataclass(frozen=True, slots=True)
class KeyFilters:
    """What narrows a list of keys; empty means any. `text` looks in name, alias, description and owner."""

    text: str = ""
    classification: str = ""
    key_store: str = ""
    state: str = ""
    spec: str = ""
    usage: str = ""
    origin: str = ""
    condition: str = ""  # overdue, paused, compromised, pending_destruction, low_budget


@dataclass(frozen=True, slots=True)
class Page:
    """One page of rows and the mark with which the next one begins, empty on the last."""

    rows: list[Any]
    next: str = ""


def list_keys(
    caller: Caller, filters: KeyFilters | None = None, *, after: str = "", limit: int = PAGE
) -> Page:
    """Return the keys that the caller may see, by alias, beginning after the alias `after`."""
    standing = gate.read(caller, Action.READ_KEYS)
    keys = visible_keys(standing).select_related("classification", "key_store")
    keys = _narrowed(keys, filters or KeyFilters())
    if after:
        keys = keys.filter(alias__gt=names.storable(after))
    rows = list(keys.prefetch_related(_versions()).order_by("alias")[: limit + 1])
    return Page(rows[:limit], rows[limit - 1].alias if len(rows) > limit else "")


def find_key(caller: Caller, reference: str) -> Key:
    """Return one key with its versions. Raises NotFound where there is none for this caller."""
    try:
        key = targets.key(reference, {}).row
    except NotFound as error:
        raise not_found(caller, Action.READ_KEYS, "key", reference, error) from None
    gate.read(caller, Action.READ_KEYS, key=key)
    return key


def list_versions(caller: Caller, reference: str, *, after: str = "", limit: int = PAGE) -> Page:
    """Return a key's versions, newest first, beginning after the version of the number `after`."""
    rows = find_key(caller, reference).versions.order_by("-number")
    if after:
        rows = rows.filter(number__lt=int(after))
    found = list(rows[: limit + 1])
    return Page(found[:limit], str(found[limit - 1].number) if len(found) > limit else "")


def visible_keys(standing: Standing) -> QuerySet[Key]:
    """Return every key for a role that sees keys, else those that the principal's grants name."""
    if standing.role in Action.READ_KEYS.row.roles:
        return Key.objects.all()
    keys = [grant.key_id for grant in standing.grants if grant.key_id]
    classes = [grant.classification_id for grant in standing.grants if grant.classification_id]
    return Key.objects.filter(Q(pk__in=keys) | Q(classification_id__in=classes))


def _versions() -> Prefetch[str]:
    return Prefetch("versions", queryset=KeyVersion.objects.order_by("-number"))


def _narrowed(keys: QuerySet[Key], f: KeyFilters) -> QuerySet[Key]:
    for word in names.folded(f.text).split()[:8]:
        keys = keys.filter(
            Q(name__icontains=word)
            | Q(alias__icontains=word)
            | Q(description__icontains=word)
            | Q(owner__icontains=word)
        )
    if f.classification:
        keys = keys.filter(classification__name=names.storable(f.classification))
    if f.key_store:
        keys = keys.filter(key_store__name=names.storable(f.key_store))
    for column in ("state", "spec", "usage", "origin"):
        if value := getattr(f, column):
            keys = keys.filter(**{column: names.storable(value)})
    now = clock.now()
    conditions = {
        "overdue": Q(state=KeyState.ENABLED, rotate_at__lte=now),
        "paused": Q(classification__rotation_paused=True),
        "compromised": Q(
            pk__in=KeyVersion.objects.filter(
                state__in=[VersionState.COMPROMISED, VersionState.DESTROYED_COMPROMISED]
            ).values("key")
        ),
        "pending_destruction": Q(state=KeyState.PENDING_DESTRUCTION),
        "low_budget": Q(pk__in=due.low_budgets().values("key")),
    }
    return keys.filter(conditions[f.condition]) if f.condition in conditions else keys


# --- policy, access, stores


def list_classifications(caller: Caller) -> list[Classification]:
    """Return every classification, with its stores and the number of its keys (`key_count`)."""
    gate.read(caller, Action.READ_POLICY)
    return list(
        Classification.objects.prefetch_related("key_stores").annotate(key_count=Count("keys"))
    )


def find_classification(caller: Caller, reference: str) -> Classification:
    return _find(caller, Action.READ_POLICY, "classification", reference)  # type: ignore[no-any-return]


def list_key_stores(caller: Caller) -> list[KeyStore]:
    """Return every key store, with the number of its keys (`key_count`)."""
    gate.read(caller, Action.READ_KEY_STORES)
    return list(KeyStore.objects.annotate(key_count=Count("keys")))


def find_key_store(caller: Caller, reference: str) -> KeyStore:
    return _find(caller, Action.READ_KEY_STORES, "key_store", reference)  # type: ignore[no-any-return]


def list_principals(
    caller: Caller, kind: Kind | None = None, *, after: str = "", limit: int = PAGE
) -> Page:
    """Return applications, people or services by name, beginning after the folded name `after`."""
    gate.read(caller, Action.READ_ACCESS)
    rows = Principal.objects.filter(kind=kind) if kind else Principal.objects.all()
    found = list(
        rows.filter(name_folded__gt=names.storable(after)).order_by("name_folded")[: limit + 1]
    )
    return Page(found[:limit], found[limit - 1].name_folded if len(found) > limit else "")


def find_principal(caller: Caller, reference: str) -> Principal:
    return _find(caller, Action.READ_ACCESS, "principal", reference)  # type: ignore[no-any-return]


def list_grants(
    caller: Caller,
    *,
    key: Key | None = None,
    principal: Principal | None = None,
    after: str = "",
    limit: int = PAGE,
) -> Page:
    """Return grants, newest first; narrowed to those that concern a key or a principal."""
    gate.read(caller, Action.READ_ACCESS)
    rows = Grant.objects.select_related("principal", "key", "classification", "created_by")
    if key is not None:
        rows = rows.filter(Q(key=key) | Q(classification_id=key.classification_id))
    if principal is not None:
        rows = rows.filter(principal=principal)
    return _newest(rows, after, limit)


def find_grant(caller: Caller, reference: str) -> Grant:
    return _find(caller, Action.READ_ACCESS, "grant", reference)  # type: ignore[no-any-return]


def list_credentials(caller: Caller, principal: Principal) -> list[Credential]:
    gate.read(caller, Action.READ_ACCESS, targets.principal_subject(principal))
    return list(principal.credentials.all()[:1000])


# --- approvals and jobs


def list_approvals(
    caller: Caller,
    *,
    state: str = "",
    for_me: bool = False,
    by_me: bool = False,
    key: Key | None = None,
    after: str = "",
    limit: int = PAGE,
) -> Page:
    """Return requests, newest first. `for_me`: those on which the caller can still vote.

    `by_me`: those that the caller asked for.
    """
    gate.read(caller, Action.READ_APPROVALS)
    rows = Approval.objects.select_related("requester", "key").prefetch_related("votes__officer")
    if state:
        rows = rows.filter(state=names.storable(state))
    if key is not None:
        rows = rows.filter(key=key)
    if by_me:
        rows = rows.filter(requester_id=caller.principal_id)
    if for_me:
        rows = rows.filter(approvals.open_for(caller.principal_id))
    return _newest(rows, after, limit)


def find_approval(caller: Caller, reference: str) -> Approval:
    return _find(caller, Action.READ_APPROVALS, "approval", reference)  # type: ignore[no-any-return]


def waiting_for(caller: Caller) -> int:
    """Return how many requests wait for this officer's vote."""
    mine = str(caller.principal_id)
    rows = Approval.objects.filter(approvals.open_for(caller.principal_id)).values_list(
        "officers", flat=True
    )
    return sum(mine in officers for officers in rows[:1000])


def list_jobs(
    caller: Caller, *, state: str = "", key: Key | None = None, after: str = "", limit: int = PAGE
) -> Page:
    """Return jobs, newest first. `state` may be "open" for those that are not finished."""
    gate.read(caller, Action.READ_JOBS)
    rows = Job.objects.select_related("key", "version", "requested_by")
    if state == "open":
        rows = rows.filter(state__in=OPEN_STATES)
    elif state:
        rows = rows.filter(state=names.storable(state))
    if key is not None:
        rows = rows.filter(key=key)
    return _newest(rows, after, limit)


def find_job(caller: Caller, reference: str) -> Job:
    return _find(caller, Action.READ_JOBS, "job", reference)  # type: ignore[no-any-return]


def _find(caller: Caller, action: Action, kind: str, reference: str) -> Any:
    """Return one row by id or name, for a caller who may see such. A miss leaves its entry."""
    try:
        target = getattr(targets, kind)(reference, {})
    except NotFound as error:
        raise not_found(caller, action, kind, reference, error) from None
    gate.read(caller, action, target.subject())
    return target.row


def _newest(rows: QuerySet[Any], after: str, limit: int) -> Page:
    """Page newest first, by time and id: `after` is the id of the last row seen."""
    last = rows.model.objects.filter(pk=names.as_uuid(after)).first() if after else None
    if after and last is None:
        raise Invalid("There is no such page; begin with the first.", field="after")
    if last is not None:
        rows = rows.filter(
            Q(created_at__lt=last.created_at) | Q(created_at=last.created_at, pk__lt=last.pk)
        )
    found = list(rows.distinct().order_by("-created_at", "-pk")[: limit + 1])
    return Page(found[:limit], str(found[limit - 1].pk) if len(found) > limit else "")


# --- the house


@dataclass(frozen=True, slots=True)
class Overview:
    """What the first page shows."""

    keys: int
    by_state: dict[str, int]
    by_classification: list[tuple[Classification, int]]
    overdue: list[Key]
    paused: list[Classification]
    due_soon: list[Key]
    pending_destruction: list[Key]
    compromised: list[KeyVersion]
    suspended: list[KeyVersion]
    # Primary versions of enabled keys that have little of their message budget left.
    low_budgets: list[KeyVersion]
    open_requests: int
    open_jobs: int
    failed_jobs: int
    shortage: str


def overview(caller: Caller) -> Overview:
    """Return counts and what needs attention."""
    gate.read(caller, Action.READ_KEYS)
    now = clock.now()
    by_state = {
        row["state"]: row["n"]
        for row in Key.objects.order_by().values("state").annotate(n=Count("pk"))
    }
    enabled = Key.objects.filter(state=KeyState.ENABLED).select_related(
        "classification", "key_store"
    )
    classes = Classification.objects.annotate(
        key_count=Count("keys", filter=~Q(keys__state=KeyState.DESTROYED))
    )
    compromised = KeyVersion.objects.filter(state=VersionState.COMPROMISED).select_related("key")
    return Overview(
        keys=sum(by_state.values()),
        by_state=by_state,
        by_classification=[(row, row.key_count) for row in classes],
        overdue=list(enabled.filter(rotate_at__lte=now).order_by("rotate_at")[:10]),
        paused=list(Classification.objects.filter(rotation_paused=True)),
        due_soon=list(
            enabled.filter(rotate_at__gt=now, rotate_at__lte=now + timedelta(days=30)).order_by(
                "rotate_at"
            )[:10]
        ),
        pending_destruction=list(
            Key.objects.filter(state=KeyState.PENDING_DESTRUCTION)
            .select_related("classification")
            .order_by("destroy_at")[:10]
        ),
        compromised=list(compromised.order_by(F("compromised_at").desc())[:10]),
        suspended=list(
            KeyVersion.objects.filter(
                state=VersionState.SUSPENDED, primary=True, key__state=KeyState.ENABLED
            )
            .select_related("key")
            .order_by("key__name")[:10]
        ),
        low_budgets=list(
            due.low_budgets()
            .filter(key__state=KeyState.ENABLED)
            .select_related("key", "messages")
            .order_by("key__name")[:10]
        ),
        open_requests=Approval.objects.filter(state="open").count(),
        open_jobs=Job.objects.filter(state__in=OPEN_STATES).count(),
        failed_jobs=Job.objects.filter(
            state="failed", finished_at__gt=now - timedelta(days=7)
        ).count(),
        shortage=approvals.shortage(),
    )


def heartbeats() -> dict[str, datetime]:
    """Return when each part was last at work: "sweep" for beat and worker together."""
    return dict(Heartbeat.objects.values_list("name", "at"))


def check_key_stores() -> None:
    """Ask every enabled store how it is, and write it down for /readyz and the console."""
    enabled = list(KeyStore.objects.filter(enabled=True))
    # Side by side, where asking goes over a network: one that hangs does not hold up the others.
    apart = [store for store in enabled if registry.KINDS[store.kind].workers]
    with ThreadPoolExecutor(max_workers=16) as pool:
        answers = dict(zip(apart, pool.map(_health_of, apart), strict=True))
    for store in enabled:
        _note_health(store, answers.get(store) or _health_of(store))


def check_key_store(store: KeyStore) -> KeyStore:
    """Ask one store how it is, write it down, and return it as it stands then."""
    return _note_health(store, _health_of(store))


def _health_of(store: KeyStore) -> tuple[bool, str]:
    try:
        health = stores.backend(stores.facts(store)).health()
    except (KeyServiceError, Unavailable) as error:
        return False, error.detail
    return health.ok, health.detail


def _note_health(store: KeyStore, answer: tuple[bool, str]) -> KeyStore:
    ok, detail = answer
    KeyStore.objects.filter(pk=store.pk).update(
        checked_at=clock.now(), healthy=ok, health_detail=detail[:500]
    )
    store.refresh_from_db()
    return store


def key_store_health() -> list[tuple[str, bool | None, str]]:
    """Return (name, healthy or not yet known, detail) of every enabled store, as last checked."""
    rows = KeyStore.objects.filter(enabled=True)
    return [(store.name, store.healthy, store.health_detail) for store in rows]


def is_set_up() -> bool:
    """Whether set-up was done; it then stays closed for ever."""
    return Installation.objects.exists()


def principal_of(user_id: int) -> Principal | None:
    """Return the principal behind a sign-in account, or None."""
    return Principal.objects.filter(user_id=user_id, kind=Kind.PERSON).first()
