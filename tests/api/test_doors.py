"""The two doors of key use side by side: the same request gets the same bytes and leaves the same entry."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings

from audit import writer
from keys import administration
from keys.backends.software.backend import SoftwareBackend
from keys.errors import BackendError, KeyServiceError, PendingApproval
from keys.gate import record
from kms_console.api.rest import problems
from kms_console.api.rest.codecs.use import BATCHES, USES
from kms_console.api.rest.views.uses import UseView
from tests.api.clients import PROBLEM, Answer, Views, opened, use
from tests.api.test_bad_requests import BAD_BODIES, WRONG
from tests.api.test_batches import MALFORMED
from tests.api.test_walk import CASES, FRESH, asking, made_for
from tests.house import House

pytestmark = pytest.mark.own_door

# What Django adds to whatever it answers: browsers read its answers too, and it can tell an
# address's methods, which the event loop's table leaves to it (other methods are Django's).
FOR_BROWSERS = {
    "allow",
    "connection",  # whether what wasn't read is still to come, which only a server knows
    "content-security-policy",
    "cross-origin-opener-policy",
    "referrer-policy",
    "vary",
    "x-frame-options",
}
# Members that are another each time, in answers of operations that draw at random.
DRAWN = re.compile(
    r'"(ciphertext|plaintext|private_key|private_key_ciphertext|public_key|signature|shared_secret'
    r'|request|pem|random_bytes|items_root|evidence|entry)":"[^"]+"'
)
ENTRY = re.compile(r'"(entry)":"[^"]+"')  # a batch's own entry


class Doors:
    """Sends each request through both doors, and lets nothing differ."""

    def __init__(self, house: House, token: str) -> None:
        self.house, self.token = house, token
        self.differences: list[str] = []

    def ask(
        self, path: str, body: Any, what: object = "", *, drawn: bool = False, **headers: str
    ) -> Answer:
        """Return the event loop's answer; note where that of the views, or the entry, is another."""
        headers = {"X-Request-Id": "the-same", **headers}
        token = headers.pop("token", self.token)
        answer, *loop = self._asked(path, body, token, drawn, headers)
        with opened(Views()):
            _, *views = self._asked(path, body, token, drawn, headers)
        parts = ("status", "headers", "body", "entries")
        for name, one, other in zip(parts, loop, views, strict=True):
            if one != other:
                self.differences.append(f"{path} {what}: {name} {one!r} / {other!r}")
        return answer

    def _asked(
        self, path: str, body: Any, token: str, drawn: bool, headers: dict[str, str]
    ) -> tuple[Answer, int, dict[str, str], str, list[dict[str, Any]]]:
        since = writer.head().size
        record.forget()  # what is told once a minute is told anew
        answer = use(path, body, token, **headers)
        return answer, *self._seen(answer, drawn), self._entries(since)

    def _entries(self, since: int) -> list[dict[str, Any]]:
        found = self.house.entries(index__gte=since)
        for entry in found:
            for name in ("uuid", "at", "index"):
                entry.pop(name, None)
            for name in ("items_root", "evidence", "output"):
                entry["facts"].pop(name, None)
        return found

    def _seen(self, answer: Answer, drawn: bool) -> tuple[int, dict[str, str], str]:
        headers = {k: v for k, v in answer.headers.items() if k not in FOR_BROWSERS}
        body = (DRAWN if drawn else ENTRY).sub(r'"\1":"…"', answer.body.decode())
        if drawn:  # a signature's length is a matter of chance
            assert headers.pop("content-length") == str(len(answer.body))
        return answer.status, headers, body


@pytest.fixture
def doors(house: House) -> Iterator[Doors]:
    both = Doors(house, house.token("billing"))
    yield both
    assert not both.differences, "\n".join(both.differences)


