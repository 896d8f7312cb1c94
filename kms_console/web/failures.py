"""What went wrong, as a page of the house: one table from the domain's errors to status and words."""

from __future__ import annotations

import sys
from typing import Any

from django.contrib import messages
from django.db import Error as DatabaseError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.template.loader import render_to_string

from keys import errors, gate
from keys.errors import KeyServiceError, PendingApproval
from kms_console import identity
from kms_console.api.rest import problems

# The first class that fits counts, so the special ones stand before the general.
STATUS: tuple[tuple[type[KeyServiceError], int], ...] = (
    (errors.Unauthenticated, 401),
    (errors.Denied, 403),
    (errors.NotFound, 404),
    (errors.TooLarge, 413),
    (errors.Invalid, 400),
    (errors.Conflict, 409),
    (errors.CannotDecrypt, 400),
    (errors.Unsupported, 422),
    (errors.PendingApproval, 202),
    (errors.RateLimited, 429),
    (errors.Unavailable, 503),
    (errors.BackendError, 502),
)


def status_of(error: KeyServiceError) -> int:
    """Return the HTTP status of a domain error."""
    return next((status for kind, status in STATUS if isinstance(error, kind)), 400)


def told(request: HttpRequest, error: KeyServiceError) -> KeyServiceError:
    """Leave an entry of what a known person sent and the gate never saw; return what to answer."""
    caller = getattr(request, "caller", None) or identity.person(request)
    if caller is None or error.recorded or not 400 <= status_of(error) < 500:
        return error
    try:
        gate.refused(caller, request.path, error)
    except KeyServiceError as trouble:
        return trouble
    error.recorded = True
    return error


def page(request: HttpRequest, error: KeyServiceError) -> HttpResponse:
    """Return the page for a domain error that no form could show."""
    return _page(request, status_of(error), error.title, error.detail)


def pending(request: HttpRequest, error: PendingApproval) -> HttpResponse:
    """Go to the request that now waits for officers, and say so."""
    messages.info(
        request,
        "Nothing has changed yet: the officers were asked. This page says what happens next.",
        extra_tags="pending",
    )
    return redirect("web:approval", reference=error.extra["approval"])


# --- Django's own handlers, named in urls.py and settings.py


def bad_request(request: HttpRequest, exception: object = None) -> HttpResponse:
    return _page(
        request, 400, "That request can't be understood", "Go back, look at the form and try again."
    )


def forbidden(request: HttpRequest, exception: object = None) -> HttpResponse:
    told(request, errors.Denied())
    return _page(
        request, 403, "You may not do this", str(exception or "") or "Your role does not allow it."
    )


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    told(request, errors.Denied())
    return _page(
        request,
        403,
        "The form has expired",
        "It was opened in another session, or cookies are blocked. Open the page again and repeat "
        "what you did; nothing has been changed.",
    )


def not_found(request: HttpRequest, exception: object = None) -> HttpResponse:
    return _page(
        request,
        404,
        "There is no such page",
        "The address may be mistyped, or what it named is not there any more.",
    )


def server_error(request: HttpRequest) -> HttpResponse:
    """The plainest page: it asks nothing of the database, which may be what is broken."""
    outage = isinstance(sys.exc_info()[1], DatabaseError)
    status = 503 if outage else 500
    title, text = OUTAGE if outage else FAULT
    if _wants_problem(request):
        return _problem(request, status)
    page = render_to_string(
        "failures/plain.html",
        {"title": title, "text": text, "request_id": getattr(request, "request_id", "")},
    )
    return HttpResponse(page, status=status, headers={"Retry-After": "5"} if outage else None)


OUTAGE = (
    "The database can't be reached now",
    "Nothing is lost, and nothing was changed. The console goes on by itself once the database is back; "
    "try again in a moment.",
)
FAULT = (
    "Something went wrong here",
    "It is our fault, not yours. Try again; if it stays, give the request id below to whoever runs "
    "this console.",
)


def _page(request: HttpRequest, status: int, title: str, text: str) -> HttpResponse:
    if _wants_problem(request):
        return _problem(request, status)
    context: dict[str, Any] = {"title": title, "text": text, "status": status}
    response = render(request, "failures/page.html", context, status=status)
    response["Cache-Control"] = "no-store"
    return response


def _wants_problem(request: HttpRequest) -> bool:
    return request.path.startswith("/api/")


_PROBLEMS: dict[int, type[KeyServiceError]] = {
    400: problems.MalformedRequest,
    403: errors.Denied,
    404: errors.NotFound,
    503: errors.Unavailable,
}


def _problem(request: HttpRequest, status: int) -> HttpResponse:
    """Return a problem document (RFC 9457), as the API's own, for what a machine asked."""
    error = _PROBLEMS.get(status, problems.Internal)()
    body = problems.document(error, getattr(request, "request_id", "-"))
    return HttpResponse(body, status=status, content_type=problems.MEDIA_TYPE)
