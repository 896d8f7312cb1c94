"""The database goes away while entries are written: nothing acknowledged is lost, none is doubled."""

from __future__ import annotations

import signal
import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.db import DatabaseError, connection, connections, transaction

from audit import outages
from audit.appender import Appender
from audit.errors import LogWriteFailed
from audit.events import Event, Personal
from audit.models import Entry
from audit.verifier import verify
from audit.writer import append, appender, head
from tests.audit.helpers import attacker, use, write
from tests.audit.proxy import Proxy
from tests.databases import Database, connected_to

NOTHING: frozenset[str] = frozenset()
on_postgresql = pytest.mark.parametrize("database", ["postgresql"], indirect=True)


@pytest.fixture
def proxy(database: Database) -> Iterator[Proxy]:
    """Django reaches this test's database by way of the proxy."""
    assert database.server is not None
    with tempfile.TemporaryDirectory(prefix="kms-px-") as folder:
        proxy = Proxy(database.server.folder, Path(folder))
        name = database.url.rpartition("/")[2]
        try:
            with connected_to(proxy.url(name), database.material_url):
                yield proxy
        finally:
            proxy.close()


def stored() -> dict[str, int]:
    return {str(uuid): index for uuid, index in Entry.objects.values_list("uuid", "index")}


@on_postgresql
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["stopped", "crashed"])
def test_nothing_acknowledged_is_lost_when_postgresql_restarts(
    database: Database, how: signal.Signals
) -> None:
    assert database.server is not None
    known: dict[str, int] = {}
    refused: list[Event] = []
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            event = use()
            try:
                known[event.uuid] = (
                    appender().submit(event, epoch=0, subjects=frozenset({"key:1"})).result()
                )
            except LogWriteFailed:
                refused.append(event)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for _ in range(2):
        enough = len(known) + 50
        while len(known) < enough:
            over.wait(0.005)
        database.server.stop(how)
        database.server.start()
    # It recovers by itself.
    enough = len(known) + 50
    while len(known) < enough:
        over.wait(0.005)
    over.set()
    for thread in threads:
        thread.join()

    connections["default"].close()
    assert known.items() <= stored().items()
    # An entry whose waiter was refused may be there; nothing else is.
    assert stored().keys() - known.keys() <= {event.uuid for event in refused}
    assert verify().ok


