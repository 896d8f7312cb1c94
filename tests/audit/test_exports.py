"""Exports that are rows: the same bytes each time, from any byte on, in every format."""

from __future__ import annotations

import io
import json
import random
import uuid
import zipfile
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from django.db import transaction

from audit import exports, personal
from audit.events import Actor, Outcome, Personal, Subject
from audit.exports import rows, taking, zipped
from audit.exports.errors import EntriesMissing, Outdated
from audit.models import Export, PersonalValue
from audit.search import Filters
from tests.audit.helpers import ALICE, attacker, use, write
from tests.databases import Database

ADA = Actor("person", ALICE.id, Personal("Ada", ALICE.id))
MALLORY = "0192f0c1-0000-7000-8000-00000000bad0"
LINES = ["jsonl", "csv", "ocsf", "cef"]


def made(format: str = "jsonl", filters: Filters | None = None) -> Export:
    size = exports.size_now(format)
    return exports.create(uuid.uuid4(), uuid.uuid4(), filters or Filters(), format, size)


def taken(row: Export, start: int = 0) -> bytes:
    return b"".join(exports.content(Export.objects.get(pk=row.pk), start))


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let some dozen entries be many chunks with many marks."""
    monkeypatch.setattr(rows, "ROWS", 3)
    monkeypatch.setattr(rows, "MOST_ROWS", 3)
    monkeypatch.setattr(rows, "_next_count", lambda found, length: 3)
    monkeypatch.setattr(taking, "SPACING", 500)
    monkeypatch.setattr(taking, "MOST_MARKS", 8)


@pytest.mark.parametrize(
    "format",
    [
        *LINES[: len(LINES) // 2],
        *(pytest.param(one, marks=pytest.mark.exhaustive) for one in LINES[len(LINES) // 2 :]),
    ],
)
def test_a_download_goes_on_at_any_byte_with_the_bytes_of_the_first(
    database: Database, small_chunks: None, format: str
) -> None:
    write(*(use(actor=ADA, object=Subject("key", f"k{n}", f"key {n}")) for n in range(40)))
    row = made(format)
    write(use(action="later"))
    whole = taken(row)
    assert whole.count(b"\n") == 40 + (format == "csv")
    assert b"later" not in whole
    row.refresh_from_db()
    assert (row.bytes, row.entries) == (len(whole), 40)
    assert 0 < len(row.marks["at"]) <= 8, "marks are thinned out, and never all gone"
    places = random.Random(7).sample(range(len(whole)), 25)
    for start in (0, 1, len(whole) - 1, len(whole), *places):
        assert taken(row, start) == whole[start:], start


def test_a_download_that_broke_off_leaves_marks_from_which_the_next_one_goes_on(
    database: Database, small_chunks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(*(use() for _ in range(40)))
    row = made()
    pieces = exports.content(row)
    had = b"".join(next(pieces) for _ in range(6))
    pieces.close()  # type: ignore[attr-defined]
    row.refresh_from_db()
    progress = exports.progress(row)
    assert (progress.total, progress.finished, progress.bytes) == (40, False, None)
    assert 9 <= progress.done <= 18
    read: list[int] = []
    ranges = rows._ranges

    def watched(start: int, size: int, using: str) -> Iterator[rows.Rows]:
        read.append(start)
        return ranges(start, size, using)

    monkeypatch.setattr(rows, "_ranges", watched)
    rest = taken(row, len(had))
    assert read[0] >= progress.done > 0, "what stands before the mark isn't read again"
    assert had + rest == taken(row)
    row.refresh_from_db()
    assert exports.progress(row) == exports.Progress(40, 40, True, len(had + rest))


def test_marks_that_are_lost_cost_time_and_nothing_else(
    database: Database, small_chunks: None
) -> None:
    write(*(use() for _ in range(20)))
    row = made()
    whole = taken(row)
    row.refresh_from_db()
    row.marks["at"] = []
    row.save()
    assert taken(row, 3000) == whole[3000:]


def test_the_length_is_known_before_anybody_took_it_all(
    database: Database, small_chunks: None
) -> None:
    write(*(use() for _ in range(20)))
    row = made()
    assert exports.length(row) == len(taken(row))


@pytest.mark.each_database(fast="postgresql")
def test_a_filtered_export_holds_what_matches_and_says_how_many_to_come(
    database: Database, small_chunks: None
) -> None:
    some = [Outcome.DENIED if n % 3 == 0 else Outcome.SUCCESS for n in range(30)]
    write(*(use(outcome=outcome) for outcome in some))
    row = made("jsonl", Filters(outcome="denied", since=datetime(2020, 1, 1, tzinfo=UTC)))
    assert exports.progress(row).total == 10
    whole = taken(row)
    assert [json.loads(line)["index"] for line in whole.splitlines()] == list(range(0, 30, 3))
    assert taken(row, 700) == whole[700:]


def test_personal_data_is_opened_in_what_is_for_reading_and_in_nothing_else(
    database: Database,
) -> None:
    write(use(actor=ADA, facts={"asked": Personal("Bob", "b")}))
    assert b"Ada" not in taken(made("jsonl"))
    for format in ("csv", "ocsf", "cef"):
        assert b"Ada" in taken(made(format)), format


def test_who_is_named_like_anothers_commitment_is_not_shown_under_that_name(
    database: Database,
) -> None:
    write(use(actor=ADA))
    commitment = PersonalValue.objects.get().commitment
    write(use(actor=Actor("application", MALLORY, commitment)))
    for format in ("csv", "ocsf", "cef"):
        line = taken(made(format)).splitlines()[-1]
        assert MALLORY.encode() in line
        assert b"Ada" not in line, format


def test_after_an_erasure_an_old_export_gives_out_nothing_any_more(database: Database) -> None:
    write(use(actor=ADA))
    table, plain = made("csv"), made("jsonl")
    before = taken(plain)
    assert b"Ada" in taken(table)
    with transaction.atomic():
        personal.erase(ALICE.id)
    with pytest.raises(Outdated, match="erased"):
        taken(table)
    assert taken(plain) == before
    assert b"Ada" not in taken(made("csv"))


def test_an_export_of_a_log_with_a_hole_stops_there_rather_than_leave_it_out(
    database: Database,
) -> None:
    write(*(use() for _ in range(10)))
    row = made()
    with attacker(database) as connection:
        connection.execute('DELETE FROM audit_entry WHERE "index" = 4')
    with pytest.raises(EntriesMissing, match="lacks some of the entries"):
        taken(row)


def test_an_export_begins_where_the_database_begins(database: Database) -> None:
    write(*(use() for _ in range(10)))
    with attacker(database) as connection:  # as archiving drops what it has elsewhere
        connection.execute('DELETE FROM audit_entry WHERE "index" < 4')
    lines = taken(made()).splitlines()
    assert [json.loads(line)["index"] for line in lines] == list(range(4, 10))


def test_an_empty_log_is_an_empty_export(database: Database) -> None:
    row = made()
    assert taken(row) == b""
    row.refresh_from_db()
    assert exports.progress(row) == exports.Progress(0, 0, True, 0)


def test_exports_are_forgotten_after_a_month(database: Database) -> None:
    old, young = made(), made()
    Export.objects.filter(pk=old.pk).update(created_at=datetime.now(UTC) - timedelta(days=31))
    assert exports.forget_old() == 1
    assert list(Export.objects.values_list("pk", flat=True)) == [young.pk]


def test_pieces_stay_small_however_large_the_entries_are(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "ROWS", 20)
    monkeypatch.setattr(rows, "CHUNK", 60_000)
    sizes = [10 if n < 300 else 900 for n in range(600)]
    write(*(use(facts={"more": "x" * size}) for size in sizes))
    pieces = [len(piece) for piece in exports.content(made())]
    assert len(pieces) > 8
    assert max(pieces) < 4 * 60_000


def test_a_container_beyond_four_gigabytes_is_read_back() -> None:
    """The directory's numbers, where they don't fit the old fields: nobody writes 5 GB here."""
    far = 5 * 2**32
    members = [zipped.Member("a", 1, far, 0), zipped.Member("b", 2, 3, far + 100)]
    end = zipped.directory(members, far + 200)
    hole = far + 200

    class Sparse(io.RawIOBase):
        """A file that is nothing but its end."""

        at = 0

        def seekable(self) -> bool:
            return True

        def readable(self) -> bool:
            return True

        def tell(self) -> int:
            return self.at

        def seek(self, offset: int, whence: int = 0) -> int:
            self.at = offset + (0, self.at, hole + len(end))[whence]
            return self.at

        def read(self, size: int = -1) -> bytes:
            start = self.at - hole
            found = end[start:] if size < 0 else end[start : start + size]
            self.at += len(found)
            return found

    with zipfile.ZipFile(Sparse()) as archive:
        found = [
            (one.filename, one.CRC, one.file_size, one.header_offset) for one in archive.filelist
        ]
    assert found == [("a", 1, far, 0), ("b", 2, 3, far + 100)]


def test_a_container_is_read_back_by_others() -> None:
    data = b"some bytes"
    head = zipped.local_header("a.txt")
    body = head + data + zipped.descriptor(zlib.crc32(data), len(data))
    whole = body + zipped.directory(
        [zipped.Member("a.txt", zlib.crc32(data), len(data), 0)], len(body)
    )
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        assert archive.testzip() is None
        assert archive.read("a.txt") == data
        assert archive.getinfo("a.txt").date_time == (1980, 1, 1, 0, 0, 0)
