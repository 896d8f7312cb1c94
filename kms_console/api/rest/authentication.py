"""Who asks, for Django REST framework: `request.user` is a keys.callers.Caller. identity decides, not this."""

from __future__ import annotations

from typing import Any

from django.middleware.csrf import CsrfViewMiddleware
from rest_framework.authentication import BaseAuthentication
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from keys.callers import Caller, Door
from kms_console import identity
from kms_console.api.rest.asgi import is_json
from kms_console.api.rest.problems import Forged, NotJson

SAFE = ("GET", "HEAD", "OPTIONS")


class BearerAuthentication(BaseAuthentication):
    """Applications: `Authorization: Bearer kms_…`."""

    def authenticate(self, request: Request) -> tuple[Any, None] | None:
        """Return the caller; None where there is no such header at all. Raises keys.errors.Unauthenticated."""
        authorization = request.META.get("HTTP_AUTHORIZATION", "")
        if not authorization:
            return None
        caller = identity.bearer(
            authorization,
            source=identity.source_of(request.META),
            request_id=request_id(request),
        )
        _remember(request, caller)
        return caller, None

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


def _remember(request: Request, caller: Caller) -> None:
    """Keep who asks where a failure finds it: a request that is refused here still has a known caller."""
    request._request.caller = caller  # type: ignore[attr-defined]


class _CsrfCheck(CsrfViewMiddleware):
    def _reject(self, request: Any, reason: str) -> Any:
        return reason


class ConsoleSessionAuthentication(BaseAuthentication):
    """People who are signed in to the console; unsafe methods need the CSRF token."""

    def authenticate(self, request: Request) -> tuple[Any, None] | None:
        caller = identity.person(request._request, Door.REST)
        if caller is None:
            return None
        _remember(request, caller)
        if request.method not in SAFE:
            _check_type(request)
            _check_csrf(request)
        return caller, None


def _check_type(request: Request) -> None:
    """Raise NotJson for forms before anything reads one: the check below would look for its token there."""
    announced = request.META.get("CONTENT_TYPE", "")
    if announced and not is_json(announced):
        raise NotJson


def _nothing(*args: Any) -> Any:
    """Stand for the view, which the check asks only whether it is exempt."""


def _check_csrf(request: Request) -> None:
    """Raise Forged unless the CSRF token is there and right. Views of REST framework are exempt otherwise."""
    check = _CsrfCheck(lambda _: None)  # type: ignore[arg-type]
    check.process_request(request._request)
    if check.process_view(request._request, _nothing, (), {}):
        raise Forged("Send the token of the CSRF cookie in the header X-CSRFToken.")


class HasCaller(BasePermission):
    """Nobody is anonymous. What a caller may do is for the gate to decide, not for a door."""

    def has_permission(self, request: Request, view: Any) -> bool:
        if not isinstance(request.user, Caller):
            identity.refuse(identity.source_of(request.META), Door.REST, "no_token")
        return True


def request_id(request: Request) -> str:
    return getattr(request._request, "request_id", "") or "-"
