"""Finding entries: each filter, and pages that neither repeat nor skip."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from audit.entries import moment
from audit.errors import UnclearSearch
from audit.events import Actor, Outcome, Personal, Subject
from audit.search import Filters, check, count, matching, newest, oldest, search
from tests.audit.helpers import ALICE, PAYROLL, use, write, write_many
from tests.databases import Database

pytestmark = pytest.mark.each_database(fast="postgresql")
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def at(minutes: int) -> int:
    return int((NOON + timedelta(minutes=minutes)).timestamp()) * 1_000_000


def found(**filters: Any) -> list[int]:
    return [entry.index for entry in search(Filters(**filters))]


@pytest.fixture
def log(database: Database) -> None:
    write(
        use(at=at(0), object=Subject("key", "a,b", "wages", 3)),
        use(
            at=at(1),
            actor=ALICE,
            action="rotate",
            door="console",
            method="session",
            facts={"said": {"why": ["Notfall: GEHEIM", 12]}},
        ),
        use(
            at=at(2),
            outcome=Outcome.DENIED,
            reason="no grant",
            request_id="r-2",
            object=Subject("key", "k-2", "wages", 3, "internal"),
        ),
        use(
            at=at(3),
            object=Subject("approval", "a-1", "Rotate wages", None, "secret"),
            outcome=Outcome.PENDING,
            approvals=("ap-1",),
        ),
        use(
            at=at(4), object=Subject("key", "k\0" + "x" * 500, "100%_of\\it"), source="2001:db8::1"
        ),
    )


@pytest.mark.usefixtures("log")
@pytest.mark.parametrize(
    ("filters", "indices"),
    [
        ({}, [4, 3, 2, 1, 0]),
        ({"since": NOON + timedelta(minutes=3)}, [4, 3]),
        ({"until": NOON + timedelta(minutes=2)}, [1, 0]),
        ({"since": NOON, "until": NOON}, []),
        ({"actor": ALICE.id}, [1]),
        ({"actor": "payroll"}, [4, 3, 2, 0]),
        ({"actor": "Payroll"}, []),
        ({"action": "rotate"}, [1]),
        ({"object_kind": "approval"}, [3]),
        ({"object_id": "a-1"}, [3]),
        ({"object_id": "k\0" + "x" * 500}, [4]),
        ({"outcome": "denied"}, [2]),
        ({"outcome": "success"}, [4, 1, 0]),
        ({"outcome": "unheard of"}, []),
        ({"door": "console"}, [1]),
        ({"request_id": "r-2"}, [2]),
        ({"text": "GRANT"}, [2]),
        ({"text": "wages"}, [3, 2, 1, 0]),
        ({"text": "2001:DB8"}, [4]),
        ({"text": "%_of\\"}, [4]),
        ({"text": "wag encry"}, [3, 2, 0]),
        ({"text": "ages"}, []),
        ({"text": "Notfall"}, [1]),
        ({"text": "notf geheim"}, [1]),
        ({"text": "notfa 12"}, []),
        ({"text": ALICE.id}, [1]),
        ({"text": ALICE.id[:-1]}, []),
        ({"text": "ap-1"}, [3]),
        ({"text": "session"}, [1]),
        ({"outcome": "denied,pending"}, [3, 2]),
        ({"outcome": "denied, unheard of"}, [2]),
        ({"action": "rotate,decrypt", "door": "console,rest"}, [1]),
        ({"classification": "secret"}, [3]),
        ({"classification": "secret,internal"}, [3, 2]),
        ({"object_id": "a,b"}, [0]),
        ({"object_id": "a-1,k-2"}, [3, 2]),
        ({"request_id": "r-1,r-2"}, []),
        ({"actor": "\ud800"}, []),
        ({"actor": "\0"}, []),
        ({"actor": PAYROLL.id, "outcome": "pending", "text": "rotate"}, [3]),
    ],
)
def test_each_filter_finds_what_it_says(filters: dict[str, Any], indices: list[int]) -> None:
    assert found(**filters) == indices


def test_pages_neither_repeat_nor_skip_while_the_log_grows(database: Database) -> None:
    write_many(25)
    seen: list[int] = []
    before = None
    while page := search(Filters(action="encrypt"), before=before, limit=10):
        seen += [entry.index for entry in page]
        before = page[-1].index
        write(use())
    assert seen == list(range(24, -1, -1))


def test_a_page_has_a_limit_whatever_is_asked_for(database: Database) -> None:
    write_many(3)
    assert len(search(Filters(), limit=10**9)) == 3
    assert len(search(Filters(), limit=0)) == 1


def test_times_are_found_to_the_microsecond(database: Database) -> None:
    write(use(at=at(0)), use(at=at(0) + 1))
    assert found(since=moment(at(0) + 1)) == [1]
    assert found(until=moment(at(0) + 1)) == [0]


NAMED = Actor("person", ALICE.id, Personal("Alice Ångström-Łoś", ALICE.id))


@pytest.mark.parametrize(
    ("filters", "indices"),
    [
        ({"actor": "Alice Ångström-Łoś"}, [2, 0]),
        ({"actor": "Alice"}, []),
        ({"text": "alice"}, [2, 0]),
        ({"text": "ÅNG łoś"}, [2, 0]),
        ({"text": "ström"}, []),
        ({"text": "198.51.100.9"}, [2]),
        ({"text": "198.51"}, [2]),
        ({"text": "alice decrypt"}, [0]),
    ],
)
def test_a_person_is_found_by_name_and_address_that_entries_only_commit_to(
    database: Database, filters: dict[str, Any], indices: list[int]
) -> None:
    write(
        use(actor=NAMED, action="decrypt"),
        use(),
        use(actor=NAMED, source=Personal("198.51.100.9", ALICE.id)),
    )
    assert found(**filters) == indices


def test_what_says_too_little_or_nothing_is_refused_in_a_sentence(database: Database) -> None:
    people = [Personal(f"Ann{number} Smith", str(number)) for number in range(201)]
    write(*(use(source=person) for person in people))
    for text in ("%", " - ", "\0", " ".join(map(str, range(33))), "smi"):
        with pytest.raises(UnclearSearch, match=r"^[A-Z“].*\.$"):
            check(Filters(text=text))
    assert len(found(text="ann7")) == 11


def test_counting_and_walking_from_the_oldest_agree_with_the_pages(database: Database) -> None:
    write_many(25)
    write(use(action="sign"), use())
    filters = Filters(action="encrypt")
    assert count(filters) == 26
    assert count(filters, until=10) == 10
    assert count(Filters()) == 27
    assert [one for some in matching(filters, after=22, until=26) for one in some] == [23, 24]
    assert [entry.index for entry in oldest(filters, after=22)] == [23, 24, 26]
    assert next(newest(filters)).index == 26
    assert list(newest(Filters(text="nowhere"))) == []
