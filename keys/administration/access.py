"""Applications, their credentials, and what they may do."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from keys import gate, names, parameters, targets
from keys.actions import GRANTABLE, Action
from keys.algorithms import Usage
from keys.callers import Kind
from keys.errors import AlreadyExists, Conflict, Denied, Invalid
from keys.gate.changes import Change
from keys.models import Classification, Credential, Grant, Key, Principal
from keys.secret import Secret
from keys.services import OPERATOR_ID, SCHEDULER_ID

TOKEN_PREFIX = "kms_"  # noqa: S105  (what every token begins with, so that scanners recognise one)
OPERATIONS = [action.value for action in GRANTABLE]


@dataclass(frozen=True, slots=True)
class Issued:
    """A new credential and its token, which nobody can see again."""

    credential: Credential
    token: Secret


@gate.change(Action.CREATE_APPLICATION, on=targets.house)
def create_application(
    change: Change[None], *, name: str, description: str = "", reason: str = ""
) -> Principal:
    """Register an application. It can do nothing until it has a credential and a grant."""
    row = new_principal(
        name, Kind.APPLICATION, change.now, description=description, demo=change.caller.demo
    )
    change.about = targets.principal_subject(row)
    change.touch("principal", row.id)
    return row


@gate.change(Action.ISSUE_CREDENTIAL, on=targets.principal)
def issue_credential(
    change: Change[Principal],
    *,
    expires_at: str | None = None,
    source_networks: list[str] | None = None,
    reason: str = "",
) -> Issued:
    """Issue a bearer token to an application. Only its digest is kept: show it once."""
    owner = change.row
    if owner.kind != Kind.APPLICATION or not owner.active:
        raise Conflict("Only an active application gets credentials.")
    ends = parameters.moment(expires_at, "expires_at")
    if ends and ends <= change.now:
        raise Invalid("expires_at lies in the past.", field="expires_at")
    token = TOKEN_PREFIX + secrets.token_urlsafe(32)
    row = Credential.objects.create(
        principal=owner,
        kind="bearer",
        digest=token_digest(token),
        hint=token[: len(TOKEN_PREFIX) + 4],
        source_networks=parameters.networks([] if source_networks is None else source_networks),
        created_at=change.now,
        expires_at=ends,
    )
    change.facts |= {"new_credential": str(row.id), "expires_at": ends.isoformat() if ends else ""}
    change.touch("principal", owner.id)
    return Issued(row, Secret(token.encode()))


@gate.change(Action.REVOKE_CREDENTIAL, on=targets.credential)
def revoke_credential(change: Change[Credential], *, reason: str = "") -> Credential:
    """Revoke a credential; it is refused from the very next request, in every process."""
    row = change.row
    if row.revoked_at is not None:
        raise Conflict("The credential is revoked already.")
    row.revoked_at = change.now
    row.save(update_fields=["revoked_at"])
    change.touch("principal", row.principal_id)
    return row


@gate.change(Action.DEACTIVATE_PRINCIPAL, on=targets.principal)
def deactivate_principal(change: Change[Principal], *, reason: str = "") -> Principal:
    """Close an application's or a person's account for good. Officers are dismissed instead."""
    row = change.row
    if row.id in (SCHEDULER_ID, OPERATOR_ID):
        raise Denied("The house's own services can't be closed.")
    if row.role == "officer":
        raise Conflict("An officer is dismissed, by the votes of the others.")
    if row.id == change.caller.principal_id:
        raise Conflict("Nobody closes their own account.")
    close_account(row)
    change.touch("principal", row.id)
    return row


@gate.change(Action.CREATE_GRANT, on=targets.grantee)
def create_grant(
    change: Change[Principal],
    *,
    operations: list[str],
    key: str = "",
    classification: str = "",
    context: dict[str, str] | None = None,
    not_before: str | None = None,
    expires_at: str | None = None,
    source_networks: list[str] | None = None,
    reason: str = "",
) -> Grant:
    """Let a principal do these operations with one key, or with every key of a classification.

    `context`: pairs that the request's context must contain.
    """
    grantee = change.row
    if grantee.kind != Kind.APPLICATION or not grantee.active:
        raise Conflict("Grants go to active applications; people act by their role.")
    about_key, about_class = _granted(key, classification)
    allowed = parameters.some_of(operations, "operations", OPERATIONS)
    if about_key is not None:
        check_operations(about_key, allowed)
    starts, ends = (
        parameters.moment(not_before, "not_before"),
        parameters.moment(expires_at, "expires_at"),
    )
    _check_span(starts, ends, change.now)
    row = Grant.objects.create(
        principal=grantee,
        key=about_key,
        classification=about_class,
        operations=allowed,
        context=parameters.text_pairs({} if context is None else context, "context", 8),
        not_before=starts,
        expires_at=ends,
        source_networks=parameters.networks([] if source_networks is None else source_networks),
        created_at=change.now,
        created_by_id=change.caller.principal_id,
    )
    change.facts |= {"grant": str(row.id), "operations": allowed}
    if about_key is not None:
        change.facts["key"] = str(about_key.id)
    if about_class is not None:
        change.facts["classification"] = about_class.name
    change.touch("principal", grantee.id)
    return row


@gate.change(Action.REVOKE_GRANT, on=targets.grant)
def revoke_grant(change: Change[Grant], *, reason: str = "") -> Grant:
    """Take a grant back; it is refused from the very next request, in every process."""
    row = change.row
    if row.revoked_at is not None:
        raise Conflict("The grant is revoked already.")
    row.revoked_at = change.now
    row.save(update_fields=["revoked_at"])
    change.touch("principal", row.principal_id)
    return row


# --- the parts


def token_digest(token: str) -> str:
    """Return SHA-256 of a token in hex: what is kept, and by what it is found."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def new_principal(name: str, kind: Kind, now: datetime, **columns: Any) -> Principal:
    """Write a principal under a name that nothing alike has. Raises Invalid or AlreadyExists."""
    if not isinstance(name, str):
        raise Invalid("The name must be text.", field="name")
    shown = names.display_name(name)
    folded = names.folded(shown)
    if names.as_uuid(folded):
        raise Invalid("The name must not look like a UUID.", field="name")
    if Principal.objects.filter(name_folded=folded).exists():
        raise AlreadyExists(f"There is an account named like {shown} already.", field="name")
    columns["description"] = names.prose(columns.get("description", ""), "description")
    return Principal.objects.create(
        name=shown, name_folded=folded, kind=kind, created_at=now, **columns
    )


