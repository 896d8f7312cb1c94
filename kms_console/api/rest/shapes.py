"""What the API shows of each thing, and how it looks as JSON.

Times are RFC 3339 in UTC with Z, ids are UUIDs. Wrapped material is shown to nobody; what a store
calls a version only to people and services with a role, where it is about what the store says.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from keys import states
from keys.algorithms import Usage
from keys.models import approval, discovery, drift, job
from keys.models import key as keys

Hex = Annotated[str, Meta(description="Hexadecimal.")]
Time = Annotated[datetime, Meta(tz=True, description="RFC 3339.")]
Moment = Time | None


def one_of(choices: Iterable[str], name: str) -> Meta:
    """Return the constraint of a closed vocabulary, and its name in the document."""
    words = [str(choice) for choice in choices]
    told = {"title": name, "enum": words}
    return Meta(pattern=f"^(?:{'|'.join(words)})$", extra_json_schema=told)


KeyState = Annotated[str, one_of(states.KeyState.values, "KeyState")]
VersionState = Annotated[str, one_of(states.VersionState.values, "VersionState")]
Condition = Annotated[str, one_of(states.Condition.values, "Condition")]
Origin = Annotated[str, one_of(keys.Origin.values, "Origin")]
ManagementModel = Annotated[str, one_of(keys.ManagementModel.values, "ManagementModel")]
ApprovalState = Annotated[str, one_of(approval.ApprovalState.values, "ApprovalState")]
JobKind = Annotated[str, one_of(job.JobKind.values, "JobKind")]
JobState = Annotated[str, one_of(job.JobState.values, "JobState")]
ListingState = Annotated[str, one_of(discovery.ListingState.values, "ListingState")]
DriftField = Annotated[str, one_of(drift.DriftField.values, "DriftField")]
DriftState = Annotated[str, one_of(drift.DriftState.values, "DriftState")]
KeyUsage = Annotated[str, one_of([usage.value for usage in Usage], "KeyUsage")]


class Shape(msgspec.Struct, kw_only=True):
    pass


class Name(Shape):
    """Another thing, by id and name."""

    id: uuid.UUID
    name: str


class Version(Shape):
    id: uuid.UUID
    number: int
    state: VersionState
    condition: Condition | None
    primary: bool
    state_reason: str
    created_at: Time
    originated_at: Moment
    activated_at: Moment
    protect_until: Moment
    process_until: Moment
    deactivated_at: Moment
    compromised_at: Moment
    destroy_at: Moment
    destroyed_at: Moment
    # Of imported material: when it is removed.
    material_expires_at: Moment
    # Shown to people and services with a role: it tells whether two copies hold the same material.
    check_value: Hex | UnsetType = UNSET


class Budget(Shape):
    """How many messages the primary version may still protect: its nonces are random and short.

    Handed out in blocks, so `used` is never too low; at three quarters the key is rotated.
    """

    used: int
    limit: int


class Key(Shape):
    id: uuid.UUID
    alias: str
    name: str
    description: str
    labels: dict[str, str]
    owner: str
    classification: Name
    key_store: Name
    spec: str
    usage: KeyUsage
    algorithm: str
    origin: Origin
    model: ManagementModel
    protection: str
    exportable: bool
    adopted: bool
    state: KeyState
    rotation_days: int | None
    publish_days: int | None
    rotate_at: Moment
    destroy_at: Moment
    created_at: Time
    primary_version: int | None
    # In lists it is left out; null: the algorithm needs none, or there is no primary version.
    budget: Budget | UnsetType | None = UNSET


class Job(Shape):
    id: uuid.UUID
    kind: JobKind
    state: JobState
    key: Name
    version: int | None
    attempts: int
    error: str
    reason: str
    requested_by: Name
    approval: uuid.UUID | None
    created_at: Time
    run_after: Time
    finished_at: Moment


class KeyCreation(Shape):
    """A new key whose first version still waits for its key store."""

    status: str
    key: Key
    job: Job


class Classification(Shape):
    id: uuid.UUID
    name: str
    title: str
    description: str
    allowed_specs: list[str]
    minimum_protection: str
    key_stores: list[str]
    rotation_days: int
    rotation_paused: bool
    rotation_paused_reason: str
    originator_days: int
    recipient_days: int
    quorum: dict[str, int]
    destruction_days: int
    suspended_decrypts: bool
    allows_export: bool
    created_at: Time


class KeyStore(Shape):
    """`credentials` says where its secret is found, never the secret."""

    id: uuid.UUID
    name: str
    title: str
    kind: str
    protection: str
    settings: dict[str, Any]
    credentials: str
    enabled: bool
    healthy: bool | None
    health_detail: str
    checked_at: Moment
    created_at: Time


class Listing(Shape):
    """One walk through a key store. `total`: how many keys there are, where the store says so."""

    id: uuid.UUID
    key_store: Name
    state: ListingState
    pages: int
    found: int
    total: int | None
    error: str
    requested_by: Name
    created_at: Time
    run_after: Time
    finished_at: Moment


class StoreVersion(Shape):
    """A version as its store shows it. `number` is the console's, null where it knows none."""

    number: int | None
    handle: str
    state: VersionState
    primary: bool
    created_at: Moment
    destroy_at: Moment


