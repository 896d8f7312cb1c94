"""Key ceremonies: opening one, what each officer must do now, the import at its end, its minutes."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.template.loader import render_to_string
from django.urls import reverse
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from keys import administration as a
from keys import clock, queries, queries_ceremonies
from keys.actions import Action
from keys.algorithms import SPECS
from keys.callers import Caller
from keys.imports import ceremonies as rules
from keys.models import Approval, Ceremony, Custodian
from keys.models.imports import CeremonyState
from keys.states import KeyState
from kms_console.web import facts, watching
from kms_console.web.ceremony_forms import (
    AgreedForm,
    ComponentForm,
    ConfirmForm,
    ImportForm,
    OpenForm,
    WholeForm,
)
from kms_console.web.doors import confirm, given, handle, may, offer, page, votes_needed
from kms_console.web.forms import HouseForm
from kms_console.web.material import about, asked_version, done, material_words
from kms_console.web.public_keys import attachment
from kms_console.web.verbs import Verb

CANCEL = Verb(
    "cancel", Action.CLOSE_CEREMONY, "Cancel the ceremony", "circle-slash", danger=True,
    done="The ceremony is cancelled; every component is removed.",
)  # fmt: skip


class Task(StrEnum):
    """What a person must do now in a ceremony, or what it waits for."""

    COMPONENT = "component"
    WHOLE = "whole"
    CONFIRM = "confirm"
    IMPORT = "import"
    WAIT_COMPONENTS = "wait_components"
    WAIT_CONFIRMATIONS = "wait_confirmations"
    WAIT_VOTES = "wait_votes"
    OVER = "over"


def task_of(caller: Caller, row: Ceremony) -> Task:
    """Return what this person must do now; `row.custodians` may be fetched already."""
    parts = list(row.custodians.all())
    mine = next((one for one in parts if one.officer_id == caller.principal_id), None)
    if row.state != CeremonyState.OPEN or row.expires_at <= clock.now():
        return Task.OVER
    if not row.check_value:
        if mine is not None and mine.entered_at is None and (row.split or mine.number == 1):
            return Task.COMPONENT if row.split else Task.WHOLE
        return Task.WAIT_COMPONENTS
    if mine is not None and mine.confirmed_at is None:
        return Task.CONFIRM
    if sum(one.confirmed_at is not None for one in parts) < rules.CONFIRMATIONS:
        return Task.WAIT_CONFIRMATIONS
    return Task.IMPORT


# --- opening


@require_http_methods(["GET", "HEAD", "POST"])
@page
def ceremony_open(request: HttpRequest, caller: Caller, reference: str) -> HttpResponse:
    """Name the officers, and say whether each brings a component."""
    offer(request, caller, Action.OPEN_CEREMONY)
    key = queries.find_key(caller, reference)
    version = asked_version(request, key)
    form = OpenForm(caller, key, request.POST if request.method == "POST" else None)

    def begin(values: dict[str, Any]) -> HttpResponse:
        row = a.open_ceremony(caller, key.alias, **values)
        messages.success(request, "The ceremony is open. This page says who does what next.")
        return redirect("web:ceremony", reference=row.id)

    return handle(request, form, begin, "ceremonies/open.html", about(caller, key, version))


# --- its page


@require_safe
@page
def ceremony_page(request: HttpRequest, caller: Caller, reference: str) -> HttpResponse:
    """Show where a ceremony stands, and what this person must do now."""
    row = queries_ceremonies.ceremony(caller, reference)
    context = _context(request, caller, row)
    form = _form(context["task"], row, context["approved"])
    return render(request, "ceremonies/page.html", {**context, "form": form})


def _context(
    request: HttpRequest, caller: Caller, row: Ceremony, task: Task | None = None
) -> dict[str, Any]:
    parts = list(row.custodians.select_related("officer").order_by("number"))
    live = _requests(caller, row)
    approved = next((one for one in live if _mine(caller, one)), None)
    task = task or task_of(caller, row)
    if task is Task.IMPORT and live and approved is None:
        task = Task.WAIT_VOTES
    if not may(caller, Action.OPEN_CEREMONY) and task is Task.IMPORT:
        task = Task.WAIT_VOTES
    mine = next((one for one in parts if one.officer_id == caller.principal_id), None)
    return {
        "row": row,
        "key": row.key,
        "parts": parts,
        "mine": mine,
        "bringing": parts if row.split else parts[:1],
        "task": task.value,
        "approved": approved,
        "requests": live,
        "waiting_for": _waiting_for(row, parts),
        "confirmed": sum(one.confirmed_at is not None for one in parts),
        "wanted": rules.CONFIRMATIONS,
        "size": material_words(row.key),
        "votes": votes_needed(Action.IMPORT_KEY, row.key.classification),
        "expired": row.state == CeremonyState.OPEN and row.expires_at <= clock.now(),
        "may_cancel": row.state == CeremonyState.OPEN and may(caller, Action.CLOSE_CEREMONY),
        "again": watching.again(request, task.value.startswith("wait") and not request.POST),
    }


def _mine(caller: Caller, one: Approval) -> bool:
    return one.state == "approved" and one.requester_id == caller.principal_id


def _requests(caller: Caller, row: Ceremony) -> list[Approval]:
    """Return the live requests to import what a ceremony brought."""
    found: list[Approval] = []
    for state in ("open", "approved"):
        found += queries.list_approvals(caller, key=row.key, state=state, limit=20).rows
    return [one for one in found if one.parameters.get("ceremony") == str(row.id)]


def _waiting_for(row: Ceremony, parts: list[Custodian]) -> str:
    """Return the names of those who have not done their part yet."""
    if not row.check_value:
        left = [one for one in (parts if row.split else parts[:1]) if one.entered_at is None]
    else:
        left = [one for one in parts if one.confirmed_at is None]
    return ", ".join(one.officer.name for one in left)


def _form(task: str, row: Ceremony, approved: Approval | None, *posted: Any) -> HouseForm | None:
    """Return the form of what is to be done now, if that has one."""
    if task == Task.COMPONENT:
        return ComponentForm(SPECS[row.key.spec], *posted)
    if task == Task.WHOLE:
        return WholeForm(row.key, *posted)
    if task == Task.CONFIRM:
        return ConfirmForm(*posted)
    if task == Task.IMPORT:
        return AgreedForm(*posted) if approved else ImportForm(row.key, *posted)
    return None


def _step(
    request: HttpRequest,
    caller: Caller,
    row: Ceremony,
    task: Task,
    do: Callable[[dict[str, Any]], str],
) -> HttpResponse:
    """Do a step of a ceremony and return to its page, or show what was wrong at the fields there."""
    context = _context(request, caller, row, task)
    form = _form(task, row, context["approved"], request.POST, request.FILES)
    assert form is not None

    def act(values: dict[str, Any]) -> HttpResponse:
        messages.success(request, do(values))
        return redirect("web:ceremony", reference=row.id)

    return handle(request, form, act, "ceremonies/page.html", context)


@sensitive_post_parameters()
@require_POST
@page
def ceremony_enter(request: HttpRequest, caller: Caller, reference: str) -> HttpResponse:
    """Take one's own component, or from the first officer the whole material, wrapped."""
    row = queries_ceremonies.ceremony(caller, reference)

    def enter(values: dict[str, Any]) -> str:
        part = a.enter_component(caller, str(row.id), **values)
        what = "Your component" if row.split else "The material"
        return f"{what} is in. Its check value is {part.check_value}: compare it with the one on paper."

    return _step(request, caller, row, Task.COMPONENT if row.split else Task.WHOLE, enter)


