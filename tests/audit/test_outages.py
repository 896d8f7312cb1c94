"""The database goes away while entries are written: nothing acknowledged is lost, none is doubled."""

from __future__ import annotations

import signal
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.db import connections

from audit.appender import Appender
from audit.errors import LogWriteFailed
from audit.events import Event
from audit.models import Entry
from audit.verifier import verify
from audit.writer import appender, head
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
