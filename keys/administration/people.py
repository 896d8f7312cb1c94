"""People: who signs in, and who the officers are. Roles are disjoint and fixed for an account's life."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError

from keys import gate, parameters, targets
from keys.actions import Action
from keys.administration.access import close_account, new_principal
from keys.callers import Kind, Role
from keys.errors import Conflict, Denied, Invalid
from keys.gate.changes import Change
from keys.models import Principal
from keys.names import display_name, slug
from keys.secret import Secret

PEOPLE = [Role.ADMINISTRATOR.value, Role.AUDITOR.value, Role.OFFICER.value]


@dataclass(frozen=True, slots=True)
class Appointed:
    """A new person, and the first password where the house made it; nobody can see it again."""

    principal: Principal
    password: Secret | None


def _as_kept(change: Change[None], arguments: dict[str, Any]) -> None:
    """Have the names voted on and recorded as the account will have them, however they were typed."""
    arguments["name"] = display_name(arguments["name"])
    if not isinstance(arguments["username"], str):
        raise Invalid("The user name must be text.", field="username")
    arguments["username"] = slug(arguments["username"], "username")


@gate.change(Action.CREATE_PERSON, on=targets.house, prepare=_as_kept)
def create_person(
    change: Change[None], *, name: str, username: str, role: str, reason: str = ""
) -> Appointed:
    """Add an administrator or an auditor, with a first password to hand over. Officers are appointed."""
    parameters.one_of(role, "role", [Role.ADMINISTRATOR.value, Role.AUDITOR.value])
    return _add(change, name, username, role)


@gate.change(Action.APPOINT_OFFICER, on=targets.house, prepare=_as_kept)
def appoint_officer(
    change: Change[None], *, name: str, username: str, reason: str = ""
) -> Appointed:
    """Add an officer. Once there are enough officers to vote, they must agree."""
    return _add(change, name, username, Role.OFFICER.value)


@gate.change(Action.DISMISS_OFFICER, on=targets.principal)
def dismiss_officer(change: Change[Principal], *, reason: str = "") -> Principal:
    """Close an officer's account. Requests that listed the officer are void."""
    if change.row.role != Role.OFFICER:
        raise Conflict("This account is not an officer's.")
    close_account(change.row)
    change.touch("principal", change.row.id)
    change.touch_officers()
    return change.row


@gate.change(Action.CHANGE_PASSWORD, on=targets.principal)
def change_password(
    change: Change[Principal], *, old: Secret, new: Secret, reason: str = ""
) -> Principal:
    """Change one's own password. Every other session of the account ends."""
    row = change.row
    if row.id != change.caller.principal_id or row.user is None:
        raise Denied("Only one's own password can be changed.")
    if not row.user.check_password(old.reveal().decode("utf-8", "replace")):
        raise Denied("The old password is wrong.")
    _set_password(row.user, new)
    return row


def _add(change: Change[Any], name: str, username: str, role: str) -> Appointed:
    password = Secret(secrets.token_urlsafe(15).encode())
    row = add_person(name, username, role, password, change.now, demo=change.caller.demo)
    change.about = targets.principal_subject(row)
    change.facts["role_given"] = role
    change.touch("principal", row.id)
    change.touch_officers()
    return Appointed(row, password)


def add_person(
    name: str, username: str, role: str, password: Secret, now: datetime, demo: bool = False
) -> Principal:
    """Write a person's principal and sign-in. Raises Invalid or AlreadyExists."""
    users = get_user_model().objects
    if not isinstance(username, str):
        raise Invalid("The user name must be text.", field="username")
    chosen = slug(username, "username")
    if users.filter(username=chosen).exists():
        raise Invalid(f"The user name {chosen} is taken.", field="username")
    user = get_user_model()(username=chosen)
    _set_password(user, password)
    return new_principal(name, Kind.PERSON, now, role=role, user=user, demo=demo)


def _set_password(user: Any, password: Secret) -> None:
    text = password.reveal().decode("utf-8", "replace")
    try:
        validate_password(text, user)
    except ValidationError as error:
        raise Invalid(" ".join(error.messages), field="password") from None
    user.set_password(text)
    user.save()
