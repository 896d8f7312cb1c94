"""Exports at the API: made, fetched in one go or in ranges, by their own maker; and what proves the rest."""

from __future__ import annotations

import json
from base64 import b64decode
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from audit import merkle, tiles
from audit.checkpoints.signer import Signer
from audit.exports import rows, taking
from audit.models import Checkpoint, Entry, Export, PersonalValue
from audit.writer import head
from keys import operations
from tests.api.clients import Answer, Api, application, person
from tests.house import House


@pytest.fixture
def udo(house: House) -> Api:
    operations.encrypt(house.billing, "invoices", b"x")
    return person("udo")


def made(caller: Api, **wanted: Any) -> dict[str, Any]:
    answer = caller.post("audit/exports", wanted)
    assert answer.status == 201, answer.body
    assert answer.headers["location"] == f"/api/v1/audit/exports/{answer.json['id']}"
    return answer.json  # type: ignore[no-any-return]


def fetched(caller: Api, export: dict[str, Any], **headers: str) -> Answer:
    assert export["content"] == f"/api/v1/audit/exports/{export['id']}/content"
    return caller.get(f"audit/exports/{export['id']}/content", **headers)


def test_an_export_is_made_and_fetched_and_both_stand_in_the_trail(house: House, udo: Api) -> None:
    export = made(udo, format="jsonl", object="invoices")
    assert (export["finished"], export["bytes"], export["done"]) == (False, None, 0)
    key = str(house.invoices.id)
    assert export["filters"] == {"object_id": key}, "what was meant by the name then"
    answer = fetched(udo, export)
    assert (answer.status, answer.type) == (200, "application/jsonl")
    assert answer.headers["accept-ranges"] == "bytes"
    assert {json.loads(line)["object"]["id"] for line in answer.body.splitlines()} == {key}
    after = udo.get(f"audit/exports/{export['id']}").json
    assert after["finished"] is True and after["bytes"] == len(answer.body)
    assert after["done"] == after["total"] == len(answer.body.splitlines())
    assert udo.get("audit/exports").json["items"] == [after]
    first, second = house.entries(action="export_audit")
    assert first["facts"]["export"] == second["facts"]["export"] == export["id"]
    assert first["facts"]["filters"] == {"object_id": str(house.invoices.id)}
    assert first["facts"]["size"] == export["size"] == first["index"]
    assert second["facts"]["from"] == 0


def test_a_download_is_taken_up_again_by_ranges(
    house: House, udo: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "ROWS", 4)
    monkeypatch.setattr(taking, "SPACING", 1000)
    export = made(udo)
    first = fetched(udo, export, Range="bytes=0-99")
    assert first.status == 206
    length = int(first.headers["content-range"].removeprefix("bytes 0-99/"))
    whole = fetched(udo, export)
    assert len(whole.body) == length == int(whole.headers["content-length"])
    assert first.body == whole.body[:100]
    tag = whole.headers["etag"]
    assert tag == f'"{export["id"]}-jsonl"'
    for wanted, start, end in (
        ("bytes=100-", 100, length),
        ("bytes=-50", length - 50, length),
        (f"bytes=7-{length + 10**9}", 7, length),
        ("bytes=3-3", 3, 4),
    ):
        part = fetched(udo, export, Range=wanted, If_Range=tag)
        assert part.status == 206, wanted
        assert part.body == whole.body[start:end], wanted
        assert part.headers["content-range"] == f"bytes {start}-{end - 1}/{length}"
        assert part.headers["content-length"] == str(end - start)
        assert part.headers["etag"] == tag
    downloads = [one for one in house.entries(action="export_audit") if "from" in one["facts"]]
    assert [one["facts"]["from"] for one in downloads] == [0, 0], "ranges are told once a minute"


@pytest.mark.parametrize(
    "wanted",
    [
        "bytes=5-2",
        "bytes=-",
        "bytes=0-1,4-5",
        "lines=1-2",
        "bytes=a-b",
        "bytes=" + "9" * 40 + "-",
        "bytes=٣-".encode().decode("latin-1"),
    ],
)
def test_a_range_that_says_nothing_is_answered_with_all(
    house: House, udo: Api, wanted: str
) -> None:
    export = made(udo, action="encrypt")
    assert fetched(udo, export, Range=wanted).status == 200


def test_a_part_of_something_else_is_answered_with_all_of_this(house: House, udo: Api) -> None:
    export = made(udo, action="encrypt")
    assert fetched(udo, export, Range="bytes=5-", If_Range='"another"').status == 200


def test_a_part_behind_the_end_is_refused_with_the_length(house: House, udo: Api) -> None:
    export = made(udo, action="encrypt")
    length = len(fetched(udo, export).body)
    for wanted in (f"bytes={length}-", "bytes=999999999999999999-", "bytes=-0"):
        answer = fetched(udo, export, Range=wanted)
        answer.problem(416, "range_not_satisfiable")
        assert answer.headers["content-range"] == f"bytes */{length}"


def test_head_tells_what_a_client_needs_to_go_on(house: House, udo: Api) -> None:
    export = made(udo, action="encrypt")
    path = f"audit/exports/{export['id']}/content"
    before = udo.call("HEAD", path)
    assert (before.status, before.headers["accept-ranges"]) == (200, "bytes")
    whole = fetched(udo, export)
    after = udo.call("HEAD", path)
    assert after.headers["etag"] == before.headers["etag"] == whole.headers["etag"]
    assert after.headers["content-length"] == str(len(whole.body))


