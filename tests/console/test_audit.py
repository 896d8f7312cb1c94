"""The audit trail's pages."""

from __future__ import annotations

import contextlib
import hashlib
import html
import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from django.test import Client

from audit.merkle import verify_inclusion
from audit.models import Entry, SavedFilter
from keys import administration, operations
from keys.actions import Action
from keys.errors import KeyServiceError
from keys.operations import Item
from kms_console.web import audit_form, facts, wording
from tests.audit.helpers import attacker
from tests.console.conftest import signed_in_client
from tests.house import House


def exported(client: Client, query: str = "", form: str = "jsonl") -> str:
    """Make an export by the page's own form and return the address of its page."""
    answer = client.post(f"/audit/export{query}", {"format": form})
    assert answer.status_code == 302, answer.content.decode()
    return str(answer["Location"])


def lines_of(client: Client, page: str) -> list[bytes]:
    answer = client.get(f"{page}/content")
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
    assert udo.get("/audit?text=invo").content.decode().count('class="row"') >= 1


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
    root = bytes.fromhex(page.context["root"])
    assert verify_inclusion(bytes(entry.leaf_hash), 2, proof.size, hashes, root)
    assert "It comes to the log’s root" in body
    assert "No signed checkpoint covers it yet" in body
    for one in proof.hashes:
        assert one in body
    assert json.loads(page.context["body"]) == json.loads(bytes(entry.body))


def test_an_entry_shows_its_neighbours_and_the_rest_of_its_request(
    house: House, udo: Client
) -> None:
    one = replace(house.billing, request_id="a-request-of-two")
    operations.encrypt(one, "invoices", b"hello")
    operations.encrypt(one, "invoices", b"hello again")
    last = Entry.objects.filter(action="encrypt").order_by("-index")[0].index
    page = udo.get(f"/audit/{last - 1}")
    assert [row.index for row in page.context["beside"]] == list(range(last - 4, last + 1))
    assert [row.index for row in page.context["same"]] == [last]
    first = udo.get("/audit/0")
    assert [row.index for row in first.context["beside"]] == [0, 1, 2, 3]


def test_an_entry_shows_the_votes_behind_it_as_the_trail_tells_them(
    house: House, udo: Client
) -> None:
    house.key("patient-health", name="Records", alias="records")
    request = house.pending(administration.rotate_key, house.olga, "records", reason="yearly")
    asked = house.last_entry(action="rotate_key")["index"]
    page = udo.get(f"/audit/{asked}").content.decode()
    assert "0 of 2 officers agreed" in page
    house.approve(str(request.id))
    house.run_due_jobs()
    done = house.last_entry(action="rotate_key")["index"]
    page = udo.get(f"/audit/{done}")
    (behind,) = page.context["approvals"]
    assert behind.complete and behind.digest == request.digest
    assert [one.what for one in behind.told][:3] == ["asked", "vote", "vote"]
    body = page.content.decode()
    assert "2 officers agreed, to exactly this request" in body
    for name in ("Olga", "Otto", "Oona"):
        assert f"<strong>{name}</strong>" in body
    assert f'href="/approvals/{request.id}"' in body


