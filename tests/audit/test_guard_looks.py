"""How the guard looks: soon, once for all who wait, never for long, and saying what it could not see."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from django.db import connection, connections, transaction
from django.test.utils import CaptureQueriesContext

from audit import guard, memories, proven, store, tiles
from audit.errors import LogRolledBack, TilesMissing
from audit.models import Checkpoint
from audit.proven import Proven
from audit.writer import append, head
from kms_console import health
from kms_console.health import Trouble
from tests.audit.helpers import use, write, write_many
from tests.audit.test_guard import note
from tests.databases import Database

NO_MEMORY = "No memory of the log is here: set KMS_AUDIT_MEMORIES to where its checkpoints are."


@pytest.fixture
def folder(tmp_path: Path, settings: Any) -> Path:
    settings.SIGNER_FOLDER = tmp_path / "signer"
    settings.SIGNER_FOLDER.mkdir()
    settings.AUDIT_MEMORIES = []
    return tmp_path / "signer"


def test_a_signed_log_that_nobody_remembers_is_told(database: Database, folder: Path) -> None:
    write_many(3)
    guard.look()
    assert guard.complaint() == "", "a fresh house whose signer hasn't signed yet"
    at = head()
    Checkpoint.objects.create(
        size=3, root=at.root, origin="a", note="b", signed_at=datetime.now(UTC)
    )
    guard.look()
    assert (guard.refusal(), guard.complaint()) == ("", NO_MEMORY)
    with pytest.raises(Trouble, match="KMS_AUDIT_MEMORIES"):
        health._memories()
    (folder / "checkpoint").write_text(note(3, at.root))
    guard.look()
    assert guard.complaint() == ""


def test_a_long_log_that_nobody_remembers_is_told(database: Database, folder: Path) -> None:
    write_many(guard.SMALL + 1)
    guard.look()
    assert guard.complaint() == NO_MEMORY


def test_a_signer_whose_checkpoint_is_gone_is_told(database: Database, folder: Path) -> None:
    (folder / "keys").mkdir()
    for remembered, complaint in (
        ('{"size": 0}', ""),
        ('{"size": 7}', "1 of 1 memories of the log can't be read."),
        ("", "1 of 1 memories of the log can't be read."),
    ):
        (folder / "memory.json").write_text(remembered)
        guard.look()
        assert guard.complaint() == complaint


@pytest.fixture
def trickle() -> Iterator[str]:
    """A witness that sends a byte of its headers now and then, for ever; its URL."""
    over = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        try:
            there, _ = listener.accept()
            with there:
                there.sendall(b"HTTP/1.1 200 OK\r\nX: ")
                while not over.wait(0.05):
                    there.sendall(b"x")
        except OSError:
            pass

    thread = threading.Thread(target=serve)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/checkpoint"
    over.set()
    thread.join()
    listener.close()


def test_one_slow_memory_does_not_hold_up_the_others(
    database: Database,
    folder: Path,
    trickle: str,
    settings: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memories, "DEADLINE_SECONDS", 0.2)
    copy = tmp_path / "copy"
    copy.write_text(note(40, b"\x07" * 32))
    settings.AUDIT_MEMORIES = [trickle, str(copy)]
    for _ in range(2):
        guard.look()
        assert guard.complaint() == "1 of 3 memories of the log can't be read."
        assert "a copy of a checkpoint remembers 40" in guard.refusal()
    asking = [one for one in threading.enumerate() if one.name == "audit-memory"]
    assert len(asking) == 1, "one that hangs is not asked again"


def test_a_look_that_is_late_is_told(
    database: Database, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = guard._state("default")
    assert guard.complaint() == ""
    state.since -= guard.LATE * guard.CHECK_SECONDS + 1
    assert (
        guard.complaint() == "The log was not compared with its memories since this process began."
    )
    guard.look()
    assert guard.complaint() == ""
    monkeypatch.setattr(guard, "LATE", -1)
    assert guard.complaint().startswith("The log was last compared with its memories ")


def test_who_comes_while_a_process_looks_for_the_first_time_waits_for_that_look(
    database: Database, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []
    there = threading.Barrier(8)
    read = memories.all_read

    def slowly() -> Any:
        looks.append(time.monotonic())
        threading.Event().wait(0.1)
        return read()

    def come(_: int) -> None:
        there.wait()
        try:
            guard.ready()
        finally:
            connections.close_all()

    monkeypatch.setattr(memories, "all_read", slowly)
    monkeypatch.setattr(guard, "_start", lambda: None)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(come, range(8)))
    assert len(looks) == 1


def test_the_signers_file_is_read_before_the_head_is_taken(
    database: Database, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "checkpoint").write_text(note(40, b"\x07" * 32))
    order: list[str] = []
    read, take = memories.signers, store.read_head

    def reads() -> Any:
        order.append("file")
        return read()

    def takes(*given: Any, **more: Any) -> Any:
        order.append("head")
        return take(*given, **more)

    monkeypatch.setattr(memories, "signers", reads)
    monkeypatch.setattr(store, "read_head", takes)
    monkeypatch.setattr(guard, "_start", lambda: None)
    with pytest.raises(LogRolledBack, match="its signer remembers"), transaction.atomic():
        append([use()])
    assert order == ["file", "head"]


@pytest.mark.each_database(fast="postgresql")
def test_what_was_proved_is_not_proved_again(database: Database) -> None:
    write_many(600)
    before = head()
    write_many(700)
    tiles.build()
    known = Proven()
    assert known.continues(head(), 600, before.root, "default")
    now = head()
    with CaptureQueriesContext(connection) as asked:
        assert known.continues(now, 600, before.root, "default")
    assert len(asked) == 0
    assert not known.continues(head(), 600, b"\x07" * 32, "default")
    write_many(5)
    assert known.continues(head(), 600, before.root, "default")
    other = store.LogHead(1400, 0, b"\x07" * 32, b"", datetime.now(UTC))
    with pytest.raises(ValueError):
        known.continues(other, 600, before.root, "default")


def test_where_too_much_of_the_tree_is_missing_it_is_told_and_not_hashed(
    database: Database, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proven, "UNBUILT_LIMIT", 2)
    write_many(300)
    (folder / "checkpoint").write_text(note(300, head().root))
    write_many(700)
    with pytest.raises(TilesMissing):
        Proven().continues(head(), 300, head().root, "default")
    guard.look()
    assert guard.refusal() == ""
    assert "start `manage.py trail`" in guard.complaint()
    tiles.build()
    guard.look()
    assert guard.trouble() == ""


def test_a_smaller_log_that_is_noted_later_does_not_take_the_mark_back(database: Database) -> None:
    threads = [
        threading.Thread(target=guard.note, args=(size, bytes([size % 256]) * 32))
        for size in (*range(1, 60), 1000, *range(60, 120))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    mark = guard._state("default").mark
    assert mark is not None and mark.size == 1000


def test_a_mark_that_was_set_while_an_acceptance_was_found_stays(
    database: Database, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(use())
    guard.note(40, b"\x07" * 32)

    def accepted(*_: Any) -> bool:
        guard.note(50, b"\x08" * 32)  # by who wrote meanwhile
        return True

    monkeypatch.setattr(guard, "_accepted_since", accepted)
    guard.look()
    mark = guard._state("default").mark
    assert mark is not None and mark.size == 50


def test_going_on_with_an_older_log_moves_the_epoch_far_ahead(
    database: Database, folder: Path
) -> None:
    write(use(), subjects=("key:1",))
    before = head().epoch
    with guard.accepting():
        write(use(), subjects=("house:1",))
    assert head().epoch == before + (1 << 32)
    write(use(), subjects=("key:1",))
    assert head().epoch == before + (1 << 32) + 1
