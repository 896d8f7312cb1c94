"""Key use at both doors: the event loop's table and Django's views are the same functions."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from typing import Any

import pytest
from django.conf import settings

from keys import administration, operations, snapshot
from kms_console.api.rest import asgi
from kms_console.api.rest.codecs.use import BATCHES, RANDOM, ROWS, TABLE, USES
from kms_console.api.rest.views.uses import RANDOM_BATCH_VIEW, RANDOM_VIEW, USE_VIEWS
from tests.api.clients import PREFIX, Answer, Api, part, person, scope, talk, use
from tests.house import House


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def unb64(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


@pytest.fixture
def billing(house: House) -> str:
    """Billing's token, with a key for each purpose beside its own."""
    signing = house.key(spec="ECC_NIST_P256", name="Signing", alias="signing")
    mac = house.key(spec="HMAC_256", name="Tags", alias="tags")
    house.grant("billing", signing, "sign", "verify", "public_key")
    house.grant("billing", mac, "mac", "verify_mac")
    return house.token("billing")


def both(path: str, body: Any, token: str, **headers: str) -> tuple[Answer, Answer]:
    """Return the answers of both doors to the same request."""
    table = use(asgi.handle, path, body, token, **headers)
    views = Api(token=token).call("POST", path, body, **headers)
    return table, views


def test_every_row_is_an_operation_of_the_domain_and_no_operation_lacks_one() -> None:
    rows = {row.operation for row in (*ROWS, RANDOM)}
    domain = {item for item in vars(operations).values() if hasattr(item, "aio")}
    assert rows | {operations.key_set} == domain  # the set is a document: GET …/jwks.json
    assert len(rows) == len(ROWS) + 1 == 20


def test_every_row_has_a_batch_form_of_the_very_same_operation() -> None:
    assert {path.removesuffix("/batch") for path in BATCHES} == set(USES)
    for path, row in BATCHES.items():
        assert row.row is USES[path.removesuffix("/batch")]
        assert row.operation is row.row.operation


@pytest.mark.parametrize("path", [*TABLE, "random", "random/batch"])
def test_both_doors_call_the_very_same_objects(path: str) -> None:
    keyless = {"random": RANDOM_VIEW, "random/batch": RANDOM_BATCH_VIEW}
    view = keyless.get(path) or USE_VIEWS[path]
    address = f"{PREFIX}{path}" if path in keyless else f"{PREFIX}keys/k/{path}"
    row, key = asgi._row(address)
    assert view.cls.row is row
    assert (row.path, key) == (path, "" if path in keyless else "k")
    assert asgi.USE_PATHS.fullmatch(address)


def test_what_is_encrypted_at_one_door_is_decrypted_at_the_other(
    house: House, billing: str
) -> None:
    asked = {"plaintext": b64(b"ten invoices"), "context": {"tenant": "north"}}
    for encrypted in both("keys/invoices/encrypt", asked, billing):
        assert encrypted.status == 200
        assert encrypted.headers["cache-control"] == "no-store"
        assert encrypted.json["key_id"] == str(house.invoices.id)
        assert encrypted.json["version"] == 1
        asked_back = {
            "ciphertext": encrypted.json["ciphertext"],
            "context": {"tenant": "north"},
        }
        table, views = both("keys/invoices/decrypt", asked_back, billing)
        assert unb64(table.json["plaintext"]) == b"ten invoices"
        assert table.body == views.body


def test_answers_that_hold_no_chance_are_the_same_bytes_at_both_doors(
    house: House, billing: str
) -> None:
    message = {"message": b64(b"hello")}
    signed = use(asgi.handle, "keys/signing/sign", message, billing).json
    table, views = both("keys/tags/mac", message, billing)
    assert table.body == views.body
    checks: list[tuple[str, dict[str, Any]]] = [
        ("keys/tags/verify-mac", {**message, "mac": table.json["mac"], "version": 1}),
        ("keys/tags/verify-mac", {**message, "mac": b64(bytes(32))}),
        ("keys/signing/verify", {**message, "signature": signed["signature"]}),
        ("keys/signing/verify", {**message, "signature": b64(b"no signature")}),
        ("keys/signing/public-key", {}),
    ]
    valid = []
    for path, asked in checks:
        table, views = both(path, asked, billing)
        assert table.status == 200, table.body
        assert (table.body, table.type) == (views.body, views.type)
        valid.append(table.json.get("valid"))
    assert valid == [True, False, True, False, None]


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("keys/invoices/encrypt", b"{"),
        ("keys/invoices/encrypt", {}),
        ("keys/invoices/encrypt", {"plaintext": "not base64!"}),
        ("keys/invoices/encrypt", {"plaintext": "QQ==", "plain": 1}),
        ("keys/invoices/encrypt", {"plaintext": b64(bytes(settings.PLAINTEXT_LIMIT + 1))}),
        ("keys/invoices/encrypt", bytes(settings.BODY_LIMIT + 1)),
        ("keys/invoices/decrypt", {"ciphertext": "QQ=="}),
        ("keys/invoices/sign", {"message": "QQ=="}),
        ("keys/nowhere/encrypt", {"plaintext": "QQ=="}),
        ("keys/a\0b/encrypt", {"plaintext": "QQ=="}),
        ("keys/invoices/encrypt", {"plaintext": "QQ==", "algorithm": "ROT_13"}),
        ("keys/invoices/decrypt", {"ciphertext": "QQ==", "version": 1}),
        ("keys/invoices/encrypt/batch", b"["),
        ("keys/invoices/encrypt/batch", {}),
        ("keys/invoices/encrypt/batch", {"items": []}),
        ("keys/invoices/encrypt/batch", {"items": [{"plaintext": "QQ=="}, {}]}),
        ("keys/invoices/encrypt/batch", {"items": [{"plaintext": "QQ=="}] * 1001}),
        ("keys/invoices/encrypt/batch", bytes(settings.BATCH_BODY_LIMIT + 1)),
        ("keys/invoices/sign/batch", {"items": [{"message": "QQ=="}]}),
        ("keys/nowhere/encrypt/batch", {"items": [{"plaintext": "QQ=="}]}),
        ("random", {"count": 0}),
        ("random/batch", {"items": [{"count": 0}]}),
    ],
)
def test_refusals_are_the_same_bytes_at_both_doors(house: House, path: str, asked: Any) -> None:
    table, views = both(path, asked, house.token("billing"), x_request_id="the-same")
    assert 400 <= table.status < 500
    table.problem(table.status, table.json["code"])
    assert (table.status, table.body, table.type) == (views.status, views.body, views.type)


