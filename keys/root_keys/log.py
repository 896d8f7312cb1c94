"""What the log says of root keys: each step an entry, and none twice.

The rows are in the material database, the log in the other: no transaction spans both. So a step is
first asked for in the log, then done, then told; after a crash the log is asked what was told.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any

from django.db import DatabaseError
from django.db.models import QuerySet

from audit.events import Outcome, Subject
from audit.models import Entry
from keys import clock, gate, targets
from keys.actions import Action
from keys.backends.software.models import RootKey
from keys.errors import Conflict, Unavailable
from keys.gate.changes import Change
from keys.models import KeyStore
from keys.root_keys import rows
from keys.services import scheduler
from keys.stores import places_like

KIND = "root_key"
NAME = "Root key"
ACTIONS = (Action.HOLD_ROOT_KEY, Action.ROTATE_ROOT_KEY)
# An intent without its row this long after its entry is taken up: who asked is gone.
LOST_AFTER = timedelta(minutes=1)

ASKED, MADE, FAILED = "asked", "made", "failed"
RECOGNITION = "recognition"  # of what a log that was put back doesn't know
RETIRED, DESTRUCTION_BEGUN, DESTROYED = "retired", "destruction begun", "destroyed"


def subject(root_id: str) -> Subject:
    return Subject(KIND, root_id, NAME)


def knows(row: RootKey) -> bool:
    """Whether an entry says that this root key was made here, and is held like this. Raises Unavailable."""
    digest = rows.holder_digest(row)
    return any(facts.get("holder_sha256") == digest for facts in _steps(row.id, MADE))


def told(root_id: str, step: str) -> bool:
    """Whether an entry tells of this step already. Raises Unavailable."""
    return any(True for _ in _steps(root_id, step))


def tell(
    action: Action,
    root_id: str,
    step: str,
    facts: Mapping[str, str],
    outcome: Outcome = Outcome.SUCCESS,
    why: str = "",
    *,
    again: bool = False,
) -> None:
    """Leave the entry of a step that was done, unless there is one (or `again`)."""
    if not again and told(root_id, step):
        return
    _tell(
        scheduler(),
        action=action.value,
        root=root_id,
        outcome=outcome.value,
        why=why,
        told={**facts, "step": step},
    )


@gate.change(Action.RUN_JOB, on=targets.house)
def _tell(
    change: Change[None],
    *,
    action: str,
    root: str,
    outcome: str,
    why: str,
    told: dict[str, Any],
    reason: str = "",
) -> None:
    change.record_as, change.about = Action(action), subject(root)
    change.outcome, change.why = Outcome(outcome), why
    change.facts |= told


def end(
    action: Action,
    intent: str,
    root_id: str,
    step: str,
    facts: Mapping[str, str],
    outcome: Outcome = Outcome.SUCCESS,
    why: str = "",
) -> bool:
    """Leave the one entry that ends an intent, made or failed; False where it has its end already.

    Of two workers at one intent only one can tell: what the other made is never used.
    """
    if ended(intent):
        return False
    with suppress(Conflict):
        _end(
            scheduler(),
            action=action.value,
            intent=intent,
            root=root_id,
            outcome=outcome.value,
            why=why,
            told={**facts, "step": step, "intent": intent},
        )
        return True
    return False


@gate.change(Action.RUN_JOB, on=targets.house)
def _end(
    change: Change[None],
    *,
    action: str,
    intent: str,
    root: str,
    outcome: str,
    why: str,
    told: dict[str, Any],
    reason: str = "",
) -> None:
    change.record_as, change.about = Action(action), subject(root)
    if ended(intent):
        raise Conflict("This intent has come to its end already.")
    # Two who end one intent at the same time both touch this: the second is decided again.
    change.touch(change.target.kind, change.target.id)
    change.outcome, change.why = Outcome(outcome), why
    change.facts |= told


def asked(row: RootKey) -> dict[str, Any]:
    """Return what was asked for of this store, as officers saw it, or {}: the row alone allows nothing."""
    for facts in _steps(row.id, ASKED):
        holder = facts.get("holder")
        if isinstance(holder, dict) and holder.get("id") == str(row.store_id):
            return holder
    return {}


def newest() -> str:
    """Return the id of the root key that was made last: it seals, and is never destroyed.

    "" where no store ever held one. Raises Unavailable.
    """
    last = [next(_made(action), (-1, "", {})) for action in ACTIONS]
    return max(last, key=lambda made: made[0])[1]


def ended(intent: str) -> bool:
    """Whether an intent came to its end, a root key or a failure: it is good once. Raises Unavailable."""
    return bool(made_by(intent)) or told(intent, FAILED)


def made_by(intent: str) -> str:
    """Return the id of the root key that this intent came to, or ""."""
    found = (
        root_id
        for action in ACTIONS
        for _, root_id, facts in _made(action)
        if facts.get("intent") == intent
    )
    return next(found, "")


def holder_of(row: RootKey, store: KeyStore) -> bool:
    """Whether the log says that this key in this store was made to hold this root key, and no later one."""
    said = _held_by(store, row.handle)
    own = [index for index, root_id, name in said if root_id == row.id and name == store.name]
    others = [index for index, root_id, _ in said if root_id != row.id]
    return bool(own) and max(own) > max(others, default=-1)


def names_holder(store: KeyStore, handle: str) -> bool:
    """Whether any entry says that this key was made to hold a root key."""
    return bool(_held_by(store, handle))


def _held_by(store: KeyStore, handle: str) -> list[tuple[int, str, str]]:
    """Return index, root key's id and key store's name of each entry that names this key, by any store's row."""
    names = {place.name for place in places_like(store)}
    return [
        (index, root_id, facts["key_store"])
        for action in ACTIONS
        for index, root_id, facts in _made(action)
        if facts.get("handle") == handle and facts.get("key_store") in names
    ]


