"""The management API: keys, policies, access, votes and the trail, as their callers use them."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import threading
import uuid

import pytest
from django.conf import settings
from django.db import connections

from audit.merkle import verify_inclusion
from keys import counters, operations
from keys.backends import registry
from keys.models import Approval, Key, KeyStore, KeyVersion
from tests.api.clients import Answer, Api, application, person
from tests.house import House


def is_rfc3339(text: str) -> bool:
    return text.endswith("Z") and "T" in text


def test_a_keys_whole_life(house: House) -> None:
    olga = person("olga")
    made = olga.post(
        "keys",
        {
            "name": "Letters",
            "classification": "internal",
            "spec": "AES_256",
            "labels": {"team": "post"},
            "owner": "Post office",
        },
    )
    assert made.status == 201
    key = made.json
    assert made.headers["location"] == f"/api/v1/keys/{key['id']}"
    assert uuid.UUID(key["id"]) and is_rfc3339(key["created_at"])
    assert (key["alias"], key["state"], key["primary_version"]) == ("letters", "enabled", 1)
    assert olga.get("keys/letters").json == olga.get(f"keys/{key['id']}").json == key

    changed = olga.patch("keys/letters", {"description": "All letters"}).json
    assert (changed["description"], changed["owner"]) == ("All letters", "Post office")

    job = olga.post("keys/letters/rotate", {"reason": "a test"}).json
    assert (job["kind"], job["state"], job["version"]) == ("rotate", "succeeded", 2)
    assert olga.get(f"jobs/{job['id']}").json == job
    versions = olga.get("keys/letters/versions").json["items"]
    assert [(v["number"], v["state"], v["primary"]) for v in versions] == [
        (2, "active", True),
        (1, "deactivated", False),
    ]
    assert olga.get("keys/letters/versions?limit=1").json["next"] == "2"
    assert olga.get("keys/letters/versions?limit=1&after=2").json["items"] == [versions[1]]

    assert olga.post("keys/letters/disable").json["state"] == "disabled"
    assert olga.post("keys/letters/enable").json["state"] == "enabled"
    olga.post("keys/letters/enable").problem(409, "illegal_transition")
    destroyed = olga.post("keys/letters/schedule-destruction", {"days": 40}).json
    assert destroyed["state"] == "pending_destruction" and is_rfc3339(destroyed["destroy_at"])
    assert olga.post("keys/letters/cancel-destruction").json["state"] == "disabled"
    olga.post("keys", {"name": "Letters", "classification": "internal", "spec": "AES_256"}).problem(
        409, "already_exists"
    )
    doors = {entry["door"] for entry in house.entries(object_id=key["id"])}
    assert doors == {"rest", "schedule"}  # what a job does at the store is the scheduler's


def test_a_key_is_made_for_one_purpose_and_says_so(house: House) -> None:
    olga = person("olga")
    wanted = {
        "name": "Parcels",
        "classification": "internal",
        "spec": "RSA_2048",
        "usage": "WRAP_UNWRAP",
        "algorithm": "RSAES_OAEP_SHA_384",
        "publish_days": 7,
    }
    key = olga.post("keys", wanted).json
    assert (key["usage"], key["algorithm"]) == ("WRAP_UNWRAP", "RSAES_OAEP_SHA_384")
    assert (key["publish_days"], key["exportable"], key["budget"]) == (7, False, None)
    assert olga.get("keys/parcels/versions/1").json["material_expires_at"] is None
    listed = next(k for k in olga.get("keys").json["items"] if k["alias"] == "parcels")
    assert "budget" not in listed  # a list asks the database once, not once a row
    assert listed | {"budget": None} == key
    refused: list[tuple[dict[str, object], str]] = [
        ({"usage": "GENERATE_VERIFY_MAC"}, "usage"),
        ({"usage": "SIGN_VERIFY"}, "algorithm"),
        ({"exportable": True}, "exportable"),
        ({"exportable": "yes"}, "exportable"),
        ({"publish_days": 0}, "publish_days"),
    ]
    for change, field in refused:
        problem = olga.post("keys", {**wanted, "name": "Other", **change}).problem(400, "invalid")
        assert problem["field"] == field


def test_a_classification_allows_exportable_keys_or_not(house: House) -> None:
    ada, olga = person("ada"), person("olga")
    assert ada.get("classifications/internal").json["allows_export"] is False
    changed = ada.patch("classifications/internal", {"allows_export": True})
    assert changed.json["allows_export"] is True
    wanted = {"name": "Movable", "classification": "internal", "spec": "AES_256"}
    made = olga.post("keys", {**wanted, "exportable": True})
    assert (made.status, made.json["exportable"]) == (201, True), made.body


@pytest.mark.each_door
def test_a_key_with_short_nonces_shows_what_is_left_of_its_budget(house: House) -> None:
    olga = person("olga")
    wanted = {"name": "Short", "classification": "internal", "spec": "AES_128"}
    made = olga.post("keys", wanted).json
    whole = {"used": 0, "limit": counters.limit_of("AES_128_GCM")}
    assert made["budget"] == whole
    house.grant("billing", Key.objects.get(alias="short"), "encrypt")
    application(house, "billing").post("keys/short/encrypt", {"plaintext": "QQ=="})
    used = olga.get("keys/short").json["budget"]["used"]
    assert 1 <= used <= settings.COUNTER_BLOCK
    assert olga.post("keys/short/rotate").status == 200
    assert olga.get("keys/short").json["budget"] == whole


def test_lists_page_by_key_and_narrow(house: House) -> None:
    for number in range(5):
        house.key(name=f"Page {number}")
    udo = person("udo")
    seen: list[str] = []
    after = ""
    while True:
        page = udo.get(f"keys?limit=2&after={after}").json
        seen += [key["alias"] for key in page["items"]]
        assert len(page["items"]) <= 2
        if page["next"] is None:
            break
        after = page["next"]
    assert seen == sorted(["invoices", *(f"page-{n}" for n in range(5))])
    found = udo.get("keys?text=page%203&state=enabled&usage=ENCRYPT_DECRYPT").json["items"]
    assert [key["alias"] for key in found] == ["page-3"]
    assert udo.get("keys?classification=patient-health").json["items"] == []
    udo.get("keys?limit=0").problem(400, "invalid")
    udo.get("keys?state=asleep").problem(400, "invalid")


def test_a_store_out_of_reach_answers_202_with_the_job(house: House) -> None:
    """The root key is put aside: the key is there, its first version waits."""
    root_key, aside = settings.ROOT_KEY_FILE, settings.ROOT_KEY_FILE.with_name("aside")
    root_key.rename(aside)
    try:
        registry.forget(KeyStore.objects.get().id)
        answer = person("olga").post(
            "keys", {"name": "Later", "classification": "internal", "spec": "AES_256"}
        )
    finally:
        aside.rename(root_key)
    assert answer.status == 202, answer.body
    job = answer.json["job"]
    assert (job["kind"], job["state"]) == ("create", "pending")
    assert answer.headers["location"] == f"/api/v1/jobs/{job['id']}"
    assert answer.json["key"]["primary_version"] is None


def _vote(username: str, approval: str, approve: bool = True) -> Answer:
    api = person(username)
    digest = api.get(f"approvals/{approval}").json["digest"]
    return api.post(f"approvals/{approval}/vote", {"approve": approve, "digest": digest})


def test_what_needs_votes_answers_202_and_happens_once_they_are_there(house: House) -> None:
    house.key("patient-health", name="Records", alias="records")
    olga = person("olga")
    asked = olga.post("keys/records/rotate", {"reason": "a test"})
    assert asked.status == 202 and asked.type == "application/json"
    identity = asked.json["approval_id"]
    assert asked.json["status"] == "pending_approval"
    assert asked.json["approval"]["quorum"] == {"m": 2, "n": 3}
    assert asked.headers["location"] == f"/api/v1/approvals/{identity}"
    assert KeyVersion.objects.filter(key__alias="records").count() == 1

    mine = person("otto").get("approvals?for_me=true").json["items"]
    assert [request["id"] for request in mine] == [identity]
    assert olga.get("approvals?for_me=true").json["items"] == []
    _vote("olga", identity).problem(403, "denied")
    person("otto").post(
        f"approvals/{identity}/vote", {"approve": True, "digest": "0" * 64}
    ).problem(409, "conflict")
    assert _vote("otto", identity).json["state"] == "open"
    _vote("otto", identity).problem(409, "conflict")
    done = _vote("oona", identity).json
    assert done["state"] == "approved"
    assert [vote["officer"]["name"] for vote in done["votes"]] == ["Otto", "Oona"]
    house.approve(identity, by=())
    assert olga.get(f"approvals/{identity}").json["state"] == "executed"
    assert KeyVersion.objects.filter(key__alias="records").count() == 2


def test_a_request_can_be_refused_and_withdrawn(house: House) -> None:
    house.key("patient-health", name="Records", alias="records")
    olga = person("olga")
    first = olga.post("keys/records/rotate").json["approval_id"]
    assert _vote("otto", first, approve=False).json["state"] == "rejected"
    second = olga.post("keys/records/rotate").json["approval_id"]
    person("otto").post(f"approvals/{second}/withdraw").problem(403, "denied")
    assert olga.post(f"approvals/{second}/withdraw").json["state"] == "withdrawn"
    assert Approval.objects.count() == 2
    states = [r["id"] for r in olga.get("approvals?state=withdrawn").json["items"]]
    assert states == [second]


def test_an_officer_is_appointed_by_the_others_and_the_password_shown_once(house: House) -> None:
    ada = person("ada")
    wanted = {"name": "Ole", "username": "ole"}
    identity = ada.post("people/appoint-officer", wanted).json["approval_id"]
    for username in ("olga", "otto"):
        _vote(username, identity)
    done = ada.post("people/appoint-officer", wanted)
    assert done.status == 201 and done.headers["cache-control"] == "no-store"
    password = done.json["password"]
    assert len(password) >= 12
    person_id = done.json["person"]["id"]
    assert ada.get(f"people/{person_id}").json["role"] == "officer"
    assert password not in json.dumps(house.entries())
    asked = ada.post(f"people/{person_id}/dismiss", {"reason": "left"})
    assert asked.status == 202


def test_people_are_added_and_closed(house: House) -> None:
    ada = person("ada")
    added = ada.post("people", {"name": "Uma", "username": "uma", "role": "auditor"})
    assert added.status == 201
    listed = [p["name"] for p in ada.get("people").json["items"]]
    assert "Uma" in listed and "billing" not in listed
    assert ada.post("people/Uma/deactivate").json["active"] is False
    ada.post("people", {"name": "X", "username": "x", "role": "officer"}).problem(400, "invalid")
    # An application is no person, and the other way round.
    ada.get("people/billing").problem(404, "not_found")
    ada.post("people/billing/deactivate").problem(404, "not_found")
    ada.post("applications/Udo/deactivate").problem(404, "not_found")


@pytest.mark.each_database(fast="postgresql")
@pytest.mark.parametrize(
    "name", ["\U00020000" * 1000, "Uma\0Unterberg"], ids=["1,000 letters of four bytes", "NUL"]
)
def test_a_name_that_no_database_keeps_is_refused_with_an_entry_and_hurts_nobody_else(
    house: House, name: str
) -> None:
    ada = person("ada")
    answers: list[bytes] = []
    threads = [threading.Thread(target=lambda: answers.append(use_a_key(house))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for field in ("name", "username"):
        body = {"name": "Uma", "username": "uma", "role": "auditor"} | {field: name}
        problem = ada.post("people", body).problem(400, "invalid")
        assert "character" in problem["detail"] or "letters" in problem["detail"]
        entry = house.entries(request_id=problem["request_id"])[-1]
        assert (entry["outcome"], entry["reason"]) == ("failed", "invalid")
        assert "Unterberg" not in str(entry) and name not in str(entry)
    for thread in threads:
        thread.join()
    assert answers == [b"x", b"x"]
    assert ada.post("people", {"name": "Uma", "username": "uma", "role": "auditor"}).status == 201


def use_a_key(house: House) -> bytes:
    try:
        sealed = operations.encrypt(house.billing, "invoices", b"x").ciphertext
        return operations.decrypt(house.billing, "invoices", sealed).plaintext.reveal()
    finally:
        connections.close_all()


@pytest.mark.each_door
def test_an_application_gets_a_token_once_and_loses_it_at_once(house: House) -> None:
    ada, olga = person("ada"), person("olga")
    made = ada.post("applications", {"name": "crm", "description": "Customers"})
    assert made.status == 201
    issued = ada.post("applications/crm/credentials", {"expires_at": "2099-01-01T00:00:00Z"})
    assert issued.status == 201 and issued.headers["cache-control"] == "no-store"
    token, credential = issued.json["token"], issued.json["credential"]
    assert token.startswith(credential["hint"])
    listed = ada.get("applications/crm/credentials")
    assert listed.json["items"] == [credential] and token.encode() not in listed.body
    wanted = {"application": "crm", "key": "invoices", "operations": ["encrypt"]}
    grant = olga.post("grants", {**wanted, "context": {"tenant": "north"}}).json
    assert olga.get("grants?application=crm").json["items"] == [grant]
    crm = Api(token=token)
    sealed = {"plaintext": "QQ==", "context": {"tenant": "north"}}
    assert crm.post("keys/invoices/encrypt", sealed).status == 200
    crm.post("keys/invoices/encrypt", {"plaintext": "QQ=="}).problem(403, "denied")
    assert olga.post(f"grants/{grant['id']}/revoke").json["revoked_at"]
    crm.post("keys/invoices/encrypt", sealed).problem(404, "not_found")
    assert ada.post(f"credentials/{credential['id']}/revoke").json["revoked_at"]
    assert crm.get("keys").status in (401, 403, 404)
    assert ada.post("applications/crm/deactivate").json["active"] is False
    assert token not in json.dumps(house.entries())


def test_policies_are_made_changed_and_paused(house: House) -> None:
    ada = person("ada")
    made = ada.post(
        "classifications",
        {
            "name": "secret",
            "title": "Secret",
            "allowed_specs": ["AES_256"],
            "key_stores": ["software"],
            "quorum": {"m": 2, "n": 3},
        },
    )
    assert made.status == 201, made.body
    assert made.json["quorum"] == {"m": 2, "n": 3}
    assert ada.patch("classifications/secret", {"rotation_days": 30}).status == 202
    changed = ada.patch("classifications/internal", {"rotation_days": 30})
    assert (changed.status, changed.json["rotation_days"]) == (200, 30)
    ada.post("classifications/internal/pause-rotation").problem(400, "invalid")
    paused = ada.post("classifications/internal/pause-rotation", {"reason": "a move"}).json
    assert (paused["rotation_paused"], paused["rotation_paused_reason"]) == (True, "a move")
    assert ada.post("classifications/internal/resume-rotation").json["rotation_paused"] is False
    for quorum in ({"m": 3, "n": 3}, {"m": 2}, {"x": 1}):
        wanted = {
            "name": "odd",
            "title": "Odd",
            "allowed_specs": ["AES_256"],
            "key_stores": ["software"],
            "quorum": quorum,
        }
        ada.post("classifications", wanted).problem(400, "invalid")


def test_key_stores_are_added_changed_and_asked_how_they_are(house: House) -> None:
    ada = person("ada")
    made = ada.post("key-stores", {"name": "second", "kind": "software", "title": "Second"})
    assert made.status == 201
    checked = ada.post("key-stores/second/check").json
    assert checked["healthy"] is True and is_rfc3339(checked["checked_at"])
    assert house.last_entry()["action"] == "check_key_store"
    assert ada.patch("key-stores/second", {"enabled": False}).json["enabled"] is False
    assert ada.post("key-stores/second/check").json["healthy"] is False
    ada.post("key-stores", {"name": "x", "kind": "abacus"}).problem(422, "unsupported")
    application(house, "billing").post("key-stores/second/check").problem(403, "denied")


@pytest.mark.each_door
def test_the_trail_is_searched_proved_and_verified(house: House) -> None:
    application(house, "billing").post("keys/invoices/encrypt", {"plaintext": "QQ=="})
    udo = person("udo")
    page = udo.get("audit?limit=2").json
    assert len(page["items"]) == 2 and page["next"] == str(page["items"][1]["index"])
    older = udo.get(f"audit?limit=2&after={page['next']}").json["items"]
    assert older[0]["index"] == page["items"][1]["index"] - 1
    found = udo.get("audit?object=invoices&action=encrypt&actor=billing").json["items"]
    assert [entry["body"]["outcome"] for entry in found] == ["success"]
    assert udo.get("audit?since=2099-01-01T00:00:00Z").json["items"] == []
    udo.get("audit?since=yesterday").problem(400, "invalid")
    udo.get("audit?since=2099-01-01T00:00:00").problem(400, "invalid")

    entry = udo.get(f"audit/{found[0]['index']}").json
    leaf = hashlib.sha256(b"\0" + entry["canonical"].encode()).digest()
    assert leaf.hex() == entry["leaf_hash"]
    proof = entry["proof"]
    hashes = [bytes.fromhex(one) for one in proof["hashes"]]
    root = bytes.fromhex(proof["root"])
    assert verify_inclusion(leaf, entry["index"], proof["size"], hashes, root)
    udo.get("audit/999999").problem(404, "not_found")
    verified = udo.get("audit/verify").json
    assert verified["ok"] is True and verified["problem"] == ""
    assert house.last_entry()["action"] == "verify_audit"


def test_the_trail_is_exported_as_evidence_and_for_reading(house: House) -> None:
    udo = person("udo")
    lines = udo.get("audit/export?format=jsonl&action=create_key")
    assert lines.type == "application/jsonl"
    assert "attachment" in lines.headers["content-disposition"]
    assert [json.loads(line)["action"] for line in lines.body.splitlines()] == ["create_key"] * 2
    table = udo.get("audit/export?format=csv&object=invoices")
    rows = list(csv.DictReader(io.StringIO(table.body.decode())))
    assert rows and {row["object_name"] for row in rows} == {"invoices"}
    assert len(house.entries(action="export_audit")) == 2
    udo.get("audit/export?format=xml").problem(400, "invalid")
    person("olga").get("audit/export").problem(403, "denied")


def test_a_browser_sees_a_page_and_the_page_has_no_script(house: House) -> None:
    api = person("olga")
    page = api.get("keys/invoices", Accept="text/html,application/xhtml+xml;q=0.9,*/*;q=0.8")
    assert page.type == "text/html; charset=utf-8"
    text = page.body.decode()
    assert "invoices" in text and "/api/v1/docs" in text
    assert "<script" not in text and "style=" not in text and "<style" not in text
    missing = api.get("keys/%3Cscript%3E", Accept="text/html")
    assert (missing.status, missing.type) == (404, "text/html; charset=utf-8")
    assert "<script" not in missing.body.decode()
    assert api.get("keys/invoices", Accept="application/xml").type == "application/json"
    posted = api.post("random", {"count": 4}, Accept="text/html")
    assert posted.status == 200 and "random_bytes" in posted.body.decode()
