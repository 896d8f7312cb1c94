"""The first page: what needs attention, how many keys there are, what falls due, what happened."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_safe

from keys import (
    clock,
    counters,
    queries,
    queries_ceremonies,
    queries_material,
    queries_stores,
    statistics,
    trail,
)
from keys.actions import Action
from keys.callers import Caller
from keys.models import Key
from keys.models.key import Origin
from keys.queries import Overview
from keys.queries_material import Ending
from keys.states import KeyState
from keys.statistics import ClassCount, Week
from kms_console import health
from kms_console.web import audit_names, wording
from kms_console.web.ceremonies import Task, task_of
from kms_console.web.doors import may, page
from kms_console.web.templatetags.console import relative

PARTS = {
    "database": "metadata database",
    "log": "audit log",
    "material": "database of key material",
    "root_key": "root key",
    "broker": "job queue",
    "memories": "what is remembered of the log",
    "signer": "signer of the audit log",
    "trail": "search index of the audit log",
    "streams": "streams to a SIEM",
    "archive": "archive of the audit log",
    "worker": "worker",
    "beat": "scheduler",
    "key_stores": "key stores",
}


@dataclass(frozen=True, slots=True)
class Matter:
    """One thing that needs attention."""

    tone: str
    icon: str
    title: str
    text: str
    address: str = ""
    button: str = "Look"


@require_safe
@page
def overview(request: HttpRequest, caller: Caller) -> HttpResponse:
    found = queries.overview(caller)
    counts = statistics.key_counts(caller)
    recent = trail.search_audit(caller, limit=10) if may(caller, Action.READ_AUDIT) else []
    audit_names.shown(recent)
    differing = queries_stores.drift_count(caller)
    context = {
        "found": found,
        "matters": _matters(caller, found, differing),
        "classes": [(count, _meter(count)) for count in counts],
        "chart": _chart(statistics.weeks_ahead(caller), len(found.overdue)),
        "recent": recent,
        "differences": differing,
    }
    return render(request, "overview.html", context)


def _matters(caller: Caller, found: Overview, differing: int) -> list[Matter]:
    """Return what needs attention, the most pressing first."""
    ending = queries_material.material_ending(caller)
    return [
        *_unhealthy(),
        *_compromised(found),
        *_approved(caller),
        *_ceremonies(caller),
        *_votes(caller),
        *_material_gone(ending),
        *_differences(differing),
        *_suspended(found),
        *_low_budgets(found),
        *_overdue(found),
        *_material_ending(ending),
        *_destructions(found),
        *_policies(found),
        *_failed_jobs(found),
    ]


def _unhealthy() -> list[Matter]:
    address = reverse("web:key-stores")
    return [
        Matter(
            "bad",
            "server-off",
            f"Needs a look: {PARTS.get(part.name, part.name)}",
            part.reason,
            address if part.name == "key_stores" else "",
            "Key stores",
        )
        for part in health.report().parts
        if part.status != health.OK
    ]


def _compromised(found: Overview) -> list[Matter]:
    return [
        Matter(
            "bad",
            "octagon-alert",
            f"{row.key.name}: version {row.number} is compromised",
            f"Marked {relative(row.compromised_at)}. Protect its data anew, then destroy the version.",
            reverse("web:key", args=[row.key.alias]),
            "Open the key",
        )
        for row in found.compromised
    ]


def _approved(caller: Caller) -> list[Matter]:
    """Return what officers agreed to and only the caller can carry out."""
    if not may(caller, Action.WITHDRAW_REQUEST):
        return []
    return [
        Matter(
            "note",
            "check-check",
            f"{wording.label('action', row.action)}: {row.subject_name} is approved",
            "It waits for you: only who asked can carry it out.",
            reverse("web:approval", args=[row.id]),
            "Go on",
        )
        for row in queries.list_approvals(caller, by_me=True, state="approved", limit=10).rows
        if Action(row.action).row.by_requester
    ]


def _suspended(found: Overview) -> list[Matter]:
    return [
        Matter(
            "warn",
            "circle-pause",
            f"{row.key.name}: its primary version is suspended",
            "Nothing new can be protected with it until the version is resumed or the key is rotated.",
            reverse("web:key", args=[row.key.alias]),
            "Open the key",
        )
        for row in found.suspended
    ]


def _differences(count: int) -> list[Matter]:
    if not count:
        return []
    noun = "difference" if count == 1 else "differences"
    return [
        Matter(
            "warn",
            "git-compare",
            f"{count} {noun} between the console and its key stores",
            "Each can be accepted, or put back.",
            reverse("web:drift"),
            "Differences",
        )
    ]


def _votes(caller: Caller) -> list[Matter]:
    waiting = queries.waiting_for(caller)
    if not waiting:
        return []
    noun = "request waits" if waiting == 1 else "requests wait"
    return [
        Matter(
            "note",
            "inbox",
            f"{waiting} {noun} for your vote",
            "Nothing of it happens before enough officers agree.",
            reverse("web:approvals"),
            "Vote",
        )
    ]


_ASKED = {
    Task.COMPONENT: "You are asked to enter a component",
    Task.WHOLE: "You are asked to bring the material",
    Task.CONFIRM: "You are asked to compare a check value",
    Task.IMPORT: "A key ceremony is ready for its import",
}


def _ceremonies(caller: Caller) -> list[Matter]:
    """Return the key ceremonies in which this officer must do something now."""
    if not may(caller, Action.OPEN_CEREMONY):
        return []
    return [
        Matter(
            "note",
            "users",
            f"{_ASKED[task]}: {row.key.name}",
            f"In the key ceremony that {row.opened_by.name} opened. It ends {relative(row.expires_at)}.",
            reverse("web:ceremony", args=[row.id]),
            "Go there",
        )
        for row in queries_material.ceremonies_under_way(caller)
        if (task := task_of(caller, row)) in _ASKED
    ]


def _material_gone(ending: Ending) -> list[Matter]:
    return [
        Matter(
            "bad",
            "circle-alert",
            f"{row.key.name}: the material of version {row.number} is not here",
            "It expired, or was deleted. "
            + (
                "Nothing can be protected with the key"
                if row.primary
                else "Nothing can be read with it"
            )
            + " until the same material is imported again.",
            reverse("web:key", args=[row.key.alias]),
            "Open the key",
        )
        for row in ending.gone
    ]


def _material_ending(ending: Ending) -> list[Matter]:
    return [
        Matter(
            "warn",
            "calendar-clock",
            f"{row.key.name}: the material of version {row.number} expires "
            f"{relative(row.material_expires_at)}",
            "It is removed then. Have the same material, or new, at hand.",
            reverse("web:key", args=[row.key.alias]),
            "Open the key",
        )
        for row in ending.soon
    ]


def _low_budgets(found: Overview) -> list[Matter]:
    matters = []
    for row in found.low_budgets:
        budget = counters.budget(row.id, row.key.algorithm)
        if budget is None:
            continue
        matters.append(
            Matter(
                "warn",
                "gauge",
                f"{row.key.name} has little of its message budget left",
                f"{budget.share} % of {budget.limit:,} messages are handed out. "
                + (
                    "Import new material: that rotates it."
                    if row.key.origin == Origin.IMPORTED
                    else "The next sweep rotates it, or asks for votes."
                ),
                reverse("web:key", args=[row.key.alias]),
                "Open the key",
            )
        )
    return matters


def _overdue(found: Overview) -> list[Matter]:
    matters = []
    for key in found.overdue:
        paused = key.classification.rotation_paused
        text = f"It was due {relative(key.rotate_at)}." + (
            f" Rotation of {key.classification.title} is paused." if paused else ""
        )
        if queries_ceremonies.awaits_material(key):
            matters.append(_needs_material(key, text))
            continue
        matters.append(
            Matter(
                "warn",
                "calendar-clock",
                f"{key.name} is overdue for rotation",
                text,
                reverse("web:key", args=[key.alias]),
                "Open the key",
            )
        )
    return matters


def _needs_material(key: Key, text: str) -> Matter:
    return Matter(
        "warn",
        "upload",
        f"{key.name} needs new material",
        f"{text} Its material comes from outside: only an officer who brings new can rotate it.",
        reverse("web:key-import", args=[key.alias]),
        "Bring it",
    )


def _destructions(found: Overview) -> list[Matter]:
    return [
        Matter(
            "warn",
            "hourglass",
            f"{key.name} will be destroyed {relative(key.destroy_at)}",
            "Until then its destruction can be cancelled.",
            reverse("web:key", args=[key.alias]),
            "Open the key",
        )
        for key in found.pending_destruction
    ]


def _policies(found: Overview) -> list[Matter]:
    matters = [
        Matter(
            "warn",
            "pause",
            f"Rotation is paused for {row.title}",
            row.rotation_paused_reason,
            reverse("web:classification", args=[row.name]),
            "Open the classification",
        )
        for row in found.paused
    ]
    if found.shortage:
        matters.append(
            Matter(
                "warn",
                "users",
                "There are too few officers",
                found.shortage,
                reverse("web:people"),
                "People",
            )
        )
    return matters


def _failed_jobs(found: Overview) -> list[Matter]:
    if not found.failed_jobs:
        return []
    noun = "job" if found.failed_jobs == 1 else "jobs"
    address = reverse("web:jobs") + "?state=failed"
    title = f"{found.failed_jobs} {noun} failed this week"
    return [Matter("warn", "list-checks", title, "Each says what went wrong.", address, "Jobs")]


def _meter(count: ClassCount) -> dict[str, float]:
    """Return the widths, in percent, of a bar that shows a classification's keys by state."""
    states = count.by_state
    total = count.total or 1
    enabled = 100 * states.get(KeyState.ENABLED, 0) / total
    waiting = (
        100
        * (states.get(KeyState.PENDING_IMPORT, 0) + states.get(KeyState.PENDING_DESTRUCTION, 0))
        / total
    )
    off = 100 * (states.get(KeyState.DISABLED, 0) + states.get(KeyState.DESTROYED, 0)) / total
    return {
        "enabled": round(enabled, 2),
        "waiting": round(waiting, 2),
        "waiting_at": round(enabled, 2),
        "off": round(off, 2),
        "off_at": round(enabled + waiting, 2),
    }


