"""A log that is smaller than anybody remembers, or another one, takes no entries until it is settled."""

from __future__ import annotations

import base64
import shutil
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connections, transaction

from audit import guard, memories
from audit.errors import LogRolledBack
from audit.models import Entry
from audit.verifier import verify
from audit.writer import append, appender, close_appender, head
from keys.actions import Action
from keys.errors import LogUnavailable
from keys.gate import record
from kms_console import health
from kms_console.health import Trouble
from tests.audit.helpers import use, write, write_many
from tests.databases import Database

NOTHING: frozenset[str] = frozenset()
Restore = Callable[[], None]


@pytest.fixture
def signers(tmp_path: Path, settings: Any) -> Path:
    """Where this test's signer keeps what it signed."""
    folder = tmp_path / "signer"
    folder.mkdir()
    settings.SIGNER_FOLDER = folder
    settings.AUDIT_MEMORIES = []
    return folder / "checkpoint"


def note(size: int, root: bytes, origin: str = "log.example/1234") -> str:
    """Return a checkpoint as a signer leaves it; the guard doesn't ask who signed."""
    return f"{origin}\n{size}\n{base64.b64encode(root).decode()}\n\n— log.example AAAAAAAA\n"


def remember(file: Path) -> None:
    file.write_text(note(head().size, head().root))


@pytest.fixture
def backup(database: Database, tmp_path: Path) -> Restore:
    """Write 12 entries, back the database up, and return what puts the backup back."""
    write_many(12)
    connections.close_all()
    kept = tmp_path / "backup.sqlite3"
    shutil.copyfile(database.path, kept)

    def restore() -> None:
        close_appender()
        connections.close_all()
        for end in ("-wal", "-shm"):
            Path(f"{database.path}{end}").unlink(missing_ok=True)
        shutil.copyfile(kept, database.path)

    return restore


def new_process() -> None:
    """Forget as a restart would."""
    close_appender()
    guard.forget()


def submit() -> int:
    return appender().submit(use(), epoch=0, subjects=NOTHING).result()


def test_a_running_process_refuses_a_log_that_went_back(backup: Restore, signers: Path) -> None:
    write_many(5)
    backup()
    with pytest.raises(LogRolledBack, match="has 12 entries; one of its processes remembers 17"):
        write(use())
    with pytest.raises(LogRolledBack):
        submit()
    assert head().size == 12, "reading goes on"


@pytest.mark.parametrize("more", [4, 5, 6])
def test_a_log_that_went_back_and_grew_again_is_another_log(
    backup: Restore, signers: Path, more: int
) -> None:
    write_many(5)
    mark = guard._state("default").mark
    assert mark is not None
    backup()
    new_process()
    write_many(more)  # a process that remembers nothing, while the first one waits
    guard.forget()
    guard.note(mark.size, mark.root)
    guard.look()
    with pytest.raises(LogRolledBack, match="one of its processes remembers"):
        submit()


def test_an_entry_that_was_rolled_back_is_not_remembered(backup: Restore, signers: Path) -> None:
    with pytest.raises(LookupError), transaction.atomic():
        append([use()])
        raise LookupError
    backup()
    assert write(use()) == [12]


@pytest.mark.each_database(fast="postgresql")
def test_entries_of_both_writers_are_remembered(database: Database, signers: Path) -> None:
    write_many(4)
    assert submit() == 4
    mark = guard._state("default").mark
    assert mark is not None
    assert (mark.size, mark.root) == (5, head().root)


