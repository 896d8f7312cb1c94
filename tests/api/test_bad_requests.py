"""Bad input at every route, for every kind of caller: a 4xx problem document, and nothing has changed."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest
from django.conf import settings

from audit import writer
from kms_console.api.rest import asgi
from tests.api.cast import GOOD, contents, furnish
from tests.api.clients import (
    PREFIX,
    PROBLEM,
    Answer,
    Api,
    Route,
    application,
    encoded,
    part,
    person,
    routes,
    scope,
    talk,
)
from tests.house import House

# Batches share one view and one reader, so a few of them stand here for all that people ask, who
# are Django's at both doors; programs ask at every address.
SOME_BATCHES = ("encrypt/batch", "public-key/batch", "verify/batch", "random/batch")
EVERY = routes()
ROUTES = [r for r in EVERY if not r.name.endswith("/batch") or r.name in SOME_BATCHES]
UNSAFE = [route for route in ROUTES if route.method != "GET"]
USES = [r for r in EVERY if r.method != "GET" and asgi.USE_PATHS.fullmatch(f"{PREFIX}{r.pattern}")]
OTHERS = [route for route in EVERY if route not in USES]

# Wrong for every route there is: (what is wrong, body, content type).
JSON = "application/json"
BAD_BODIES: list[tuple[str, bytes, str]] = [
    ("half an object", b'{"reason": ', JSON),
    ("not JSON", b"reason=x", JSON),
    ("a form", b"reason=x", "application/x-www-form-urlencoded"),
    ("a broken multipart form", b"--x", "multipart/form-data; boundary"),
    ("text", b"{}", "text/plain"),
    ("another charset", b"{}", "application/json; charset=utf-16"),
    ("a list", b"[]", JSON),
    ("null", b"null", JSON),
    ("a number", b"1", JSON),
    ("two documents", b"{}{}", JSON),
    ("a byte order mark", b"\xef\xbb\xbf{}", JSON),
    ("invalid UTF-8", b'{"reason": "\xff"}', JSON),
    ("invalid UTF-8 in a name", b'{"\xff": 1}', JSON),
    ("a lone surrogate", b'{"reason": "\\ud800"}', JSON),
    ("a NUL character", b'{"reason": "\\u0000"}', JSON),
    ("NaN", b'{"reason": NaN}', JSON),
    ("Infinity", b'{"days": Infinity}', JSON),
    ("an unknown member", b'{"no_such_member": 1}', JSON),
    ("a member twice", b'{"reason": "a", "reason": "b"}', JSON),
    ("a wrong type", b'{"reason": 5}', JSON),
    ("a huge number", b'{"days": 1' + b"0" * 5000 + b"}", JSON),
    ("a huge exponent", b'{"days": 1e999}', JSON),
    ("deep nesting", b'{"settings": ' + b'{"a":' * 5000 + b"1" + b"}" * 5001, JSON),
    ("deep lists", b"[" * 100_000, JSON),
    ("bad base64", b'{"plaintext": "Q", "message": "Q", "ciphertext": "Q"}', JSON),
]
BAD_QUERIES = ["no_such_filter=1", "limit=1&limit=2", "a%00=1", "limit=x%00", "%ff=%fe"]

BAD_REFERENCES = [
    "nowhere",
    str(uuid.UUID(int=7)),
    "a%00b",
    "%ff%fe",
    "%27%20OR%201=1--",
    "%ED%A0%80",
    "1" * 400,
    "٣",
]
CALLERS = ["billing", "olga"]
# Each route meets every fifth of them, each another fifth; where there is time, every one.
SHARES = [5, pytest.param(1, marks=pytest.mark.exhaustive)]


def caller(house: House, name: str) -> Api:
    return application(house, name) if name in house.tokens else person(name)


def limit_of(route: Route) -> int:
    """Return the most bytes that a body for this route has."""
    address = f"{PREFIX}{route.pattern}"
    return asgi._row(address)[0].limit if asgi.USE_PATHS.fullmatch(address) else settings.BODY_LIMIT


def is_refused(answer: Answer, what: object) -> None:
    assert 400 <= answer.status < 500, (what, answer.status, answer.body[:300])
    assert answer.type == PROBLEM, (what, answer.type)
    assert answer.json["status"] == answer.status, what


@pytest.mark.parametrize("name", CALLERS)
@pytest.mark.parametrize("share", SHARES)
def test_bad_bodies_change_nothing(house: House, name: str, share: int) -> None:
    parts, api = furnish(house), caller(house, name)
    before = contents()
    # What programs use keys with is a test of its own.
    for place, route in enumerate(r for r in UNSAFE if name != "billing" or r in OTHERS):
        _refuses_bodies(api, route, parts, BAD_BODIES[place % share :: share])
        answer = api.call(route.method, route.path(**parts), bytes(limit_of(route) + 1))
        assert answer.problem(413, "too_large")["detail"], route
    assert contents() == before


def _refuses_bodies(api: Api, route: Route, parts: dict[str, str], bodies: list[Any]) -> None:
    for what, body, content_type in bodies:
        size = writer.head().size
        answer = api.call(route.method, route.path(**parts), body, content_type=content_type)
        is_refused(answer, (route, what))
        assert writer.head().size == size + 1, (route, what, "left no entry")


@pytest.mark.each_door(fast="loop")
def test_every_bad_body_is_refused_at_every_use_of_a_key(house: House) -> None:
    assert len(USES) == 40
    _bad_uses(house, share=1)


@pytest.mark.each_door(fast="views")
def test_each_bad_body_is_refused_at_uses_of_keys(house: House) -> None:
    _bad_uses(house, share=5)


def _bad_uses(house: House, share: int) -> None:
    parts, api = furnish(house), caller(house, "billing")
    before = contents()
    for place, route in enumerate(USES):
        _refuses_bodies(api, route, parts, BAD_BODIES[place % share :: share])
    for route in (r for r in USES if r in ROUTES):  # as large as a batch may be, and one more
        answer = api.call(route.method, route.path(**parts), bytes(limit_of(route) + 1))
        answer.problem(413, "too_large")
    assert contents() == before


@pytest.mark.each_door
def test_the_same_uses_without_their_fault_would_have_got_somewhere(house: House) -> None:
    """Without this and the next the tests around them could not fail."""
    _get_somewhere(house, USES, "billing")


def test_the_same_requests_without_their_fault_would_have_got_somewhere(house: House) -> None:
    _get_somewhere(house, OTHERS, "billing", "olga", "ada", "udo", "otto")


def _get_somewhere(house: House, asked: list[Route], *names: str) -> None:
    parts = furnish(house)
    callers = [caller(house, name) for name in names]
    for route in asked:
        body = None if route.method == "GET" else GOOD.get((route.method, route.name), {})
        answers = [api.call(route.method, route.path(**parts), body) for api in callers]
        got = {a.json["code"] if a.type == PROBLEM else str(a.status) for a in answers}
        assert got - {"invalid", "denied", "not_found", "malformed_request"}, (route, got)


@pytest.mark.each_database
@pytest.mark.parametrize("name", ["olga", "billing"])
def test_bad_queries_are_refused(house: House, name: str) -> None:
    parts, api = furnish(house), caller(house, name)
    lists = [route for route in ROUTES if route.method == "GET"]
    listed = [r for r in lists if not r.pattern.endswith(">")]
    assert len(listed) > 10
    for route in listed:
        for query in BAD_QUERIES:
            is_refused(api.get(f"{route.path(**parts)}?{query}"), (route, query))


@pytest.mark.each_database
@pytest.mark.parametrize("name", ["ada", "olga"])
@pytest.mark.parametrize("share", SHARES)
def test_what_is_not_there_is_not_found_or_not_allowed(house: House, name: str, share: int) -> None:
    parts, api = furnish(house), caller(house, name)
    before = contents()
    for place, route in enumerate(ROUTES):
        named = [part for part in parts if f"<{part}>" in route.pattern]
        for changed in named:
            for reference in BAD_REFERENCES[place % share :: share]:
                path = route.path(**{**parts, changed: reference})
                body = GOOD.get((route.method, route.name), {})
                answer = api.call(route.method, path, None if route.method == "GET" else body)
                is_refused(answer, (route, changed, reference))
                assert answer.status in (403, 404, 409), (route, reference, answer.body)
    assert contents() == before


WRONG = ["", "Bearer ", "Bearer kms_unknown", "Basic eDp5", "Bearer \xff" + "x" * 5000]


@pytest.mark.parametrize("share", [3, pytest.param(1, marks=pytest.mark.exhaustive)])
def test_nobody_gets_in_without_a_credential(house: House, share: int) -> None:
    _nobody_gets_in(house, OTHERS, share)


@pytest.mark.each_door
def test_nobody_uses_a_key_without_a_credential(house: House) -> None:
    _nobody_gets_in(house, USES, 3)


def _nobody_gets_in(house: House, asked: list[Route], share: int) -> None:
    parts = furnish(house)
    before = contents()
    for place, route in enumerate(asked):
        for authorization in WRONG[place % share :: share]:
            api = Api()
            headers = {"Authorization": authorization} if authorization else {}
            body = GOOD.get((route.method, route.name), {})
            answer = api.call(
                route.method,
                route.path(**parts),
                None if route.method == "GET" else body,
                **headers,
            )
            answer.problem(401, "unauthenticated")
            assert answer.headers["www-authenticate"] == "Bearer", route
    assert contents() == before


def test_a_signed_in_person_changes_nothing_without_the_csrf_token(house: House) -> None:
    parts = furnish(house)
    before = contents()
    for name in ("olga", "ada"):
        api = Api(username=name)
        for route in UNSAFE:
            body = GOOD.get((route.method, route.name), {})
            api.call(route.method, route.path(**parts), body).problem(403, "csrf_failed")
    assert contents() == before


def test_other_methods_are_refused_and_told_which_there_are(house: House) -> None:
    parts, olga = furnish(house), person("olga")
    before = contents()
    known: dict[str, set[str]] = {}
    for route in ROUTES:
        known.setdefault(route.path(**parts), set()).add(route.method)
    for path, methods in known.items():
        others = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"}
        if "GET" in methods:
            others.remove("HEAD")
        for method in others - methods:
            answer = olga.call(method, path, {} if method in ("POST", "PATCH") else None)
            assert answer.status == 405, (method, path, answer.status)
            assert set(answer.headers["allow"].split(", ")) - {"HEAD"} == methods
            if method != "HEAD":
                answer.problem(405, "method_not_allowed")
    assert contents() == before


@pytest.mark.each_door
def test_addresses_that_there_are_not_answer_a_problem(house: House) -> None:
    api = application(house, "billing")
    for path in ("nothing", "keys/", "keys/a/b/c/d", "keys//encrypt", "%00", "a%0ab", "..", ""):
        for method in ("GET", "POST", "DELETE", "PUT"):
            api.call(method, path).problem(404, "not_found")


# --- the event loop's own way of reading


def _sent(
    house: House, path: str, headers: dict[str, str], *messages: Any, token: str = "billing"
) -> Answer | None:
    wanted = {"authorization": f"Bearer {house.token(token)}", "content-type": JSON, **headers}
    return asyncio.run(talk(asgi.handle, scope(path, wanted), *messages))


@pytest.mark.own_door
@pytest.mark.parametrize("path", ["random", "random/batch", "keys/invoices/encrypt/batch"])
def test_an_announced_length_over_the_limit_is_refused_unread(house: House, path: str) -> None:
    limit = settings.BATCH_BODY_LIMIT if path.endswith("batch") else settings.BODY_LIMIT
    for length in (limit + 1, 10**30):
        # No part of the body is there to be read: reading would wait for ever.
        answer = _sent(house, path, {"content-length": str(length)})
        assert answer is not None
        answer.problem(413, "too_large")
        assert answer.headers["connection"] == "close"


@pytest.mark.own_door
@pytest.mark.parametrize(
    "length", ["-1", "1e3", "0x10", "ten", "5, 5", "٣".encode().decode("latin-1")]
)
def test_a_length_that_is_no_number_is_refused(house: House, length: str) -> None:
    answer = _sent(house, "random", {"content-length": length}, part(b"{}"))
    assert answer is not None
    answer.problem(400, "malformed_request")


@pytest.mark.own_door
def test_a_body_of_another_length_than_announced_is_refused(house: House) -> None:
    answer = _sent(house, "random", {"content-length": "3"}, part(b"{}"))
    assert answer is not None
    answer.problem(400, "malformed_request")


@pytest.mark.own_door
def test_a_body_in_chunks_is_counted_as_it_comes(house: House) -> None:
    text = encoded({"count": 4})
    answer = _sent(house, "random", {}, part(text[:3], True), part(b"", True), part(text[3:]))
    assert answer is not None and answer.status == 200
    half = b" " * (settings.BODY_LIMIT // 2 + 1)
    # The third part never comes: the second was too much already.
    answer = _sent(house, "random", {}, part(half, True), part(half, True))
    assert answer is not None
    answer.problem(413, "too_large")


@pytest.mark.own_door
def test_a_body_that_never_comes_is_not_waited_for(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asgi, "BODY_SECONDS", 0.05)
    answer = _sent(house, "random", {}, part(b"{", True))
    assert answer is not None
    answer.problem(408, "timeout")
    assert answer.headers["connection"] == "close"


@pytest.mark.own_door
def test_a_client_that_goes_away_gets_no_answer_and_leaves_no_entry(house: House) -> None:
    before = house.entries()
    gone = {"type": "http.disconnect"}
    assert _sent(house, "keys/invoices/encrypt", {}, part(b"{", True), gone) is None
    assert house.entries() == before


@pytest.mark.own_door
def test_a_request_id_of_ill_shape_is_replaced(house: House) -> None:
    for offered, kept in (("abc-1", True), ("a b", False), ("x" * 65, False), ("\xff", False)):
        answer = _sent(house, "random", {"x-request-id": offered}, part(b"{}"))
        assert answer is not None
        assert (answer.headers["x-request-id"] == offered) is kept
        assert house.last_entry(action="random")["request_id"] == answer.headers["x-request-id"]
