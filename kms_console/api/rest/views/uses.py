"""Key use for people and browsers, and for the document: the very rows that the event loop serves."""

from __future__ import annotations

from typing import Any

import msgspec
from django.http import HttpResponse
from rest_framework.request import Request
from rest_framework.response import Response

from keys import operations
from kms_console.api.rest.codecs.strict import query
from kms_console.api.rest.codecs.use import (
    RANDOM,
    RANDOM_BATCH,
    TABLE,
    USES,
    AnyRow,
    BatchRow,
    ItemError,
    JwkSet,
    as_jwk,
)
from kms_console.api.rest.schema import mention, operation
from kms_console.api.rest.views.base import Door, Nothing, asked, caller_of, raw_body

JWK_SET = "application/jwk-set+json"  # RFC 7517, 8.5.2

_ABOUT = (
    "Every answer names the key and the version that served. Binary members are base64. The items "
    "of a request are limited to 64 KiB unless configured otherwise."
)
_ABOUT_BATCHES = (
    "Up to 1,000 requests of the single form, each with its own answer or error, in order; one "
    "decision and one audit entry, which holds the Merkle root over the items. A body that is not "
    "of this form is refused whole, naming the item. With a token a body may have 16 MiB."
)


class UseView(Door):
    """One operation; `row` is its line in the table."""

    row: AnyRow

    def post(self, request: Request, key: str = "") -> Response:
        caller = caller_of(request)
        return Response(self.row(caller, key, raw_body(request, self.row.limit)))


class PublicKeyView(UseView):
    """Reading a public key changes nothing, so it can be asked for with GET too."""

    @operation(
        "read_public_key",
        "Read a public key",
        tag="use",
        query=USES["public-key"].request,
        answers={200: USES["public-key"].response},
        answer_example=USES["public-key"].answer_example,
    )
    def get(self, request: Request, key: str) -> Response:
        row = USES["public-key"]
        wanted = query(row.request, dict(request._request.GET.lists()))
        return Response(row.perform(caller_of(request), key, wanted))


class KeySet(Door):
    """A key's public keys for whoever verifies: all versions that count, in one document."""

    @operation(
        "read_jwks",
        "Read a key's public keys as a JWK set",
        tag="use",
        query=Nothing,
        answers={200: JwkSet},
        media=JWK_SET,
        description="Active and deactivated versions, and pre-active ones, which are published "
        "ahead of the rotation that lets them sign. Needs the permission public_key.",
        answer_example={
            "keys": [
                {
                    "kty": "EC",
                    "crv": "P-256",
                    "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
                    "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
                    "kid": "0d5f0c0e-2f6a-4c58-9d3e-5c6f7a1b2c3d.3",
                    "use": "sig",
                    "alg": "ES256",
                }
            ]
        },
    )
    def get(self, request: Request, key: str) -> Response:
        asked(request, Nothing)
        found = operations.key_set(caller_of(request), key)
        body = msgspec.json.encode(JwkSet(keys=[as_jwk(one) for one in found.keys]))
        return Response(body, content_type=JWK_SET)


def view_of(row: AnyRow) -> Any:
    """Return the view function of one row."""
    base = PublicKeyView if row.path == "public-key" else UseView
    described = operation(
        row.path.replace("-", "_").replace("/", "_"),
        row.summary,
        tag="use",
        description=_ABOUT_BATCHES if isinstance(row, BatchRow) else _ABOUT,
        body=row.request,
        answers={200: row.response},
        example=row.example,
        answer_example=row.answer_example,
    )

    def post(self: UseView, request: Request, key: str = "") -> HttpResponse:
        return UseView.post(self, request, key)

    name = row.path.title().replace("-", "").replace("/", "") + "View"
    kind: Any = type(name, (base,), {"row": row, "post": described(post), "__doc__": row.summary})
    return kind.as_view()


mention(ItemError)
USE_VIEWS = {path: view_of(row) for path, row in TABLE.items()}
RANDOM_VIEW = view_of(RANDOM)
RANDOM_BATCH_VIEW = view_of(RANDOM_BATCH)
