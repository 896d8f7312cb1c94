"""What the log says of root keys: each step an entry, and none twice.

The rows are in the material database, the log in the other: no transaction spans both. So a step is
first asked for in the log, then done, then told; after a crash the log is asked what was told.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

from django.db import DatabaseError

from audit.events import Outcome, Subject
from audit.models import Entry
from keys import clock, gate, targets
from keys.actions import Action
from keys.backends.software.models import RootKey
from keys.errors import Unavailable
from keys.gate.changes import Change
from keys.models import KeyStore
from keys.root_keys import rows
from keys.root_keys.rows import RootState
from keys.services import scheduler

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


def asked(row: RootKey) -> bool:
    """Whether an entry says that this was asked for, of this store: the row alone allows nothing."""
    store = KeyStore.objects.filter(pk=row.store_id).first()
    named = {facts.get("key_store") for facts in _steps(row.id, ASKED)}
    return store is not None and store.name in named


def newest() -> str:
    """Return the id of the root key that was made last: what is never destroyed. "" where there is none."""
    last = [next(_made(action), (-1, "", {})) for action in ACTIONS]
    return max(last, key=lambda made: made[0])[1]


def made_by(intent: str, action: Action) -> bool:
    """Whether an entry says that this intent came to a root key: its holder's key may be in use."""
    return any(facts.get("intent") == intent for _, _, facts in _made(action))


def holder_of(row: RootKey, store: KeyStore) -> bool:
    """Whether the log says that this key in this store was made to hold this root key."""
    said = [(facts.get("key_store"), facts.get("handle")) for facts in _steps(row.id, MADE)]
    return (store.name, row.handle) in said


def take_up_lost_intents() -> None:
    """Write the row of what was asked for where the process ended right after the entry."""
    # In this order: what was made is told before its intent's row goes.
    if RootKey.objects.filter(state=RootState.MAKING).exists():
        return
    last = max(filter(None, map(_last, ACTIONS)), key=lambda entry: entry.index, default=None)
    if last is None or last.outcome != Outcome.STARTED or last.at > clock.now() - LOST_AFTER:
        return
    facts = json.loads(bytes(last.body)).get("facts", {})
    store = KeyStore.objects.filter(name=facts.get("key_store")).first()
    if facts.get("step") == ASKED and store is not None:
        rows.write_intent(last.object_id, store.id)


def _last(action: Action) -> Entry | None:
    # One action at a time: so the index gives the newest at once, however long the log is.
    return Entry.objects.filter(action=action, object_kind=KIND).order_by("-index").first()


def _made(action: Action) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Yield index, root key's id and facts of the entries that say one was made, newest first."""
    entries = Entry.objects.filter(action=action, object_kind=KIND, outcome=Outcome.SUCCESS)
    for index, root_id, body in entries.order_by("-index").values_list(
        "index", "object_id", "body"
    ):
        facts = json.loads(bytes(body)).get("facts", {})
        if facts.get("step") == MADE:
            yield index, root_id, facts


def _steps(root_id: str, step: str) -> Iterator[dict[str, Any]]:
    entries = Entry.objects.filter(object_id=root_id, object_kind=KIND).order_by("-index")
    try:
        bodies = list(entries.values_list("body", flat=True)[:1000])
    except DatabaseError:
        raise Unavailable("The database can't be reached now.") from None
    for body in bodies:
        facts = json.loads(bytes(body)).get("facts", {})
        if facts.get("step") == step:
            yield facts
