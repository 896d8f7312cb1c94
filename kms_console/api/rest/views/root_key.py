"""The root key: how it stands, letting a key store hold it, rotating it."""

from __future__ import annotations

from msgspec import UNSET, UnsetType
from rest_framework.request import Request
from rest_framework.response import Response

from keys import administration, root_keys
from keys.root_keys import Overview
from kms_console import health
from kms_console.api.rest import shown_stores
from kms_console.api.rest.codecs.strict import given
from kms_console.api.rest.schema import operation
from kms_console.api.rest.views.base import Asked, Door, Nothing, asked, caller_of, read

_EXAMPLE = {
    "current": "9f2b6c1d0e4a7358",
    "held_by_store": True,
    "under_way": False,
    "file_needed": False,
    "file_to_remove": True,
    "trouble": "",
    "root_keys": [
        {
            "id": "9f2b6c1d0e4a7358",
            "state": "current",
            "key_store": "hsm",
            "algorithm": "AES_256_GCM",
            "materials": 1204,
            "created_at": "2027-01-01T09:30:00Z",
            "at_store": True,
            "until": None,
        }
    ],
}
_BY_ITSELF = (
    "What can't be done now, since the store can't be reached or much is to be sealed anew, goes on by "
    "itself: `under_way` says so."
)


class HoldBody(Asked):
    """`key_store` by id or name; no software store."""

    key_store: str
    reason: str | UnsetType = UNSET


class RotateBody(Asked):
    """`key_store` left out: the one that holds the present root key."""

    key_store: str | UnsetType = UNSET
    reason: str | UnsetType = UNSET


class ShowRootKey(Door):
    @operation(
        "show_root_key",
        "See which root key seals, and who holds it",
        tag="key stores",
        query=Nothing,
        answers={200: shown_stores.RootKeys},
        answer_example=_EXAMPLE,
        description="No key store is asked for it.",
    )
    def get(self, request: Request) -> Response:
        asked(request, Nothing)
        return _shown(root_keys.overview(caller_of(request)))


class HoldRootKey(Door):
    @operation(
        "hold_root_key",
        "Let a key store hold the root key",
        tag="key stores",
        body=HoldBody,
        answers={200: shown_stores.RootKeys},
        example={"key_store": "hsm", "reason": "No host keeps it on its disk."},
        answer_example=_EXAMPLE,
        waits=True,
        description="It stays the same root key; nothing is sealed anew. " + _BY_ITSELF,
    )
    def post(self, request: Request) -> Response:
        caller, values = caller_of(request), given(read(request, HoldBody))
        return _shown(administration.hold_root_key(caller, **values))


class RotateRootKey(Door):
    @operation(
        "rotate_root_key",
        "Rotate the root key",
        tag="key stores",
        body=RotateBody,
        answers={200: shown_stores.RootKeys},
        example={"reason": "The yearly rotation."},
        answer_example=_EXAMPLE,
        waits=True,
        description="`key_store` is needed where only a file or a variable holds the present one. "
        + _BY_ITSELF,
    )
    def post(self, request: Request) -> Response:
        caller, values = caller_of(request), given(read(request, RotateBody))
        return _shown(administration.rotate_root_key(caller, **values))


def _shown(seen: Overview) -> Response:
    parts = health.report().parts
    trouble = next((part.reason for part in parts if part.name == "root_key"), "")
    return Response(shown_stores.root_keys(seen, trouble))
