"""Signing in and out."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

from django.contrib.auth import authenticate, login, logout
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_POST

from keys import queries
from keys.administration import sessions
from keys.callers import Caller, Door
from keys.errors import KeyServiceError, Unauthenticated
from kms_console import identity
from kms_console.middleware import LAST_SEEN, SIGNED_IN
from kms_console.web import failures, throttle
from kms_console.web.doors import check_text
from kms_console.web.forms import SignInForm

# One sentence for every reason, so that nobody learns which names there are.
REFUSED = "User name or password are wrong, or there were too many attempts. Wait a while, then try again."


@sensitive_post_parameters("password")
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def sign_in(request: HttpRequest) -> HttpResponse:
    if not queries.is_set_up():
        return redirect("web:set-up")
    if identity.person(request) is not None:
        return redirect(_next(request))
    form = SignInForm(request.POST if request.method == "POST" else None)
    status = 200
    if request.method == "POST":
        status = 400
        try:
            check_text(request)
            if form.is_valid():
                status = _prove(request, form.cleaned_data)
                if status == 200:
                    return redirect(_next(request))
                form.add_error(None, REFUSED)
        except KeyServiceError as error:
            return failures.page(request, error)
    return render(request, "sign_in.html", {"form": form, "next": _wanted(request)}, status=status)


def _prove(request: HttpRequest, values: dict[str, Any]) -> int:
    """Sign a person in and return 200; or 401 or 429, having counted the failure."""
    username, source = values["username"], identity.source_of(request.META)
    if throttle.blocked(username, source):
        refused(source, "too_many_attempts")
        return 429
    # For a name that there isn't, this takes as long as for a wrong password.
    user = authenticate(request, username=username.strip().lower(), password=values["password"])
    caller = _caller(request, user) if user is not None else None
    if caller is None:
        throttle.failed(username, source)
        refused(source, "wrong_password" if user is None else "no_account")
        return 401
    # The entry comes first: who can't be recorded does not get in.
    sessions.signed_in(caller)
    throttle.succeeded(username, source)
    login(request, user)  # under a new session id
    now = int(time.time())
    request.session[SIGNED_IN] = now
    request.session[LAST_SEEN] = now
    return 200


def _caller(request: HttpRequest, user: Any) -> Caller | None:
    """Return who this would be, without signing anybody in yet."""
    before = request.user
    request.user = user
    try:
        return identity.person(request)
    finally:
        request.user = before


def refused(source: str, reason: str) -> None:
    with suppress(Unauthenticated):
        identity.refuse(source, Door.CONSOLE, reason)


def _wanted(request: HttpRequest) -> str:
    """Return where to go afterwards, if that is a page of ours."""
    wanted = request.POST.get("next") or request.GET.get("next") or ""
    ours = url_has_allowed_host_and_scheme(
        wanted, allowed_hosts={request.get_host()}, require_https=request.is_secure()
    )
    return wanted if ours and wanted.startswith("/") else ""


def _next(request: HttpRequest) -> str:
    return _wanted(request) or "web:overview"


@never_cache
@require_POST
def sign_out(request: HttpRequest) -> HttpResponse:
    """End this session. It ends even where that can't be recorded."""
    caller = identity.person(request)
    try:
        if caller is not None:
            sessions.signed_out(caller)
    except KeyServiceError:
        pass
    finally:
        logout(request)
    return redirect("web:sign-in")