def test_a_fresh_process_refuses_what_is_smaller_than_the_signer_remembers(
    backup: Restore, signers: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_many(28)
    remember(signers)
    backup()
    new_process()
    with pytest.raises(LogRolledBack, match=r"^The log has 12 entries; its signer remembers 40\. "):
        submit()
    with pytest.raises(LogRolledBack):
        write(use())
    assert head().size == 12
    assert "its signer remembers 40" in caplog.text


def test_a_change_in_a_fresh_process_is_refused_within_its_own_transaction(
    backup: Restore, signers: Path
) -> None:
    write_many(28)
    remember(signers)
    backup()
    new_process()
    with pytest.raises(LogRolledBack):
        write(use())  # nothing has looked yet
    assert head().size == 12


@pytest.mark.each_database(fast="postgresql")
@pytest.mark.parametrize("size", [7, 12])
def test_a_log_of_another_root_is_refused(database: Database, signers: Path, size: int) -> None:
    write_many(12)
    new_process()
    signers.write_text(note(size, b"\x07" * 32))
    with pytest.raises(LogRolledBack, match=f"The first {size} entries are not those that its"):
        submit()


@pytest.mark.each_database(fast="postgresql")
@pytest.mark.parametrize("grown", [0, 30])
def test_a_log_that_continues_what_was_signed_goes_on(
    database: Database, signers: Path, grown: int
) -> None:
    write_many(12)
    remember(signers)
    if grown:
        write_many(grown)
    new_process()
    assert submit() == 12 + grown
    assert guard.trouble() == ""


def test_it_recovers_without_a_restart_once_the_right_database_is_back(
    backup: Restore, database: Database, signers: Path, tmp_path: Path
) -> None:
    write_many(28)
    remember(signers)
    connections.close_all()
    right = tmp_path / "right.sqlite3"
    shutil.copyfile(database.path, right)
    backup()
    for _ in range(2):
        with pytest.raises(LogRolledBack):
            submit()
    close_appender()
    connections.close_all()
    shutil.copyfile(right, database.path)
    guard.look()  # as its thread does every few seconds
    assert submit() == 40
    assert guard.trouble() == ""


def test_the_thread_looks_by_itself(
    backup: Restore, signers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert submit() == 12
    signers.write_text(note(40, b"\x07" * 32))
    guard._now.set()
    for _ in range(6000):
        if guard.refusal():
            break
        threading.Event().wait(0.01)
    with pytest.raises(LogRolledBack):
        submit()
    signers.unlink()
    guard.look()
    assert submit() == 13


@pytest.fixture
def witness() -> Iterator[Any]:
    """A witness that answers with what `said` holds: status and text."""
    said: dict[str, Any] = {"status": 200, "text": "", "asked": 0}

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            said["asked"] += 1
            self.send_response(said["status"])
            if 300 <= said["status"] < 400:
                self.send_header("Location", "/elsewhere")
            self.end_headers()
            self.wfile.write(said["text"].encode())

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    said["url"] = f"http://127.0.0.1:{server.server_port}/checkpoints/aa"
    try:
        yield said
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_witness_remembers_too(
    backup: Restore, signers: Path, witness: dict[str, Any], settings: Any
) -> None:
    settings.AUDIT_MEMORIES = [witness["url"]]
    witness["text"] = note(40, b"\x07" * 32)
    with pytest.raises(LogRolledBack, match="a witness remembers 40"):
        submit()


def test_a_copy_of_a_checkpoint_remembers_too(
    backup: Restore, signers: Path, tmp_path: Path, settings: Any
) -> None:
    copy = tmp_path / "copy"
    copy.write_text(note(40, b"\x07" * 32))
    settings.AUDIT_MEMORIES = [str(copy)]
    with pytest.raises(LogRolledBack, match="a copy of a checkpoint remembers 40"):
        submit()


@pytest.mark.parametrize("how", ["away", "404", "moved", "nonsense", "endless", "file"])
def test_a_memory_that_can_not_be_read_is_told_and_stops_nobody(
    backup: Restore,
    signers: Path,
    witness: dict[str, Any],
    settings: Any,
    tmp_path: Path,
    how: str,
) -> None:
    witness["text"] = note(40, b"\x07" * 32)
    place = witness["url"]
    if how == "away":
        place = "http://127.0.0.1:9/checkpoints/aa"
    elif how == "nonsense":
        witness["text"] = "a page\nof something\nelse\n"
    elif how == "endless":
        witness["text"] = note(40, b"\x07" * 32) + "x" * memories.NOTE_LIMIT
    elif how == "file":
        place = str(tmp_path / "nothing here")
    else:
        witness["status"] = 404 if how == "404" else 302
    settings.AUDIT_MEMORIES = [place]
    assert submit() == 12
    assert guard.complaint() == "1 of 2 memories of the log can't be read."
    assert guard.refusal() == ""
    with pytest.raises(Trouble, match="1 of 2 memories"):
        health._memories()
    health._log()


@pytest.mark.parametrize(
    "text",
    ["", "a\n1\n", "a\n01\n" + "A" * 43 + "=\n", "a\n-1\n" + "A" * 43 + "=\n", "\n1\nAAAA\n"],
)
def test_what_is_no_checkpoint_is_not_taken_for_one(text: str) -> None:
    with pytest.raises(memories.Unreadable):
        memories.parsed(text.encode(), "somebody")


def test_readyz_says_that_no_requests_can_be_served(backup: Restore, signers: Path) -> None:
    signers.write_text(note(40, b"\x07" * 32))
    guard.look()
    with pytest.raises(Trouble, match=r"^The log has 12 entries; its signer remembers 40\."):
        health._log()
    assert any(check.essential for check in health.CHECKS if check.name == "log")


def test_callers_hear_why(backup: Restore, signers: Path) -> None:
    signers.write_text(note(40, b"\x07" * 32))
    guard.look()
    with pytest.raises(LogUnavailable) as caught:
        record.wait(use())
    assert "The log has 12 entries; its signer remembers 40." in caught.value.detail
    assert str(signers) not in caught.value.detail


def test_an_operator_goes_on_with_a_restored_log(
    backup: Restore, signers: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_many(28)
    remember(signers)
    backup()
    with pytest.raises(LogRolledBack):
        submit()
    signers.unlink()  # as the signer's own begin_again leaves it
    call_command("accept_log", reason="The disk was lost; this is last night's backup.")
    entry = Entry.objects.get(index=12)
    assert (entry.action, entry.outcome, entry.actor_name) == ("accept_log", "success", "operator")
    body = bytes(entry.body).decode()
    assert '"size":40' in body
    assert "last night" in body
    assert "Accepted." in capsys.readouterr().out
    assert submit() == 13
    assert guard.trouble() == ""
    assert verify().ok


def test_another_process_goes_on_once_it_sees_that_the_log_was_accepted(
    backup: Restore, signers: Path
) -> None:
    write_many(28)
    mark = guard._state("default").mark
    assert mark is not None
    backup()
    call_command("accept_log", reason="Last night's backup.")
    # The other one still remembers, and has met the log meanwhile.
    guard._state("default").mark = mark
    guard.look()
    assert guard.refusal() == ""
    assert submit() == 13


def test_an_acceptance_from_before_does_not_excuse_the_next_rollback(
    backup: Restore, database: Database, signers: Path, tmp_path: Path
) -> None:
    write_many(3)
    backup()
    call_command("accept_log", reason="Last night's backup.")
    connections.close_all()
    kept = tmp_path / "later.sqlite3"
    shutil.copyfile(database.path, kept)
    write_many(3)
    close_appender()
    connections.close_all()
    shutil.copyfile(kept, database.path)
    guard.look()
    assert "one of its processes remembers 16" in guard.refusal()


def test_a_log_that_nothing_contradicts_needs_no_acceptance(backup: Restore, signers: Path) -> None:
    with pytest.raises(CommandError, match="nothing to accept"):
        call_command("accept_log", reason="To be sure.")
    assert Entry.objects.get(index=12).outcome == "failed"


def test_nobody_but_an_operator_accepts(backup: Restore, signers: Path) -> None:
    assert Action.ACCEPT_LOG.row.kind.value == "change"
    assert {role.value for role in Action.ACCEPT_LOG.row.roles} == {"operator"}
