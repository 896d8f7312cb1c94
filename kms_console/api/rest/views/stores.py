"""Key stores: configured, changed, asked how they are."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET, UnsetType
from rest_framework.request import Request
from rest_framework.response import Response

from keys import administration, queries
from keys.queries import Page
from kms_console.api.rest import shapes, shown
from kms_console.api.rest.codecs.strict import given
from kms_console.api.rest.schema import operation, page_of
from kms_console.api.rest.views.base import (
    Asked,
    Door,
    Nothing,
    Why,
    asked,
    caller_of,
    created,
    listed,
    read,
)

_EXAMPLE = {
    "id": "c0a8e7a4-6d1b-4b51-9a57-0f3f6f0f5b1e",
    "name": "hsm",
    "title": "Hospital HSM",
    "kind": "pkcs11",
    "protection": "hsm",
    "settings": {"module": "/usr/lib/softhsm/libsofthsm2.so", "token": "kms"},
    "credentials": "env:HSM_PIN",
    "enabled": True,
    "healthy": True,
    "health_detail": "",
    "checked_at": "2027-01-01T09:30:00Z",
    "created_at": "2027-01-01T09:00:00Z",
}


class CreateKeyStore(Asked):
    """`credentials` says where the store's secret is found: env:NAME or file:/path. Never the secret itself."""

    name: str
    kind: str
    title: str | UnsetType = UNSET
    settings: dict[str, Any] | UnsetType = UNSET
    credentials: str | UnsetType = UNSET
    reason: str | UnsetType = UNSET


class UpdateKeyStore(Asked):
    """What is left out stays."""

    title: str | UnsetType = UNSET
    settings: dict[str, Any] | UnsetType = UNSET
    credentials: str | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET
    reason: str | UnsetType = UNSET


class KeyStores(Door):
    @operation(
        "list_key_stores",
        "List key stores",
        tag="key stores",
        query=Nothing,
        answers={200: page_of(shapes.KeyStore)},
        answer_example={"items": [_EXAMPLE], "next": None},
        description="All of them: they are few.",
    )
    def get(self, request: Request) -> Response:
        asked(request, Nothing)
        caller = caller_of(request)
        return listed(caller, Page(queries.list_key_stores(caller)), shown.key_store)

    @operation(
        "create_key_store",
        "Configure a key store",
        tag="key stores",
        body=CreateKeyStore,
        answers={201: shapes.KeyStore},
        answer_example=_EXAMPLE,
        example={
            "name": "hsm",
            "kind": "pkcs11",
            "settings": {"module": "/usr/lib/softhsm/libsofthsm2.so", "token": "kms"},
            "credentials": "env:HSM_PIN",
        },
    )
    def post(self, request: Request) -> Response:
        caller, values = caller_of(request), given(read(request, CreateKeyStore))
        row = administration.create_key_store(caller, **values)
        return created(shown.key_store(row, caller), "key_store", key_store=row.id)


class OneKeyStore(Door):
    @operation(
        "find_key_store",
        "Read a key store",
        tag="key stores",
        answers={200: shapes.KeyStore},
        answer_example=_EXAMPLE,
    )
    def get(self, request: Request, key_store: str) -> Response:
        caller = caller_of(request)
        return Response(shown.key_store(queries.find_key_store(caller, key_store), caller))

    @operation(
        "update_key_store",
        "Change a key store",
        tag="key stores",
        body=UpdateKeyStore,
        answers={200: shapes.KeyStore},
        example={"enabled": False, "reason": "It is being moved."},
    )
    def patch(self, request: Request, key_store: str) -> Response:
        caller, values = caller_of(request), given(read(request, UpdateKeyStore))
        row = administration.update_key_store(caller, key_store, **values)
        return Response(shown.key_store(row, caller))


class CheckKeyStore(Door):
    @operation(
        "check_key_store",
        "Ask a key store how it is now",
        tag="key stores",
        body=Why,
        answers={200: shapes.KeyStore},
    )
    def post(self, request: Request, key_store: str) -> Response:
        caller, values = caller_of(request), given(read(request, Why))
        row = administration.check_key_store(caller, key_store, **values)
        return Response(shown.key_store(row, caller))