def test_every_operation_answers_the_same_bytes(house: House, doors: Doors) -> None:
    keys = set[str]()
    for path, case in CASES.items():
        if case.alias not in keys:
            made_for(house, case)
            keys.add(case.alias)
        body, drawn = case.body(asking(house, case)), path in FRESH
        address = f"keys/{case.alias}/{path}"
        alone = doors.ask(address, body, drawn=drawn)
        many = doors.ask(f"{address}/batch", {"items": [body, body]}, drawn=drawn)
        assert (alone.status, many.status) == (200, 200), (path, alone.body, many.body)
        assert not drawn or DRAWN.search(alone.body.decode()), f"{path} draws nothing"
    assert doors.ask("random", {"count": 20}, drawn=True).status == 200
    assert doors.ask("random/batch", {"items": [{}, {"count": 5}]}, drawn=True).status == 200
    assert doors.ask("random", b"", drawn=True).status == 200


def test_every_bad_body_is_refused_in_the_same_words(doors: Doors) -> None:
    for path in ("keys/invoices/encrypt", "keys/invoices/encrypt/batch", "random"):
        for what, body, content_type in BAD_BODIES:
            answer = doors.ask(path, body, what, content_type=content_type)
            assert 400 <= answer.status < 500 and answer.type == PROBLEM, (path, what)
    for item, place in MALFORMED:
        body = b'{"items": [{"plaintext": "QQ=="}, {"plaintext": "QQ=="}, ' + item + b"]}"
        problem = doors.ask("keys/invoices/encrypt/batch", body, place).problem(400, "invalid")
        assert problem["field"].startswith(place)


ENCRYPT = "keys/invoices/encrypt"
BAD: list[tuple[str, Any, str]] = [
    (ENCRYPT, {}, "invalid"),
    (ENCRYPT, {"plaintext": "QQ==", "algorithm": "ROT_13"}, "invalid"),
    (ENCRYPT, {"plaintext": "A" * 4 * settings.PLAINTEXT_LIMIT}, "too_large"),
    (ENCRYPT, b" " * (settings.BODY_LIMIT + 1), "too_large"),
    ("keys/invoices/decrypt", {"ciphertext": "QQ=="}, "cannot_decrypt"),
    ("keys/invoices/decrypt", {"ciphertext": "QQ==", "version": 1}, "invalid"),
    ("keys/invoices/mac", {"message": "QQ=="}, "denied"),
    ("keys/nowhere/encrypt", {"plaintext": "QQ=="}, "not_found"),
    ("keys/a%00b/encrypt", {"plaintext": "QQ=="}, "not_found"),
    ("keys/a%0ab/encrypt", {"plaintext": "QQ=="}, "not_found"),
    ("keys/%E2%82%AC%F0%9F%92%A5/encrypt", {"plaintext": "QQ=="}, "not_found"),
    (f"keys/{'x' * 400}/encrypt", {"plaintext": "QQ=="}, "not_found"),
    (f"{ENCRYPT}?version=1", {"plaintext": "QQ=="}, ""),
    (f"{ENCRYPT}/batch", {"items": []}, "invalid"),
    (f"{ENCRYPT}/batch", {"items": [{"plaintext": "QQ=="}] * 1001}, "too_large"),
    (f"{ENCRYPT}/batch", b" " * (settings.BATCH_BODY_LIMIT + 1), "too_large"),
    ("keys/invoices/decrypt/batch", {"items": [{"ciphertext": "QQ=="}] * 2}, ""),
    ("keys/nowhere/encrypt/batch", {"items": [{"plaintext": "QQ=="}]}, "not_found"),
    ("keys/invoices/mac/batch", {"items": [{"message": "QQ=="}]}, "denied"),
    ("random", {"count": 0}, "invalid"),
    ("random", {"count": 10**6}, "invalid"),
    ("random/batch", {"items": [{"count": 0}]}, ""),
]


def test_bad_requests_are_refused_in_the_same_words(doors: Doors) -> None:
    for path, body, code in BAD:
        answer = doors.ask(path, body, code, drawn=not code)
        if code:
            answer.problem(answer.status, code)
        else:
            assert answer.status < 500


