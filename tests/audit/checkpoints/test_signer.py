"""The signer on real logs: it signs what grew, refuses what did not, and forgets nothing."""

from __future__ import annotations

import json
import os
import signal
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connection, connections, transaction

from audit import checkpoints, proofs, store
from audit.checkpoints import keys as log_keys
from audit.checkpoints import memory, notes, status, vkeys
from audit.checkpoints import signer as signing_rounds
from audit.checkpoints.signer import Signer
from audit.errors import SignerError
from audit.models import Checkpoint
from tests.audit.checkpoints.helpers import frontier_of_the_log, grow, round_of
from tests.audit.helpers import attacker, use
from tests.databases import Database

EACH = pytest.mark.each_database(fast="postgresql")


@pytest.fixture
def folder(tmp_path: Path, settings: Any) -> Path:
    settings.SIGNER_FOLDER = tmp_path / "signer"
    return tmp_path / "signer"


def verified(note: str) -> notes.Tree:
    """Return what a note says, signed by every key that the log has."""
    parsed, tree = notes.parse_checkpoint(note)
    known = [vkeys.parse_vkey(text) for text in log_keys()]
    own = [key for key in known if key.name == tree.origin]
    assert len(notes.verify(parsed, own)) == len(own) == 2
    return tree


@EACH
def test_a_log_is_signed_as_it_grows(database: Database, folder: Path) -> None:
    assert round_of(folder).state == status.SIGNING
    assert checkpoints.latest() is None, "an empty log has nothing to sign"
    grow(3)
    round_of(folder)
    first = checkpoints.latest()
    assert first is not None
    assert (first.size, bytes(first.root)) == (3, frontier_of_the_log().root())
    grow(1200)
    round_of(folder)
    second = checkpoints.latest()
    assert second is not None
    tree = verified(second.note)
    assert (tree.size, tree.root) == (1203, frontier_of_the_log().root())
    assert tree.origin == second.origin == first.origin
    assert (folder / "checkpoint").read_text() == second.note
    assert proofs.consistency(3, 1203)
    round_of(folder)
    assert Checkpoint.objects.count() == 2, "a log that rests is not signed every time"
    covering = checkpoints.covering(1202)
    assert covering is not None
    assert covering.id == second.id
    assert checkpoints.covering(1203) is None


def test_what_the_signer_keeps_is_its_own_alone(database: Database, folder: Path) -> None:
    grow(1)
    round_of(folder)
    found = [folder, *folder.rglob("*")]
    assert len(found) > 6
    assert [
        str(path)
        for path in found
        if path.stat().st_mode & 0o077 and path.name != "lock" and path.name != "memory.lock"
    ] == []


def rolled_back(database: Database, size: int) -> None:
    """Have the log end at `size`, head and all, as who owns the file can."""
    hashes = frontier_of(size)
    with attacker(database) as raw:
        raw.execute('DELETE FROM audit_entry WHERE "index" >= ?', [size])
        raw.execute(
            "UPDATE audit_head SET size = ?, root = ?, frontier = ?",
            [size, hashes.root(), hashes.to_bytes()],
        )


def frontier_of(size: int) -> Any:
    return proofs.Prover(size).frontier()


def rewritten(database: Database, index: int) -> None:
    """Change an entry, its hash and the head, consistently."""
    from audit.merkle import Frontier, leaf_hash

    with attacker(database) as raw:
        (body,) = raw.execute('SELECT body FROM audit_entry WHERE "index" = ?', [index]).fetchone()
        other = bytes(body).replace(b'"encrypt"', b'"decrypt"')
        assert other != bytes(body)
        raw.execute(
            'UPDATE audit_entry SET body = ?, leaf_hash = ? WHERE "index" = ?',
            [other, leaf_hash(other), index],
        )
        tree = Frontier()
        for (leaf,) in raw.execute('SELECT leaf_hash FROM audit_entry ORDER BY "index"'):
            tree.append(bytes(leaf))
        raw.execute("UPDATE audit_head SET root = ?, frontier = ?", [tree.root(), tree.to_bytes()])


