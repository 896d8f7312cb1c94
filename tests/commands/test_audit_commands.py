"""`verify_audit` finds what was changed behind the triggers; `export_audit` takes the trail out."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from audit import exports
from audit.models import Entry, Export
from keys import operations, trail
from keys.models import KeyStore
from keys.services import operator
from kms_console.management.commands import export_audit
from tests.house import House


def tamper(house: House, statement: str) -> None:
    """Do what only the owner of the database can: take the triggers away, change, put them back."""
    house.reachable = False  # the house's own last check would rightly fail
    connection = sqlite3.connect(house.database.path)
    triggers = connection.execute(
        "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"
    ).fetchall()
    with connection:
        for name, _ in triggers:
            connection.execute(f'DROP TRIGGER "{name}"')
        connection.execute(statement)
        for _, sql in triggers:
            connection.execute(sql)
    connection.close()


def verified(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = 0
    try:
        call_command("verify_audit", *words)
    except SystemExit as ended:
        code = int(str(ended.code))
    said = capsys.readouterr()
    return code, said.out, said.err


def exported(capsysbinary: pytest.CaptureFixture[bytes], *words: str) -> bytes:
    call_command("export_audit", *words)
    return capsysbinary.readouterr().out


def test_a_whole_log_is_told_by_size_and_root(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    operations.encrypt(house.billing, "invoices", b"x")
    size = Entry.objects.count()
    code, out, err = verified(capsys)
    assert code == 0
    assert f"{size + 1} entries" in out, "the walk itself is an entry"
    assert f"{size + 1} entries verified" in err
    assert Entry.objects.order_by("-index")[0].action == "verify_audit"


@pytest.mark.parametrize(
    ("statement", "index"),
    [
        ("UPDATE audit_entry SET actor_name = 'nobody' WHERE \"index\" = 3", 3),
        ("UPDATE audit_entry SET body = CAST(body || ' ' AS BLOB) WHERE \"index\" = 5", 5),
        ('DELETE FROM audit_entry WHERE "index" = 4', 4),
    ],
)
def test_a_changed_log_is_told_by_its_first_bad_index(
    house: House, capsys: pytest.CaptureFixture[str], statement: str, index: int
) -> None:
    tamper(house, statement)
    code, out, _ = verified(capsys)
    assert code == 1
    assert f"First bad index: {index}." in out
    assert "root" in out.lower()


def test_a_log_that_takes_no_entry_any_more_is_verified_all_the_same(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    tamper(house, "UPDATE audit_head SET frontier = x'00'")
    code, out, err = verified(capsys)
    assert code == 1
    assert "can't be recorded" in err
    assert "The log is damaged" in out


def test_what_was_noted_elsewhere_must_still_be_the_beginning(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    _, out, _ = verified(capsys)
    noted = re.search(r"(\d+) entries, root (\w{64})", out)
    assert noted is not None
    size, root = noted.groups()
    operations.encrypt(house.billing, "invoices", b"x")
    code, out, _ = verified(capsys, "--noted", f"{size}:{root}")
    assert code == 0
    assert f"first {size} entries are those that you noted" in out
    other = root[::-1]
    code, out, _ = verified(capsys, "--noted", f"{size}:{other}")
    assert (code, "was rewritten" in out) == (1, True)
    code, out, _ = verified(capsys, "--noted", f"{int(size) + 1000}:{root}")
    assert (code, "was cut" in out) == (1, True)
    with pytest.raises(CommandError, match="is not SIZE:ROOT"):
        verified(capsys, "--noted", "12")


def test_json_lines_are_the_entries_byte_for_byte(
    house: House, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    lines = exported(capsysbinary).splitlines()
    rows = list(Entry.objects.order_by("index"))
    assert lines == [bytes(row.body) for row in rows]
    assert [hashlib.sha256(b"\0" + line).digest() for line in lines] == [
        bytes(row.leaf_hash) for row in rows
    ]
    assert json.loads(lines[-1])["action"] == "export_audit", "that it left the house is in it too"


def test_csv_is_filtered_by_action_actor_and_time(
    house: House, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    operations.encrypt(house.billing, "invoices", b"x")
    written = exported(capsysbinary, "--format", "csv", "--action", "encrypt", "--actor", "billing")
    (row,) = csv.DictReader(io.StringIO(written.decode()))
    assert (row["action"], row["object_name"]) == ("encrypt", "invoices")
    assert exported(capsysbinary, "--until", "2020-01-01T00:00:00Z") == b""
    everything = exported(capsysbinary, "--since", "2020-01-01T00:00:00Z")
    assert len(everything.splitlines()) == Entry.objects.count()
    told = house.last_entry(action="export_audit")["facts"]
    assert told["filters"]["since"].startswith("2020-01-01")


def test_a_file_is_its_owners_alone_and_never_written_over(
    house: House, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "trail.jsonl"
    call_command("export_audit", "-o", str(target))
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    lines = target.read_bytes().splitlines()
    made, fetched = house.entries(action="export_audit")
    assert len(lines) == made["index"] == made["facts"]["size"]
    assert made["facts"]["export"] == fetched["facts"]["export"]
    assert fetched["facts"]["from"] == 0
    assert capsys.readouterr().err.strip() == f"{len(lines)} entries in {target}"
    assert [one.name for one in target.parent.iterdir() if "trail" in one.name] == ["trail.jsonl"]
    with pytest.raises(CommandError, match="File exists"):
        call_command("export_audit", "-o", str(target))


@pytest.mark.parametrize("format", ["jsonl", "csv"])
def test_a_file_that_broke_off_goes_on_where_it_was(
    house: House,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    format: str,
) -> None:
    target, note = tmp_path / "trail", tmp_path / "trail.export"
    whole_at = exports.content

    def breaking(row: Any, start: int = 0) -> Iterator[bytes]:
        yield b"".join(whole_at(row, start))[:3001]
        raise BrokenPipeError("the disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(exports, "content", breaking)
        with pytest.raises(BrokenPipeError):
            call_command("export_audit", "-o", str(target), "--format", format)
    assert target.stat().st_size == 3001
    assert stat.S_IMODE(note.stat().st_mode) == 0o600
    with target.open("ab") as file:
        file.truncate(2900)
        file.write(b"\0" * 300)  # what a file system leaves after a loss of power
    monkeypatch.setattr(export_audit, "AGAIN", 1000)
    call_command("export_audit", "-o", str(target), "--resume")
    row = Export.objects.get()
    assert target.read_bytes() == b"".join(trail.export_content(operator(), row.id))
    assert not note.exists()
    assert house.entries(action="export_audit")[1]["facts"]["from"] == 0
    with pytest.raises(CommandError, match="Is it finished"):
        call_command("export_audit", "-o", str(target), "--resume")


def test_what_can_not_be_exported_leaves_no_file(house: House, tmp_path: Path) -> None:
    target = tmp_path / "evidence.zip"
    with pytest.raises(CommandError, match="no signed checkpoint yet"):
        call_command("export_audit", "-o", str(target), "--format", "evidence")
    assert list(tmp_path.glob("evidence*")) == []
    with pytest.raises(CommandError, match="-o FILE"):
        call_command("export_audit", "--resume")


def test_filters_by_classification_and_in_the_forms_of_a_siem(
    house: House, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    operations.encrypt(house.billing, "invoices", b"x")
    words = ("--classification", "internal", "--action", "encrypt")
    (line,) = exported(capsysbinary, *words).splitlines()
    assert json.loads(line)["object"]["classification"] == "internal"
    (event,) = exported(capsysbinary, *words, "--format", "ocsf").splitlines()
    assert json.loads(event)["class_uid"] in (6003, 3004)
    (event,) = exported(capsysbinary, *words, "--format", "cef").splitlines()
    assert event.startswith(b"CEF:0|")
    assert (
        exported(capsysbinary, "--classification", "patient-health", "--action", "encrypt") == b""
    )


@pytest.mark.parametrize("words", [["--since", "yesterday"], ["--format", "xml"]])
def test_a_wrong_filter_is_told(house: House, words: list[str]) -> None:
    with pytest.raises(CommandError, match=r"must be a time like|invalid choice"):
        call_command("export_audit", *words)


# --- key stores


def test_a_key_store_is_added_listed_and_checked(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    call_command("keystore", "add", "second", "--kind", "software", "--title", "Second")
    call_command("keystore", "check")
    listed = capsys.readouterr().out
    assert "Added the key store second" in listed
    assert "second  software  Second  well" in listed
    assert house.last_entry(action="create_key_store")["actor"]["name"] == "operator"


def test_a_store_that_is_not_well_is_exit_code_1(
    house: House, capsys: pytest.CaptureFixture[str], settings: Any, tmp_path: Path
) -> None:
    settings.ROOT_KEY_FILE = tmp_path / "gone"
    with pytest.raises(SystemExit) as ended:
        call_command("keystore", "check")
    assert ended.value.code == 1
    assert "not well" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["add", "software", "--kind", "software"], "a key store software already"),
        (["add", "x", "--kind", "software", "--setting", "y"], "NAME=VALUE"),
        (["add", "x", "--kind", "software", "--setting", "a=b"], ""),
        (["add", "x", "--kind", "pkcs11"], ""),
        (["add", "x", "--kind", "software", "--credentials", "my secret"], "reference is empty"),
    ],
)
def test_a_wrong_key_store_is_refused(house: House, words: list[str], said: str) -> None:
    with pytest.raises(CommandError) as refused:
        call_command("keystore", *words)
    assert said in str(refused.value)
    assert "my secret" not in str(refused.value)
    assert KeyStore.objects.count() == 1