def test_whoever_repeats_a_requests_id_can_not_crowd_out_its_votes(
    house: House, udo: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kms_console.web.audit_entry.CITING", 3)
    house.key("patient-health", name="Records", alias="records")
    request = house.pending(administration.rotate_key, house.olga, "records", reason="yearly")
    for _ in range(4):
        with contextlib.suppress(KeyServiceError):
            operations.encrypt(house.billing, str(request.id), b"hello")
    house.approve(str(request.id))
    house.run_due_jobs()
    done = house.last_entry(action="rotate_key")["index"]
    (behind,) = udo.get(f"/audit/{done}").context["approvals"]
    assert behind.complete and behind.needed == 2
    assert [one.what for one in behind.told][:3] == ["asked", "vote", "vote"]


@pytest.mark.parametrize("body", [b"", b"{}", b"\xff\x00", b"[1]", b'{"at": 1'])
def test_an_entry_whose_bytes_are_damaged_is_shown_as_damaged(
    house: House, udo: Client, body: bytes
) -> None:
    house.honest = False
    with attacker(house.database) as connection:
        connection.execute('UPDATE audit_entry SET body = ? WHERE "index" = 2', (body,))
    page = udo.get("/audit/2")
    assert page.status_code == 200
    text = page.content.decode()
    assert "can’t be read" in text and "don't come to the leaf hash" in text
    if body:
        assert html.escape(body.decode("utf-8", "backslashreplace")[:3]) in text
    listed = udo.get("/audit?before=5").content.decode()
    assert listed.count("can’t be read") == 1 and listed.count('class="row"') == 5
    assert udo.get("/audit/1").status_code == 200
    items = udo.get("/api/v1/audit?after=5").json()["items"]
    assert [item["index"] for item in items if item["damaged"]] == [2]
    one = udo.get("/api/v1/audit/2")
    assert (one.status_code, one.json()["code"]) == (503, "log_unavailable")
    assert "Entry 2" in one.json()["detail"]


def test_the_api_names_people_beside_the_verbatim_body(house: House, udo: Client) -> None:
    administration.save_filter(house.udo, name="Uses", query={"action": "encrypt"})
    items = udo.get("/api/v1/audit").json()["items"]
    theirs = [item for item in items if item["body"]["actor"]["id"] == str(house.udo.principal_id)]
    assert theirs
    for item in theirs:
        assert item["actor_name"] == "Udo"
        assert item["body"]["actor"]["name"].startswith("hmac-sha256:")
        one = udo.get(f"/api/v1/audit/{item['index']}").json()
        assert one["actor_name"] == "Udo" and one["body"] == item["body"]


def test_what_a_version_became_is_told_in_words(house: House, udo: Client) -> None:
    key = house.key("internal", name="Spare", alias="spare")
    house.move(key, 1, "suspended")
    body = udo.get(f"/audit/{house.last_entry(action='suspend_version')['index']}").content.decode()
    told = body.partition("Version 1 became")[2][:500]
    assert "Active" in told and "Suspended" in told


def test_quick_ranges_and_a_classification_narrow_the_trail(house: House, udo: Client) -> None:
    operations.encrypt(house.billing, "invoices", b"hello")
    for chosen in ("today", "7d", "30d", "year"):
        page = udo.get(f"/audit?range={chosen}&action=encrypt").content.decode()
        assert page.count('class="row"') == 1, chosen
        assert f'name="range" value="{chosen}"' in page
    assert udo.get("/audit?range=century").status_code == 400
    page = udo.get("/audit?classification=internal&action=encrypt").content.decode()
    assert page.count('class="row"') == 1
    page = udo.get("/audit?classification=patient-health&action=encrypt").content.decode()
    assert page.count('class="row"') == 0


def test_several_values_of_a_filter_are_kept_and_shown(house: House, udo: Client) -> None:
    with contextlib.suppress(KeyServiceError):
        operations.decrypt(house.stranger, "invoices", b"nonsense")
    page = udo.get("/audit?outcome=denied,failed").content.decode()
    assert '<option value="denied,failed" selected>Denied or failed</option>' in page
    assert page.count('class="row"') >= 1
    page = udo.get("/audit?action=encrypt,decrypt").content.decode()
    assert '<option value="encrypt,decrypt" selected>Encrypt or Decrypt</option>' in page
    assert udo.get("/audit?action=encrypt,walk_the_dog").status_code == 400


@pytest.mark.parametrize(
    ("chosen", "begins"),
    [("today", "2027-03-05"), ("7d", "2027-02-27"), ("30d", "2027-02-04"), ("year", "2027-01-01")],
)
def test_ranges_begin_at_midnight(chosen: str, begins: str) -> None:
    now = datetime(2027, 3, 5, 23, 59, tzinfo=UTC)
    assert audit_form.beginning(chosen, now) == datetime.fromisoformat(f"{begins}T00:00:00Z")
    assert audit_form.beginning("", now) is None


def test_an_auditor_exports_what_is_filtered_and_that_is_recorded_first(
    house: House, udo: Client
) -> None:
    operations.encrypt(house.billing, "invoices", b"hello")
    assert (
        'href="/audit/export?action=encrypt"' in udo.get("/audit?action=encrypt").content.decode()
    )
    page = exported(udo, "?action=encrypt")
    told = house.last_entry(action="export_audit")
    assert told["facts"]["filters"] == {"action": "encrypt"}
    assert told["facts"]["format"] == "jsonl"
    lines = lines_of(udo, page)
    entry = Entry.objects.get(action="encrypt")
    assert lines == [bytes(entry.body)]
    assert hashlib.sha256(b"\0" + lines[0]).digest() == bytes(entry.leaf_hash)
    table = lines_of(udo, exported(udo, "?action=encrypt", "csv"))
    assert len(table) == 2
    assert table[0].startswith(b"index,time,")


def test_a_download_comes_in_pieces_that_make_the_whole(house: House, udo: Client) -> None:
    page = exported(udo)
    whole = b"".join(udo.get(f"{page}/content").streaming_content)
    again, at = b"", 0
    while True:
        wanted = {"Range": f"bytes={at}-{at + 999}"}
        answer = udo.get(f"{page}/content", headers=wanted)
        if answer.status_code == 416:
            break
        assert answer.status_code == 206
        size = len(answer.content)
        assert answer["Content-Range"] == f"bytes {at}-{at + size - 1}/{len(whole)}"
        assert int(answer["X-Entries-Done"]) <= int(answer["X-Entries-Total"])
        again, at = again + answer.content, at + size
    assert again == whole
    rest = udo.get(f"{page}/content", headers={"Range": "bytes=10-"})
    assert rest.status_code == 206
    assert b"".join(rest.streaming_content) == whole[10:]
    other = udo.get(f"{page}/content", headers={"Range": "bytes=10-", "If-Range": '"another"'})
    assert other.status_code == 200
    for odd in ("bytes=9-3", f"bytes={len(whole)}-", f"bytes={len(whole)}-{len(whole) + 9}"):
        answer = udo.get(f"{page}/content", headers={"Range": odd})
        assert answer.status_code == 416, odd
    assert udo.get(f"{page}/content", headers={"Range": "lines=1-2"}).status_code == 200


def test_a_first_piece_tells_how_far_it_is_before_the_length_is_known(
    house: House, udo: Client
) -> None:
    page = exported(udo)
    answer = udo.get(f"{page}/content", headers={"Range": "bytes=0-99"})
    assert answer["Content-Range"] == "bytes 0-99/*"
    assert 0 <= int(answer["X-Entries-Done"]) <= int(answer["X-Entries-Total"])
    assert "known once it was downloaded" in udo.get(page).content.decode()


def test_nobody_takes_anothers_export(house: House, udo: Client) -> None:
    page = exported(udo)
    for username in ("olga", "ada"):
        assert signed_in_client(username).get(page).status_code == 403
        assert signed_in_client(username).get(f"{page}/content").status_code == 403
    assert udo.get(f"{page}0").status_code == 404
    assert udo.get("/audit/exports").content.decode().count('class="row"') == 1


def test_an_officer_reads_the_trail_and_may_not_take_it_out(house: House) -> None:
    olga = signed_in_client("olga")
    page = olga.get("/audit").content.decode()
    assert "/audit/export" not in page
    assert olga.get("/audit/export").status_code == 403
    assert olga.post("/audit/export", {"format": "jsonl"}).status_code == 403
    assert olga.post("/audit/verify").status_code == 403
    assert house.last_entry(action="export_audit")["outcome"] == "denied"


def test_an_unknown_format_is_no_export(udo: Client, house: House) -> None:
    assert udo.post("/audit/export", {"format": "exe"}).status_code == 400
    assert udo.post("/audit/export?since=soon", {"format": "csv"}).status_code == 400
    assert house.entries(action="export_audit") == []


def test_a_filter_is_saved_used_and_deleted(house: House, udo: Client) -> None:
    address = "/audit?outcome=denied&range=7d"
    assert "/audit/filters/new?range=7d&amp;outcome=denied" in udo.get(address).content.decode()
    answer = udo.post(
        "/audit/filters/new?outcome=denied&range=7d", {"name": "Refusals", "shared": "on"}
    )
    assert answer.status_code == 302
    page = signed_in_client("olga").get(answer["Location"]).content.decode()
    chip = page.partition('aria-label="Saved filters"')[2].partition("</nav>")[0]
    assert "Refusals" in chip and 'aria-current="true"' in chip
    row = SavedFilter.objects.get()
    assert udo.post("/audit/filters/new", {"name": "Nothing"}).status_code == 400
    assert (
        signed_in_client("olga")
        .post(f"/audit/filters/{row.id}/delete", {"reason": "x"})
        .status_code
        == 403
    )
    assert udo.post(f"/audit/filters/{row.id}/delete", {"reason": "done"}).status_code == 302
    assert not SavedFilter.objects.exists()


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
    told = page.partition("What happened")[2].partition("The entry, as it was written")[0]
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
