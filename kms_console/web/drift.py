"""Where key stores differ from what the console believes: the list, a key's own panel, the three ways."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from keys import administration as a
from keys import queries, queries_stores
from keys.backends import registry
from keys.backends.views import KeyView, VersionView
from keys.callers import Caller
from keys.drift.plain import from_plain
from keys.drift.ways import LOST, ways
from keys.errors import NotFound
from keys.models import Drift, Key
from keys.models.drift import DriftField, DriftState
from keys.states import GONE
from kms_console.web import differences, settling
from kms_console.web.differences import Side
from kms_console.web.doors import confirm, may, page
from kms_console.web.settling import WAYS
from kms_console.web.verbs import Verb

_DO: dict[str, Callable[..., Any]] = {
    "accept": a.accept_drift,
    "revert": a.revert_drift,
    "repair": a.repair_drift,
}


@dataclass(frozen=True, slots=True)
class Row:
    """One difference as pages show it; `ways` are the verbs that this person may use, `closed` those
    that are not possible, with the reason."""

    drift: Drift
    about: str
    believed: Side
    observed: Side
    ways: tuple[Verb, ...]
    closed: tuple[tuple[Verb, str], ...]


def rows_of(caller: Caller, drifts: Iterable[Drift]) -> list[Row]:
    """Return differences with their words, and what this person can do about each."""
    return [_row(caller, drift) for drift in drifts]


def _row(caller: Caller, drift: Drift) -> Row:
    offered = ways(drift) if drift.state == DriftState.OPEN else {}
    verbs = [(WAYS[name], why) for name, why in offered.items() if name in WAYS]
    verbs = [(verb, why) for verb, why in verbs if may(caller, verb.action)]
    return Row(
        drift,
        differences.about(drift),
        differences.side(drift, drift.believed),
        differences.side(drift, drift.observed),
        tuple(verb for verb, why in verbs if not why),
        tuple((verb, why) for verb, why in verbs if why and _worth_saying(drift, verb)),
    )


def _worth_saying(drift: Drift, verb: Verb) -> bool:
    """Whether it is news that a way is not possible: where nothing is lost, nobody thinks of repair."""
    gone = drift.field == DriftField.VERSION_STATE and drift.observed in GONE
    return verb.name != "repair" or drift.field in LOST or gone


@require_safe
@page
def drift_list(request: HttpRequest, caller: Caller) -> HttpResponse:
    asked = {name: request.GET.get(name, "")[:200] for name in ("key", "key_store", "field")}
    state = request.GET.get("state", DriftState.OPEN.value)
    state = state if state in DriftState.values else DriftState.OPEN.value
    asked["field"] = asked["field"] if asked["field"] in DriftField.values else ""
    found = queries_stores.drifts(
        caller,
        state=state,
        key=asked["key"],
        key_store=asked["key_store"],
        field=asked["field"],
        cursor=request.GET.get("after", "")[:200],
    )
    context = {
        "page": found,
        "rows": rows_of(caller, found.rows),
        "asked": asked,
        "filtered": any(asked.values()),
        "state": state,
        "states": DriftState.choices,
        "fields": DriftField.choices,
        "key_stores": [row for row in queries.list_key_stores(caller) if _remote(row.kind)],
    }
    return render(request, "drift/list.html", context)


def _remote(kind: str) -> bool:
    return kind in registry.KINDS and registry.KINDS[kind].remote


@require_http_methods(["GET", "HEAD", "POST"])
@page
def drift_verb(request: HttpRequest, caller: Caller, reference: str, verb: str) -> HttpResponse:
    """Accept, revert or repair: say exactly what will happen and ask why, then do it."""
    chosen = WAYS.get(verb)
    if chosen is None:
        raise NotFound("There is no such page.")
    row = queries_stores.find_drift(caller, reference)
    key: Key = row.key
    return confirm(
        request,
        caller,
        replace(chosen, danger=settling.dangerous(row, verb)),
        title=f"{chosen.label}: {key.name}, {_lowered(differences.about(row))}",
        explanation=settling.explanation(row, verb),
        back=reverse("web:key", args=[key.alias]),
        do=lambda values: _DO[verb](caller, str(row.id), **values),
        done=chosen.done,
        classification=key.classification,
    )


def _lowered(text: str) -> str:
    return text[:1].lower() + text[1:]


@require_POST
@page
def key_compare(request: HttpRequest, caller: Caller, reference: str) -> HttpResponse:
    """Ask a key's store now, and say what came of it."""
    key = a.check_drift(caller, reference)
    differing = queries_stores.drifts(caller, key=str(key.id), limit=100).rows
    if differing:
        count = len(differing)
        noun = "difference is" if count == 1 else "differences are"
        messages.warning(request, f"The store was asked: {count} {noun} open.")
    else:
        messages.success(request, "The store was asked: it says what the console says.")
    return redirect("web:key", reference=key.alias)


# --- the panel on a key's page


@dataclass(frozen=True, slots=True)
class Rotations:
    """How much of a store's own limit of rotations a key has used."""

    used: int
    limit: int

    @property
    def share(self) -> int:
        return min(100, 100 * self.used // max(1, self.limit))


@dataclass(frozen=True, slots=True)
class AtStore:
    """What a key's store last said of it, for the key's page."""

    view: Any
    seen: KeyView | None
    versions: list[tuple[VersionView, int | None]]
    rotations: Rotations | None
    rows: list[Row]
    facts: list[tuple[str, str]]


# Facts that stand elsewhere on the panel.
_METER = ("rotations_used", "rotations_limit")


def at_store(caller: Caller, key: Key) -> AtStore | None:
    """Return what there is to say of a key at its store; None where the store keeps no states."""
    if not _remote(key.key_store.kind):
        return None
    view = queries_stores.store_view(caller, key)
    seen = from_plain(view.seen) if view is not None and view.seen else None
    numbers = dict(key.versions.values_list("handle", "number"))
    told = [(one, numbers.get(one.handle)) for one in reversed(seen.versions)] if seen else []
    budget = queries_stores.seen_budget(key)
    facts = seen.facts.items() if seen else ()
    return AtStore(
        view,
        seen,
        told[:50],
        Rotations(*budget) if budget else None,
        rows_of(caller, queries_stores.drifts(caller, key=str(key.id), limit=50).rows),
        [(name.replace("_", " ").capitalize(), str(v)) for name, v in facts if name not in _METER],
    )
