"""The house itself: set-up, and its key stores."""

from __future__ import annotations

import json
from typing import Any

from audit.events import Subject
from keys import gate, names, parameters, queries, root_keys, targets
from keys.actions import Action
from keys.administration.people import PEOPLE, add_person
from keys.backends import registry
from keys.callers import Role
from keys.errors import AlreadyExists, Conflict, Invalid
from keys.gate.changes import Change
from keys.models import Installation, KeyStore, KeyVersion, Principal
from keys.secret import Secret
from keys.states import GONE


@gate.change(Action.SET_UP, on=targets.house)
def set_up(change: Change[None], *, people: Secret, reason: str = "") -> list[Principal]:
    """Make the administrator and the first officers; then close for ever.

    `people`: JSON, a list of {"name", "username", "role", "password"}; secret as a whole, since it
    holds passwords. Key stores and policies come next, by the same functions as any later one.
    """
    if queries.is_set_up():
        raise Conflict("The console is set up already.")
    given = _people(people)
    rows = []
    for person in given:
        password = Secret(person["password"].encode())
        rows.append(
            add_person(
                person["name"],
                person["username"],
                person["role"],
                password,
                change.now,
                demo=change.caller.demo,
            )
        )
    Installation.objects.create(id=1, set_up_at=change.now)
    change.facts["people"] = [
        {"id": str(row.id), "name": targets.principal_subject(row).name, "role": row.role}
        for row in rows
    ]
    for row in rows:
        change.touch("principal", row.id)
    return rows


def _people(people: Any) -> list[dict[str, str]]:
    try:
        given = json.loads(people.reveal())
        wanted = {"name", "username", "role", "password"}
        ok = bool(given) and all(
            set(p) == wanted and all(isinstance(p[f], str) for f in wanted) for p in given
        )
    except (AttributeError, TypeError, ValueError):
        ok = False
    if not ok:
        raise Invalid("people must be a list of name, username, role and password.", field="people")
    for person in given:
        parameters.one_of(person["role"], "role", PEOPLE)
    if not any(person["role"] == Role.ADMINISTRATOR.value for person in given):
        raise Invalid("Set-up needs an administrator.", field="people")
    return given  # type: ignore[no-any-return]


@gate.change(Action.CREATE_KEY_STORE, on=targets.house)
def create_key_store(
    change: Change[None],
    *,
    name: str,
    kind: str,
    title: str = "",
    settings: dict[str, Any] | None = None,
    credentials: str = "",
    reason: str = "",
) -> KeyStore:
    """Configure a key store. `credentials` says where its secret is found: env:NAME or file:/path."""
    registry.check_settings(kind, settings or {}, credentials)
    chosen = names.slug(name, "name")
    if KeyStore.objects.filter(name=chosen).exists():
        raise AlreadyExists(f"There is a key store {chosen} already.", field="name")
    row = KeyStore.objects.create(
        name=chosen,
        title=names.display_name(title or name, "title"),
        kind=kind,
        settings=settings or {},
        credentials=credentials,
        protection=registry.protection(kind, settings or {}),
        created_at=change.now,
    )
    change.about = Subject("key_store", str(row.id), row.name)
    change.touch("key_store", row.id)
    return row


@gate.change(Action.UPDATE_KEY_STORE, on=targets.key_store)
def update_key_store(
    change: Change[KeyStore],
    *,
    title: str | None = None,
    settings: dict[str, Any] | None = None,
    credentials: str | None = None,
    enabled: bool | None = None,
    reason: str = "",
) -> KeyStore:
    """Change how a key store is reached, or switch it off; what is left out stays.

    Raises Conflict where it holds the root key, or is to: officers agreed to where that is.
    """
    row = change.row
    if settings not in (None, row.settings) or credentials not in (None, row.credentials):
        _check_may_move(row)
    if settings is not None:
        _check_stays(row, settings)
    row.settings = row.settings if settings is None else settings
    row.credentials = row.credentials if credentials is None else credentials
    registry.check_settings(row.kind, row.settings, row.credentials)
    row.protection = registry.protection(row.kind, row.settings)
    if title is not None:
        row.title = names.display_name(title, "title")
    if enabled is not None:
        row.enabled = parameters.yes_or_no(enabled, "enabled")
        if not row.enabled and root_keys.holds_a_root_key(row.id):
            raise Conflict(f"{row.title} holds the root key: without it no software key opens.")
    row.save()
    change.touch("key_store", row.id)
    return row


def _check_stays(row: KeyStore, settings: dict[str, Any]) -> None:
    """Refuse to lead living keys' handles to another server: nothing there would look like destroyed."""
    moved = [
        name
        for name in registry.KINDS[row.kind].identity
        if row.settings.get(name) != settings.get(name)
    ]
    living = KeyVersion.objects.filter(key__key_store=row).exclude(state__in=GONE)
    if moved and living.exclude(handle="").exists():
        raise Conflict(
            f"{row.title} has keys, which are found by its {' and '.join(moved)}: add another key store instead.",
            field="settings",
        )


def _check_may_move(row: KeyStore) -> None:
    if root_keys.holds_a_root_key(row.id):
        raise Conflict(
            f"{row.title} holds the root key, or one that is not destroyed there yet: its settings and "
            "credentials stay as officers agreed to them. Rotate the root key to another key store first."
        )
    if root_keys.is_to_hold_one(row.id):
        raise Conflict(
            f"{row.title} is to hold a root key that is being made: its settings and credentials stay as "
            "officers agreed to them. Once it is made, rotate the root key to another key store first."
        )


@gate.change(Action.CHECK_KEY_STORE, on=targets.key_store)
def check_key_store(change: Change[KeyStore], *, reason: str = "") -> KeyStore:
    """Ask a key store how it is now, and return it with the answer. That somebody asked is recorded."""
    row = change.row
    change.after(lambda: queries.check_key_store(row))
    return row