def test_a_log_that_was_rolled_back_is_refused_until_it_is_whole_again(
    database: Database, folder: Path
) -> None:
    grow(20)
    round_of(folder)
    connections.close_all()  # all of it is in the one file then
    kept = database.path.read_bytes()
    rolled_back(database, 12)
    found = round_of(folder)
    assert found.state == status.REFUSING
    assert "The log has 12 entries; 20 were signed." in found.problem
    assert found.problem in checkpoints.trouble()
    # Growing beyond what was signed, past the application's own guard, makes it another log.
    with transaction.atomic():
        store.extend(connection, store.read_head(connection), [use() for _ in range(30)], epoch=0)
    found = round_of(folder)
    assert found.state == status.REFUSING
    assert "does not continue the one of 20 entries" in found.problem
    assert Checkpoint.objects.count() == 1
    connections.close_all()
    for left in database.path.parent.glob(f"{database.path.name}-*"):
        left.unlink()
    database.path.write_bytes(kept)
    assert round_of(folder).state == status.SIGNING
    assert checkpoints.trouble() == ""


def test_another_log_of_the_same_size_is_refused(database: Database, folder: Path) -> None:
    grow(20)
    round_of(folder)
    rewritten(database, 7)
    found = round_of(folder)
    assert found.state == status.REFUSING
    assert "The log's 20 entries are not those that were signed." in found.problem


def test_a_new_entry_that_is_not_sound_is_not_signed(database: Database, folder: Path) -> None:
    grow(5)
    round_of(folder)
    grow(5)
    with attacker(database) as raw:
        raw.execute(
            """UPDATE audit_entry SET body = replace(body, '"encrypt"', '"decrypt"')
            WHERE "index" = 8"""
        )
        raw.execute('UPDATE audit_entry SET body = CAST(body AS BLOB) WHERE "index" = 8')
    found = round_of(folder)
    assert found.state == status.REFUSING
    assert "Entry 8 does not match its hash." in found.problem
    with attacker(database) as raw:
        raw.execute('DELETE FROM audit_entry WHERE "index" = 7')
    assert "Entry 7 is missing." in round_of(folder).problem


class Dying(Signer):
    """Ends its process, as a power cut would, at a step."""

    step = ""

    def _reached(self, step: str) -> None:
        if step == type(self).step:
            os.kill(os.getpid(), signal.SIGKILL)


STEPS = ["signed", "remembered", "recorded", "queued"]


@EACH
def test_killed_at_any_step_it_never_signs_two_logs_of_one_size(
    database: Database, folder: Path, settings: Any, tmp_path: Path
) -> None:
    """Whatever anybody saw of a size was the same tree, and what was seen is remembered."""
    settings.AUDIT_PUBLISH = [f"file://{tmp_path}/outside"]
    grow(2)
    round_of(folder)
    for step in STEPS:
        grow(3)
        connections.close_all()
        child = os.fork()
        if child == 0:
            try:
                Dying.step = step
                round_of(folder, Dying)
            finally:
                os._exit(1)
        _, ended = os.waitpid(child, 0)
        assert os.WIFSIGNALED(ended), step
        assert os.WTERMSIG(ended) == signal.SIGKILL
        before = memory.recall(folder)
        seen = [verified(note) for note in notes_seen(tmp_path)]
        assert all(tree.size <= before.size for tree in seen), "what was seen is remembered"
        assert round_of(folder).state == status.SIGNING
    roots: dict[int, bytes] = {}
    for note in notes_seen(tmp_path):
        tree = verified(note)
        assert roots.setdefault(tree.size, tree.root) == tree.root
        assert tree.root == proofs.root_at(tree.size)
    assert set(roots) == {2, 5, 8, 11, 14}
    published = {path.name.split("-")[0] for path in (tmp_path / "outside/checkpoints").iterdir()}
    assert {int(size) for size in published} == set(roots), "nothing was left unpublished"


