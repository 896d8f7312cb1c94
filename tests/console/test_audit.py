"""The audit trail's pages."""

from __future__ import annotations

import hashlib
import json

from django.test import Client

from audit.merkle import verify_inclusion
from audit.models import Entry
from keys import operations
from keys.actions import Action
from keys.operations import Item
from kms_console.web import facts, wording
from tests.console.conftest import signed_in_client
from tests.house import House


def exported(client: Client, **form: str) -> list[bytes]:
    answer = client.post("/audit/export", form)
    assert answer.status_code == 200, answer.content
    assert "attachment" in answer["Content-Disposition"]
    return b"".join(answer.streaming_content).splitlines()


def test_the_trail_is_narrowed_by_who_what_when_and_where(house: House, udo: Client) -> None:
    operations.encrypt(house.billing, "invoices", b"hello")
    page = udo.get("/audit?actor=billing&action=encrypt&object_id=invoices").content.decode()
    assert page.count('class="row"') == 1
    assert "127.0.0.1" in page
    assert udo.get("/audit?actor=billing&action=decrypt").content.decode().count('"row"') == 0
    assert udo.get("/audit?door=console").content.decode().count('class="row"') >= 1
    assert udo.get("/audit?until=2001-01-01T00:00").content.decode().count('"row"') == 0
    assert udo.get("/audit?text=voic").content.decode().count('class="row"') >= 1


def test_pages_go_on_where_they_ended(house: House, udo: Client) -> None:
    for _ in range(60):
        operations.encrypt(house.billing, "invoices", b"hello")
    first = udo.get("/audit?action=encrypt").content.decode()
    assert first.count('class="row"') == 50
    last = Entry.objects.filter(action="encrypt").order_by("-index")[49].index
    assert f"action=encrypt&amp;before={last}" in first
    second = udo.get(f"/audit?action=encrypt&before={last}").content.decode()
    assert second.count('class="row"') == 10


def test_an_entry_is_shown_as_written_with_a_proof_that_holds(house: House, udo: Client) -> None:
    page = udo.get("/audit/2")
    entry = Entry.objects.get(index=2)
    body = page.content.decode()
    assert bytes(entry.leaf_hash).hex() in body
    proof = page.context["proof"]
    hashes = [bytes.fromhex(one) for one in proof.hashes]
    assert verify_inclusion(
        bytes(entry.leaf_hash), 2, proof.size, hashes, bytes.fromhex(proof.root)
    )
    assert json.loads(page.context["body"]) == json.loads(bytes(entry.body))


def test_a_long_log_computes_a_proof_only_when_asked(
    house: House, udo: Client, monkeypatch: object
) -> None:
    from kms_console.web import audit

    before = audit.PROOF_AT_ONCE
    audit.PROOF_AT_ONCE = 1
    try:
        assert udo.get("/audit/2").context["proof"] is None
        assert udo.get("/audit/2?proof=yes").context["proof"] is not None
    finally:
        audit.PROOF_AT_ONCE = before


def test_an_auditor_exports_what_is_filtered_and_that_is_recorded_first(
    house: House, udo: Client
) -> None:
    operations.encrypt(house.billing, "invoices", b"hello")
    lines = exported(udo, format="jsonl", action="encrypt")
    entry = Entry.objects.get(action="encrypt")
    assert lines == [bytes(entry.body)]
    assert hashlib.sha256(b"\0" + lines[0]).digest() == bytes(entry.leaf_hash)
    told = house.last_entry(action="export_audit")
    assert told["facts"]["filters"] == {"action": "encrypt"}
    assert told["facts"]["format"] == "jsonl"
    table = exported(udo, format="csv", action="encrypt")
    assert len(table) == 2
    assert table[0].startswith(b"index,time,")


def test_an_officer_reads_the_trail_and_may_not_take_it_out(house: House) -> None:
    olga = signed_in_client("olga")
    page = olga.get("/audit").content.decode()
    assert "JSON Lines" not in page
    assert olga.post("/audit/export", {"format": "jsonl"}).status_code == 403
    assert olga.post("/audit/verify").status_code == 403
    assert house.last_entry(action="export_audit")["outcome"] == "denied"


def test_an_unknown_format_is_no_export(udo: Client, house: House) -> None:
    assert udo.post("/audit/export", {"format": "exe"}).status_code == 400
    assert udo.post("/audit/export", {"format": "csv", "since": "soon"}).status_code == 400
    assert house.entries(action="export_audit") == []


def test_an_auditor_verifies_the_whole_log(house: House, udo: Client) -> None:
    page = udo.post("/audit/verify").content.decode()
    assert "The log is whole" in page
    assert house.last_entry()["action"] == "verify_audit"


def test_every_action_of_the_trail_has_words(udo: Client) -> None:
    page = udo.get("/audit").content.decode()
    for action in Action:
        assert wording.label("action", action.value) != action.value
        assert f'<option value="{action.value}">' in page
    assert "Key ceremony" in wording.label("object", "ceremony")


def test_what_a_batch_says_is_read_without_knowing_json(house: House, udo: Client) -> None:
    operations.encrypt.batch(
        house.billing, "invoices", [Item((b"one",), {}), Item((b"x" * 100_000,), {})]
    )
    entry = house.last_entry(action="encrypt")
    page = udo.get(f"/audit/{entry['index']}").content.decode()
    told = page.partition("What it says")[2].partition("The entry, as it was written")[0]
    for word in ("Items that failed", "Merkle root of the items", entry["facts"]["items_root"]):
        assert word in told, word


def test_facts_are_told_in_words_with_codes_and_times_spelled_out() -> None:
    told = dict(
        facts.rows(
            {
                "asked": {"spec": "AES_256", "usage": "WRAP_UNWRAP", "exportable": True},
                "reason": "because",
                "versions": [1, 2],
                "from": "active",
                "to": {"key": "3f", "version": 2},
                "ticket": "7c",
                "expires_at": "2027-01-31T12:00:00+00:00",
                "something_new": "is shown, too",
                "empty": "",
            }
        )
    )
    assert told == {
        "Key type": "AES-256",
        "Purpose": "Wrap and unwrap keys",
        "Exportable": True,
        "Reason given": "because",
        "Versions": "1, 2",
        "From": "Active",
        "To": "key 3f, version 2",
        "Import ticket": "7c",
        "Until": "31 Jan 2027, 12:00:00 UTC",
        "Something new": "is shown, too",
    }
    odd = {"to": [1, {}], "expires_at": "never", "operations": [1], "spec": ["x"], "asked": "x"}
    assert len(facts.rows(odd)) == 4
