"""Signer and witnesses together: in one process, and as processes of their own that die."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings

from audit import checkpoints, proofs
from audit.checkpoints import keys as log_keys
from audit.checkpoints import memory, notes, signing, status, vkeys
from audit.models import Checkpoint
from audit.witness import policy
from tests.audit.checkpoints.helpers import (
    BASE_DIR,
    grow,
    round_of,
    serving,
    witness_process,
)
from tests.databases import Database
from tests.processes import Process, eventually
from tests.shell.running import free_port

ORIGIN = "example.com/audit"


@pytest.fixture
def folder(tmp_path: Path, settings: Any) -> Path:
    settings.SIGNER_FOLDER = tmp_path / "signer"
    settings.AUDIT_ORIGIN = ORIGIN
    return tmp_path / "signer"


@contextmanager
def three(tmp_path: Path, settings: Any, *, away: int = 0) -> Iterator[policy.Policy]:
    """Serve three witnesses of which `away` don't listen, and ask for two of them."""
    logs = log_keys()
    lines = [f"log {vkey}" for vkey in logs]
    with ExitStack() as stack:
        for number in range(3):
            place = tmp_path / f"witness-{number}"
            name = f"w.example/{number}"
            if number < away:
                key, url = (
                    signing.witness_key(tmp_path / f"{number}.pem", name),
                    "http://127.0.0.1:1",
                )
                vkey = key.verifier.text()
            else:
                served = stack.enter_context(serving(place, *logs, name=name))
                vkey, url = served.judge.vkey(), served.url
            lines.append(f"witness w{number} {vkey} {url}")
        lines += ["group enough 2 w0 w1 w2", "quorum enough", ""]
        settings.WITNESS_POLICY = str(tmp_path / "policy.txt")
        Path(settings.WITNESS_POLICY).write_text("\n".join(lines))
        yield policy.load(Path(settings.WITNESS_POLICY))


def test_two_of_three_witnesses_are_enough_while_one_is_away(
    database: Database, folder: Path, settings: Any, tmp_path: Path
) -> None:
    grow(3)
    settings.AUDIT_PUBLISH = [f"file://{tmp_path}/outside"]
    round_of(folder)
    with three(tmp_path, settings, away=1) as rule:
        grow(3)
        found = round_of(folder)
        assert (found.state, found.witnesses) == (status.SIGNING, "")
        newest = checkpoints.latest()
        assert newest is not None
        assert policy.satisfied(newest.note, rule)[0]
        assert [row.size for row in Checkpoint.objects.order_by("id")] == [3, 6, 6]
        assert (tmp_path / "outside/checkpoint").read_text() == newest.note
        assert (folder / "checkpoint").read_text() == newest.note
        grow(1)
        round_of(folder)  # the witnesses are told a proof from 6
        newest = checkpoints.latest()
        assert newest is not None
        assert newest.size == 7
        assert policy.satisfied(newest.note, rule)[0]
    # Later two of the three are away.
    grow(1)
    (tmp_path / "other").mkdir()
    with three(tmp_path / "other", settings, away=2):
        found = round_of(folder)
        assert found.state == status.SIGNING, "it signs, whatever witnesses do"
        assert found.witnesses.startswith("The newest checkpoint has not the witnesses")
        assert "w0: A witness can't be reached." in found.witnesses
        assert "127.0.0.1" not in found.witnesses
        assert found.witnesses in checkpoints.trouble()


def test_witnesses_remember_what_a_signer_that_began_again_would_rather_forget(
    database: Database, folder: Path, settings: Any, tmp_path: Path
) -> None:
    grow(3)
    round_of(folder)
    with three(tmp_path, settings):
        round_of(folder)
        newest = checkpoints.latest()
        assert newest is not None
        assert newest.note.count("— w.example/") == 3
        checkpoints.begin_again("to see what happens")
        found = round_of(folder)
        assert "w0: A witness does not know this log." in found.witnesses


