"""Bringing material, taking it out, and ceremonies, through the API."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from keys import administration
from keys.models import Approval, ImportTicket
from tests.api.clients import Answer, Api, application, person
from tests.house import House
from tests.keys.customer import RSA_AES, RSA_OAEP, unwrap, wrap_to

MATERIAL = b"0123456789abcdef0123456789abcdef"
ONE = bytes(range(1, 33))
TWO = bytes(a ^ b for a, b in zip(ONE, MATERIAL, strict=True))


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def made(api: Api, **more: Any) -> None:
    wanted = {"name": "Ours", "classification": "internal", "spec": "AES_256", "origin": "imported"}
    answer = api.post("keys", {**wanted, **more})
    assert answer.status == 201, answer.body


def brought(api: Api, algorithm: str = RSA_AES, material: bytes = MATERIAL) -> dict[str, Any]:
    """Return the body of an import: parameters asked for, and material wrapped as they say."""
    answer = api.post("keys/ours/import-parameters", {"spec": "RSA_3072"})
    assert answer.status == 200, answer.body
    given = answer.json
    assert algorithm in given["algorithms"]
    wrapped = wrap_to(base64.b64decode(given["public_key"]), material, algorithm)
    return {"wrapped": b64(wrapped), "token": given["token"], "algorithm": algorithm}


def vote(approval: str) -> None:
    for username in ("otto", "oona"):
        api = person(username)
        digest = api.get(f"approvals/{approval}").json["digest"]
        assert (
            api.post(f"approvals/{approval}/vote", {"approve": True, "digest": digest}).status
            == 200
        )


def waits(answer: Answer) -> str:
    assert (answer.status, answer.json["status"]) == (202, "pending_approval"), answer.body
    return str(answer.json["approval_id"])


@pytest.mark.parametrize("algorithm", [RSA_AES, RSA_OAEP])
def test_material_is_imported_wrapped_and_never_shown(house: House, algorithm: str) -> None:
    olga = person("olga")
    made(olga)
    key = olga.get("keys/ours").json
    assert (key["state"], key["model"]) == ("pending_import", "customer-provided")
    body = brought(olga, algorithm)
    origin = {"originated_at": "2026-01-01T00:00:00Z", "expires_at": "2199-01-01T00:00:00Z"}
    done = olga.post("keys/ours/import", {**body, **origin})
    assert (done.status, done.json["state"]) == (200, "enabled"), done.body
    version = olga.get("keys/ours/versions/1").json
    assert version["originated_at"] == "2026-01-01T00:00:00Z"
    assert version["material_expires_at"] == "2199-01-01T00:00:00Z"
    olga.post("keys/ours/import", {**body, **origin}).problem(400, "invalid")
    trail = json.dumps(house.entries())
    for secret in (b64(MATERIAL), MATERIAL.decode(), body["wrapped"], body["token"]):
        assert secret.encode() not in done.body and secret not in trail


def test_material_in_the_clear_does_not_come_through_this_door(house: House) -> None:
    olga = person("olga")
    made(olga)
    answer = olga.post("keys/ours/import", {"material": b64(MATERIAL)})
    assert answer.problem(400, "invalid")["field"] == "material"
    assert MATERIAL.decode() not in json.dumps(house.entries())
    olga.post("keys/ours/import", {}).problem(400, "invalid")
    odd: list[dict[str, Any]] = [
        {"wrapped": "not base64!"},
        {"wrapped": "QUJ="},
        {"wrapped": b64(b"x" * 9000)},
        {"token": "x" * 300},
        {"token": 5},
        {"algorithm": "RSAES_OAEP_SHA_1"},
        {"number": 0},
        {"number": 2**40},
        {"expires_at": "soon"},
        {"check_value": "0" * 65},
        {"ceremony": "none"},
        {"wrapping_key": "invoices"},
    ]
    good = brought(olga)
    for wrong in odd:
        olga.post("keys/ours/import", {**good, **wrong}).problem(400, "invalid")
    assert ImportTicket.objects.get().used_at is None
    assert olga.post("keys/ours/import", good).status == 200


def test_votes_material_again_deleted_and_back(house: House) -> None:
    olga = person("olga")
    made(olga, classification="patient-health")
    approval = waits(olga.post("keys/ours/import", brought(olga)))
    vote(approval)
    assert olga.post("keys/ours/import", brought(olga, RSA_OAEP)).status == 200
    assert olga.get(f"approvals/{approval}").json["state"] == "executed"
    why = {"reason": "The contract ended."}
    approval = waits(olga.post("keys/ours/versions/1/delete-material", why))
    vote(approval)
    administration.execute(approval)
    version = olga.get("keys/ours/versions/1").json
    assert (version["condition"], version["state"]) == ("unavailable", "active")
    olga.post("keys/ours/versions/7/delete-material", why).problem(404, "not_found")
    approval = waits(olga.post("keys/ours/import", {**brought(olga), "number": 1}))
    vote(approval)
    assert olga.post("keys/ours/import", {**brought(olga), "number": 1}).status == 200
    assert olga.get("keys/ours/versions/1").json["condition"] is None
    person("olga").post("keys/ours/rotate").problem(409, "state_forbids")


def test_material_leaves_wrapped_once_officers_agreed(house: House) -> None:
    administration.update_classification(house.ada, "internal", allows_export=True)
    olga, recipient = person("olga"), rsa.generate_private_key(65537, 3072)
    made(olga, origin="generated", exportable=True)
    public_key = (
        recipient.public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode()
    )
    wanted = {"public_key": public_key}
    olga.post("keys/ours/export", wanted).problem(409, "state_forbids")
    administration.update_classification(house.ada, "internal", quorum={"m": 2, "n": 3})
    vote(waits(olga.post("keys/ours/export", wanted)))
    done = olga.post("keys/ours/export", wanted)
    assert done.status == 200, done.body
    assert done.json["check_value"] == olga.get("keys/ours/versions/1").json["check_value"]
    material = unwrap(recipient, base64.b64decode(done.json["wrapped"]))
    assert len(material) == 32
    assert waits(olga.post("keys/ours/export", wanted)), "votes serve once"
    for wrong in ("", "QUJD", "x" * 20_000, public_key[:-40]):
        olga.post("keys/ours/export", {"public_key": wrong}).problem(400, "invalid")


def test_a_ceremony_from_its_opening_to_its_minutes(house: House) -> None:
    olga, otto, oona, udo = (person(name) for name in ("olga", "otto", "oona", "udo"))
    made(olga)
    opened = olga.post(
        "keys/ours/ceremonies", {"custodians": ["Olga", "Otto"], "split": True, "place": "Room 7"}
    )
    assert opened.status == 201, opened.body
    path = opened.headers["location"].removeprefix("/api/v1/")
    oona.post(f"{path}/component", {"component": b64(ONE)}).problem(403, "denied")
    olga.post(f"{path}/component", {"component": b64(b"short")}).problem(400, "invalid")
    first = olga.post(f"{path}/component", {"component": b64(ONE)})
    assert first.json["custodians"][0]["entered_at"] is not None, first.body
    olga.post(f"{path}/component", {"component": b64(ONE)}).problem(409, "conflict")
    second = otto.post(f"{path}/component", {"component": b64(TWO)})
    value = second.json["check_value"]
    assert len(value) == 16, second.body
    otto.post(f"{path}/confirm", {"check_value": "00"}).problem(400, "invalid")
    for api in (olga, otto):
        assert api.post(f"{path}/confirm", {"check_value": value}).status == 200
    done = olga.post("keys/ours/import", {"ceremony": opened.json["id"]})
    assert (done.status, done.json["state"]) == (200, "enabled"), done.body
    assert olga.get("keys/ours/versions/1").json["check_value"] == value
    assert udo.get(path).json["state"] == "done"
    assert [row["id"] for row in udo.get("keys/ours/ceremonies").json["items"]] == [
        opened.json["id"]
    ]
    minutes = udo.get(f"{path}/minutes")
    assert minutes.json["steps"][-1]["action"] == "import_key"
    assert minutes.json["size"] > minutes.json["steps"][-1]["index"]
    everything = minutes.body + done.body + first.body + second.body
    for secret in (ONE, TWO, MATERIAL):
        assert b64(secret).encode() not in everything and secret.hex().encode() not in everything
    olga.post(f"{path}/close").problem(409, "conflict")
    olga.get("ceremonies/none").problem(404, "not_found")


def test_a_ceremony_is_cancelled_and_strangers_see_none(house: House) -> None:
    olga = person("olga")
    made(olga)
    wanted = {"custodians": ["Olga", "Otto"], "split": True}
    path = "ceremonies/" + olga.post("keys/ours/ceremonies", wanted).json["id"]
    for method, step in (
        ("GET", ""),
        ("GET", "/minutes"),
        ("POST", "/component"),
        ("POST", "/close"),
    ):
        body = None if method == "GET" else {}
        application(house, "stranger").call(method, path + step, body).problem(404, "not_found")
        if method == "POST":
            person("udo").call(method, path + step, body).problem(403, "denied")
    closed = person("oona").post(f"{path}/close", {"reason": "A component was read aloud."})
    assert closed.json["state"] == "cancelled"
    second = olga.post("keys/ours/ceremonies", wanted).json["id"]
    newest = olga.get("keys/ours/ceremonies?limit=1").json
    assert [row["id"] for row in newest["items"]] == [second]
    rest = olga.get(f"keys/ours/ceremonies?after={newest['next']}").json
    assert ([row["id"] for row in rest["items"]], rest["next"]) == ([closed.json["id"]], None)
    olga.get("keys/ours/ceremonies?after=x").problem(400, "invalid")
    for wrong in ({"custodians": ["Olga"], "split": True}, {"custodians": ["Olga", "Otto"]}):
        olga.post("keys/ours/ceremonies", wrong).problem(400, "invalid")
    assert not Approval.objects.exists()
