"""From the domain's rows to what the API shows of them (shapes)."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from django.conf import settings
from msgspec import UNSET

from audit import personal
from audit.models import Entry as EntryRow
from audit.verifier import Report
from keys import counters, models, queries, trail
from keys import limits as use_limits
from keys.callers import Caller
from keys.errors import KeyServiceError, LogUnavailable
from kms_console.api.rest import shapes
from kms_console.api.rest.shapes import Name


def utc(moment: datetime | None) -> datetime | None:
    return moment.astimezone(UTC) if moment is not None else None


def _at(moment: datetime) -> datetime:
    return moment.astimezone(UTC)


def key(row: models.Key, caller: Caller) -> shapes.Key:
    primary = next((v.number for v in row.versions.all() if v.primary), None)
    return shapes.Key(
        id=row.id,
        alias=row.alias,
        name=row.name,
        description=row.description,
        labels=row.labels,
        owner=row.owner,
        classification=Name(id=row.classification.id, name=row.classification.name),
        key_store=Name(id=row.key_store.id, name=row.key_store.name),
        spec=row.spec,
        usage=row.usage,
        algorithm=row.algorithm,
        origin=row.origin,
        model=row.model,
        protection=row.key_store.protection,
        exportable=row.exportable,
        adopted=row.adopted,
        state=row.state,
        rotation_days=row.rotation_days,
        publish_days=row.publish_days,
        rotate_at=utc(row.rotate_at),
        destroy_at=utc(row.destroy_at),
        created_at=_at(row.created_at),
        primary_version=primary,
    )


def one_key(row: models.Key, caller: Caller) -> shapes.Key:
    """Return a key with its budget, which is one more look at the database: for answers about one key."""
    found = key(row, caller)
    primary = next((v for v in row.versions.all() if v.primary), None)
    budget = counters.budget(primary.id, row.algorithm) if primary is not None else None
    found.budget = shapes.Budget(used=budget.used, limit=budget.limit) if budget else None
    return found


def version(row: models.KeyVersion, caller: Caller) -> shapes.Version:
    return shapes.Version(
        id=row.id,
        number=row.number,
        state=row.state,
        condition=row.condition or None,
        primary=row.primary,
        state_reason=row.state_reason,
        created_at=_at(row.created_at),
        originated_at=utc(row.originated_at),
        activated_at=utc(row.activated_at),
        protect_until=utc(row.protect_until),
        process_until=utc(row.process_until),
        deactivated_at=utc(row.deactivated_at),
        compromised_at=utc(row.compromised_at),
        destroy_at=utc(row.destroy_at),
        destroyed_at=utc(row.destroyed_at),
        material_expires_at=utc(row.material_expires_at),
        check_value=row.check_value if caller.role else UNSET,
    )


def job(row: models.Job, caller: Caller) -> shapes.Job:
    return shapes.Job(
        id=row.id,
        kind=row.kind,
        state=row.state,
        key=Name(id=row.key.id, name=row.key.alias),
        version=row.target_version or None,
        attempts=row.attempts,
        error=row.error,
        reason=row.reason,
        requested_by=Name(id=row.requested_by.id, name=row.requested_by.name),
        approval=row.approval_id,
        created_at=_at(row.created_at),
        run_after=_at(row.run_after),
        finished_at=utc(row.finished_at),
    )


def classification(row: models.Classification, caller: Caller) -> shapes.Classification:
    quorum = {}
    if row.quorum_m is not None and row.quorum_n is not None:
        quorum = {"m": row.quorum_m, "n": row.quorum_n}
    return shapes.Classification(
        id=row.id,
        name=row.name,
        title=row.title,
        description=row.description,
        allowed_specs=sorted(row.allowed_specs),
        minimum_protection=row.minimum_protection,
        key_stores=sorted(store.name for store in row.key_stores.all()),
        rotation_days=row.rotation_days,
        rotation_paused=row.rotation_paused,
        rotation_paused_reason=row.rotation_paused_reason,
        originator_days=row.originator_days,
        recipient_days=row.recipient_days,
        quorum=quorum,
        destruction_days=row.destruction_days,
        suspended_decrypts=row.suspended_decrypts,
        allows_export=row.allows_export,
        created_at=_at(row.created_at),
    )


def key_store(row: models.KeyStore, caller: Caller) -> shapes.KeyStore:
    return shapes.KeyStore(
        id=row.id,
        name=row.name,
        title=row.title,
        kind=row.kind,
        protection=row.protection,
        settings=row.settings,
        credentials=row.credentials,
        enabled=row.enabled,
        healthy=row.healthy,
        health_detail=row.health_detail,
        checked_at=utc(row.checked_at),
        created_at=_at(row.created_at),
    )


def principal(row: models.Principal, caller: Caller) -> shapes.Principal:
    return shapes.Principal(
        id=row.id,
        kind=row.kind,
        name=row.name,
        role=row.role,
        description=row.description,
        active=row.active,
        demo=row.demo,
        created_at=_at(row.created_at),
    )


def limits(row: models.Principal, caller: Caller) -> shapes.Limits:
    own: models.Limit | None = getattr(row, "limit", None)
    return shapes.Limits(
        application=Name(id=row.id, name=row.name),
        rate=own.rate if own is not None else None,
        burst=own.burst if own is not None else None,
        quota=own.quota if own is not None else None,
        house_rate=settings.RATE_LIMIT or None,
        handed_out=use_limits.handed_out(row.id),
    )


def credential(row: models.Credential, caller: Caller) -> shapes.Credential:
    return shapes.Credential(
        id=row.id,
        kind=row.kind,
        hint=row.hint,
        source_networks=row.source_networks,
        created_at=_at(row.created_at),
        expires_at=utc(row.expires_at),
        revoked_at=utc(row.revoked_at),
    )


def grant(row: models.Grant, caller: Caller) -> shapes.Grant:
    return shapes.Grant(
        id=row.id,
        application=_name(row.principal),
        key=Name(id=row.key.id, name=row.key.alias) if row.key else None,
        classification=(
            Name(id=row.classification.id, name=row.classification.name)
            if row.classification
            else None
        ),
        operations=row.operations,
        context=row.context,
        source_networks=row.source_networks,
        not_before=utc(row.not_before),
        expires_at=utc(row.expires_at),
        created_at=_at(row.created_at),
        created_by=_name(row.created_by),
        revoked_at=utc(row.revoked_at),
    )


def approval(row: models.Approval, caller: Caller) -> shapes.Approval:
    return shapes.Approval(
        id=row.id,
        action=row.action,
        subject=shapes.Subject(kind=row.subject_kind, id=row.subject_id, name=row.subject_name),
        parameters=row.parameters,
        reason=row.reason,
        requester=_name(row.requester),
        digest=row.digest,
        quorum={"m": row.quorum_m, "n": row.quorum_n},
        officers=[uuid.UUID(officer) for officer in row.officers],
        votes=[
            shapes.Vote(
                officer=_name(vote.officer),
                approve=vote.approve,
                comment=vote.comment,
                demo=vote.demo,
                created_at=_at(vote.created_at),
            )
            for vote in row.votes.all()
        ],
        state=row.state,
        state_reason=row.state_reason,
        created_at=_at(row.created_at),
        expires_at=_at(row.expires_at),
        decided_at=utc(row.decided_at),
        executed_at=utc(row.executed_at),
    )


def waiting(caller: Caller, identity: str, detail: str) -> shapes.PendingApproval:
    """Return the answer of a request that waits for officers."""
    try:
        seen = approval(queries.find_approval(caller, identity), caller)
    except KeyServiceError:
        seen = None
    return shapes.PendingApproval(
        status="pending_approval",
        detail=detail,
        approval_id=uuid.UUID(identity),
        approval=seen,
    )


def entries(rows: Sequence[EntryRow]) -> list[shapes.Entry]:
    """Return entries with the names that commitments stand for; those that are damaged say so."""
    personal.reveal(rows)
    return [
        shapes.Entry(body=body or {}, damaged=body is None, **_told(row))
        for row, body in ((row, trail.written(row)) for row in rows)
    ]


def proved(row: EntryRow, proof: trail.Proof) -> shapes.ProvedEntry:
    """Return one entry with its proof. Raises LogUnavailable where its bytes can't be read."""
    body = trail.written(row)
    if body is None:
        raise LogUnavailable(
            f"Entry {row.index} can't be read: its bytes are damaged. Verify the log."
        )
    personal.reveal([row])
    return shapes.ProvedEntry(
        body=body,
        damaged=False,
        canonical=bytes(row.body).decode(),
        proof=shapes.Proof(size=proof.size, root=proof.root, hashes=proof.hashes),
        **_told(row),
    )


def _told(row: EntryRow) -> dict[str, Any]:
    return {
        "index": row.index,
        "time": _at(row.at),
        "leaf_hash": bytes(row.leaf_hash).hex(),
        "actor_name": row.actor_name,
        "object_name": row.object_name,
        "source": row.source,
    }


def verification(report: Report) -> shapes.Verification:
    return shapes.Verification(
        ok=report.ok,
        size=report.size,
        root=report.root,
        first_bad_index=report.first_bad_index,
        problem=report.problem,
    )


def _name(row: models.Principal) -> Name:
    return Name(id=row.id, name=row.name)
