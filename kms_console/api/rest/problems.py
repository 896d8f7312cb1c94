"""Errors as problem documents (RFC 9457): one table, for the key-use table and for Django REST framework alike."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from django.core.exceptions import PermissionDenied, RequestDataTooBig, SuspiciousOperation
from django.db import Error as DatabaseError
from django.http import Http404
from django.urls import reverse
from rest_framework import exceptions
from rest_framework.response import Response

from keys import errors, gate
from keys.errors import KeyServiceError

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
# Where a problem's type is explained; followed by its code.
TYPES = "/api/v1/problems/"


class MalformedRequest(KeyServiceError):
    """The request can't be understood at all: its body is no JSON, or its headers contradict each other."""

    code, title = "malformed_request", "The request can't be understood"


class NotJson(KeyServiceError):
    """The body is not announced as application/json."""

    code, title = "unsupported_media_type", "Send JSON, with Content-Type: application/json"


class MethodNotAllowed(KeyServiceError):
    """The address exists and does not know this method; the Allow header names those it knows."""

    code, title = "method_not_allowed", "This address does not know that method"


class TimedOut(KeyServiceError):
    """The body did not arrive in time."""

    code, title = "timeout", "The request did not arrive in time"


class Forged(KeyServiceError):
    """A signed-in person's request lacks its CSRF token, or comes from another site."""

    code, title = "csrf_failed", "The request lacks its CSRF token"


class Throttled(KeyServiceError):
    """Too many requests from this caller."""

    code, title = "throttled", "Too many requests"


class RangeNotSatisfiable(KeyServiceError):
    """The download has no such part; Content-Range tells how long it is."""

    code, title = "range_not_satisfiable", "The download has no such part"


class Internal(KeyServiceError):
    """Something went wrong here; the log of the service says what, under the request's id."""

    code, title = "internal_error", "Something went wrong here"


@dataclass(frozen=True, slots=True)
class Answer:
    """The status of an error, and the headers that belong to it."""

    status: int
    headers: Mapping[str, str]


_LATER = {"Retry-After": "5"}

# A class that isn't here is answered as its nearest ancestor that is.
TABLE: dict[type[KeyServiceError], Answer] = {
    errors.Unauthenticated: Answer(401, {"WWW-Authenticate": "Bearer"}),
    errors.Denied: Answer(403, {}),
    errors.NotFound: Answer(404, {}),
    errors.Invalid: Answer(400, {}),
    errors.TooLarge: Answer(413, {}),
    errors.Conflict: Answer(409, {}),
    errors.IllegalTransition: Answer(409, {}),
    errors.StateForbids: Answer(409, {}),
    errors.AlreadyExists: Answer(409, {}),
    errors.CannotDecrypt: Answer(400, {}),
    errors.Unsupported: Answer(422, {}),
    errors.PendingApproval: Answer(202, {}),
    errors.RateLimited: Answer(429, _LATER),
    errors.QuotaUsedUp: Answer(429, _LATER),
    errors.Unavailable: Answer(503, _LATER),
    errors.BackendUnavailable: Answer(503, _LATER),
    errors.Throttled: Answer(503, _LATER),
    errors.BackendRefused: Answer(503, _LATER),
    errors.StillWaiting: Answer(503, _LATER),
    errors.LogUnavailable: Answer(503, _LATER),
    errors.Busy: Answer(503, {"Retry-After": "1"}),
    errors.BackendError: Answer(502, {}),
    MalformedRequest: Answer(400, {}),
    NotJson: Answer(415, {"Accept-Post": "application/json"}),
    MethodNotAllowed: Answer(405, {}),
    TimedOut: Answer(408, {"Connection": "close"}),
    Forged: Answer(403, {}),
    Throttled: Answer(429, _LATER),
    RangeNotSatisfiable: Answer(416, {}),
    Internal: Answer(500, {}),
}


class Problem(msgspec.Struct, kw_only=True):
    """A problem document (RFC 9457). `code` is stable; some problems have further members.

    `field` names the member of the request that is wrong, where one is.
    """

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    field: str | msgspec.UnsetType = msgspec.UNSET


