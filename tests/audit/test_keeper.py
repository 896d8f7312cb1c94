"""The keeper: what stands beside the log catches up by itself, and says so where it doesn't."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

import pytest
from django.db import connections

from audit import index, keeper, tiles
from audit.index import BLOCK
from audit.models import Block, Posting
from audit.search import Filters, search
from tests.audit.helpers import use, write
from tests.databases import Database
from tests.processes import Process, eventually

on_postgresql = pytest.mark.parametrize("database", ["postgresql"], indirect=True)
pytestmark = pytest.mark.usefixtures("database")


def fill(count: int) -> None:
    write(*[use() for _ in range(count)])


def trail(database: Database, output: Path, *arguments: str) -> Process:
    """Start `manage.py trail` on the test's own database."""
    environment = {
        **os.environ,
        "DATABASE_URL": database.url,
        "MATERIAL_DATABASE_URL": database.material_url,
        "KMS_DATA": str(output),
        "DJANGO_SETTINGS_MODULE": "kms_console.settings",
        "PYTHONUNBUFFERED": "1",
    }
    command = [sys.executable, "manage.py", "trail", *arguments]
    return Process(command, environment, output / "trail.txt")


def test_it_says_how_far_behind_it_is_until_it_caught_up() -> None:
    assert keeper.trouble() == ""
    fill(2 * BLOCK)
    assert keeper.trouble() == ""
    write(use())
    assert keeper.trouble().startswith("It was never seen at work")
    while keeper.work():
        pass
    assert (keeper.trouble(), index.behind()) == ("", 1)
    assert tiles.covered() == 2 * BLOCK
    Block.objects.filter(number=1).delete()
    Posting.objects.filter(block=1).delete()
    fill(BLOCK)
    assert keeper.trouble().startswith("It is 8,193 entries behind")


@on_postgresql
def test_it_goes_on_by_itself_once_the_database_is_back(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "REST_SECONDS", 0.02)
    monkeypatch.setattr(keeper, "OUTAGE_SECONDS", 0.02)
    stop = threading.Event()

    def keep() -> None:
        try:
            keeper.run(stop)
        finally:
            connections.close_all()

    thread = threading.Thread(target=keep)
    thread.start()
    try:
        fill(BLOCK)
        eventually(lambda: index.indexed() == BLOCK)
        connections.close_all()
        assert database.server is not None
        database.server.stop()
        stop.wait(0.2)
        assert thread.is_alive()
        database.server.start()
        fill(BLOCK)
        eventually(lambda: index.indexed() == 2 * BLOCK)
    finally:
        stop.set()
        thread.join(60)
    assert not thread.is_alive()


def test_the_command_builds_what_is_missing_and_ends_when_it_is_told_to(
    database: Database, tmp_path: Path
) -> None:
    fill(BLOCK)
    connections.close_all()
    process = trail(database, tmp_path)
    try:
        process.wait_for("The audit trail is kept.")
        eventually(lambda: index.indexed() == BLOCK)
        process.popen.send_signal(signal.SIGTERM)
        assert process.wait() == 0
    finally:
        process.stop()
    assert [entry.index for entry in search(Filters(text="wages"), limit=1)] == [BLOCK - 1]


@pytest.mark.exhaustive
@pytest.mark.each_database
def test_whenever_it_is_killed_another_goes_on_where_it_ended(
    database: Database, tmp_path: Path
) -> None:
    for _ in range(12):
        fill(BLOCK)
    connections.close_all()
    for turn in range(10):
        process = trail(database, tmp_path)
        try:
            while index.indexed() <= turn * BLOCK:
                assert process.popen.poll() is None, process.text
        finally:
            process.kill()
            process.output.unlink()
    again = trail(database, tmp_path, "--once")
    assert again.wait() == 0, again.text
    numbers = Block.objects.order_by("number").values_list("number", flat=True)
    assert list(numbers) == list(range(12))
    kept = Posting.objects.order_by("term", "block").values_list("term", "block", "entries")
    before = [(term, block, bytes(data)) for term, block, data in kept]
    rebuilt = trail(database, tmp_path, "--once", "--rebuild")
    assert rebuilt.wait() == 0, rebuilt.text
    assert [(term, block, bytes(data)) for term, block, data in kept.all()] == before