def take_up_lost_intents() -> None:
    """Write the row of what was asked for where the process ended right after the entry."""
    # In this order: what was made is told before its intent's row goes.
    if rows.intents():
        return
    last = max(filter(None, map(_last, ACTIONS)), key=lambda entry: entry.index, default=None)
    if last is None or last.outcome != Outcome.STARTED or last.at > clock.now() - LOST_AFTER:
        return
    facts = json.loads(bytes(last.body)).get("facts", {})
    store = KeyStore.objects.filter(name=facts.get("key_store")).first()
    if facts.get("step") == ASKED and store is not None and not ended(last.object_id):
        rows.write_intent(last.object_id, store.id)


def _last(action: Action) -> Entry | None:
    return _entries().filter(action=action).order_by("-index").first()


def _made(action: Action) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Yield index, root key's id and facts of the entries that say one was made, newest first."""
    entries = _entries().filter(action=action, outcome=Outcome.SUCCESS)
    columns = entries.order_by("-index").values_list("index", "object_id", "body")
    try:
        found = list(columns)
    except DatabaseError:
        raise Unavailable("The database can't be reached now.") from None
    for index, root_id, body in found:
        facts = json.loads(bytes(body)).get("facts", {})
        if facts.get("step") == MADE:
            yield index, root_id, facts


def _steps(root_id: str, step: str) -> Iterator[dict[str, Any]]:
    entries = _entries().filter(object_id=root_id).order_by("-index")
    try:
        bodies = list(entries.values_list("body", flat=True)[:1000])
    except DatabaseError:
        raise Unavailable("The database can't be reached now.") from None
    for body in bodies:
        facts = json.loads(bytes(body)).get("facts", {})
        if facts.get("step") == step:
            yield facts


def _entries() -> QuerySet[Entry]:
    """Return the entries about root keys, by an index of their own, however long the log is.

    Not by the search index, which an attacker on the database could write to: what is decided here
    rests on every such entry. The text is a constant, or SQLite would not use a partial index.
    """
    return Entry.objects.extra(where=[f"object_kind = '{KIND}'"])  # noqa: S610 - a constant