# The strip of weeks, in the units of its viewBox.
WIDTH, HEIGHT, BASE, STEP, BAR, FIRST = 780, 132, 106, 27, 17, 66


def _chart(weeks: list[Week], overdue: int) -> dict[str, Any]:
    """Return the geometry of the strip: a bar a week, and one for what is overdue."""
    highest = max([overdue, *(week.rotations + week.destructions for week in weeks), 4])
    scale = (BASE - 22) / highest
    bars: list[dict[str, Any]] = []
    months: list[dict[str, Any]] = []
    last = ""
    for number, week in enumerate(weeks):
        x = FIRST + number * STEP
        up, down = round(week.rotations * scale), round(week.destructions * scale)
        bars.append(
            {
                "x": x,
                "middle": x + BAR / 2,
                "week": week,
                "y": BASE - up,
                "height": up,
                "destroy_y": BASE - up - down,
                "destroy_height": down,
                "top": BASE - up - down - 5,
                "total": week.rotations + week.destructions,
            }
        )
        month = f"{week.start:%b}"
        if month != last:
            months.append({"x": x, "word": month})
            last = month
    # A month that begins right behind another label would lie on it.
    months = [m for i, m in enumerate(months) if i == 0 or m["x"] - months[i - 1]["x"] >= STEP]
    late = round(overdue * scale)
    return {
        "width": WIDTH,
        "height": HEIGHT,
        "base": BASE,
        "bar": BAR,
        "bars": bars,
        "months": months,
        "overdue": {"count": overdue, "y": BASE - late, "height": late, "top": BASE - late - 5},
        "rotations": sum(week.rotations for week in weeks),
        "destructions": sum(week.destructions for week in weeks),
        "until": weeks[-1].start if weeks else clock.now().date(),
        "weeks": len(weeks),
    }