def close_account(row: Principal) -> None:
    """Write that an account is closed; its sign-in with it."""
    if not row.active:
        raise Conflict("The account is closed already.")
    row.active = False
    row.save(update_fields=["active"])
    if row.user is not None:
        row.user.is_active = False
        row.user.save(update_fields=["is_active"])


def _granted(key: Any, classification: Any) -> tuple[Key | None, Classification | None]:
    if bool(key) == bool(classification):
        raise Invalid("Name either a key or a classification.", field="key")
    if key:
        return targets.key(str(key), {}).row, None
    return None, targets.classification(str(classification), {}).row


def check_operations(key: Key, operations: list[str]) -> None:
    """Raise Invalid where a key of this usage can't do an operation at all."""
    for operation in operations:
        usage = Action(operation).row.usage
        if usage is not None and usage != key.usage:
            purpose = Usage(key.usage).label.lower()
            raise Invalid(
                f"{key.alias} is for another purpose than {operation}: {purpose}.",
                field="operations",
            )


def _check_span(starts: datetime | None, ends: datetime | None, now: datetime) -> None:
    if ends and ends <= now:
        raise Invalid("expires_at lies in the past.", field="expires_at")
    if starts and ends and starts >= ends:
        raise Invalid("not_before lies after expires_at.", field="not_before")