def test_a_data_key_opens_what_it_sealed(house: House) -> None:
    token = house.token("billing")
    made = use(asgi.handle, "keys/invoices/generate-data-key", {"length": 48}, token)
    assert len(unb64(made.json["plaintext"])) == 48
    opened = use(
        asgi.handle, "keys/invoices/decrypt", {"ciphertext": made.json["ciphertext"]}, token
    )
    assert opened.json["plaintext"] == made.json["plaintext"]


def test_random_bytes_need_no_key_and_an_empty_body_will_do(house: House) -> None:
    table, views = both("random", b"", house.token("stranger"))
    assert len(unb64(table.json["random_bytes"])) == 32
    assert len(unb64(views.json["random_bytes"])) == 32


def test_a_public_key_can_be_read_with_get_too(house: House, billing: str) -> None:
    posted = use(asgi.handle, "keys/signing/public-key", {"version": 1}, billing)
    got = Api(token=billing).get("keys/signing/public-key?version=1")
    assert got.body == posted.body
    Api(token=billing).get("keys/signing/public-key?version=x").problem(400, "invalid")
    Api(token=billing).get("keys/signing/public-key?versoin=1").problem(400, "invalid")


def test_people_and_browsers_are_djangos(house: House) -> None:
    token = {"authorization": "Bearer kms_x"}
    assert asgi.takes(scope("random", token))
    assert asgi.takes(scope("random", {"authorization": "bearer kms_x", "accept": "*/*"}))
    assert not asgi.takes(scope("random"))
    assert not asgi.takes(scope("random", {"authorization": "Basic eDp5"}))
    assert not asgi.takes(scope("random", {**token, "accept": "text/html,*/*;q=0.8"}))


def test_an_officer_reads_a_public_key_and_encrypts_nothing(house: House, billing: str) -> None:
    olga = person("olga")
    assert olga.post("keys/signing/public-key").status == 200
    olga.post("keys/invoices/encrypt", {"plaintext": "QQ=="}).problem(403, "denied")
    assert house.last_entry(outcome="denied")["door"] == "rest"


def test_the_loop_never_touches_the_orm(house: House) -> None:
    """Django refuses a query on a thread with a running loop; a cold start needs every kind of them."""
    loops = []

    async def story() -> list[Answer | None]:
        loops.append(threading.get_ident())
        token = f"Bearer {house.token('billing')}"
        content = json.dumps({"plaintext": "QQ=="}).encode()
        headers = {"authorization": token, "content-type": "application/json"}
        paths = ("keys/invoices/encrypt", "keys/nowhere/encrypt", "keys/invoices/encrypt")
        answers = [await talk(asgi.handle, scope(path, headers), part(content)) for path in paths]
        headers["authorization"] = "Bearer kms_unknown"
        answers.append(await talk(asgi.handle, scope("random", headers), part(b"")))
        return answers

    snapshot.cache.forget()
    statuses = [answer.status for answer in asyncio.run(story()) if answer]
    assert statuses == [200, 404, 200, 401]


def test_a_revoked_token_is_refused_at_the_next_request(house: House) -> None:
    token = house.token("billing")
    asked = {"plaintext": "QQ=="}
    assert use(asgi.handle, "keys/invoices/encrypt", asked, token).status == 200
    credential = house.billing.credential_id
    administration.revoke_credential(house.ada, str(credential))
    for answer in both("keys/invoices/encrypt", asked, token):
        answer.problem(401, "unauthenticated")
    assert house.last_entry(outcome="denied")["reason"] == "credential_revoked"
