"""Finding entries: each filter, and pages that neither repeat nor skip."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from audit.entries import moment
from audit.events import Outcome, Subject
from audit.search import Filters, search
from tests.audit.helpers import ALICE, PAYROLL, use, write, write_many
from tests.databases import Database

pytestmark = pytest.mark.each_database
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def at(minutes: int) -> int:
    return int((NOON + timedelta(minutes=minutes)).timestamp()) * 1_000_000


def found(**filters: Any) -> list[int]:
    return [entry.index for entry in search(Filters(**filters))]


@pytest.fixture
def log(database: Database) -> None:
    write(
        use(at=at(0)),
        use(at=at(1), actor=ALICE, action="rotate", door="console", method="session"),
        use(at=at(2), outcome=Outcome.DENIED, reason="no grant", request_id="r-2"),
        use(at=at(3), object=Subject("approval", "a-1", "Rotate wages"), outcome=Outcome.PENDING),
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
        ({"text": "%"}, [4]),
        ({"text": "a%b"}, []),
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