def notes_seen(tmp_path: Path) -> list[str]:
    rows = list(Checkpoint.objects.values_list("note", flat=True))
    outside = tmp_path / "outside"
    return rows + [path.read_text() for path in outside.rglob("*") if path.is_file()]


def test_two_signers_do_not_share_a_folder(database: Database, folder: Path) -> None:
    first, second = Signer(folder), Signer(folder)
    first.open()
    try:
        with pytest.raises(SignerError, match="Another signer"):
            second.open()
    finally:
        first.close()
    second.open()
    second.close()


def test_a_memory_that_was_removed_is_missed(database: Database, folder: Path) -> None:
    grow(4)
    round_of(folder)
    origin = memory.recall(folder).origin
    for damage in ("", "{}", "[1]", json.dumps({"base": "x", "size": 4})):
        (folder / "memory.json").write_text(damage)
        with pytest.raises(SignerError, match="memory is gone or damaged"):
            round_of(folder)
    (folder / "memory.json").unlink()
    with pytest.raises(SignerError, match="memory is gone or damaged"):
        round_of(folder)
    assert "memory is gone or damaged" in checkpoints.trouble()
    assert checkpoints.begin_again("the disk was lost", folder) == f"{origin}/2"
    assert round_of(folder).state == status.SIGNING


def test_after_a_restore_it_begins_again_under_another_name(
    database: Database, folder: Path
) -> None:
    grow(20)
    round_of(folder)
    old = memory.recall(folder)
    rolled_back(database, 12)
    running = Signer(folder)
    running.open()
    try:
        assert running.look(at_once=True).state == status.REFUSING
        assert checkpoints.begin_again("restored from the night's backup") == f"{old.origin}/2"
        assert running.look().state == status.SIGNING, "the running signer notices"
    finally:
        running.close()
    newest = checkpoints.latest()
    assert newest is not None
    assert (newest.size, newest.origin) == (12, f"{old.origin}/2")
    assert verified(newest.note).root == frontier_of_the_log().root()
    (aside,) = folder.glob("memory-*.json")
    assert json.loads(aside.read_text())["size"] == 20
    assert len(log_keys()) == 4, "the old name's keys stay, for the old checkpoints"
    assert checkpoints.begin_again("again") == f"{old.origin}/3"


def test_where_no_signer_ever_worked_nothing_begins_again(tmp_path: Path) -> None:
    assert checkpoints.begin_again("why not", tmp_path / "none") == ""
    assert not (tmp_path / "none").exists()


def test_being_told_to_begin_again_in_the_middle_of_a_round_wins(
    database: Database, folder: Path
) -> None:
    class Interrupted(Signer):
        def _reached(self, step: str) -> None:
            if step == "signed" and memory.recall(folder).generation == 1:
                checkpoints.begin_again("now", folder)

    grow(4)
    found = round_of(folder, Interrupted)
    assert (found.state, found.problem) == (status.WAITING, "The signer was told to begin again.")
    assert checkpoints.latest() is None
    round_of(folder)
    newest = checkpoints.latest()
    assert newest is not None
    assert newest.origin.endswith("/2")


def test_trouble_tells_what_keeps_the_log_from_being_signed(
    database: Database, folder: Path, settings: Any
) -> None:
    assert checkpoints.trouble() == "", "nothing to sign yet"
    grow(2)
    assert checkpoints.trouble() == "", "there is time"
    settings.CHECKPOINT_SECONDS = -30  # no patience at all
    assert checkpoints.trouble() == "The log was never signed: no signer was seen at work."
    settings.CHECKPOINT_SECONDS = 60
    round_of(folder)
    assert checkpoints.trouble() == ""
    long_ago = (datetime.now(UTC) - timedelta(days=1)).isoformat()
    status.leave(folder, status.Status(long_ago))
    assert checkpoints.trouble().startswith("The signer was last seen at work at ")
    (folder / "status.json").unlink()
    assert checkpoints.trouble() == "", "its rows say enough where it has another machine"
    settings.CHECKPOINT_SECONDS = -30
    grow(3)
    assert checkpoints.trouble().endswith("; it has 3 more entries.")


