"""Key use by programs and people: what each door does with a request, and that both call the same functions."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from typing import Any

import pytest

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


# --- one implementation


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


def test_people_and_browsers_are_djangos() -> None:
    token = {"authorization": "Bearer kms_x"}
    assert asgi.takes(scope("random", token))
    assert asgi.takes(scope("random", {"authorization": "bearer kms_x", "accept": "*/*"}))
    assert not asgi.takes(scope("random"))
    assert not asgi.takes(scope("random", {"authorization": "Basic eDp5"}))
    assert not asgi.takes(scope("random", {**token, "accept": "text/html,*/*;q=0.8"}))


# --- what a caller sees, at each door


@pytest.mark.each_door
def test_what_is_encrypted_is_decrypted_again(house: House, billing: str) -> None:
    asked = {"plaintext": b64(b"ten invoices"), "context": {"tenant": "north"}}
    encrypted = use("keys/invoices/encrypt", asked, billing)
    assert encrypted.status == 200
    assert encrypted.headers["cache-control"] == "no-store"
    assert encrypted.json["key_id"] == str(house.invoices.id)
    assert encrypted.json["version"] == 1
    sealed = {"ciphertext": encrypted.json["ciphertext"]}
    opened = use("keys/invoices/decrypt", {**sealed, "context": {"tenant": "north"}}, billing)
    assert unb64(opened.json["plaintext"]) == b"ten invoices"
    use("keys/invoices/decrypt", sealed, billing).problem(400, "cannot_decrypt")


@pytest.mark.each_door
def test_a_wrong_signature_or_tag_is_an_answer_and_no_error(house: House, billing: str) -> None:
    message = {"message": b64(b"hello")}
    signed = use("keys/signing/sign", message, billing).json
    tag = use("keys/tags/mac", message, billing).json
    checks: list[tuple[str, dict[str, Any], bool]] = [
        ("keys/tags/verify-mac", {**message, "mac": tag["mac"], "version": 1}, True),
        ("keys/tags/verify-mac", {**message, "mac": b64(bytes(32))}, False),
        ("keys/signing/verify", {**message, "signature": signed["signature"]}, True),
        ("keys/signing/verify", {**message, "signature": b64(b"no signature")}, False),
    ]
    for path, asked, valid in checks:
        answer = use(path, asked, billing)
        assert (answer.status, answer.json["valid"]) == (200, valid)


@pytest.mark.each_door
def test_a_data_key_opens_what_it_sealed(house: House) -> None:
    token = house.token("billing")
    made = use("keys/invoices/generate-data-key", {"length": 48}, token)
    assert len(unb64(made.json["plaintext"])) == 48
    opened = use("keys/invoices/decrypt", {"ciphertext": made.json["ciphertext"]}, token)
    assert opened.json["plaintext"] == made.json["plaintext"]


@pytest.mark.each_door
def test_random_bytes_need_no_key_and_an_empty_body_will_do(house: House) -> None:
    bodies: list[Any] = [b"", None, {}]
    for body in bodies:
        answer = use("random", body, house.token("stranger"))
        assert len(unb64(answer.json["random_bytes"])) == 32


@pytest.mark.each_door
def test_a_public_key_can_be_read_with_get_too(house: House, billing: str) -> None:
    posted = use("keys/signing/public-key", {"version": 1}, billing)
    got = Api(token=billing).get("keys/signing/public-key?version=1")
    assert got.body == posted.body
    Api(token=billing).get("keys/signing/public-key?version=x").problem(400, "invalid")
    Api(token=billing).get("keys/signing/public-key?versoin=1").problem(400, "invalid")


def test_an_officer_reads_a_public_key_and_encrypts_nothing(house: House, billing: str) -> None:
    olga = person("olga")
    assert olga.post("keys/signing/public-key").status == 200
    olga.post("keys/invoices/encrypt", {"plaintext": "QQ=="}).problem(403, "denied")
    assert house.last_entry(outcome="denied")["door"] == "rest"


def test_a_browser_with_a_token_sees_a_page(house: House, billing: str) -> None:
    answer = use("keys/tags/mac", {"message": "QQ=="}, billing, Accept="text/html")
    assert (answer.status, answer.type) == (200, "text/html; charset=utf-8")
    assert b"HMAC_SHA_256" in answer.body


@pytest.mark.each_door
def test_a_revoked_token_is_refused_at_the_next_request(house: House) -> None:
    token = house.token("billing")
    asked = {"plaintext": "QQ=="}
    assert use("keys/invoices/encrypt", asked, token).status == 200
    credential = house.billing.credential_id
    administration.revoke_credential(house.ada, str(credential))
    use("keys/invoices/encrypt", asked, token).problem(401, "unauthenticated")
    assert house.last_entry(outcome="denied")["reason"] == "credential_revoked"


@pytest.mark.own_door
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