def answer_of(error: KeyServiceError) -> Answer:
    """Return status and headers of an error, by its class or the nearest ancestor in the table.

    Who is over a limit is told when there is something left.
    """
    found = next((TABLE[kind] for kind in type(error).__mro__ if kind in TABLE), TABLE[Internal])
    if isinstance(error, errors.RateLimited):
        seconds = str(max(math.ceil(error.retry_after), 1))
        return Answer(found.status, {**found.headers, "Retry-After": seconds})
    return found


def document(error: KeyServiceError, request_id: str) -> bytes:
    """Return the problem document of an error. Internal errors say nothing of what went wrong."""
    found = members(error) | {"request_id": request_id}
    return msgspec.json.encode(found)


def members(error: KeyServiceError) -> dict[str, Any]:
    """Return the members of an error's problem document, without the request's id."""
    found: dict[str, Any] = {
        "type": TYPES + error.code,
        "title": error.title,
        "status": answer_of(error).status,
        "detail": error.detail,
        "code": error.code,
    }
    return found | {name: value for name, value in error.extra.items() if name not in found}


def known(error: BaseException) -> KeyServiceError:
    """Return whatever was raised as one of our errors; what is none of ours is logged and says nothing."""
    if isinstance(error, KeyServiceError):
        return error
    if isinstance(error, DatabaseError):
        log.error("The database failed a request: %s", type(error).__name__)
        return errors.Unavailable("The database can't be reached now.")
    found = _of_framework(error)
    if found is None:
        log.error("A request failed.", exc_info=error)
        return Internal()
    return found


def _of_framework(error: BaseException) -> KeyServiceError | None:
    """Return Django's and REST framework's own exceptions as ours, or None."""
    if isinstance(error, Http404 | exceptions.NotFound):
        return errors.NotFound("There is no such address here.")
    if isinstance(error, exceptions.MethodNotAllowed):
        return MethodNotAllowed()
    if isinstance(error, exceptions.NotAuthenticated | exceptions.AuthenticationFailed):
        return errors.Unauthenticated()
    if isinstance(error, exceptions.PermissionDenied | PermissionDenied):
        return errors.Denied()
    if isinstance(error, exceptions.UnsupportedMediaType):
        return NotJson()
    if isinstance(error, exceptions.Throttled):
        return Throttled()
    if isinstance(error, RequestDataTooBig):
        return errors.TooLarge()
    if isinstance(error, exceptions.APIException | SuspiciousOperation):
        return MalformedRequest()
    return None


def unrecorded(error: KeyServiceError) -> bool:
    """Whether an error is about the request itself and never reached the gate, which would have left an entry."""
    return not error.recorded and 400 <= answer_of(error).status < 500


def _told(request: Any, error: KeyServiceError) -> KeyServiceError:
    """Leave an entry of what a known caller sent and the gate never saw; return what to answer."""
    caller = getattr(request._request, "caller", None)  # as authentication left it
    if caller is None or not unrecorded(error):
        return error
    try:
        gate.refused(caller, request.path, error)
    except KeyServiceError as trouble:
        return trouble
    return error


def exception_handler(error: Exception, context: dict[str, Any]) -> Response:
    """Answer what a view of Django REST framework raised."""
    request = context["request"]
    found = known(error)
    if isinstance(found, errors.PendingApproval):
        return _pending(request, found)
    found = _told(request, found)
    answer = answer_of(found)
    body = document(found, getattr(request._request, "request_id", "-"))
    return Response(body, answer.status, headers=dict(answer.headers), content_type=MEDIA_TYPE)


def _pending(request: Any, error: errors.PendingApproval) -> Response:
    """Answer a request that now waits for officers: 202, with the approval it waits for."""
    from kms_console.api.rest import shown

    identity = str(error.extra["approval"])
    waiting = shown.waiting(request.user, identity, error.detail)
    location = reverse("rest:approval", kwargs={"approval": identity})
    return Response(waiting, 202, headers={"Location": location})


def meanings() -> dict[str, tuple[type[KeyServiceError], int]]:
    """Return every code there is, with its class and status."""
    found: dict[str, tuple[type[KeyServiceError], int]] = {}
    for kind in _kinds(KeyServiceError):
        found.setdefault(kind.code, (kind, answer_of(kind()).status))
    found.pop(KeyServiceError.code, None)
    found.pop(errors.PendingApproval.code, None)
    return found


def _kinds(root: type[KeyServiceError]) -> list[type[KeyServiceError]]:
    return [root, *(kind for child in root.__subclasses__() for kind in _kinds(child))]