def test_a_database_that_is_away_is_waited_for(database: Database, folder: Path) -> None:
    grow(2)
    signer = Signer(folder)
    signer.open()
    try:
        signer.look(at_once=True)
        connections.close_all()
        aside = database.path.with_suffix(".aside")
        database.path.rename(aside)
        connection.settings_dict["NAME"], name = "/nowhere/at/all", connection.settings_dict["NAME"]
        found = signer.look(at_once=True)
        assert (found.state, found.problem) == (
            status.WAITING,
            "The signer can't use the database.",
        )
        connection.settings_dict["NAME"] = name
        aside.rename(database.path)
        grow(2)
        assert signer.look(at_once=True).state == status.SIGNING
    finally:
        signer.close()
    newest = checkpoints.latest()
    assert newest is not None
    assert newest.size == 4


def test_it_signs_by_itself_soon_after_a_change_and_when_idle(
    database: Database, folder: Path, settings: Any
) -> None:
    settings.CHECKPOINT_SECONDS, settings.CHECKPOINT_IDLE_SECONDS = 1, 1
    grow(2)
    signer, stop, enough = Signer(folder), threading.Event(), threading.Event()

    def watch() -> None:
        deadline = datetime.now(UTC) + timedelta(seconds=60)
        while Checkpoint.objects.count() < 2 and datetime.now(UTC) < deadline:
            enough.wait(0.05)
        connection.close()
        stop.set()

    watcher = threading.Thread(target=watch)
    signer.open()
    try:
        watcher.start()
        signer.run(stop)
    finally:
        stop.set()
        watcher.join()
        signer.close()
    sizes = list(Checkpoint.objects.values_list("size", flat=True))
    assert len(sizes) >= 2
    assert set(sizes) == {2}


@pytest.mark.each_database(fast="postgresql")
def test_places_that_are_away_get_everything_later_in_order(
    database: Database, folder: Path, settings: Any, tmp_path: Path
) -> None:
    away = tmp_path / "away"
    away.write_text("a file where the folder should be")
    settings.AUDIT_PUBLISH = [f"file://{tmp_path}/here", f"file://{away}"]
    for _ in range(3):
        grow(2)
        round_of(folder)
    grow(2)
    assert "Publishing checkpoints fails at 1 of 2 places since " in round_of(folder).publishing
    assert "Publishing" in checkpoints.trouble()
    here = {path.name for path in (tmp_path / "here/checkpoints").iterdir()}
    assert len(here) == 4
    away.unlink()
    round_of(folder)
    assert {path.name for path in (away / "checkpoints").iterdir()} == here
    assert (away / "checkpoint").read_text() == (tmp_path / "here/checkpoint").read_text()
    assert list((folder / "outbox").iterdir()) == []
    assert round_of(folder).publishing == ""


def test_a_long_log_is_read_on_where_it_was_and_the_status_says_how_far(
    database: Database, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signing_rounds, "TELL_SECONDS", 0.0)
    grow(3500)
    said: list[str] = []
    stop = threading.Event()

    class Watched(Signer):
        def _leave(self, state: str, problem: str) -> status.Status:
            said.append(problem)
            if "2000 of 3500" in problem:
                stop.set()
            return super()._leave(state, problem)

    signer = Watched(folder)
    signer.open()
    try:
        signer.run(stop)
        assert said[:3] == [
            f"The signer reads the log before it signs: {size} of 3500 entries."
            for size in (0, 1000, 2000)
        ]
        assert len(said) == 4, "it was told to end, and ended in the middle"
        assert "ended before it had read the log" in status.trouble()
        assert checkpoints.latest() is None
        stop.clear()
        said.clear()
        assert signer.once().state == status.SIGNING
        assert "3000 of 3500" in said[0], "what was read is not read again"
    finally:
        signer.close()
    newest = checkpoints.latest()
    assert newest is not None and bytes(newest.root) == frontier_of_the_log().root()
