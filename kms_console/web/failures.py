"""What went wrong, as a page of the house: one table from the domain's errors to status and words."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.template.loader import render_to_string

from keys import errors
from keys.errors import KeyServiceError, PendingApproval

# The first class that fits counts, so the special ones stand before the general.
STATUS: tuple[tuple[type[KeyServiceError], int], ...] = (
    (errors.Unauthenticated, 401),
    (errors.Denied, 403),
    (errors.NotFound, 404),
    (errors.TooLarge, 413),
    (errors.Invalid, 400),
    (errors.Conflict, 409),
    (errors.CannotDecrypt, 422),
    (errors.Unsupported, 422),
    (errors.PendingApproval, 202),
    (errors.Unavailable, 503),
    (errors.BackendError, 502),
)


def status_of(error: KeyServiceError) -> int:
    """Return the HTTP status of a domain error."""
    return next((status for kind, status in STATUS if isinstance(error, kind)), 400)


def page(request: HttpRequest, error: KeyServiceError) -> HttpResponse:
    """Return the page for a domain error that no form could show."""
    return _page(request, status_of(error), error.title, error.detail)


def pending(request: HttpRequest, error: PendingApproval) -> HttpResponse:
    """Go to the request that now waits for officers, and say so."""
    messages.info(request, f"Nothing has changed yet. {error.detail}", extra_tags="pending")
    return redirect("web:approval", reference=error.extra["approval"])


# --- Django's own handlers, named in urls.py and settings.py


def bad_request(request: HttpRequest, exception: object = None) -> HttpResponse:
    return _page(
        request, 400, "That request can't be understood", "Go back, look at the form and try again."
    )


def forbidden(request: HttpRequest, exception: object = None) -> HttpResponse:
    return _page(
        request, 403, "You may not do this", str(exception or "") or "Your role does not allow it."
    )


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
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
    title = "Something went wrong here"
    text = "It is our fault, not yours. Try again; if it stays, give the request id below to whoever runs this console."
    if _wants_problem(request):
        return _problem(500, title)
    page = render_to_string(
        "failures/plain.html",
        {"title": title, "text": text, "request_id": getattr(request, "request_id", "")},
    )
    return HttpResponse(page, status=500)


def _page(request: HttpRequest, status: int, title: str, text: str) -> HttpResponse:
    if _wants_problem(request):
        return _problem(status, title)
    context: dict[str, Any] = {"title": title, "text": text, "status": status}
    response = render(request, "failures/page.html", context, status=status)
    response["Cache-Control"] = "no-store"
    return response


def _wants_problem(request: HttpRequest) -> bool:
    return request.path.startswith("/api/")


_CODES = {400: "invalid", 403: "denied", 404: "not_found", 500: "internal_error"}


def _problem(status: int, title: str) -> HttpResponse:
    """Return a problem document (RFC 9457) for what a machine asked."""
    document = {
        "type": "about:blank",
        "title": title,
        "status": status,
        "code": _CODES.get(status, "error"),
    }
    return JsonResponse(document, status=status, content_type="application/problem+json")
