"""What a use is decided on: values read once and kept in memory, valid as of one epoch of the log.

The only cache. Each change raises the epoch in the head row and names the subjects it touched;
the append that records a use confirms that nothing it was decided on has changed since
(audit.writer). So a stale value here costs a second try, never a wrong answer.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

from django.conf import settings

from audit import writer
from audit.events import Subject
from keys import names
from keys.backends import registry
from keys.callers import Kind, Role
from keys.policy import CredentialFacts, GrantFacts, LimitFacts, Standing

if TYPE_CHECKING:
    from keys.models import Limit, Principal

T = TypeVar("T")
LIMIT = 50_000


@dataclass(frozen=True, slots=True)
class StoreFacts:
    id: uuid.UUID
    name: str
    kind: str
    settings: dict[str, Any]
    credentials: str
    enabled: bool
    # Of all that makes a backend another one; made once, since every use asks for it.
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        digest = registry.digest(self.kind, self.settings, self.credentials)
        object.__setattr__(self, "digest", digest)


@dataclass(frozen=True, slots=True)
class VersionFacts:
    id: uuid.UUID
    number: int
    state: str
    condition: str
    primary: bool
    handle: str
    public_key: bytes | None
    protect_until: datetime | None
    process_until: datetime | None
    material_until: datetime | None


@dataclass(frozen=True, slots=True)
class KeyFacts:
    id: uuid.UUID
    alias: str
    spec: str
    usage: str
    algorithm: str
    state: str
    classification_id: uuid.UUID
    classification: str
    suspended_processes: bool
    store: StoreFacts
    versions: dict[int, VersionFacts]
    primary: VersionFacts | None = field(init=False)
    # Whose change makes what is known here stale.
    subjects: tuple[str, str, str] = field(init=False)
    _told: dict[int | None, Subject] = field(init=False, default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        primary = next((version for version in self.versions.values() if version.primary), None)
        object.__setattr__(self, "primary", primary)
        subjects = (
            f"key:{self.id}",
            f"classification:{self.classification_id}",
            f"key_store:{self.store.id}",
        )
        object.__setattr__(self, "subjects", subjects)

    def told(self, number: int | None) -> Subject:
        """Return what an entry says of this key and a version of it."""
        subject = self._told.get(number)
        if subject is None:
            subject = Subject("key", str(self.id), self.alias, number, self.classification)
            self._told[number] = subject
        return subject


class Miss(Exception):
    """Not in memory; the caller loads it where it may wait for the database."""


class Cache:
    """Values by name, each tagged with the subjects whose change makes it stale."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._epoch: int | None = None
        self._values: dict[str, tuple[Any, frozenset[str]]] = {}
        self._by_subject: dict[str, set[str]] = {}

    @property
    def epoch(self) -> int:
        """The epoch as of which everything here holds. Asks the database the first time."""
        if self._epoch is None:
            self.advance(writer.epoch(), None)
        return self._epoch or 0

    @property
    def cold(self) -> bool:
        """Whether the first look at the database is still to come."""
        return self._epoch is None

    def advance(self, epoch: int, subjects: frozenset[str] | None) -> None:
        """Drop what the changes up to `epoch` touched. None: everything, whatever the epoch.

        That is also how an older database, put back behind a running process, is taken in.
        """
        with self._lock:
            if self._epoch is not None and epoch <= self._epoch and subjects is not None:
                return
            self._epoch = epoch
            if subjects is None:
                self._values.clear()
                self._by_subject.clear()
                return
            for subject in subjects:
                for name in self._by_subject.pop(subject, ()):
                    self._values.pop(name, None)

    def get(self, name: str, load: Callable[[], tuple[T, frozenset[str]]] | None) -> T:
        """Return a value; load it where it is missing, or raise Miss where `load` is None."""
        found = self._values.get(name)
        if found is not None:
            return found[0]  # type: ignore[no-any-return]
        if load is None:
            raise Miss
        epoch = self.epoch
        value, subjects = load()
        with self._lock:
            # Had the epoch moved while this was read, it could be older than the cache now claims.
            if self._epoch == epoch and subjects:
                if len(self._values) >= LIMIT:
                    self._values.clear()
                    self._by_subject.clear()
                self._values[name] = (value, subjects)
                for subject in subjects:
                    self._by_subject.setdefault(subject, set()).add(name)
        return value

    def forget(self) -> None:
        """Start over: another database stands behind this process (tests, a restored backup)."""
        with self._lock:
            self._epoch = None
            self._values.clear()
            self._by_subject.clear()


cache = Cache()
writer.on_epoch(cache.advance)