@on_postgresql
def test_while_postgresql_is_away_waiters_hear_so_and_later_ones_succeed(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    assert database.server is not None
    mine = Appender(patience=0.1)
    try:
        assert mine.submit(use(), epoch=0, subjects=NOTHING).result() == 0
        database.server.stop()
        for _ in range(3):
            with pytest.raises(LogWriteFailed):
                mine.submit(use(), epoch=0, subjects=NOTHING).result()
        database.server.start()
        assert mine.submit(use(), epoch=0, subjects=NOTHING).result() == 1
    finally:
        mine.close()
    said = [record.message for record in caplog.records if record.name == "audit.appender"]
    assert len(said) == 2, said  # once when it went, once when it came back


@on_postgresql
def test_a_commit_whose_answer_is_lost_is_found_and_not_repeated(
    database: Database, proxy: Proxy
) -> None:
    mine = Appender()
    try:
        assert mine.submit(use(), epoch=0, subjects=NOTHING).result() == 0
        for turn in range(1, 4):
            proxy.cut()
            event = use(reason=f"turn {turn}")
            index = mine.submit(event, epoch=0, subjects=frozenset({"key:1"})).result()
            assert proxy.cuts == turn
            assert stored()[event.uuid] == index == turn
        assert head().size == 4
        assert verify().ok
    finally:
        mine.close()


@on_postgresql
def test_an_acknowledged_entry_stays_acknowledged_when_a_change_follows_its_lost_answer(
    database: Database, proxy: Proxy
) -> None:
    mine = Appender()
    try:
        for turn in range(5):
            epoch = head().epoch
            proxy.cut()
            event = use(reason=f"turn {turn}")
            future = mine.submit(event, epoch=epoch, subjects=frozenset({"key:1"}))
            while proxy.cuts == turn:
                threading.Event().wait(0.001)
            write(use(), subjects=("key:1",))
            # Either order of change and second look is possible; the entry was committed first.
            assert future.result() == stored()[event.uuid]
        assert verify().ok
    finally:
        mine.close()


def test_a_log_that_can_not_be_written_refuses_and_recovers(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    write(use())
    mine = Appender(patience=0.1)
    try:
        with attacker(database) as connection:
            connection.execute("ALTER TABLE audit_head RENAME TO gone")
        with pytest.raises(LogWriteFailed):
            mine.submit(use(), epoch=0, subjects=NOTHING).result()
        with attacker(database) as connection:
            connection.execute("ALTER TABLE gone RENAME TO audit_head")
        assert mine.submit(use(), epoch=0, subjects=NOTHING).result() == 1
    finally:
        mine.close()
    assert verify().ok
    assert "can't be written" in caplog.text


@on_postgresql
def test_an_entry_that_the_database_refuses_takes_no_other_with_it(database: Database) -> None:
    # An index row that is too long: psycopg calls that an OperationalError, as it does an outage.
    long = "".join(chr(0x20000 + (n * n * 7919) % 40_000) for n in range(1000))
    poison = use(source=Personal("192.0.2.7", subject=long))
    writer = appender()
    with transaction.atomic():
        append([use()])  # holds the head, so that the others come in one batch
        first = writer.submit(use(), epoch=0, subjects=NOTHING)
        waiting = [
            writer.submit(event, epoch=0, subjects=NOTHING) for event in (use(), poison, use())
        ]
    assert first.result() == 1
    assert waiting[0].result() == 2
    with pytest.raises(LogWriteFailed, match="the log refused the entry"):
        waiting[1].result()
    assert waiting[2].result() == 3
    assert not writer.failing
    assert verify().ok


@on_postgresql
def test_outages_are_told_from_refusals(database: Database) -> None:
    def of(sql: str, *before: str) -> bool:
        with connection.cursor() as cursor:
            try:
                for statement in (*before, sql):
                    cursor.execute(statement)
            except DatabaseError as error:
                return outages.is_outage(error, connection)
            finally:
                connection.close()
        raise AssertionError("it was not refused")

    assert of("SELECT pg_terminate_backend(pg_backend_pid())")
    assert of("SELECT pg_sleep(60)", "SET statement_timeout = 10") is False
    assert of("SELECT 1 / 0") is False
    assert of("SELECT nothing") is False
    raises = "DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '{}'; END $$"
    for state, outage in {"53100": True, "57P03": True, "08006": True, "54000": False}.items():
        assert of(raises.format(state)) is outage, state


def test_sqlites_outages_are_told_from_refusals(database: Database, tmp_path: Path) -> None:
    with connection.cursor() as cursor:
        with pytest.raises(DatabaseError) as refused:
            cursor.execute("SELECT nothing")
        assert not outages.is_outage(refused.value, connection)
        other = sqlite3.connect(database.path)
        other.execute("BEGIN IMMEDIATE")
        cursor.execute("PRAGMA busy_timeout = 0")
        with pytest.raises(DatabaseError) as locked:
            cursor.execute("BEGIN IMMEDIATE")
        assert outages.is_outage(locked.value, connection)
        other.close()
    connection.close()


@on_postgresql
def test_a_process_that_was_stopped_with_the_head_in_hand_gives_it_back(
    database: Database,
) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('lock_timeout')")
        assert cursor.fetchone() == ("10s",)
        cursor.execute("SELECT current_setting('idle_in_transaction_session_timeout')")
        assert cursor.fetchone() == ("20s",)
    stopped = threading.Event()

    def stop() -> None:
        with connection.cursor() as cursor:
            cursor.execute("SET idle_in_transaction_session_timeout = 50")
            cursor.execute("BEGIN")
            cursor.execute("SELECT size FROM audit_head FOR UPDATE")
        stopped.set()
        over.wait()
        connection.close()

    over = threading.Event()
    thread = threading.Thread(target=stop)
    thread.start()
    stopped.wait()
    try:
        assert appender().submit(use(), epoch=0, subjects=NOTHING).result() == 0
    finally:
        over.set()
        thread.join()
