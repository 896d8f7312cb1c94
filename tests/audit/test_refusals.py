"""Failed authentications are counted, so that nobody outside can fill the log."""

from __future__ import annotations

import json
import threading

import pytest
from django.db import DatabaseError

from audit import personal, refusals
from audit.models import Entry, PersonalValue
from audit.verifier import verify
from audit.writer import head
from tests.databases import Database

pytestmark = pytest.mark.each_database
NOON = 1_772_366_400.0


def entries() -> list[Entry]:
    """Return all entries as people read them: addresses are committed to."""
    rows = list(Entry.objects.all())
    personal.reveal(rows)
    return rows


def facts() -> list[tuple[str, str, str, int]]:
    return [
        (entry.source, entry.door, entry.reason, json.loads(bytes(entry.body))["facts"]["count"])
        for entry in entries()
    ]


def test_a_thousand_refusals_of_one_source_are_one_entry_with_a_count(database: Database) -> None:
    for n in range(1000):
        refusals.note("192.0.2.7", "rest", "no such token", at=NOON + n * 0.05)
    assert head().size == 0
    assert refusals.flush() == 1
    (entry,) = entries()
    assert (entry.actor_kind, entry.outcome, entry.source) == ("unknown", "denied", "192.0.2.7")
    assert json.loads(bytes(entry.body))["facts"] == {
        "count": 1000,
        "from": 1_772_366_400_000_000,
        "to": 1_772_366_449_950_000,
    }
    assert refusals.flush() == 0
    assert verify().ok


def test_each_source_door_reason_and_minute_has_its_own_entry(database: Database) -> None:
    for minute in (0, 60):
        for source in ("a", "b"):
            for door in ("rest", "console"):
                for reason in ("expired", "no such token"):
                    refusals.note(source, door, reason, at=NOON + minute)
    assert refusals.flush() == 16
    assert len(set(facts())) == 8
    assert all(count == 1 for *_, count in facts())


def test_only_minutes_that_are_over_are_written(database: Database) -> None:
    refusals.note("a", "rest", "expired", at=NOON)
    refusals.note("a", "rest", "expired", at=NOON + 59.9)
    refusals.note("a", "rest", "expired", at=NOON + 60)
    assert refusals.flush(now=NOON + 59) == 0
    assert refusals.flush(now=NOON + 61) == 1
    assert facts() == [("a", "rest", "expired", 2)]
    assert refusals.flush(now=NOON + 120) == 1


def test_sources_without_number_share_one_bucket(database: Database) -> None:
    for n in range(refusals.DISTINCT_LIMIT + 500):
        refusals.note(f"source {n}", "rest", "expired", at=NOON)
    refusals.note("source 0", "rest", "expired", at=NOON)
    assert refusals.flush() == refusals.DISTINCT_LIMIT + 1
    counts = {source: count for source, _, _, count in facts()}
    assert counts[refusals.OTHERS] == 500
    assert counts["source 0"] == 2
    assert sum(counts.values()) == refusals.DISTINCT_LIMIT + 501


def test_no_refusal_is_lost_between_threads(database: Database) -> None:
    def many() -> None:
        for n in range(500):
            refusals.note(f"source {n % 3}", "rest", "expired", at=NOON)

    threads = [threading.Thread(target=many) for _ in range(8)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        refusals.flush()
    refusals.flush()
    assert sum(count for *_, count in facts()) == 4000


def test_refusals_are_kept_while_the_log_can_not_be_written(database: Database) -> None:
    from django.db import connection

    refusals.note("a", "rest", "expired", at=NOON)
    connection.cursor().execute("ALTER TABLE audit_head RENAME TO gone")
    with pytest.raises(DatabaseError):
        refusals.flush()
    refusals.note("a", "rest", "expired", at=NOON + 1)
    connection.cursor().execute("ALTER TABLE gone RENAME TO audit_head")
    assert refusals.flush() == 1
    assert facts() == [("a", "rest", "expired", 2)]


def test_who_has_a_network_of_ipv6_addresses_is_one_source(database: Database) -> None:
    for n in range(500):
        refusals.note(f"2001:db8:1:2:{n:x}::{n:x}", "rest", "no such token", at=NOON)
    refusals.note("2001:db8:1:3::1", "rest", "no such token", at=NOON)
    refusals.note("::ffff:192.0.2.7", "rest", "no such token", at=NOON)
    assert refusals.flush() == 3
    assert sorted((source, count) for source, *_, count in facts()) == [
        ("192.0.2.7", 1),
        ("2001:db8:1:2::/64", 500),
        ("2001:db8:1:3::/64", 1),
    ]


def test_the_same_sources_again_take_no_more_rows(database: Database) -> None:
    for minute in range(3):
        for n in range(20):
            refusals.note(f"192.0.2.{n}", "rest", "expired", at=NOON + 60 * minute)
        refusals.flush()
    assert PersonalValue.objects.count() == 20
