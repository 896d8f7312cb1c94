"""Many uses in one request: each item its own end, one entry with the root over all of them."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from audit import writer
from keys import administration
from kms_console.api.rest import asgi
from kms_console.api.rest.codecs import strict
from kms_console.api.rest.codecs.use import row as rows
from tests.api.clients import Answer, part, person, scope, talk, use
from tests.house import House

pytestmark = pytest.mark.each_door
DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "api.md"
ENCRYPT, DECRYPT = "keys/invoices/encrypt/batch", "keys/invoices/decrypt/batch"


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def batch(house: House, path: str, items: Any, name: str = "billing") -> Answer:
    return use(path, {"items": items}, house.token(name))


def documented_root() -> Any:
    """Return the function of docs/api.md that recomputes a batch's root."""
    text = DOCUMENT.read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?def items_root.*?)```", text, re.DOTALL)
    space: dict[str, Any] = {}
    exec(code, space)
    return space["items_root"]


def test_a_batch_of_encryptions_decrypts_one_by_one_and_as_a_batch(house: House) -> None:
    texts = [f"invoice {number}".encode() for number in range(70)]  # more than a loop computes
    sealed = batch(house, ENCRYPT, [{"plaintext": b64(text)} for text in texts])
    assert sealed.status == 200, sealed.body
    results = sealed.json["results"]
    assert {(r["key_id"], r["version"]) for r in results} == {(str(house.invoices.id), 1)}
    assert len({r["ciphertext"] for r in results}) == len(texts)
    opened = batch(house, DECRYPT, [{"ciphertext": r["ciphertext"]} for r in results])
    assert [base64.b64decode(r["plaintext"]) for r in opened.json["results"]] == texts
    single = use(
        "keys/invoices/decrypt",
        {"ciphertext": results[7]["ciphertext"]},
        house.token("billing"),
    )
    assert base64.b64decode(single.json["plaintext"]) == texts[7]


def test_an_item_that_fails_has_its_own_error_and_stops_no_other(house: House) -> None:
    good = batch(house, ENCRYPT, [{"plaintext": "QQ=="}]).json["results"][0]["ciphertext"]
    answer = batch(
        house,
        DECRYPT,
        [
            {"ciphertext": good},
            {"ciphertext": "QQ=="},
            {"ciphertext": good, "context": {"a": "b"}},
            {"ciphertext": good, "algorithm": "XAES_256_GCM"},
            {"ciphertext": b64(bytes(2 * settings.PLAINTEXT_LIMIT))},
            {"ciphertext": good},
        ],
    )
    assert answer.status == 200
    ends = [r["error"]["code"] if "error" in r else r["plaintext"] for r in answer.json["results"]]
    assert ends == ["QQ==", "cannot_decrypt", "cannot_decrypt", "invalid", "too_large", "QQ=="]
    error = answer.json["results"][4]["error"]
    assert error["status"] == 413 and error["field"] == "ciphertext"
    assert error["type"] == "/api/v1/problems/too_large"
    assert error["title"] and error["detail"] and "request_id" not in error
    entry = house.last_entry(action="decrypt")
    assert entry["outcome"] == "success" and entry["reason"] == "some_items_failed"
    assert (entry["facts"]["items"], entry["facts"]["failed"]) == (6, 4)


def test_a_batch_leaves_one_entry_that_the_answer_names_with_the_root(house: House) -> None:
    before = writer.head().size
    answer = batch(house, ENCRYPT, [{"plaintext": "QQ==", "context": {"tenant": "north"}}] * 20)
    assert writer.head().size == before + 1
    entry = house.last_entry()
    assert entry["action"] == "encrypt"
    assert entry["uuid"] == answer.json["entry"]
    assert entry["facts"]["items_root"] == answer.json["items_root"]
    assert entry["facts"]["items"] == 20
    assert len(answer.json["items_root"]) == 64
    assert answer.json["results"][0]["ciphertext"] not in json.dumps(entry)


def test_the_root_is_recomputed_as_the_document_says(house: House) -> None:
    """With the very lines of docs/api.md, for evidence that came out, went in, or both."""
    items_root = documented_root()
    sealed = batch(house, ENCRYPT, [{"plaintext": b64(bytes([n]))} for n in range(5)]).json
    ciphertexts = [base64.b64decode(r["ciphertext"]) for r in sealed["results"]]
    assert items_root(sealed["results"], ciphertexts) == sealed["items_root"]
    sent = [*ciphertexts, b"no ciphertext of ours", bytes(200_000)]
    opened = batch(house, DECRYPT, [{"ciphertext": b64(one)} for one in sent]).json
    assert ["error" in r for r in opened["results"]] == [False] * 5 + [True] * 2
    assert items_root(opened["results"], sent) == opened["items_root"]
    # It does tell: another order, another ciphertext, another outcome, one item less.
    swapped = [ciphertexts[1], ciphertexts[0], *ciphertexts[2:]]
    assert items_root(sealed["results"], swapped) != sealed["items_root"]
    assert items_root(sealed["results"][:4], ciphertexts[:4]) != sealed["items_root"]
    drawn = batch(house, "random/batch", [{}, {"count": 16}, {"count": 1}]).json
    assert [len(base64.b64decode(r["random_bytes"])) for r in drawn["results"]] == [32, 16, 1]
    assert items_root(drawn["results"], [b""] * 3) == drawn["items_root"]


def test_the_root_says_which_items_were_valid(house: House) -> None:
    key = house.key(spec="HMAC_256", name="Tags", alias="tags")
    house.grant("billing", key, "mac", "verify_mac")
    token = house.token("billing")
    asked = {"items": [{"message": b64(bytes([n]))} for n in range(4)]}
    first, again = (use("keys/tags/mac/batch", asked, token).json for _ in range(2))
    assert first["results"] == again["results"]
    assert first["items_root"] == again["items_root"]
    assert first["entry"] != again["entry"]
    checks = [
        {**one, "mac": made["mac"]}
        for one, made in zip(asked["items"], first["results"], strict=True)
    ]
    checks[2]["mac"] = b64(bytes(32))
    done = use("keys/tags/verify-mac/batch", {"items": checks}, token).json
    assert [r["valid"] for r in done["results"]] == [True, True, False, True]
    # The root says which of them were valid, not only how many.
    held = [
        base64.b64decode(one["mac"]) + bytes([r["valid"]])
        for one, r in zip(checks, done["results"], strict=True)
    ]
    assert documented_root()(done["results"], held) == done["items_root"]


MALFORMED: list[tuple[bytes, str]] = [
    (b'{"plaintext": 5}', "items[2].plaintext"),
    (b'{"plaintext": "Q"}', "items[2].plaintext"),
    (b'{"plaintext": "QR=="}', "items[2].plaintext"),
    (b'{"plaintext": "QQ==", "context": {"a": 1}}', "items[2].context"),
    (b'{"plaintext": "QQ==", "raw": 1}', "items[2].raw"),
    (b"{}", "items[2]"),
    (b"null", "items[2]"),
    (b"[]", "items[2]"),
    (b'{"plaintext": "QQ==", "plain": 1}', "items[2]"),
    (b'{"plaintext": "QQ==", "plaintext": "Qg=="}', "items[2]"),
    (b'{"plaintext": "QQ==", "context": {"a": "b", "a": "c"}}', "items[2]"),
]


def test_a_malformed_item_refuses_the_whole_and_is_named(house: House) -> None:
    good = b'{"plaintext": "QQ=="}'
    for item, place in MALFORMED:
        body = b'{"items": [' + b", ".join([good, good, item, good]) + b"]}"
        problem = use(ENCRYPT, body, house.token("billing")).problem(400, "invalid")
        assert problem["field"].startswith(place), problem
        assert house.last_entry()["action"] == "refused_request", item
    assert house.entries(action="encrypt") == []


def test_a_member_that_stands_twice_around_the_items_is_refused_too(house: House) -> None:
    body = b'{"items": [{"plaintext": "QQ=="}], "items": [{"plaintext": "QQ=="}]}'
    use(ENCRYPT, body, house.token("billing")).problem(400, "invalid")


def test_a_thousand_items_are_taken_and_one_more_is_not(house: House) -> None:
    item = {"plaintext": b64(bytes(1024))}
    answer = batch(house, ENCRYPT, [item] * settings.BATCH_LIMIT)
    assert len(answer.body) > settings.BODY_LIMIT
    assert [r["version"] for r in answer.json["results"]] == [1] * settings.BATCH_LIMIT
    batch(house, ENCRYPT, [item] * (settings.BATCH_LIMIT + 1)).problem(413, "too_large")
    batch(house, ENCRYPT, []).problem(400, "invalid")


def test_only_a_batch_may_be_large(house: House) -> None:
    text = b64(bytes(settings.PLAINTEXT_LIMIT))
    large = json.dumps({"items": [{"plaintext": text}] * 20}).encode()
    assert settings.BODY_LIMIT < len(large) < settings.BATCH_BODY_LIMIT
    token = house.token("billing")
    assert len(use(ENCRYPT, large, token).json["results"]) == 20
    use("keys/invoices/encrypt", large, token).problem(413, "too_large")


@pytest.mark.own_door
def test_nobody_unknown_has_a_large_body_read(house: House) -> None:
    # Whoever is not known is refused before a byte of it is read: none is there to be read.
    headers = {"authorization": "Bearer kms_unknown", "content-length": "2000000"}
    headers["content-type"] = "application/json"
    answer = asyncio.run(talk(asgi.handle, scope(ENCRYPT, headers)))
    assert answer is not None
    answer.problem(401, "unauthenticated")
    assert answer.headers["connection"] == "close"


@pytest.mark.own_door
def test_a_large_body_in_chunks_is_counted_as_it_comes(house: House) -> None:
    headers = {
        "authorization": f"Bearer {house.token('billing')}",
        "content-type": "application/json",
    }
    half = b" " * (settings.BATCH_BODY_LIMIT // 2 + 1)
    answer = asyncio.run(talk(asgi.handle, scope(ENCRYPT, headers), *[part(half, True)] * 2))
    assert answer is not None
    answer.problem(413, "too_large")


@pytest.mark.parametrize(
    "body",
    [
        b'{"items": [' + b"{}," * 600_000 + b"{}]}",
        b'{"items": [{"context": {' + b",".join(b'"%d": ""' % n for n in range(150_000)) + b"}}]}",
    ],
    ids=["items", "members"],
)
def test_a_body_of_nothing_but_members_is_refused_before_it_is_read(
    house: House, body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any) -> None:
        raise AssertionError("the body was read")

    monkeypatch.setattr(strict.Reader, "_both", never)
    address = "keys/invoices/generate-data-key/batch"
    use(address, body, house.token("billing")).problem(413, "too_large")


def test_what_a_batch_may_hold_is_never_taken_for_too_many_members(house: House) -> None:
    pairs = {f"name {number}": f'a "quoted" value {number}' for number in range(32)}
    item = {"plaintext": "QQ==", "context": pairs, "algorithm": "XAES_256_GCM", "raw": False}
    answer = batch(house, ENCRYPT, [item] * settings.BATCH_LIMIT)
    assert answer.status == 200, answer.body[:300]
    assert "error" not in answer.json["results"][-1]


def test_each_item_is_asked_for_the_context_that_the_grant_wants(house: House) -> None:
    key = house.key(name="Tenants", alias="tenants")
    house.grant("stranger", key, "encrypt", context={"tenant": "north"})
    items = [
        {"plaintext": "QQ==", "context": {"tenant": "north"}},
        {"plaintext": "QQ==", "context": {"tenant": "south"}},
        {"plaintext": "QQ=="},
    ]
    answer = batch(house, "keys/tenants/encrypt/batch", items, "stranger")
    assert answer.status == 200, answer.body
    codes = [r.get("error", {}).get("code") for r in answer.json["results"]]
    assert codes[0] is None and set(codes[1:]) <= {"denied", "not_found"}


def test_a_batch_is_refused_whole_where_the_caller_may_not_use_the_key(house: House) -> None:
    item = [{"plaintext": "QQ=="}]
    batch(house, ENCRYPT, item, "stranger").problem(404, "not_found")
    batch(house, "keys/nowhere/encrypt/batch", item).problem(404, "not_found")
    batch(house, "keys/invoices/mac/batch", [{"message": "QQ=="}]).problem(403, "denied")
    person("olga").post(ENCRYPT, {"items": item}).problem(403, "denied")
    administration.disable_key(house.olga, "invoices")
    answer = batch(house, ENCRYPT, item * 2)
    assert [r["error"]["code"] for r in answer.json["results"]] == ["state_forbids"] * 2
    entry = house.last_entry()
    assert (entry["outcome"], entry["reason"]) == ("failed", "all_items_failed")


def test_a_batch_re_encrypts_to_another_key_item_by_item(house: House) -> None:
    archive = house.key(name="Archive", alias="archive")
    house.grant("billing", house.invoices, "re_encrypt_from", "re_encrypt_to")
    house.grant("billing", archive, "re_encrypt_to", "decrypt")
    sealed = batch(house, ENCRYPT, [{"plaintext": b64(bytes([n]))} for n in range(3)]).json
    items: list[dict[str, Any]] = [
        {"ciphertext": r["ciphertext"], "to": to}
        for r, to in zip(sealed["results"], ["archive", "nowhere", ""], strict=True)
    ]
    answer = batch(house, "keys/invoices/re-encrypt/batch", items)
    first, second, third = answer.json["results"]
    assert first["key_id"] == str(archive.id)
    assert first["source"]["key_id"] == third["key_id"] == str(house.invoices.id)
    assert second["error"]["code"] == "not_found"
    opened = use(
        "keys/archive/decrypt",
        {"ciphertext": first["ciphertext"]},
        house.token("billing"),
    )
    assert base64.b64decode(opened.json["plaintext"]) == b"\0"


@pytest.mark.own_door
def test_a_large_body_is_read_and_written_beside_the_loop(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event loop serves others meanwhile."""
    import threading

    used: list[str] = []
    plain = rows.BatchRow._read

    def noted(self: rows.BatchRow, body: bytes) -> Any:
        used.append(threading.current_thread().name)
        return plain(self, body)

    monkeypatch.setattr(rows.BatchRow, "_read", noted)
    batch(house, ENCRYPT, [{"plaintext": "QQ=="}])
    batch(house, ENCRYPT, [{"plaintext": b64(bytes(1024))}] * 100)
    assert used[0] == "MainThread" and used[1].startswith("batch")