@require_POST
@page
def ceremony_confirm(request: HttpRequest, caller: Caller, reference: str) -> HttpResponse:
    row = queries_ceremonies.ceremony(caller, reference)

    def confirmed(values: dict[str, Any]) -> str:
        a.confirm_ceremony(caller, str(row.id), **values)
        return "You have confirmed the check value."

    return _step(request, caller, row, Task.CONFIRM, confirmed)


@require_POST
@page
def ceremony_import(request: HttpRequest, caller: Caller, reference: str) -> HttpResponse:
    """Import what the ceremony brought, or ask the officers to agree to that."""
    row = queries_ceremonies.ceremony(caller, reference)
    approved = next((one for one in _requests(caller, row) if _mine(caller, one)), None)

    def bring(values: dict[str, Any]) -> str:
        if approved is not None:
            agreed = ("originated_at", "expires_at", "number", "check_value")
            values = {name: approved.parameters.get(name) for name in agreed}
            values["reason"] = approved.reason
        number = values.get("number")
        version = row.key.versions.filter(number=number).first() if number else None
        told = done(row.key, version)
        a.import_key(caller, row.key.alias, ceremony=str(row.id), **given(values))
        return f"{told} The ceremony is over: print its minutes."

    return _step(request, caller, row, Task.IMPORT, bring)


@require_http_methods(["GET", "HEAD", "POST"])
@page
def ceremony_cancel(request: HttpRequest, caller: Caller, reference: str) -> HttpResponse:
    row = queries_ceremonies.ceremony(caller, reference)
    return confirm(
        request,
        caller,
        CANCEL,
        title=f"Cancel the ceremony: {row.key.name}",
        explanation="Every component that was entered is removed, and nothing is imported. Another "
        "ceremony can be opened.",
        back=reverse("web:ceremony", args=[row.id]),
        do=lambda values: a.close_ceremony(caller, str(row.id), **values),
        done=CANCEL.done,
    )


# --- minutes


@require_safe
@page
def ceremony_minutes(request: HttpRequest, caller: Caller, reference: str) -> HttpResponse:
    """Show a ceremony's minutes as they stand, for printing and signing."""
    return render(request, "ceremonies/minutes.html", _minutes(caller, reference))


@require_safe
@page
def ceremony_minutes_text(request: HttpRequest, caller: Caller, reference: str) -> HttpResponse:
    context = _minutes(caller, reference)
    text = render_to_string("ceremonies/minutes.txt", context)
    name = f"ceremony-{context['row'].key.alias}-{context['row'].id}.txt"
    return attachment(text, name, "text/plain; charset=utf-8")


def _told(said: dict[str, Any]) -> list[tuple[str, Any]]:
    """Return what an entry says of a ceremony, without what the minutes say anyway."""
    left_out = ("role", "key", "split")
    return facts.rows({name: value for name, value in said.items() if name not in left_out})


def _minutes(caller: Caller, reference: str) -> dict[str, Any]:
    found = queries_ceremonies.minutes(caller, reference)
    return {
        "minutes": found,
        "row": found.ceremony,
        "key": found.ceremony.key,
        "parts": found.custodians,
        "steps": [(step, _told(step.facts)) for step in found.steps],
        "now": clock.now(),
        "done": found.ceremony.state == CeremonyState.DONE,
        "enabled": found.ceremony.key.state == KeyState.ENABLED,
    }
