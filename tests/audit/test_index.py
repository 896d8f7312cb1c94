"""The search index: whatever it covers, what is found is what looking at each entry finds."""

from __future__ import annotations

import random
import shutil
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import connections, transaction
from django.db.models import Max, Min

from audit import index, tiles
from audit.entries import moment
from audit.events import Actor, Event, Outcome, Personal, Subject
from audit.index import BLOCK, postings
from audit.models import Archive, Block, Checkpoint, Entry, PersonalValue, Posting
from audit.search import Filters, count, matching, newest, oldest, search
from tests.audit.helpers import PAYROLL, attacker, use, write
from tests.databases import Database

START = 1_772_366_400_000_000
SECOND = 1_000_000
ALICE_ID = "0192f0c1-0000-7000-8000-00000000a11c"
BOB_ID = "0192f0c1-0000-7000-8000-00000000b0b0"
PEOPLE = [
    Actor("person", ALICE_ID, Personal("Alice Ångström", ALICE_ID)),
    Actor("person", BOB_ID, Personal("Bob Alison", BOB_ID)),
    PAYROLL,
    Actor("application", "0192f0c1-0000-7000-8000-00000000cafe", "café-billing"),
]
KEYS = [f"0192f0c1-0000-7000-9000-{number:012x}" for number in range(60)]


def events(number: int, seed: int) -> Iterator[Event]:
    """Yield the events of a house where everything happens sometimes."""
    chance = random.Random(seed)
    for turn in range(number):
        key = int(60 * chance.random() ** 2)
        denied = chance.random() < 0.02
        yield use(
            # Clocks of several processes: not quite in the order of the log.
            at=START + (turn + chance.randrange(5)) * SECOND,
            actor=chance.choice(PEOPLE),
            action=chance.choice(["encrypt", "decrypt", "rotate_key"]),
            door=chance.choice(["rest", "console"]),
            object=Subject("key", KEYS[key], f"wages-{key}", 1, chance.choice(["", "secret"])),
            outcome=Outcome.DENIED if denied else Outcome.SUCCESS,
            reason="no_grant" if denied else "",
            source=chance.choice([f"10.0.{key}.7", "2001:db8::1"]),
            request_id=f"r-{seed}-{turn}",
            approvals=(KEYS[key],) if turn % 100 == 7 else (),
            facts={"context": [f"aardvark{turn}"]} if turn % 1000 == 500 else {"n": turn},
        )


def fill(blocks: int, more: int = 0) -> None:
    write(*events(blocks * BLOCK + more, 1))