def test_a_policy_that_can_not_be_read_does_not_keep_the_log_from_being_signed(
    database: Database, folder: Path, settings: Any, tmp_path: Path
) -> None:
    settings.WITNESS_POLICY = str(tmp_path / "none")
    settings.AUDIT_PUBLISH = [f"file://{tmp_path}/outside"]
    grow(3)
    found = round_of(folder)
    assert found.state == status.SIGNING
    assert found.witnesses == "The witness policy can't be read: No such file or directory."
    assert (tmp_path / "outside/checkpoint").exists()


def environment(database: Database, folder: Path, tmp_path: Path, **more: str) -> dict[str, str]:
    foreign = ("KMS_", "DATABASE_URL", "MATERIAL_DATABASE_URL", "REDIS_URL", "SECRET_KEY")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return {
        **kept,
        "DATABASE_URL": database.url,
        "MATERIAL_DATABASE_URL": database.material_url,
        "SECRET_KEY": django_settings.SECRET_KEY,
        "KMS_DATA": str(tmp_path / "data"),
        "KMS_SIGNER_FOLDER": str(folder),
        "KMS_AUDIT_ORIGIN": ORIGIN,
        "KMS_CHECKPOINT_SECONDS": "1",
        "KMS_WITNESS_POLICY": str(tmp_path / "policy.txt"),
        "KMS_AUDIT_PUBLISH": f"file://{tmp_path}/outside",
        "PYTHONUNBUFFERED": "1",
        **more,
    }


@pytest.mark.each_database(fast="postgresql")
def test_a_signer_and_two_witnesses_as_processes_follow_an_application_and_survive_kills(
    database: Database, folder: Path, tmp_path: Path
) -> None:
    key = signing.load_or_make(folder / "keys", ["ed25519", "ecdsa-p384"], ORIGIN)
    memory.keep(folder, memory.Memory(ORIGIN))
    ports = [free_port(), free_port()]
    names, lines = ("w.example/0", "w.example/1"), [f"log {one.verifier.text()}" for one in key]
    for number, name in enumerate(names):
        place = tmp_path / f"w{number}"
        place.mkdir()
        (place / "name").write_text(name)
        vkey = signing.witness_key(place / "key.pem", name).verifier.text()
        lines.append(f"witness w{number} {vkey} http://127.0.0.1:{ports[number]}")
    (tmp_path / "policy.txt").write_text(
        "\n".join([*lines, "group both all w0 w1", "quorum both", ""])
    )
    rule = policy.load(tmp_path / "policy.txt")
    signer_command = [sys.executable, str(BASE_DIR / "manage.py"), "signer"]

    def start_witness(number: int) -> Process:
        output = tmp_path / f"w{number}.log"
        logs = [one.verifier.text() for one in key]
        return witness_process(tmp_path / f"w{number}", output, ports[number], *logs)

    def agreed() -> notes.Tree | None:
        newest = checkpoints.latest()
        if newest is None or not policy.satisfied(newest.note, rule)[0]:
            return None
        return notes.parse_checkpoint(newest.note)[1]

    running = {number: start_witness(number) for number in (0, 1)}
    signer = Process(signer_command, environment(database, folder, tmp_path), tmp_path / "s.log")
    try:
        grow(5)
        eventually(lambda: (tree := agreed()) is not None and tree.size == 5)
        signer.kill()
        running[1].kill()
        grow(300)
        running[1] = start_witness(1)
        signer = Process(
            signer_command, environment(database, folder, tmp_path), tmp_path / "s.log"
        )
        eventually(lambda: (tree := agreed()) is not None and tree.size == 305)
        published = tmp_path / "outside/checkpoint"
        eventually(lambda: published.exists() and policy.satisfied(published.read_text(), rule)[0])
        signer.popen.terminate()
        assert signer.wait() == 0, signer.text
        for process in running.values():
            process.popen.terminate()
            assert process.wait() == 0, process.text
    finally:
        for process in (signer, *running.values()):
            process.stop()
    tree = agreed()
    assert tree is not None
    assert tree.root == proofs.root_at(305)
    known = [vkeys.parse_vkey(text) for text in log_keys()]
    for row in Checkpoint.objects.all():
        note, said = notes.parse_checkpoint(row.note)
        assert len(notes.verify(note, known)) == 2
        assert said.root == proofs.root_at(said.size)
