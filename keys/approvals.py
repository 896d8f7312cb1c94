"""Quorum: who must agree, what exactly they agree to, and whether that still holds.

Mechanics only; keys.administration has the actions (request, vote, withdraw), the gate calls these
before it lets anything through. Votes bind the SHA-256 of the whole canonical request, kept
verbatim, so that nobody can change what was agreed to afterwards.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db.models import Q

from audit import canonical
from keys import clock, policy
from keys.actions import Action
from keys.callers import Caller, Kind, Role
from keys.errors import Conflict, NotFound
from keys.models import Approval, Classification, Principal
from keys.models.approval import ApprovalState
from keys.policy import QuorumRule
from keys.targets import ABOUT_PEOPLE, Target

ALTERED = "the request was altered after it was made"
# Bytes of a request that its entry repeats.
TOLD_LIMIT = 16 * 1024
LIVE = [ApprovalState.OPEN, ApprovalState.APPROVED]


@dataclass(frozen=True, slots=True)
class Wish:
    """An action that somebody wants, before anybody agreed to it."""

    action: Action
    target: Target[Any]
    parameters: Mapping[str, Any]

    @property
    def fingerprint(self) -> str:
        """SHA-256, in hex, of what is wanted, whoever wants it."""
        wanted = {
            "action": self.action.value,
            "subject": [self.target.kind, self.target.id],
            "parameters": dict(self.parameters),
        }
        return hashlib.sha256(canonical.encode(wanted)).hexdigest()


def officers() -> list[Principal]:
    """Return the people who may vote, in a fixed order."""
    return list(
        Principal.objects.filter(kind=Kind.PERSON, role=Role.OFFICER, active=True).order_by("id")
    )


def house_rule(officers: int | None = None) -> QuorumRule | None:
    """Return the strictest rule of all classifications, or None where none asks for votes.

    With `officers`, of those rules only for which so many are enough: else a rule that nobody can
    meet would lift the votes on who the officers are.
    """
    rules = Classification.objects.filter(quorum_m__isnull=False)
    if officers is not None:
        rules = rules.filter(quorum_m__lt=officers)
    return own_rule(rules.order_by("-quorum_m", "-quorum_n").first())


def own_rule(classification: Classification | None) -> QuorumRule | None:
    if classification is None or classification.quorum_m is None or classification.quorum_n is None:
        return None
    return QuorumRule(classification.quorum_m, classification.quorum_n)


def rule_for(action: Action, target: Target[Any]) -> QuorumRule | None:
    """Return the quorum that this action on this target needs, or None."""
    return rule_under(action, target.classification)


def rule_under(action: Action, classification: Classification | None) -> QuorumRule | None:
    """Return the quorum that this action needs under a classification's policy and the house's, or None."""
    have = len(officers())
    return policy.quorum_for(action, own_rule(classification), house_rule(have), have)


def shortage(rule: QuorumRule | None = None) -> str:
    """Return why nothing that needs votes can be approved, in one sentence, or an empty string."""
    rule = rule or house_rule()
    have = len(officers())
    if rule is None or have >= rule.n:
        return ""
    return (
        f"{have} of the {rule.n} officers that the policy asks for are there. Until the others are added, "
        "nothing else that needs votes can be approved."
    )


def canonical_request(
    approval_id: uuid.UUID,
    wish: Wish,
    rule: QuorumRule,
    requester: uuid.UUID,
    reason: str,
    expires_at: datetime,
) -> bytes:
    """Return the canonical JSON (RFC 8785) of everything that a vote agrees to, as things stand now."""
    return canonical.encode(
        {
            "v": 1,
            "approval": str(approval_id),
            "action": wish.action.value,
            "subject": {"kind": wish.target.kind, "id": wish.target.id, "name": wish.target.name},
            "parameters": dict(wish.parameters),
            "target": wish.target.state(),
            "quorum": {"m": rule.m, "n": rule.n},
            "officers": [str(officer.id) for officer in officers()],
            "requester": str(requester),
            "reason": reason,
            "expires_at": expires_at.isoformat(),
        }
    )


def facts(approval: Approval) -> dict[str, Any]:
    """Return what the entry of a new request tells, so that its votes can be judged from the log alone.

    The request itself stands there where it fits and names no person; its digest always does.
    """
    told: dict[str, Any] = {
        "request_sha256": approval.digest,
        "quorum": {"m": approval.quorum_m, "n": approval.quorum_n},
        "officers": approval.officers,
    }
    if len(approval.request) <= TOLD_LIMIT and approval.action not in ABOUT_PEOPLE:
        told["request"] = bytes(approval.request).decode()
    return told


def same_wish(wish: Wish) -> Approval | None:
    """Return the live request for exactly this, if there is one."""
    return Approval.objects.filter(fingerprint=wish.fingerprint, state__in=LIVE).first()


def open_request(caller: Caller, wish: Wish, rule: QuorumRule, reason: str) -> Approval:
    """Write down a request; call it inside a transaction. Raises Conflict where somebody else asked already."""
    existing = same_wish(wish)
    now = clock.now()
    if existing is not None and existing.expires_at <= now:
        close(existing, ApprovalState.EXPIRED, "nobody closed it in time")
        existing = None
    if existing is not None:
        if existing.requester_id == caller.principal_id:
            return existing
        raise Conflict("This has been asked for already.", approval=str(existing.id))
    identity = uuid.uuid4()
    expires = (now + timedelta(days=settings.APPROVAL_DAYS)).replace(microsecond=0)
    body = canonical_request(identity, wish, rule, caller.principal_id, reason, expires)
    return Approval.objects.create(
        id=identity,
        action=wish.action.value,
        subject_kind=wish.target.kind,
        subject_id=wish.target.id,
        subject_name=wish.target.name,
        key=wish.target.key,
        parameters=dict(wish.parameters),
        requester_id=caller.principal_id,
        reason=reason,
        request=body,
        digest=hashlib.sha256(body).hexdigest(),
        fingerprint=wish.fingerprint,
        quorum_m=rule.m,
        quorum_n=rule.n,
        officers=[str(officer.id) for officer in officers()],
        created_at=now,
        expires_at=expires,
    )


def close(approval: Approval, state: ApprovalState, reason: str = "") -> None:
    """Move a live request to its end by compare-and-set. Raises Conflict where somebody was quicker."""
    stamp = "executed_at" if state is ApprovalState.EXECUTED else "decided_at"
    changes = {"state": state, "state_reason": reason[:500], stamp: clock.now()}
    if not Approval.objects.filter(pk=approval.pk, state=approval.state, executed_at=None).update(
        **changes
    ):
        raise Conflict("The request changed meanwhile; look again.")
    for column, value in changes.items():
        setattr(approval, column, value)


def votes_fault(approval: Approval) -> str:
    """Return what is wrong with a request's votes as they are kept, or an empty string.

    Checked by the worker again just before it acts: the request's bytes are what was voted on, M
    different officers of the request's own list agreed, none of them the requester, nobody refused.
    """
    asked = _asked(approval)
    if asked is None:
        return ALTERED
    m, n, listed = asked["quorum"]["m"], asked["quorum"]["n"], asked["officers"]
    votes = list(approval.votes.all())
    if any(not vote.approve for vote in votes):
        return "an officer refused"
    agreed = {
        str(vote.officer_id)
        for vote in votes
        if vote.digest == approval.digest
        and str(vote.officer_id) in listed
        and str(vote.officer_id) != asked["requester"]
    }
    if len(agreed) < max(m, 1):
        return f"{len(agreed)} of {m} votes"
    if len(listed) < n:
        return f"{len(listed)} of {n} officers"
    return ""


def altered(approval: Approval) -> bool:
    """Whether a request, or a column that repeats it, is no longer what was written down."""
    return _asked(approval) is None


def _asked(approval: Approval) -> dict[str, Any] | None:
    """Return the request as it was voted on, or None where it, or a column that repeats it, was altered."""
    body = bytes(approval.request)
    if hashlib.sha256(body).hexdigest() != approval.digest:
        return None
    asked: dict[str, Any] = json.loads(body)
    columns = {
        "approval": str(approval.id),
        "action": approval.action,
        "parameters": approval.parameters,
        "quorum": {"m": approval.quorum_m, "n": approval.quorum_n},
        "officers": approval.officers,
        "requester": str(approval.requester_id),
        "expires_at": approval.expires_at.isoformat(),
    }
    same = all(asked.get(name) == value for name, value in columns.items())
    return asked if same and asked["subject"]["id"] == approval.subject_id else None


def drift(approval: Approval, wish: Wish, rule: QuorumRule | None) -> str:
    """Return what changed since the request was made, so that its votes no longer hold, or nothing.

    Everything is built anew as it stands now and compared with the bytes that were voted on: target,
    policy, officers, parameters.
    """
    if rule is None:
        return "the policy changed"
    now = canonical_request(
        approval.id, wish, rule, approval.requester_id, approval.reason, approval.expires_at
    )
    return (
        "" if now == bytes(approval.request) else "the target, the policy or the officers changed"
    )


def expired(approval: Approval) -> bool:
    """Whether a request's time is over, by the database's clock."""
    return clock.database_now() >= approval.expires_at


def in_hand(caller: Caller, wish: Wish) -> Approval | None:
    """Return the approved request that this call carries out, or None where votes are still needed.

    Raises NotFound where the caller names a request that isn't one for this.
    """
    if caller.approval_id is not None:
        found = Approval.objects.filter(pk=caller.approval_id, fingerprint=wish.fingerprint).first()
        if found is None or found.requester_id != caller.principal_id:
            raise NotFound("There is no such request for this.")
        return found
    if not wish.action.row.by_requester:
        return None
    return Approval.objects.filter(
        fingerprint=wish.fingerprint, requester_id=caller.principal_id, state=ApprovalState.APPROVED
    ).first()


def open_for(officer_id: uuid.UUID) -> Q:
    """Return the filter for requests on which this officer can still vote."""
    return (
        Q(state=ApprovalState.OPEN, expires_at__gt=clock.now())
        & ~Q(requester_id=officer_id)
        & ~Q(votes__officer_id=officer_id)
    )
