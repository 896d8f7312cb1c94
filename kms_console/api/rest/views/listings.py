"""What is in a key store: listed key by key, and adopted."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, UnsetType
from rest_framework.request import Request
from rest_framework.response import Response

from keys import administration, queries, queries_stores
from keys.queries import Page
from kms_console.api.rest import shapes, shown, shown_stores
from kms_console.api.rest.codecs.strict import given
from kms_console.api.rest.schema import operation, page_of
from kms_console.api.rest.views.base import (
    Asked,
    Door,
    Limit,
    Paged,
    Why,
    address,
    asked,
    caller_of,
    created,
    listed,
    read,
)

_LISTING = {
    "id": "5a0d8f2e-0c1b-4a3d-9e8f-7a6b5c4d3e2f",
    "key_store": {"id": "c0a8e7a4-6d1b-4b51-9a57-0f3f6f0f5b1e", "name": "frankfurt"},
    "state": "running",
    "pages": 2,
    "found": 200,
    "total": None,
    "error": "",
    "requested_by": {"id": "d9b2d63d-a233-4123-847a-7090a2c3f0e1", "name": "Olga"},
    "created_at": "2027-01-01T09:30:00Z",
    "run_after": "2027-01-01T09:30:00Z",
    "finished_at": None,
}


class ListingQuery(Asked):
    """The newest first; a store's older listings are not kept for ever."""

    limit: Limit = 20


class FoundQuery(Paged):
    """`text` looks in names and references. `only`: not in the console yet, ours, or not adoptable."""

    text: Annotated[str, Meta(max_length=200)] = ""
    only: Annotated[str, shapes.one_of(["new", "ours", "problem"], "FoundOnly")] | UnsetType = UNSET


class AdoptKey(Asked):
    """`reference` is the store's own name for the key, as a listing gives it.

    `name` left out: as it is called there. `alias` left out: made from the name.
    """

    classification: str
    reference: Annotated[str, Meta(min_length=1, max_length=500)]
    name: str | UnsetType = UNSET
    alias: str | UnsetType = UNSET
    description: str | UnsetType = UNSET
    owner: str | UnsetType = UNSET
    labels: dict[str, str] | UnsetType = UNSET
    rotation_days: int | UnsetType = UNSET
    reason: str | UnsetType = UNSET


class Discover(Door):
    @operation(
        "discover_keys",
        "List what is in a key store",
        tag="key stores",
        body=Why,
        answers={202: shapes.Listing},
        answer_example=_LISTING,
        description="The worker walks through the store; its listing tells how far it is. Where one is "
        "under way, that is the answer.",
    )
    def post(self, request: Request, key_store: str) -> Response:
        caller, values = caller_of(request), given(read(request, Why))
        row = administration.discover_keys(caller, key_store, **values)
        where = {"Location": address("listing", listing=row.id)}
        return Response(shown_stores.listing(row, caller), 202, headers=where)


class Listings(Door):
    @operation(
        "list_listings",
        "List the listings of a key store",
        tag="key stores",
        query=ListingQuery,
        answers={200: page_of(shapes.Listing)},
        answer_example={"items": [_LISTING], "next": None},
    )
    def get(self, request: Request, key_store: str) -> Response:
        wanted, caller = asked(request, ListingQuery), caller_of(request)
        store = queries.find_key_store(caller, key_store)
        rows = queries_stores.list_listings(caller, store, limit=wanted.limit)
        return listed(caller, Page(list(rows)), shown_stores.listing)


class OneListing(Door):
    @operation(
        "find_listing",
        "Read a listing",
        tag="key stores",
        answers={200: shapes.Listing},
        answer_example=_LISTING,
    )
    def get(self, request: Request, listing: str) -> Response:
        caller = caller_of(request)
        return Response(shown_stores.listing(queries_stores.find_listing(caller, listing), caller))


class Found(Door):
    @operation(
        "list_found_keys",
        "List the keys that a listing found",
        tag="key stores",
        query=FoundQuery,
        answers={200: page_of(shapes.FoundKey)},
        description="By name. Those found so far, while it is running.",
    )
    def get(self, request: Request, listing: str) -> Response:
        wanted, caller = asked(request, FoundQuery), caller_of(request)
        page = queries_stores.found_keys(
            caller,
            queries_stores.find_listing(caller, listing),
            text=wanted.text,
            only=wanted.only or "",
            cursor=wanted.after,
            limit=wanted.limit,
        )
        return listed(caller, page, shown_stores.found_key)


class Adopt(Door):
    @operation(
        "adopt_key",
        "Adopt a key",
        tag="key stores",
        body=AdoptKey,
        answers={201: shapes.Key},
        example={
            "classification": "internal",
            "reference": "arn:aws:kms:eu-central-1:111122223333:key/0d5f0c0e",
            "alias": "records",
            "reason": "The archive moves under the console.",
        },
        description="The key is taken into the console as it is. Nothing is changed at the store.",
    )
    def post(self, request: Request, key_store: str) -> Response:
        caller, wanted = caller_of(request), read(request, AdoptKey)
        store = queries.find_key_store(caller, key_store)
        values = given(wanted, "classification")
        row = administration.adopt_key(
            caller, wanted.classification, key_store=store.name, **values
        )
        return created(shown.one_key(row, caller), "key", key=row.id)
