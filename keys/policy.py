"""The only authorisation rule. `decide` is a pure function: what is known in, a value with a reason out."""

from __future__ import annotations

import ipaddress
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from msgspec import Struct

from keys.actions import Action, Quorum
from keys.callers import Caller, Kind, Role


@dataclass(frozen=True, slots=True)
class GrantFacts:
    """A grant as decided upon; see keys.models.Grant for what the columns mean."""

    id: uuid.UUID
    key_id: uuid.UUID | None
    classification_id: uuid.UUID | None
    operations: frozenset[str]
    context: tuple[tuple[str, str], ...]
    not_before: datetime | None
    expires_at: datetime | None
    networks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CredentialFacts:
    id: uuid.UUID
    expires_at: datetime | None
    revoked: bool
    networks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LimitFacts:
    """How much an application may do; see keys.models.Limit. None: as much as it likes."""

    rate: int | None
    burst: int | None
    quota: int | None


@dataclass(frozen=True, slots=True)
class Standing:
    """What the house knows of a principal at one epoch of the log."""

    principal_id: uuid.UUID
    kind: Kind
    name: str
    role: Role
    active: bool
    credential: CredentialFacts | None
    grants: tuple[GrantFacts, ...]
    limits: LimitFacts | None = None
    # The same grants by what they are for: an application may have a hundred thousand.
    _by_key: dict[uuid.UUID, list[GrantFacts]] = field(init=False, repr=False, compare=False)
    _by_classification: dict[uuid.UUID, list[GrantFacts]] = field(
        init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        by_key: dict[uuid.UUID, list[GrantFacts]] = {}
        by_classification: dict[uuid.UUID, list[GrantFacts]] = {}
        for grant in self.grants:
            if grant.key_id is not None:
                by_key.setdefault(grant.key_id, []).append(grant)
            if grant.classification_id is not None:
                by_classification.setdefault(grant.classification_id, []).append(grant)
        object.__setattr__(self, "_by_key", by_key)
        object.__setattr__(self, "_by_classification", by_classification)

    def covering(
        self, key_id: uuid.UUID | None, classification_id: uuid.UUID | None
    ) -> list[GrantFacts]:
        """Return the grants that are for a key, by itself or by its classification."""
        own = self._by_key.get(key_id, []) if key_id else []
        return (
            own + self._by_classification.get(classification_id, []) if classification_id else own
        )


class Decision(Struct, frozen=True):
    """Yes or no, and why. `visible`: whether the caller may know that the subject exists."""

    allowed: bool
    reason: str
    detail: str = ""
    visible: bool = True
    grant: uuid.UUID | None = None
    # Whether another context could be decided on differently.
    conditional: bool = False


@dataclass(frozen=True, slots=True)
class QuorumRule:
    """M officers other than the requester, of a pool of at least N."""

    m: int
    n: int


# What the reasons begin with that tell of an account or a credential which is no longer good.
DEAD = ("account_", "credential_")


def decide(
    caller: Caller,
    standing: Standing | None,
    action: Action,
    *,
    now: datetime,
    key_id: uuid.UUID | None = None,
    classification_id: uuid.UUID | None = None,
    context: Mapping[str, str] | None = None,
) -> Decision:
    """Return whether `caller` may do `action`, to this key where one is named.

    Never raises and never looks anything up.
    """
    refused = _refuse_account(caller, standing, now)
    if refused is not None or standing is None:
        return refused or Decision(False, "unknown_principal", visible=False)
    row = action.row
    if standing.role in row.roles:
        return Decision(True, "role")
    if action is Action.RANDOM and caller.credential_id is not None:
        return Decision(True, "credential")
    about_a_key = key_id is not None
    grants = standing.covering(key_id, classification_id)
    visible = not about_a_key or bool(grants) or standing.role in Action.READ_KEYS.row.roles
    if not row.grantable:
        return Decision(
            False, "not_permitted", f"{_who(standing)} may not do this: {row.label}.", visible
        )
    if action is Action.READ_KEYS and (grants or not about_a_key):
        return Decision(True, "grant", grant=grants[0].id if grants else None)
    wanted = action._value_
    named = [grant for grant in grants if wanted in grant.operations]
    if not named:
        return Decision(
            False, "no_grant", f"{standing.name} has no grant to do this: {row.label}.", visible
        )
    # One that asks for no context serves every request alike, so it goes first.
    if len(named) > 1:
        named.sort(key=lambda grant: bool(grant.context))
    reasons = []
    for grant in named:
        reason = _unmet(grant, caller, now, context or {})
        if not reason:
            return Decision(True, "grant", grant=grant.id, conditional=bool(grant.context))
        reasons.append(reason)
    by_context = "context_missing" in reasons
    return Decision(False, reasons[0], _UNMET[reasons[0]], visible, conditional=by_context)


def _refuse_account(caller: Caller, standing: Standing | None, now: datetime) -> Decision | None:
    """Return the refusal of an account or a credential that is no longer good, or None."""
    if standing is None or not standing.active:
        return Decision(False, "account_inactive", "This account is not active.", visible=False)
    if caller.credential_id is None:
        return None
    credential = standing.credential
    if credential is None or credential.revoked:
        return Decision(False, "credential_revoked", "This credential is revoked.", visible=False)
    if credential.expires_at and now >= credential.expires_at:
        return Decision(False, "credential_expired", "This credential has expired.", visible=False)
    if not within(caller.source, credential.networks):
        return Decision(False, "credential_network", "Not from this network.", visible=False)
    return None


_UNMET = {
    "not_yet": "The grant is not valid yet.",
    "grant_expired": "The grant has expired.",
    "grant_network": "The grant does not cover this network.",
    "context_missing": "The request's context lacks a pair that the grant demands.",
}


def _unmet(grant: GrantFacts, caller: Caller, now: datetime, context: Mapping[str, str]) -> str:
    """Return the condition that the request does not meet, or an empty string."""
    if grant.not_before and now < grant.not_before:
        return "not_yet"
    if grant.expires_at and now >= grant.expires_at:
        return "grant_expired"
    if not within(caller.source, grant.networks):
        return "grant_network"
    if any(context.get(name) != value for name, value in grant.context):
        return "context_missing"
    return ""


def within(source: str, networks: Iterable[str]) -> bool:
    """Return whether an address lies in one of the networks; an empty list means anywhere.

    A network that can't be read, as after an edit of the database by hand, holds nobody.
    """
    listed = tuple(networks)
    if not listed:
        return True
    try:
        address = ipaddress.ip_address(source)
    except ValueError:
        return False
    return any(_holds(network, address) for network in listed)


def _holds(network: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    try:
        return address in ipaddress.ip_network(network)
    except ValueError:
        return False


def _who(standing: Standing) -> str:
    return f"The role {standing.role.value}" if standing.role else standing.name


def quorum_for(
    action: Action, own: QuorumRule | None, house: QuorumRule | None, officers: int
) -> QuorumRule | None:
    """Return the quorum that `action` needs, or None.

    `own` is the rule of the classification concerned, `house` the strictest that the present officers
    can meet. Who the officers are is not put to a vote before there are enough of them to hold one: the
    first ones come with set-up. Its pool is never larger than they are, or nobody could join it.
    """
    wanted = action.row.quorum
    if wanted is Quorum.CLASSIFICATION:
        return own
    if wanted is Quorum.HOUSE and house is not None and officers > house.m:
        return QuorumRule(house.m, min(house.n, officers))
    return None
