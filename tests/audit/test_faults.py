"""Kills, full disks and restarts in the middle: nothing acknowledged is lost, no gap, no fork."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connections
from django.db.backends.signals import connection_created

from audit import guard
from audit.appender import Appender
from audit.errors import LogWriteFailed
from audit.models import Entry
from audit.verifier import verify
from audit.writer import head
from tests.audit.helpers import use, write
from tests.audit.proxy import Proxy
from tests.audit.test_processes import acknowledged, start
from tests.databases import ALIASES, Database, connected_to
from tests.postgresql import PostgreSQL

NOTHING: frozenset[str] = frozenset()
ENOUGH = 100_000  # entries: more than any of the small disks holds


def stored() -> dict[str, int]:
    return {str(uuid): index for uuid, index in Entry.objects.values_list("uuid", "index")}


def is_whole(known: dict[str, int]) -> None:
    """Check that what was acknowledged is there, densely, in one log."""
    there = stored()
    assert known.items() <= there.items()
    assert sorted(there.values()) == list(range(head().size))
    report = verify()
    assert report.ok, report


@pytest.mark.each_database(fast="postgresql")
@pytest.mark.parametrize("rounds", [6, pytest.param(300, marks=pytest.mark.exhaustive)])
def test_processes_that_are_killed_lose_nothing_that_was_acknowledged(
    database: Database, tmp_path: Path, rounds: int
) -> None:
    process = start(database, tmp_path, "killed", str(rounds), "7")
    output, errors = process.communicate(timeout=60 + 10 * rounds)
    assert process.returncode == 0, errors
    known = acknowledged(output.splitlines())
    assert len(known) >= rounds
    is_whole(known)


def fill(appender: Appender, known: dict[str, int]) -> None:
    """Append until it is refused."""
    text = "x" * 900
    while len(known) < ENOUGH:
        events = [use(reason=text) for _ in range(20)]
        futures = [appender.submit(one, epoch=0, subjects=NOTHING) for one in events]
        try:
            for event, future in zip(events, futures, strict=True):
                known[event.uuid] = future.result()
        except LogWriteFailed:
            for event, future in zip(events, futures, strict=True):
                if future.exception() is None:
                    known[event.uuid] = future.result()
            return
    raise AssertionError("the disk was never full")


def test_sqlite_that_may_not_grow_any_more_refuses_and_recovers(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    write(use())
    limit = [300]  # pages of 4 KB

    def bound(connection: Any, **_: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"PRAGMA max_page_count = {limit[0]}")

    connection_created.connect(bound)
    mine = Appender(patience=0.05)
    known: dict[str, int] = {}
    try:
        fill(mine, known)
        assert "full" in caplog.text
        is_whole(known)
        limit[0] = 1_000_000
        event = use()
        known[event.uuid] = mine.submit(event, epoch=0, subjects=NOTHING).result()
    finally:
        mine.close()
        connection_created.disconnect(bound)
    is_whole(known)


@contextmanager
def small_disk(megabytes: int) -> Iterator[Path]:
    """Mount a file system in memory of so many megabytes."""
    folder = Path(tempfile.mkdtemp(prefix="kms-sd-"))
    size = f"size={megabytes}m,mode=755"
    command = ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        folder.rmdir()
        pytest.skip("a small file system can't be mounted here: it takes root")
    try:
        yield folder
    finally:
        connections.close_all()
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
        folder.rmdir()


def grow(folder: Path, megabytes: int) -> None:
    command = ["mount", "-o", f"remount,size={megabytes}m", str(folder)]
    subprocess.run(command, check=True, capture_output=True)


def test_sqlite_on_a_disk_that_is_full_refuses_and_recovers(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    connections.close_all()
    known: dict[str, int] = {}
    with small_disk(6) as folder:
        path = folder / "log.sqlite3"
        shutil.copyfile(database.path, path)
        with connected_to(f"sqlite:///{path}", database.material_url):
            mine = Appender(patience=0.05)
            try:
                fill(mine, known)
                assert "can't be written" in caplog.text
                grow(folder, 64)
                event = use()
                known[event.uuid] = mine.submit(event, epoch=0, subjects=NOTHING).result()
            finally:
                mine.close()
            assert len(known) > 1
            is_whole(known)


@pytest.mark.exhaustive
def test_postgresql_on_a_disk_that_is_full_refuses_and_recovers(
    django_db_blocker: Any, caplog: pytest.LogCaptureFixture
) -> None:
    known: dict[str, int] = {}
    with small_disk(400) as folder, PostgreSQL.running(str(folder)) as server:
        for alias in ALIASES:
            server.create(alias)
        urls = [server.url(alias) for alias in ALIASES]
        with django_db_blocker.unblock(), connected_to(urls[0], urls[1]):
            for alias in ALIASES:
                call_command("migrate", database=alias, verbosity=0)
            used = shutil.disk_usage(folder).used // (1 << 20)
            grow(folder, used + 24)
            mine = Appender(patience=0.2)
            try:
                fill(mine, known)
                grow(folder, used + 400)
                _up_again(server)
                event = use()
                known[event.uuid] = mine.submit(event, epoch=0, subjects=NOTHING).result()
            finally:
                mine.close()
                guard.forget()
            assert "can't be written" in caplog.text
            assert len(known) > 1
            connections.close_all()
            is_whole(known)
            connections.close_all()


def _up_again(server: PostgreSQL) -> None:
    """See to it that the server runs: one whose own log is on a full disk stops."""
    server.stop()
    server.start()


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["stopped", "crashed"])
def test_postgresql_that_restarts_while_it_commits_has_the_entry_once(
    database: Database, how: signal.Signals
) -> None:
    assert database.server is not None
    known: dict[str, int] = {}
    with tempfile.TemporaryDirectory(prefix="kms-px-") as folder:
        proxy = Proxy(database.server.folder, Path(folder))
        name = database.url.rpartition("/")[2]
        try:
            with connected_to(proxy.url(name), database.material_url):
                mine = Appender(patience=60)
                try:
                    for turn in range(1, 3):
                        proxy.cut()
                        events = [use(reason=f"turn {turn}") for _ in range(5)]
                        futures = [mine.submit(e, epoch=0, subjects=NOTHING) for e in events]
                        while proxy.cuts < turn:
                            threading.Event().wait(0.001)
                        database.server.stop(how)
                        database.server.start()
                        for event, future in zip(events, futures, strict=True):
                            known[event.uuid] = future.result()
                finally:
                    mine.close()
                connections.close_all()
                assert len(known) == 10
                assert known == stored()
                is_whole(known)
        finally:
            connections.close_all()
            proxy.close()
