"""The cast of the log's tests, and ways to write to a log."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connections, transaction

from audit.events import Actor, Event, Outcome, Subject
from audit.writer import append
from tests.databases import Database

ALICE = Actor("person", "0192f0c1-0000-7000-8000-00000000a11c", "Alice")
PAYROLL = Actor("application", "0192f0c1-0000-7000-8000-0000000009a9", "payroll")
WAGES = Subject("key", "0192f0c1-0000-7000-8000-00000000eeee", "wages", 3)


def use(**changes: Any) -> Event:
    """Return an event as a use of a key makes it."""
    values: dict[str, Any] = {
        "actor": PAYROLL,
        "method": "bearer",
        "door": "rest",
        "action": "encrypt",
        "object": WAGES,
        "outcome": Outcome.SUCCESS,
        "source": "192.0.2.7",
        "request_id": "r-1",
    }
    return Event(**(values | changes))


def write(*events: Event, subjects: tuple[str, ...] = ()) -> list[int]:
    """Append in a transaction of its own."""
    with transaction.atomic():
        return append(events, subjects=subjects)


def write_many(count: int) -> list[Event]:
    """Append `count` uses of different keys and return them."""
    events = [use(object=Subject("key", f"key-{n}", f"key {n}", n)) for n in range(count)]
    write(*events)
    return events


@contextmanager
def attacker(database: Database) -> Iterator[sqlite3.Connection]:
    """Open this test's own copy as one who owns the file can: without the triggers."""
    connections.close_all()
    connection = sqlite3.connect(database.path)
    try:
        names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")
        for (name,) in names.fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        yield connection
        connection.commit()
    finally:
        connection.close()