def test_states_of_keys_and_standings_of_callers_are_told_in_the_same_words(
    house: House, doors: Doors
) -> None:
    body = {"plaintext": "QQ=="}
    for token in ("kms_unknown", "x" * 300, house.token("stranger")):
        assert doors.ask(ENCRYPT, body, "a token", token=token).status in (401, 404)
    for authorization in WRONG[1:]:
        answer = doors.ask(ENCRYPT, body, authorization, Authorization=authorization)
        answer.problem(401, "unauthenticated")
    administration.rotate_key(house.olga, "invoices")
    house.move(house.invoices, 2, "suspended")
    doors.ask(ENCRYPT, body, "suspended").problem(409, "state_forbids")
    administration.disable_key(house.olga, "invoices")
    doors.ask(ENCRYPT, body, "disabled").problem(409, "state_forbids")
    doors.ask(f"{ENCRYPT}/batch", {"items": [body] * 2}, "disabled")
    administration.revoke_credential(house.ada, str(house.billing.credential_id))
    doors.ask(ENCRYPT, body, "revoked").problem(401, "unauthenticated")


def test_headers_are_understood_alike(doors: Doors) -> None:
    body, path = {"plaintext": "QQ=="}, ENCRYPT
    for name, values in {
        "content_type": [
            "application/json; charset=utf-8",
            "APPLICATION/JSON",
            'application/json;charset="UTF-8"',
            "application/json; charset=latin-1",
            "application/json; version=2",
            "application/problem+json",
            "text/json",
            "",
            " application/json ",
        ],
        "Accept": ["*/*", "text/plain", "application/xml;q=0", "a/b/c", "\xff", ""],
        "X-Request-Id": ["abc.1"],
        "X-Forwarded-For": ["192.0.2.1", "\xff, 192.0.2.1"],
        "Accept-Encoding": ["gzip"],
        "Expect": ["nothing"],
        "Origin": ["https://elsewhere.example"],
        "Cookie": ["sessionid=x; csrftoken=y"],
        "Range": ["bytes=0-1"],
        "If-None-Match": ["*"],
        "If-Modified-Since": ["Thu, 01 Jan 2099 00:00:00 GMT"],
        "X-HTTP-Method-Override": ["DELETE"],
        "Sec-Fetch-Site": ["same-origin", "none"],
        "Authorization": [f"bearer {doors.token}", f"BEARER  {doors.token} "],
    }.items():
        for value in values:
            answer = doors.ask(path, body, f"{name}: {value!r}", drawn=True, **{name: value})
            assert answer.status in (200, 415), (name, value, answer.body)


class Odd(Exception):
    """Nothing that anybody expects."""


def test_whatever_an_operation_fails_with_is_told_in_the_same_words(
    house: House, doors: Doors, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each error there is, coming out of the store, with its status and headers; and one that isn't ours."""
    made_for(house, CASES["mac"])
    address, body = f"keys/{CASES['mac'].alias}/mac", {"message": "QQ=="}
    codes = set[str]()
    raised: list[type[Exception]] = [*problems.TABLE, Odd, RecursionError, MemoryError]
    raised.remove(PendingApproval)  # no use of a key waits for officers
    for kind in raised:

        def fails(*_: Any, kind: type[Exception] = kind) -> bytes:
            raise kind("It is as it is.")

        monkeypatch.setattr(SoftwareBackend, "mac", fails)
        answer = doors.ask(address, body, kind.__name__)
        if issubclass(kind, KeyServiceError) and not issubclass(kind, BackendError):
            assert answer.status == problems.answer_of(kind()).status, kind
        codes.add(json.loads(answer.body).get("code", ""))
        doors.ask(f"{address}/batch", {"items": [body, body]}, kind.__name__)
    assert len(codes) > 20, codes


def test_a_difference_would_be_found(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = UseView.post

    def longer(self: UseView, request: Any, key: str = "") -> Any:
        response = plain(self, request, key)
        response.data += b" "
        return response

    doors, body = Doors(house, house.token("billing")), {"plaintext": "QQ=="}
    doors.ask(ENCRYPT, body, drawn=True)
    assert not doors.differences
    monkeypatch.setattr(UseView, "post", longer)
    doors.ask(ENCRYPT, body, drawn=True)
    assert [" body " in one for one in doors.differences] == [True]


def test_the_table_that_was_compared_is_the_whole_table() -> None:
    assert CASES.keys() == USES.keys() == {path.removesuffix("/batch") for path in BATCHES}
