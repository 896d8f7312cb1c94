"""What a caller may not know of does not exist for it: every route of a key, for an application without a grant."""

from __future__ import annotations

import pytest

from kms_console.api.rest.asgi import USE_PATHS
from tests.api.cast import GOOD, contents, furnish
from tests.api.clients import PREFIX, Route, application, person, routes
from tests.house import House

KEY_ROUTES = [route for route in routes() if route.pattern.startswith("keys/<key>")]
USES = [r for r in KEY_ROUTES if r.method == "POST" and USE_PATHS.fullmatch(PREFIX + r.pattern)]


@pytest.mark.each_door
def test_a_stranger_can_use_no_key_and_leaves_an_entry(house: House) -> None:
    assert len(USES) == 38
    _finds_nothing(house, USES)


def test_a_stranger_finds_no_key_at_any_other_route_and_leaves_an_entry(house: House) -> None:
    others = [route for route in KEY_ROUTES if route not in USES]
    assert len(others) >= 20
    _finds_nothing(house, others)


def _finds_nothing(house: House, asked: list[Route]) -> None:
    stranger, parts = application(house, "stranger"), furnish(house)
    before = contents()
    for route in asked:
        body = None if route.method == "GET" else GOOD.get((route.method, route.name), {})
        nowhere = stranger.call(route.method, route.path(**{**parts, "key": "nowhere"}), body)
        for named in (house.invoices.alias, str(house.invoices.id)):
            there = route.path(**{**parts, "key": named})
            answer = stranger.call(route.method, there, body)
            problem = answer.problem(404, "not_found")
            entry = house.last_entry(request_id=answer.headers["x-request-id"])
            assert entry["outcome"] == "denied", route
            assert entry["actor"]["name"] == "stranger", route
            assert entry["object"]["id"] == str(house.invoices.id), route
            # Nothing in the answer tells a key that is there from one that isn't.
            same = {"type", "title", "status", "code", "detail"}
            assert {k: problem[k] for k in same} == {k: nowhere.json[k] for k in same}, route
    assert contents() == before


def test_there_are_as_many_routes_of_a_key_as_the_document_says() -> None:
    assert len(KEY_ROUTES) >= 20


def test_a_stranger_sees_no_key_in_the_list_and_billing_sees_its_own(house: House) -> None:
    house.key(name="Other")
    assert application(house, "stranger").get("keys").json == {"items": [], "next": None}
    seen = application(house, "billing").get("keys").json["items"]
    assert [key["alias"] for key in seen] == ["invoices"]
    assert len(person("udo").get("keys").json["items"]) == 2


def test_applications_see_no_check_value_and_nobody_sees_a_handle(house: House) -> None:
    version = house.invoices.versions.get()
    assert version.handle and version.check_value
    for api, seen in ((application(house, "billing"), False), (person("udo"), True)):
        for path in ("keys", "keys/invoices", "keys/invoices/versions", "keys/invoices/versions/1"):
            text = api.get(path).body.decode()
            assert version.handle not in text.replace(str(version.id), "")
        assert ("check_value" in text) is seen


def test_no_application_reads_the_house(house: House) -> None:
    billing = application(house, "billing")
    for path in (
        "people",
        "applications",
        "grants",
        "approvals",
        "jobs",
        "key-stores",
        "key-stores/software",
        "key-stores/software/listings",
        "drift",
        "classifications",
        "audit",
        "audit/0",
        "audit/export",
        "audit/verify",
    ):
        billing.get(path).problem(403, "denied")
        assert house.last_entry()["outcome"] == "denied"
