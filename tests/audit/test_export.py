"""The log streamed out: every byte as it was hashed, and a table that a spreadsheet can't run."""

from __future__ import annotations

import csv
import io
import json

import pytest

from audit.events import Outcome, Subject
from audit.exports import rows, streamed
from audit.merkle import leaf_hash, root_of
from audit.models import Entry
from audit.search import Filters
from audit.writer import head
from tests.audit.helpers import use, write, write_many
from tests.databases import Database

pytestmark = pytest.mark.each_database(fast="postgresql")


def jsonl(filters: Filters | None = None) -> list[bytes]:
    """Return the lines of an export, each without its newline."""
    lines = b"".join(streamed(filters or Filters(), "jsonl")).split(b"\n")
    assert lines.pop() == b""
    return lines


def table(filters: Filters) -> list[dict[str, str]]:
    text = b"".join(streamed(filters, "csv")).decode()
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_json_lines_alone_are_enough_to_compute_the_root(database: Database) -> None:
    write_many(20)
    write(use(reason="two\nlines\u2028and more\0"))
    lines = jsonl()
    assert root_of(leaf_hash(line) for line in lines) == head().root
    assert [json.loads(line)["index"] for line in lines] == list(range(21))


@pytest.mark.parametrize("count", [1, 3, 1000])
def test_both_go_chunk_by_chunk_to_the_end(
    database: Database, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr(rows, "ROWS", count)
    write_many(7)
    assert [json.loads(line)["index"] for line in jsonl()] == list(range(7))
    assert len(jsonl(Filters(action="encrypt"))) == 7
    assert [row["index"] for row in table(Filters())] == [str(n) for n in range(7)]


def test_an_export_ends_where_the_log_ended_when_it_began(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "ROWS", 2)
    write_many(5)
    lines = 0
    for piece in streamed(Filters(), "jsonl"):
        write(use())
        lines += piece.count(b"\n")
    assert lines == 5


def test_an_export_holds_what_the_filter_finds(database: Database) -> None:
    write(use(), use(outcome=Outcome.DENIED), use())
    assert [json.loads(line)["index"] for line in jsonl(Filters(outcome="denied"))] == [1]
    assert [row["outcome"] for row in table(Filters(outcome="denied"))] == ["denied"]


def test_a_table_reads_back_as_what_was_written(database: Database) -> None:
    event = use(
        object=Subject("key", "k-1", 'a "quoted", \r\nname ' + "é" * 300),
        approvals=("a-1", "a-2"),
        facts={"b": [1, None], "a": "x,y"},
        at=1_772_366_400_000_001,
    )
    write(event)
    (row,) = table(Filters())
    assert row == {
        "index": "0",
        "time": "2026-03-01T12:00:00.000001Z",
        "uuid": event.uuid,
        "actor_kind": "application",
        "actor_id": event.actor.id,
        "actor_name": "payroll",
        "method": "bearer",
        "door": "rest",
        "action": "encrypt",
        "object_kind": "key",
        "object_id": "k-1",
        "object_name": event.object.name,
        "object_version": "",
        "classification": "",
        "outcome": "success",
        "reason": "",
        "source": "192.0.2.7",
        "request_id": "r-1",
        "approvals": "a-1 a-2",
        "facts": '{"a":"x,y","b":[1,null]}',
        "leaf_hash": bytes(Entry.objects.get(index=0).leaf_hash).hex(),
    }


def test_a_spreadsheet_does_not_run_a_name(database: Database) -> None:
    starts = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1"]
    write(*(use(object=Subject("key", start, start), reason=start) for start in starts))
    for row, start in zip(table(Filters()), starts, strict=True):
        assert row["object_name"] == row["object_id"] == row["reason"] == "'" + start


def test_a_table_has_its_header_even_when_it_is_empty(database: Database) -> None:
    empty = b"".join(streamed(Filters(), "csv"))
    assert empty.startswith(b"index,time,uuid,")
    assert empty.endswith(b",leaf_hash\r\n")
    assert jsonl() == []
