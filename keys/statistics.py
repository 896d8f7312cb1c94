"""Counts for the console's first page: how many keys of which kind, and when they are due."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta

from django.db.models import Count, Q

from keys import clock, due, gate
from keys.actions import Action
from keys.callers import Caller
from keys.models import Classification, Key
from keys.states import KeyState


@dataclass(frozen=True, slots=True)
class ClassCount:
    """One classification and the number of its keys by state."""

    classification: Classification
    by_state: dict[str, int]

    @property
    def total(self) -> int:
        return sum(self.by_state.values())


@dataclass(frozen=True, slots=True)
class Week:
    """What falls due in the seven days from `start`."""

    start: date
    rotations: int
    destructions: int


def key_counts(caller: Caller) -> list[ClassCount]:
    """Return, for every classification, the number of its keys by state. Raises Denied."""
    gate.read(caller, Action.READ_POLICY)
    counts: dict[object, dict[str, int]] = {}
    rows = Key.objects.order_by().values("classification", "state").annotate(n=Count("pk"))
    for row in rows:
        counts.setdefault(row["classification"], {})[row["state"]] = row["n"]
    return [ClassCount(row, counts.get(row.pk, {})) for row in Classification.objects.all()]


def weeks_ahead(caller: Caller, weeks: int = 26) -> list[Week]:
    """Return what falls due in each of the coming weeks, the first beginning now. Raises Denied.

    What is overdue is in none of them.
    """
    gate.read(caller, Action.READ_POLICY)
    now = clock.now()
    end = now + timedelta(weeks=weeks)
    rotations = _dates("rotate_at", Q(state=KeyState.ENABLED), now, end)
    destructions = _dates("destroy_at", Q(state=KeyState.PENDING_DESTRUCTION), now, end)
    found = []
    for number in range(weeks):
        start = now + timedelta(weeks=number)
        found.append(Week(start.date(), rotations.get(number, 0), destructions.get(number, 0)))
    return found


def low_budgets(caller: Caller) -> int:
    """Return how many enabled keys' primary versions have little of their message budget left."""
    gate.read(caller, Action.READ_POLICY)
    return due.low_budgets().filter(key__state=KeyState.ENABLED).count()


def _dates(column: str, which: Q, now: datetime, end: datetime) -> dict[int, int]:
    """Return how many keys have `column` in which week from now; days are counted by the database."""
    span = {f"{column}__gt": now, f"{column}__lt": end}
    days = (
        Key.objects.filter(which, **span)
        .order_by()
        .values(f"{column}__date")
        .annotate(n=Count("pk"))
    )
    found: dict[int, int] = {}
    for row in days:
        week = max((row[f"{column}__date"] - now.date()).days, 0) // 7
        found[week] = found.get(week, 0) + row["n"]
    return found
