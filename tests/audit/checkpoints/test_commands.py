"""`manage.py signer` and `manage.py witness` on the command line."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from audit.checkpoints import notes, vkeys
from tests.audit.checkpoints.helpers import grow
from tests.databases import Database


@pytest.fixture
def folder(tmp_path: Path, settings: Any) -> Path:
    settings.SIGNER_FOLDER = tmp_path / "signer"
    return tmp_path / "signer"


def said(*words: str) -> str:
    output = StringIO()
    call_command(*words, stdout=output, stderr=output)
    return output.getvalue()


def test_once_signs_what_is_new_and_prints_it(database: Database, folder: Path) -> None:
    with pytest.raises(CommandError, match="No keys are known here"):
        said("signer", "--keys")
    grow(3)
    tree = notes.parse_checkpoint(said("signer", "--once"))[1]
    assert tree.size == 3
    keys = [vkeys.parse_vkey(line) for line in said("signer", "--keys").splitlines()]
    assert [key.kind for key in keys] == [vkeys.ED25519, vkeys.ECDSA_P384]
    assert {key.name for key in keys} == {tree.origin}


def test_beginning_again_needs_a_reason_and_a_signer(database: Database, folder: Path) -> None:
    with pytest.raises(CommandError, match="No signer ever worked"):
        said("signer", "--begin-again", "restored")
    grow(3)
    tree = notes.parse_checkpoint(said("signer", "--once"))[1]
    with pytest.raises(CommandError, match="Say why"):
        said("signer", "--begin-again", " ")
    assert f"{tree.origin}/2" in said("signer", "--begin-again", "restored")


def test_a_refusal_is_a_command_that_fails_with_a_sentence(
    database: Database, folder: Path
) -> None:
    grow(3)
    said("signer", "--once")
    memory = (folder / "memory.json").read_text()
    (folder / "memory.json").write_text(memory.replace('"size": 3', '"size": 4'))
    with pytest.raises(CommandError, match="memory is gone or damaged"):
        said("signer", "--once")


def test_a_witness_prints_its_key_without_any_database(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        call_command("witness", "--folder", str(tmp_path / "w"), "--key")
    assert ended.value.code == 0
    assert vkeys.parse_vkey(capfd.readouterr().out).kind == vkeys.COSIGNATURE
