"""What every view of the API shares: who asks, how a body is read, how an answer is made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import msgspec
from django.conf import settings
from django.urls import reverse
from msgspec import Meta
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from keys.callers import Caller
from keys.queries import PAGE, Page
from kms_console.api.rest.asgi import check_length, is_json, too_large
from kms_console.api.rest.authentication import HasCaller
from kms_console.api.rest.codecs.strict import Reader, query, reference
from kms_console.api.rest.pages import BrowsablePage, ByAccept, Json
from kms_console.api.rest.problems import NotJson
from kms_console.api.rest.schema import DoorSchema

S = TypeVar("S", bound=msgspec.Struct)
PAGE_LIMIT = 200

Limit = Annotated[int, Meta(ge=1, le=PAGE_LIMIT, description="The most rows to return.")]
After = Annotated[
    str,
    Meta(max_length=256, description="The `next` of the page before; left out: the first page."),
]


class Asked(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What a request may carry, and nothing else."""


class Paged(Asked):
    """One page of a list."""

    after: After = ""
    limit: Limit = PAGE


class Nothing(Asked):
    """No members."""


class Why(Asked):
    """`reason` stands in the audit trail."""

    reason: str = ""


_readers: dict[type[msgspec.Struct], Reader[Any]] = {}


class Door(APIView):
    """A view that knows its caller. It decides nothing and records nothing: the gate does."""

    permission_classes = [HasCaller]
    renderer_classes = [Json, BrowsablePage]
    content_negotiation_class = ByAccept
    metadata_class = None
    http_method_names = ["get", "post", "patch", "delete", "head"]
    schema = DoorSchema()

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        for name, value in self.kwargs.items():
            if isinstance(value, str):
                kwargs[name] = self.kwargs[name] = reference(value)
        super().initial(request, *args, **kwargs)

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        final = super().finalize_response(request, response, *args, **kwargs)
        final["Cache-Control"] = "no-store"
        return final


def raw_body(request: Request, limit: int | None = None) -> bytes:
    """Return the body, of at most `limit` bytes (else BODY_LIMIT). Raises TooLarge, NotJson, MalformedRequest."""
    plain, most = request._request, settings.BODY_LIMIT if limit is None else limit
    check_length(plain.META.get("CONTENT_LENGTH") or "", most)
    # Read here rather than by Django, which knows one limit for all.
    body: bytes = plain.read(most + 1)
    if len(body) > most:
        raise too_large(most)
    if body and not is_json(plain.META.get("CONTENT_TYPE", "")):
        raise NotJson
    return body


def read(request: Request, kind: type[S]) -> S:
    """Return the body as `kind`. Raises Invalid and what raw_body raises."""
    reader = _readers.get(kind)
    if reader is None:
        reader = _readers[kind] = Reader(kind)
    found: S = reader.plain(raw_body(request))
    return found


def asked(request: Request, kind: type[S]) -> S:
    """Return the query string as `kind`. Raises Invalid."""
    return query(kind, dict(request._request.GET.lists()))


def caller_of(request: Request) -> Caller:
    caller = request.user
    assert isinstance(caller, Caller)
    return caller


def listed(caller: Caller, page: Page, show: Callable[[Any, Caller], Any]) -> Response:
    """Answer with one page of a list."""
    return Response({"items": [show(row, caller) for row in page.rows], "next": page.next or None})


def created(shape: Any, name: str, **where: object) -> Response:
    """Answer 201 with what was made and where it is."""
    return Response(shape, 201, headers={"Location": address(name, **where)})


def address(name: str, **where: object) -> str:
    return reverse(f"rest:{name}", kwargs={part: str(value) for part, value in where.items()})