@pytest.fixture
def long_log(database: Database, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A block and some more entries on SQLite: written once, then copied."""
    kept = tmp_path_factory.getbasetemp() / "long-log.sqlite3"
    connections.close_all()
    if kept.exists():
        shutil.copyfile(kept, database.path)
        return
    fill(1, 40)
    connections.close_all()  # which also brings all of it into the one file
    shutil.copyfile(database.path, kept.with_suffix(".new"))
    kept.with_suffix(".new").rename(kept)


def at(second: int) -> datetime:
    return moment(START + second * SECOND)


def drop(end: int) -> None:
    """Let the entries before `end` go, as retention does once a bundle outside holds them."""
    tiles.build()
    Checkpoint.objects.create(size=BLOCK, root=b"", origin="", note="", signed_at=at(0))
    times = Entry.objects.filter(index__lt=end).aggregate(first_at=Min("at"), last_at=Max("at"))
    bundle = Archive(start=0, end=end, place="", name="", sha256="", archived_at=at(0), **times)
    bundle.save(force_insert=True)
    for step in ("verified_at", "dropped_at"):
        setattr(bundle, step, at(0))
        bundle.save()
    with connections["default"].cursor() as cursor:
        cursor.execute('DELETE FROM audit_entry WHERE "index" < %s', [end])


QUESTIONS: list[dict[str, Any]] = [
    {"action": "rotate_key", "outcome": "denied"},
    {"action": "rotate_key,decrypt", "door": "console", "outcome": "denied,failed"},
    {"actor": PAYROLL.id, "object_id": KEYS[40]},
    {"actor": "Alice Ångström", "outcome": "denied"},
    {"classification": "secret", "object_id": KEYS[50]},
    {"object_kind": "key", "text": "aardvark"},
    {"object_kind": "approval"},
    {"request_id": "r-1-100"},
    {"text": "aardvark500"},
    {"text": "a"},
    {"text": "ROTATE no GRANT"},
    {"text": "cafe\u0301-BILL"},
    {"text": "alis", "outcome": "denied"},
    {"text": "ali ång"},
    {"text": "wages 10.0.41.7"},
    {"text": "2001:db8: rot"},
    {"text": KEYS[30], "action": "decrypt"},
    {"text": KEYS[30][:31]},
    {"text": "bearer nowhere"},
    {"since": at(4000), "until": at(4120)},
    {"until": at(3)},
    {"since": at(4090), "until": at(4110), "text": "rotate"},
    {"since": at(10**6)},
]


def answers(question: dict[str, Any]) -> tuple[list[int], list[int], int]:
    """Return two pages, all but the first entries ascending, and a number."""
    filters = Filters(**question)
    pages: list[int] = []
    for _ in range(2):
        before = pages[-1] if pages else None
        pages += [entry.index for entry in search(filters, before=before, limit=120)]
    ascending = [one for some in matching(filters, after=5) for one in some]
    return pages, ascending, count(filters, until=4000)


@pytest.mark.each_database(fast="postgresql")
@pytest.mark.parametrize("blocks", [1, pytest.param(4, marks=pytest.mark.exhaustive)])
def test_what_the_index_finds_is_what_looking_at_each_entry_finds(
    database: Database, blocks: int
) -> None:
    fill(blocks, 60)
    looked_at = [answers(question) for question in QUESTIONS]
    assert index.build() == blocks
    indexed = [answers(question) for question in QUESTIONS]
    for question, one, other in zip(QUESTIONS, looked_at, indexed, strict=True):
        assert one == other, question
        pages, ascending, number = one
        assert ascending == sorted(ascending)
        assert [entry for entry in pages if entry > 5] == ascending[: -len(pages) - 1 : -1]
        assert 0 <= number - len([entry for entry in ascending if entry < 4000]) <= 6
    found = {
        str(question): len(answer[0]) for question, answer in zip(QUESTIONS, indexed, strict=True)
    }
    nowhere = {name for name, number in found.items() if number == 0}
    wanted = [{"object_kind": "approval"}, {"text": KEYS[30][:31]}, {"text": "bearer nowhere"}]
    assert nowhere == {str(question) for question in [*wanted, {"since": at(10**6)}]}


@pytest.mark.each_database(fast="postgresql")
def test_a_block_is_indexed_once_it_is_full_and_only_once_by_two_at_a_time(
    database: Database,
) -> None:
    fill(1)
    write(use())
    done: list[int] = []
    ready = threading.Barrier(3)

    def build() -> None:
        try:
            ready.wait()
            done.append(index.build())
        finally:
            connections.close_all()

    threads = [threading.Thread(target=build) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == [0, 0, 1]
    assert (index.indexed(), index.behind()) == (BLOCK, 1)
    assert Block.objects.count() == 1
    assert Posting.objects.filter(block=1).count() == 0


@pytest.mark.usefixtures("long_log")
def test_entries_that_were_dropped_are_not_there_and_the_others_still_are(
    database: Database,
) -> None:
    index.build()
    filters = Filters(door="console")
    before = [one for some in matching(filters) for one in some]
    drop(1024)
    left = [one for one in before if one >= 1024]
    assert [one for some in matching(filters) for one in some] == left
    assert count(filters) == len(left)
    assert [entry.index for entry in newest(filters)] == left[::-1]
    assert [entry.index for entry in oldest(filters, until=2000)] == [n for n in left if n < 2000]
    assert [entry.index for entry in search(filters, before=1100, limit=1000)] == [
        one for one in reversed(left) if one < 1100
    ]
    assert count(Filters()) == BLOCK - 984


@pytest.mark.usefixtures("long_log")
def test_an_index_that_lies_cannot_have_an_entry_given_out_that_does_not_match(
    database: Database,
) -> None:
    index.build()
    term = "outcome=denied"
    hashed = postings.term_hash(term)
    bucket = postings.bucket_of_term(term, hashed)
    row = postings.pack_terms([(hashed, postings.pack_set(list(range(BLOCK))))])
    Posting.objects.filter(term=bucket, block=0).delete()
    Posting.objects.create(term=bucket, block=0, entries=row)
    found = search(Filters(outcome="denied"), limit=1000)
    assert found and {entry.outcome for entry in found} == {"denied"}


@pytest.mark.usefixtures("long_log")
def test_an_index_that_was_dropped_is_built_again_byte_for_byte(database: Database) -> None:
    index.build()
    rows = Posting.objects.order_by("term", "block").values_list("term", "block", "entries")
    first = [(term, block, bytes(data)) for term, block, data in rows]
    index.forget()
    assert index.indexed() == 0 and not Posting.objects.exists()
    index.build()
    assert [(term, block, bytes(data)) for term, block, data in rows.all()] == first
    # A row for each term would be more rows than entries.
    assert len(first) < BLOCK / 4


@pytest.mark.usefixtures("long_log")
def test_a_block_whose_writing_failed_leaves_nothing_behind(database: Database) -> None:
    with pytest.raises(RuntimeError), transaction.atomic():
        index.build()
        assert Posting.objects.exists()
        raise RuntimeError("the process ends here")
    assert not Block.objects.exists() and not Posting.objects.exists()
    assert index.build() == 1


@pytest.mark.usefixtures("long_log")
def test_an_entry_that_somebody_damaged_does_not_stop_the_index(database: Database) -> None:
    with attacker(database) as connection:
        for number, body in enumerate([b"", b"{}", b"\xff", b'{"at":1}', b"[1]"]):
            connection.execute('UPDATE audit_entry SET body = ? WHERE "index" = ?', (body, number))
    looked_at = [entry.index for entry in search(Filters(text="bearer"), before=50)]
    assert index.build() == 1
    assert [entry.index for entry in search(Filters(text="bearer"), before=50)] == looked_at
    assert min(looked_at) == 5
    assert len(search(Filters(), before=50)) == 50


@pytest.mark.usefixtures("long_log")
def test_a_person_who_was_erased_is_no_longer_found_by_name(database: Database) -> None:
    index.build()
    assert search(Filters(text="ångström")) and search(Filters(actor="Alice Ångström"))
    PersonalValue.objects.filter(subject=ALICE_ID).update(
        value=None, salt=None, erased_at=datetime.now(UTC)
    )
    assert not search(Filters(text="ångström"))
    assert not search(Filters(actor="Alice Ångström"))
    assert search(Filters(actor=ALICE_ID))


def _rogue(number: int) -> None:
    Block.objects.create(number=number, first_at=at(0), last_at=at(10**7))


@pytest.mark.usefixtures("long_log")
def test_a_block_row_that_nobody_built_hides_nothing_and_is_cleared_away(
    database: Database,
) -> None:
    wanted = [entry.index for entry in search(Filters(door="console"), limit=1000)]
    for number in (1, 7, -3):
        _rogue(number)
    assert index.indexed() == 0
    assert [entry.index for entry in search(Filters(door="console"), limit=1000)] == wanted
    assert index.fault().startswith("It says more than the log has")
    assert index.build() == 1
    assert list(Block.objects.values_list("number", flat=True)) == [0]
    assert (index.fault(), index.indexed()) == ("", BLOCK)
    assert [entry.index for entry in search(Filters(door="console"), limit=1000)] == wanted


@pytest.mark.exhaustive
@pytest.mark.each_database
def test_a_gap_in_the_index_is_told_looked_through_and_filled(database: Database) -> None:
    fill(3, 5)
    assert index.build() == 3
    wanted = [one for some in matching(Filters(text="rotate")) for one in some]
    Block.objects.filter(number=1).delete()  # its postings stay: they belong to no block now
    assert index.indexed() == BLOCK
    assert index.fault().startswith("It has gaps")
    assert [one for some in matching(Filters(text="rotate")) for one in some] == wanted
    while index.build():
        pass
    index.build()
    assert (index.fault(), index.indexed()) == ("", 3 * BLOCK)
    assert [one for some in matching(Filters(text="rotate")) for one in some] == wanted


@pytest.mark.usefixtures("long_log")
def test_entries_that_are_only_said_to_be_dropped_are_found(database: Database) -> None:
    index.build()
    wanted = [one for some in matching(Filters(door="console")) for one in some]
    with attacker(database) as connection:
        # Of those that are said to be gone, only these are.
        connection.execute('DELETE FROM audit_entry WHERE "index" < 7')
    Archive.objects.create(
        start=0, end=BLOCK + 40, first_at=at(0), last_at=at(0), place="", name="", sha256="",
        archived_at=at(0), verified_at=at(0), dropped_at=at(0),
    )  # fmt: skip
    assert [one for some in matching(Filters(door="console")) for one in some] == [
        one for one in wanted if one >= 7
    ]
    assert count(Filters()) == BLOCK + 40 - 7