def test_nobody_else_fetches_an_export(house: House, udo: Api) -> None:
    export = made(udo)
    path = f"audit/exports/{export['id']}"
    for username in ("ada", "olga"):
        person(username).get(path).problem(404, "not_found")
        person(username).get(f"{path}/content").problem(404, "not_found")
        person(username).post("audit/exports", {}).problem(403, "denied")
        assert person(username).get("audit/exports").json["items"] == []
    for answer in (
        application(house, "billing").get(path),
        application(house, "billing").get(f"{path}/content"),
        application(house, "billing").post("audit/exports", {}),
    ):
        answer.problem(403, "denied")


def test_bad_input_is_told(house: House, udo: Api) -> None:
    for body in (
        {"format": "exe"},
        {"since": "yesterday"},
        {"limit": 3},
        {"text": "\0"},
        {"actor": 5},
        {"since": "2099-01-01T00:00:00"},
    ):
        udo.post("audit/exports", body).problem(400, "invalid")
    for path in ("audit/exports/x", f"audit/exports/{'9' * 400}", "audit/exports/x/content"):
        udo.get(path).problem(404, "not_found")
    udo.get("audit/exports?x=1").problem(400, "invalid")
    udo.post("audit/exports", {"format": "evidence"}).problem(409, "conflict")
    assert Export.objects.count() == 0


def test_what_was_erased_can_not_be_fetched_any_more(house: House, udo: Api) -> None:
    export = made(udo, format="csv")
    assert fetched(udo, export).status == 200
    later = datetime.now(UTC) + timedelta(seconds=1)
    some = PersonalValue.objects.order_by("commitment")[:1].values("pk")
    PersonalValue.objects.filter(pk__in=some).update(value=None, salt=None, erased_at=later)
    fetched(udo, export).problem(409, "conflict")


def test_every_format_is_fetched_with_its_own_type(house: House, udo: Api) -> None:
    types = {
        "csv": "text/csv; charset=utf-8",
        "ocsf": "application/jsonl",
        "cef": "text/plain; charset=utf-8",
    }
    for format, media in types.items():
        answer = fetched(udo, made(udo, format=format, action="encrypt"))
        assert (answer.status, answer.type) == (200, media)
        assert (
            f".{'ocsf.jsonl' if format == 'ocsf' else format}"
            in (answer.headers["content-disposition"])
        )
        assert answer.body.count(b"\n") == 1 + (format == "csv")


@pytest.fixture
def signed(house: House, udo: Api, settings: Any, tmp_path: Path) -> Checkpoint:
    settings.SIGNER_FOLDER = tmp_path / "signer"
    signer = Signer(tmp_path / "signer")
    signer.open()
    assert signer.look(at_once=True).problem == ""
    signer.close()
    return Checkpoint.objects.get()


def test_the_newest_checkpoint_is_read_as_json_and_as_a_note(udo: Api, signed: Checkpoint) -> None:
    found = udo.get("audit/checkpoint").json
    assert (found["size"], found["note"]) == (signed.size, signed.note)
    assert found["root"] == bytes(signed.root).hex()
    assert len(found["keys"]) >= 2 and found["keys"][0].startswith(found["origin"])
    note = udo.get("audit/checkpoint", Accept="text/plain")
    assert note.type == "text/plain; charset=utf-8"
    assert note.body.decode() == signed.note
    assert b64decode(note.body.splitlines()[2]) == bytes(signed.root)


def test_evidence_is_fetched_as_a_zip(udo: Api, signed: Checkpoint) -> None:
    export = made(udo, format="evidence")
    assert export["size"] == signed.size
    answer = fetched(udo, export)
    assert (answer.status, answer.type, answer.body[:4]) == (200, "application/zip", b"PK\x03\x04")
    part = fetched(udo, export, Range="bytes=1000-")
    assert part.body == answer.body[1000:]


def test_there_is_no_checkpoint_before_something_was_signed(house: House, udo: Api) -> None:
    udo.get("audit/checkpoint").problem(404, "not_found")
    application(house, "billing").get("audit/checkpoint").problem(403, "denied")


def test_an_entry_is_proved_in_the_log_of_any_size(house: House, udo: Api) -> None:
    tiles.build()
    leaves = [bytes(one) for one in Entry.objects.values_list("leaf_hash", flat=True)]
    for size in (4, 5, 8, len(leaves)):
        proof = udo.get(f"audit/3/proof?size={size}").json
        root = merkle.root_of(leaves[:size])
        assert (proof["size"], proof["root"]) == (size, root.hex())
        path = [bytes.fromhex(one) for one in proof["hashes"]]
        assert merkle.verify_inclusion(leaves[3], 3, size, path, root)
    assert udo.get("audit/3/proof").json["size"] == head().size
    for wrong in ("3", "0", "-1", "9" * 30, "x"):
        udo.get(f"audit/3/proof?size={wrong}").problem(400, "invalid")
    udo.get("audit/999999/proof?size=5").problem(404, "not_found")
    udo.get("audit/x/proof").problem(404, "not_found")
    application(house, "billing").get("audit/3/proof").problem(403, "denied")


def test_an_earlier_log_is_proved_to_be_the_beginning_of_a_later_one(
    house: House, udo: Api
) -> None:
    leaves = [bytes(one) for one in Entry.objects.values_list("leaf_hash", flat=True)]
    first, second = 3, len(leaves)
    found = udo.get(f"audit/consistency?first={first}&second={second}").json
    old, new = merkle.root_of(leaves[:first]), merkle.root_of(leaves)
    assert (found["first"], found["second"], found["root"]) == (first, second, new.hex())
    path = [bytes.fromhex(one) for one in found["hashes"]]
    assert merkle.verify_consistency(first, second, old, new, path)
    for query in ("first=0&second=1", "first=5&second=4", "first=1&second=99999", "first=1", ""):
        udo.get(f"audit/consistency?{query}").problem(400, "invalid")
    application(house, "billing").get("audit/consistency?first=1&second=2").problem(403, "denied")