def key(reference: str, *, load: bool = True) -> KeyFacts | None:
    """Return a key by id or alias, or None where there is none. Raises Miss with `load=False`."""
    # By one spelling of the many that a UUID and an alias have, so that nobody fills the memory.
    named = names.reference(reference)
    return cache.get(f"key:{named}", (lambda: _load_key(named)) if load else None)


def standing(
    principal_id: uuid.UUID, credential_id: uuid.UUID | None, *, load: bool = True
) -> Standing | None:
    """Return what is known of a principal, or None. Raises Miss with `load=False`."""
    account = names.text_of(principal_id)
    name = f"standing:{account}:{names.text_of(credential_id) if credential_id else ''}"
    return cache.get(name, (lambda: load_standing(principal_id, credential_id)) if load else None)


def bearer(
    digest: str, *, load: bool = True
) -> tuple[uuid.UUID, uuid.UUID, Kind, str, Role] | None:
    """Return (principal, credential, kind, name, role) of a token's digest, or None.

    Whether the credential is still good is for decide() to say, on its standing.
    """
    return cache.get(f"bearer:{digest}", (lambda: _load_bearer(digest)) if load else None)


def _load_key(reference: str) -> tuple[KeyFacts | None, frozenset[str]]:
    from keys.models import Key

    found = names.as_uuid(reference)
    wanted = {"pk": found} if found else {"alias": names.folded(reference)}
    row = Key.objects.select_related("classification", "key_store").filter(**wanted).first()
    if row is None:
        return None, frozenset()
    store = row.key_store
    facts = KeyFacts(
        id=row.id,
        alias=row.alias,
        spec=row.spec,
        usage=row.usage,
        algorithm=row.algorithm,
        state=row.state,
        classification_id=row.classification_id,
        classification=row.classification.name,
        suspended_processes=row.classification.suspended_decrypts,
        store=StoreFacts(
            store.id, store.name, store.kind, store.settings, store.credentials, store.enabled
        ),
        versions={
            version.number: VersionFacts(
                id=version.id,
                number=version.number,
                state=version.state,
                condition=version.condition,
                primary=version.primary,
                handle=version.handle,
                public_key=bytes(version.public_key) if version.public_key else None,
                protect_until=version.protect_until,
                process_until=version.process_until,
                material_until=version.material_expires_at,
            )
            for version in row.versions.all()
        },
    )
    return facts, frozenset(facts.subjects)


def load_standing(
    principal_id: uuid.UUID, credential_id: uuid.UUID | None
) -> tuple[Standing | None, frozenset[str]]:
    """Read a principal's standing from the database, with the subjects that could change it."""
    from keys.models import Credential, Grant, Principal

    row = Principal.objects.select_related("limit").filter(pk=principal_id).first()
    if row is None:
        return None, frozenset()
    credential = None
    if credential_id is not None:
        found = Credential.objects.filter(pk=credential_id, principal_id=principal_id).first()
        if found is not None:
            credential = CredentialFacts(
                found.id,
                found.expires_at,
                found.revoked_at is not None,
                tuple(found.source_networks),
            )
    grants = tuple(
        GrantFacts(
            id=grant.id,
            key_id=grant.key_id,
            classification_id=grant.classification_id,
            operations=frozenset(grant.operations),
            context=tuple(sorted(grant.context.items())),
            not_before=grant.not_before,
            expires_at=grant.expires_at,
            networks=tuple(grant.source_networks),
        )
        for grant in Grant.objects.filter(principal_id=principal_id, revoked_at__isnull=True)
    )
    value = Standing(
        row.id,
        Kind(row.kind),
        row.name,
        Role(row.role),
        row.active,
        credential,
        grants,
        limits_of(row),
    )
    return value, frozenset({f"principal:{principal_id}"})


def limits_of(principal: Principal) -> LimitFacts | None:
    """Return what limits an account's uses: its own, or the house's for any application."""
    own: Limit | None = getattr(principal, "limit", None)
    rate = own.rate if own is not None else None
    if rate is None and principal.kind == Kind.APPLICATION:
        rate = settings.RATE_LIMIT or None
    quota = own.quota if own is not None else None
    if rate is None and quota is None:
        return None
    return LimitFacts(rate, own.burst if own is not None else None, quota)


def _load_bearer(
    digest: str,
) -> tuple[tuple[uuid.UUID, uuid.UUID, Kind, str, Role] | None, frozenset[str]]:
    from keys.models import Credential

    row = (
        Credential.objects.select_related("principal").filter(kind="bearer", digest=digest).first()
    )
    if row is None:
        return None, frozenset()
    owner = row.principal
    value = (owner.id, row.id, Kind(owner.kind), owner.name, Role(owner.role))
    return value, frozenset({f"principal:{owner.id}"})
