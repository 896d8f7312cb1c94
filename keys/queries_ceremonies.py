"""Reads about imports: ceremonies, their minutes, and keys that wait for new material."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice
from typing import Any

from django.db.models import Q

from audit import personal, search
from audit.events import Subject
from audit.models import Entry
from audit.search import Filters
from keys import clock, due, gate, names, targets, trail
from keys.actions import Action
from keys.callers import Caller
from keys.errors import Invalid, NotFound
from keys.gate.reads import not_found
from keys.models import Approval, Ceremony, Custodian, Key
from keys.models.key import Origin
from keys.queries import PAGE, Page, find_key
from keys.states import KeyState

MOST_ENTRIES = 500


@dataclass(frozen=True, slots=True)
class Vote:
    """An officer's vote on the import that a ceremony led to."""

    approval: str
    officer: str
    approve: bool
    at: datetime


@dataclass(frozen=True, slots=True)
class Step:
    """An entry of the trail about a ceremony; `leaf_hash` in hex."""

    index: int
    at: datetime
    actor: str
    action: str
    outcome: str
    reason: str
    facts: dict[str, Any]
    leaf_hash: str


@dataclass(frozen=True, slots=True)
class Minutes:
    """Who did what, when, and how it can be verified: entries with their hashes, the log's size and root.

    No component and no material stands here, only check values.
    """

    ceremony: Ceremony
    custodians: list[Custodian]
    votes: list[Vote]
    steps: list[Step]
    size: int
    root: str


def awaits_material(key: Key) -> bool:
    """Whether a rotation is due that only new material, brought from outside, can be.

    Due by its date, or since little is left of the primary version's message budget.
    """
    if key.origin != Origin.IMPORTED or key.state != KeyState.ENABLED:
        return False
    if key.rotate_at is not None and key.rotate_at <= clock.now():
        return True
    return due.low_budgets().filter(key=key).exists()


def ceremony(caller: Caller, reference: str) -> Ceremony:
    """Return one ceremony with its custodians (`.custodians`). Raises NotFound or Denied."""
    try:
        row = targets.ceremony(reference, {}).row
    except NotFound as error:
        raise not_found(caller, Action.READ_APPROVALS, "ceremony", reference, error) from None
    gate.read(caller, Action.READ_APPROVALS, _subject(row), key=row.key)
    return row


def ceremonies(caller: Caller, key: Key) -> list[Ceremony]:
    """Return a key's ceremonies, newest first, a hundred at most. Raises Denied or NotFound."""
    gate.read(caller, Action.READ_APPROVALS, key=key)
    rows = Ceremony.objects.filter(key=key).select_related("key", "opened_by")
    return list(rows.prefetch_related("custodians__officer").order_by("-created_at")[:100])


def list_ceremonies(caller: Caller, reference: str, *, after: str = "", limit: int = PAGE) -> Page:
    """Return a key's ceremonies, newest first, beginning after the ceremony of the id `after`."""
    key = find_key(caller, reference)
    gate.read(caller, Action.READ_APPROVALS, key=key)
    rows = Ceremony.objects.filter(key=key).select_related("key", "opened_by")
    if after:
        wanted = names.as_uuid(after)
        last = rows.filter(pk=wanted).first() if wanted else None
        if last is None:
            raise Invalid("There is no such page; begin with the first.", field="after")
        older = Q(created_at__lt=last.created_at) | Q(created_at=last.created_at, pk__lt=last.pk)
        rows = rows.filter(older)
    found = list(rows.order_by("-created_at", "-pk")[: limit + 1])
    return Page(found[:limit], str(found[limit - 1].pk) if len(found) > limit else "")


def minutes(caller: Caller, reference: str) -> Minutes:
    """Return a ceremony's minutes as they stand now. Raises NotFound or Denied."""
    row = ceremony(caller, reference)
    gate.read(caller, Action.READ_AUDIT, _subject(row), key=row.key)
    head = trail.log_head(caller)
    approvals = Approval.objects.filter(
        key=row.key, action=Action.IMPORT_KEY, parameters__ceremony=str(row.id)
    ).prefetch_related("votes__officer")
    found = list(approvals.order_by("created_at"))
    votes = [
        Vote(str(approval.id), vote.officer.name, vote.approve, vote.created_at)
        for approval in found
        for vote in approval.votes.order_by("created_at")
    ]
    return Minutes(
        ceremony=row,
        custodians=list(row.custodians.select_related("officer").order_by("number")),
        votes=votes,
        steps=_steps(row, [str(approval.id) for approval in found], head.size),
        size=head.size,
        root=head.root,
    )


def _subject(row: Ceremony) -> Subject:
    return Subject("ceremony", str(row.id), row.key.alias)


def _steps(row: Ceremony, approvals: list[str], size: int) -> list[Step]:
    """Return the entries about a ceremony, its import, and the votes on that, oldest first."""
    since = row.created_at

    def found(filters: Filters) -> Iterator[Entry]:
        return islice(search.oldest(filters, until=size), MOST_ENTRIES)

    own = Filters(since=since, object_kind="ceremony", object_id=str(row.id))
    steps = [_step(entry) for entry in found(own)]
    if approvals:
        votes = Filters(since=since, object_kind="approval", object_id=",".join(approvals))
        steps += [_step(entry) for entry in found(votes)]
    jobs: set[Any] = set()
    imports = Filters(since=since, object_id=str(row.key_id), action=Action.IMPORT_KEY.value)
    for entry in found(imports):
        step = _step(entry)
        named = (step.facts.get("ceremony"), step.facts.get("asked", {}).get("ceremony"))
        job = step.facts.get("job")
        if str(row.id) in named:
            jobs.add(job)
        if str(row.id) in named or (job is not None and job in jobs):
            steps.append(step)
    return sorted(_named(steps), key=lambda step: step.index)


def _named(steps: list[Step]) -> list[Step]:
    """Return the steps with people's names, which entries only commit to; erased ones stay closed."""
    people = personal.opened(step.actor for step in steps)
    return [replace(step, actor=people.get(step.actor) or step.actor) for step in steps]


def _step(entry: Entry) -> Step:
    body = json.loads(bytes(entry.body))
    return Step(
        index=entry.index,
        at=entry.at,
        actor=entry.actor_name,
        action=entry.action,
        outcome=entry.outcome,
        reason=entry.reason,
        facts=body.get("facts", {}),
        leaf_hash=bytes(entry.leaf_hash).hex(),
    )