class StoreKey(Shape):
    """A key as its store shows it.

    `reference` is the store's own name for it. `spec`, `usage` and `algorithm` are empty where the
    console knows no such thing; `problem` then says why the key can't be adopted. `rotation_days`:
    the period of the store's own rotation, null where it has none.
    """

    reference: str
    name: str
    state: KeyState
    spec: str
    usage: str
    algorithm: str
    imported: bool
    provider_managed: bool
    rotation_days: int | None
    destroy_at: Moment
    tags: dict[str, str]
    facts: dict[str, str]
    problem: str
    versions: list[StoreVersion]


class FoundKey(StoreKey):
    """A key as a listing found it. `key`: the console's own key that it is, or null."""

    key: Name | None


class RotationBudget(Shape):
    """How many rotations the store allows this key in all its life, and how many are used up."""

    used: int
    limit: int


class StoreView(Shape):
    """What a key's store last said of it.

    `compared`: whether the store keeps states of its own, so that there is anything to compare.
    `seen` is null where nothing of the key was there, or nobody has looked yet (`seen_at` null).
    `trouble`: why the store could not be asked the last time. `rotation_days` and `tags` are what
    the console takes for granted there.
    """

    key: Name
    compared: bool
    seen: StoreKey | None
    seen_at: Moment
    trouble: str
    look_at: Moment
    rotation_days: int | None
    tags: dict[str, str] | None
    rotations: RotationBudget | None
    open_differences: int


class Drift(Shape):
    """One difference between what the console believes and what the store says.

    `version`: the number of the version that it is about; null for the whole key, and for a version
    that the console doesn't know, which `handle` names. `ways` says of `accept`, `revert` and
    `repair` why each is not possible; empty: it is. Lists leave it out.
    """

    id: uuid.UUID
    key: Name
    key_store: Name
    field: DriftField
    version: int | None
    handle: str
    believed: Any
    observed: Any
    state: DriftState
    found_at: Time
    seen_at: Time
    decided_at: Moment
    decided_by: Name | None
    reason: str
    ways: dict[str, str] | UnsetType = UNSET


class Principal(Shape):
    id: uuid.UUID
    kind: str
    name: str
    role: str
    description: str
    active: bool
    demo: bool
    created_at: Time


class Limits(Shape):
    """How much an application may use keys; null: no limit.

    `rate` uses a second, of which `burst` may come at once (null: as many as `rate`); `quota` uses
    a day (UTC). `house_rate` holds where `rate` is null. `handed_out`: how many of today's quota
    were handed out to processes, in blocks: never less than were made.
    """

    application: Name
    rate: int | None
    burst: int | None
    quota: int | None
    house_rate: int | None
    handed_out: int


class Appointed(Shape):
    """A new person. `password` is shown this once: hand it over, nobody can see it again."""

    person: Principal
    password: str


class Credential(Shape):
    id: uuid.UUID
    kind: str
    hint: str
    source_networks: list[str]
    created_at: Time
    expires_at: Moment
    revoked_at: Moment


class IssuedCredential(Shape):
    """A new credential. `token` is shown this once: only its digest is kept."""

    credential: Credential
    token: str


class Grant(Shape):
    id: uuid.UUID
    application: Name
    key: Name | None
    classification: Name | None
    operations: list[str]
    context: dict[str, str]
    source_networks: list[str]
    not_before: Moment
    expires_at: Moment
    created_at: Time
    created_by: Name
    revoked_at: Moment


class Vote(Shape):
    officer: Name
    approve: bool
    comment: str
    demo: bool
    created_at: Time


class Subject(Shape):
    kind: str
    id: str
    name: str


class Approval(Shape):
    """A request that officers vote on. `digest` is the SHA-256 of all that they agree to."""

    id: uuid.UUID
    action: str
    subject: Subject
    parameters: dict[str, Any]
    reason: str
    requester: Name
    digest: Hex
    quorum: dict[str, int]
    officers: list[uuid.UUID]
    votes: list[Vote]
    state: ApprovalState
    state_reason: str
    created_at: Time
    expires_at: Time
    decided_at: Moment
    executed_at: Moment


class PendingApproval(Shape):
    """What was asked for now waits for officers; nothing has changed yet.

    `approval` is null for callers who can't see requests.
    """

    status: str
    detail: str
    approval_id: uuid.UUID
    approval: Approval | None


class Entry(Shape):
    """One entry of the audit trail. `body` is what is hashed, in canonical JSON (RFC 8785).

    Names of people and their addresses stand in `body` as commitments; `actor_name`, `object_name`
    and `source` have them in clear, "(erased)" where they were erased. Where `damaged` is true the
    entry's bytes can't be read, and `body` is empty: verify the log.
    """

    index: int
    time: Time
    leaf_hash: Hex
    actor_name: str
    object_name: str
    source: str
    damaged: bool
    body: dict[str, Any]


class Proof(Shape):
    """An inclusion proof (RFC 9162, 2.1.3) in the log's first `size` entries."""

    size: int
    root: Hex
    hashes: list[Hex]


class ProvedEntry(Entry):
    proof: Proof
    # The very bytes that are hashed: SHA-256(0x00 || canonical) is the leaf hash.
    canonical: str


class Verification(Shape):
    """What a walk through the whole log found."""

    ok: bool
    size: int
    root: Hex
    first_bad_index: int | None
    problem: str
