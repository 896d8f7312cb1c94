"""A change and its entry commit together, and raise the epoch."""

from __future__ import annotations

import threading

import pytest
from django.db import connections, transaction

from audit import entries
from audit.events import Subject
from audit.merkle import leaf_hash, root_of
from audit.models import Change, Entry
from audit.verifier import verify
from audit.writer import append, appender, epoch, head
from tests.audit.helpers import use, write, write_many
from tests.databases import Database

pytestmark = pytest.mark.each_database


def test_an_empty_log_has_the_root_of_an_empty_tree(database: Database) -> None:
    assert (head().size, head().epoch) == (0, 0)
    assert head().root == root_of([])
    assert verify().ok


def test_entries_get_the_next_indices_and_the_head_follows(database: Database) -> None:
    assert write(use(), use()) == [0, 1]
    assert write(use()) == [2]
    bodies = [bytes(entry.body) for entry in Entry.objects.all()]
    assert head().size == 3
    assert head().root == root_of(leaf_hash(body) for body in bodies)


def test_columns_read_back_as_they_were_written(database: Database) -> None:
    event = use(facts={"n": [1, None, {"a": True}]}, reason="é\0😀")
    write(event)
    entry = Entry.objects.get(index=0)
    assert str(entry.uuid) == event.uuid
    assert int(entry.at.timestamp() * 1_000_000) == pytest.approx(event.at, abs=1)
    assert (entry.actor_kind, entry.actor_name) == ("application", "payroll")
    assert (entry.object_kind, entry.object_name, entry.object_version) == ("key", "wages", 3)
    assert (entry.outcome, entry.door, entry.source) == ("success", "rest", "192.0.2.7")
    assert entry.reason == "é\ufffd😀"
    assert b"\\u0000" in bytes(entry.body)


@pytest.mark.parametrize(
    "at", [0, 1, 999_999, 1_700_000_000_000_000, 253_402_300_799_999_999 // 64]
)
def test_times_are_kept_to_the_microsecond(database: Database, at: int) -> None:
    write(use(at=at))
    assert verify().ok


def test_a_change_raises_the_epoch_once_and_names_its_subjects(database: Database) -> None:
    write(use(), use(), subjects=("key:1", "grant:2", "key:1"))
    assert epoch() == 1
    assert set(Change.objects.values_list("epoch", "subject")) == {(1, "key:1"), (1, "grant:2")}
    write(use())
    assert epoch() == 1


def test_a_change_that_is_rolled_back_leaves_neither_entry_nor_epoch(database: Database) -> None:
    write_many(3)
    before = head()
    with pytest.raises(LookupError), transaction.atomic():
        append([use()], subjects=["key:1"])
        raise LookupError
    assert head() == before
    assert Entry.objects.count() == 3
    assert not Change.objects.exists()
    assert write(use()) == [3]
    assert verify().ok


def test_appending_twice_in_one_transaction_goes_on_where_the_first_ended(
    database: Database,
) -> None:
    with transaction.atomic():
        assert append([use()], subjects=["a"]) == [0]
        assert append([use(), use()], subjects=["a"]) == [1, 2]
        assert append([]) == []
    assert epoch() == 2
    assert verify().ok


def test_appending_outside_a_transaction_is_refused(database: Database) -> None:
    with pytest.raises(RuntimeError):
        append([use()])
    assert head().size == 0


def test_one_string_is_not_taken_for_many_subjects(database: Database) -> None:
    with pytest.raises(TypeError), transaction.atomic():
        append([use()], subjects="key:1")


def test_changes_from_many_threads_leave_no_gap_and_no_fork(database: Database) -> None:
    indices: list[int] = []

    def change(number: int) -> None:
        for turn in range(5):
            indices.extend(write(use(), use(), subjects=(f"{number}.{turn}",)))
        connections.close_all()

    threads = [threading.Thread(target=change, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(indices) == list(range(60))
    assert epoch() == 30
    assert verify().ok


ODD = ["wages", "n\0ul", "é" * 300, "x" * 200, "x" * 201, "a\tb\nc\rd\\.\\N", "\\", "\x7f\u2028"]


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("name", ODD)
def test_columns_are_what_the_verifier_makes_of_the_body(
    database: Database, name: str, grouped: bool
) -> None:
    event = use(object=Subject("key", "k", name, None, "secret"), request_id=name)
    if grouped:
        appender().submit(event, epoch=0, subjects=frozenset()).result()
    else:
        write(event)
    expected = dict(zip(entries.COLUMNS, entries.columns(entries.body(event, 0)), strict=True))
    row = Entry.objects.values(*entries.COLUMNS).get()
    assert str(row.pop("uuid")) == expected.pop("uuid")
    assert row.pop("at") == entries.moment(expected.pop("at"))
    assert row == expected
