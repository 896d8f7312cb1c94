"""What the console's views have in common: who is asking, forms that do something, confirmations."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec
from urllib.parse import urlencode

from django.contrib import messages
from django.contrib.auth import logout
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache

from keys import approvals, queries
from keys.actions import Action
from keys.callers import Caller
from keys.errors import Denied, Invalid, KeyServiceError, PendingApproval
from keys.models import Classification
from kms_console import identity
from kms_console.web import failures
from kms_console.web.forms import HouseForm
from kms_console.web.verbs import Verb

P = ParamSpec("P")
View = Callable[Concatenate[HttpRequest, P], HttpResponseBase]
Page = Callable[Concatenate[HttpRequest, Caller, P], HttpResponseBase]


def page(view: Page[P]) -> View[P]:
    """Make a view that only a signed-in person reaches; the gate decides what that person may."""

    @wraps(view)
    @never_cache
    def answer(request: HttpRequest, *args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
        if not queries.is_set_up():
            return redirect("web:set-up")
        caller = identity.person(request)
        if caller is None:
            return _to_sign_in(request)
        request.caller = caller  # type: ignore[attr-defined]
        try:
            check_text(request)
            return view(request, caller, *args, **kwargs)
        except PendingApproval as waiting:
            return failures.pending(request, waiting)
        except KeyServiceError as error:
            return failures.page(request, failures.told(request, error))

    return answer  # type: ignore[return-value]


def _to_sign_in(request: HttpRequest) -> HttpResponse:
    if request.user.is_authenticated:
        logout(request)  # the account was closed, or is none of ours
    target = reverse("web:sign-in")
    if request.method == "GET" and request.path != "/":
        target += "?" + urlencode({"next": request.get_full_path()})
    return redirect(target)


def check_text(request: HttpRequest) -> None:
    """Raise Invalid for NUL, which no database column of ours can hold."""
    sent = [request.path, *request.GET.keys(), *request.GET.values()]
    if request.method == "POST":
        sent += [value for name in request.POST for value in request.POST.getlist(name)]
        sent += list(request.POST)
    if any("\0" in text for text in sent):
        raise Invalid("Text must not have NUL characters.")


def may(caller: Caller, action: Action) -> bool:
    """Whether a page should offer an action. Only the gate's word counts; this hides what it refuses."""
    return caller.role in action.row.roles


def offer(request: HttpRequest, caller: Caller, action: Action) -> None:
    """Raise Denied for a form that this role can't send. What is sent anyway, the gate refuses and records."""
    if request.method != "POST" and not may(caller, action):
        raise Denied(f"Your role, {caller.role.value}, may not do this: {action.label.lower()}.")


def handle(
    request: HttpRequest,
    form: HouseForm,
    do: Callable[[dict[str, Any]], HttpResponse],
    template: str,
    context: dict[str, Any] | None = None,
) -> HttpResponse:
    """Show a form, or do what it asks and go where `do` says; errors return to their fields."""
    status = 200
    if request.method == "POST":
        status = 400
        if not form.is_valid():
            failures.told(request, Invalid("The form was not filled in as it asks."))
        else:
            try:
                return do(form.cleaned_data)
            except PendingApproval:
                raise
            except KeyServiceError as error:
                form.refuse(failures.told(request, error))
                status = failures.status_of(error)
    return render(request, template, {"form": form, **(context or {})}, status=status)


def given(values: dict[str, Any]) -> dict[str, Any]:
    """Leave out what was left empty, so that a request asks for no more than was filled in."""
    return {name: value for name, value in values.items() if value is not None}


def confirm(
    request: HttpRequest,
    caller: Caller,
    verb: Verb,
    *,
    title: str,
    explanation: str,
    back: str,
    do: Callable[[dict[str, Any]], Any],
    done: str,
    form: HouseForm | None = None,
    classification: Classification | None = None,
) -> HttpResponse:
    """Ask for a reason on a page of its own (a dialog, where there is script), then do it.

    `classification` is the one whose policy may ask for votes first; the page says so beforehand.
    """
    offer(request, caller, verb.action)

    def act(values: dict[str, Any]) -> HttpResponse:
        do(values)
        messages.success(request, done)
        return redirect(back)

    context = {
        "verb": verb,
        "title": title,
        "explanation": explanation,
        "back": back,
        "votes": votes_needed(verb.action, classification),
    }
    chosen = form or verb.form(request.POST if request.method == "POST" else None)
    if classification is not None and "days" in chosen.fields:
        least = classification.destruction_days
        text = f"At least {least}, as {classification.title} asks. Empty: {least}."
        chosen.fields["days"].help_text = text
    return handle(request, chosen, act, "confirm.html", context)


def votes_needed(action: Action, classification: Classification | None = None) -> int:
    """Return how many officers must agree to an action before it happens, or 0."""
    rule = approvals.rule_under(action, classification)
    return rule.m if rule else 0


def show_once(
    request: HttpRequest, *, title: str, secret: str, explanation: str, back: str
) -> HttpResponse:
    """Answer with a secret that nobody can see again; no cache keeps it."""
    context = {"title": title, "secret": secret, "explanation": explanation, "back": back}
    response = render(request, "once.html", context)
    response["Cache-Control"] = "no-store"
    return response
