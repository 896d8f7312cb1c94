"""What every request passes before Django's own views see it."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable

from django.conf import settings
from django.contrib.auth import logout
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse

Respond = Callable[[HttpRequest], HttpResponse]

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
SIGNED_IN, LAST_SEEN = "signed_in_at", "last_seen_at"


def request_id(offered: str | None) -> str:
    """Return the id under which this request stands in the trail: the client's own, if it is a decent one."""
    return offered if offered and _REQUEST_ID.fullmatch(offered) else str(uuid.uuid4())


class RequestIdMiddleware:
    """Give each request an id, and tell it to the client."""

    def __init__(self, respond: Respond) -> None:
        self.respond = respond

    def __call__(self, request: HttpRequest) -> HttpResponse:
        request.request_id = request_id(request.headers.get("X-Request-Id"))  # type: ignore[attr-defined]
        response = self.respond(request)
        response["X-Request-Id"] = request.request_id  # type: ignore[attr-defined]
        return response


class SessionLimitsMiddleware:
    """End a session that was idle too long, is too old, or belongs to a closed account."""

    def __init__(self, respond: Respond) -> None:
        self.respond = respond

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if request.user.is_authenticated:
            now = int(time.time())
            began = request.session.get(SIGNED_IN)
            seen = request.session.get(LAST_SEEN)
            began = began if isinstance(began, int) else 0
            seen = seen if isinstance(seen, int) else 0
            fresh = (
                now - began < settings.SESSION_ABSOLUTE_SECONDS
                and now - seen < settings.SESSION_IDLE_SECONDS
            )
            if not fresh:
                logout(request)
            elif now - seen >= 30:  # not a write for every request
                request.session[LAST_SEEN] = now
        return self.respond(request)


class FetchMetadataMiddleware:
    """Refuse unsafe requests that another site made the browser send (W3C Fetch Metadata)."""

    def __init__(self, respond: Respond) -> None:
        self.respond = respond

    def __call__(self, request: HttpRequest) -> HttpResponse:
        site = request.headers.get("Sec-Fetch-Site", "same-origin")
        if request.method not in ("GET", "HEAD", "OPTIONS") and site not in ("same-origin", "none"):
            raise PermissionDenied("This request came from another site.")
        return self.respond(request)
