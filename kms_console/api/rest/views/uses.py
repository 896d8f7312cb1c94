"""Key use for people and browsers, and for the document: the very rows that the event loop serves."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponse
from rest_framework.request import Request
from rest_framework.response import Response

from kms_console.api.rest.codecs.strict import query
from kms_console.api.rest.codecs.use import RANDOM, USES, Row
from kms_console.api.rest.schema import operation
from kms_console.api.rest.views.base import Door, caller_of, raw_body

_ABOUT = (
    "Every answer names the key and the version that served. Binary members are base64. The items "
    "of a request are limited to 64 KiB unless configured otherwise."
)


class UseView(Door):
    """One operation; `row` is its line in the table."""

    row: Row[Any]

    def post(self, request: Request, key: str = "") -> Response:
        return Response(self.row(caller_of(request), key, raw_body(request)))


class PublicKeyView(UseView):
    """Reading a public key changes nothing, so it can be asked for with GET too."""

    row = USES["public-key"]

    @operation(
        "read_public_key",
        "Read a public key",
        tag="use",
        query=USES["public-key"].request,
        answers={200: USES["public-key"].response},
        answer_example=USES["public-key"].answer_example,
    )
    def get(self, request: Request, key: str) -> Response:
        wanted = query(self.row.request, dict(request._request.GET.lists()))
        positional, named = self.row.arguments(wanted)
        result = self.row.operation(caller_of(request), key, *positional, **named)
        return Response(self.row.write(result))


def view_of(row: Row[Any]) -> Any:
    """Return the view function of one row."""
    base = PublicKeyView if row.path == "public-key" else UseView
    described = operation(
        row.path.replace("-", "_"),
        row.summary,
        tag="use",
        description=_ABOUT,
        body=row.request,
        answers={200: row.response},
        example=row.example,
        answer_example=row.answer_example,
    )

    def post(self: UseView, request: Request, key: str = "") -> HttpResponse:
        return UseView.post(self, request, key)

    name = row.path.title().replace("-", "") + "View"
    kind: Any = type(name, (base,), {"row": row, "post": described(post), "__doc__": row.summary})
    return kind.as_view()


USE_VIEWS = {path: view_of(row) for path, row in USES.items()}
RANDOM_VIEW = view_of(RANDOM)
