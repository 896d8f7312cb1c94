"""The evidence ZIP, made here and checked by its own verifier in a Python that knows nothing of us."""

from __future__ import annotations

import hashlib
import io
import json
import random
import subprocess
import sys
import uuid
import zipfile
from base64 import b64decode
from pathlib import Path

import pytest
from django.db import transaction

from audit import exports, merkle, personal, tiles
from audit.checkpoints.signer import Signer
from audit.events import Actor, Event, Outcome, Personal, Subject
from audit.exports import evidence, rows, taking
from audit.exports.errors import NoCheckpoint, Outdated
from audit.models import Checkpoint, Export, PersonalValue
from audit.search import Filters
from tests.audit.helpers import ALICE, use, write
from tests.databases import Database

ADA = Actor("person", ALICE.id, Personal("Ada", ALICE.id))


@pytest.fixture
def signed(database: Database, settings: object, tmp_path: Path) -> Path:
    """A log of 40 entries with checkpoints of 10, 25 and 40, and three entries after them."""
    settings.SIGNER_FOLDER = tmp_path / "signer"  # type: ignore[attr-defined]
    signer = Signer(tmp_path / "signer")
    signer.open()
    for count in (10, 15, 15):
        write(*(_event(n) for n in range(count)))
        tiles.build()
        assert signer.look(at_once=True).problem == ""
    signer.close()
    write(use(), use(), use())
    return tmp_path


def _event(number: int) -> Event:
    outcome = Outcome.DENIED if number % 3 == 0 else Outcome.SUCCESS
    return use(
        actor=ADA,
        outcome=outcome,
        reason="no_grant" if outcome is Outcome.DENIED else "",
        object=Subject("key", f"k{number}", f"key {number}", None, "internal"),
    )


def made(filters: Filters | None = None) -> Export:
    size = exports.size_now("evidence")
    return exports.create(uuid.uuid4(), uuid.uuid4(), filters or Filters(), "evidence", size)


def taken(row: Export, start: int = 0) -> bytes:
    return b"".join(exports.content(Export.objects.get(pk=row.pk), start))


def opened(data: bytes) -> zipfile.ZipFile:
    archive = zipfile.ZipFile(io.BytesIO(data))
    assert archive.testzip() is None
    return archive


def verified(folder: Path, data: bytes, *words: str) -> tuple[int, str]:
    """Unpack the ZIP's verifier and let it check the ZIP, as an auditor would."""
    path = folder / "evidence.zip"
    path.write_bytes(data)
    with opened(data) as archive:
        program = Path(archive.extract("verify.py", folder))
        keys = Path(archive.extract("keys.txt", folder))
    done = subprocess.run(
        [sys.executable, "-I", str(program), str(path), "--keys", str(keys), *words],
        capture_output=True,
        text=True,
        cwd=folder,
        env={},
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def rows_of(archive: zipfile.ZipFile, name: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in archive.read(name).splitlines()]


@pytest.mark.each_database(fast="postgresql")
def test_evidence_of_the_whole_log_is_verified_by_its_own_verifier(signed: Path) -> None:
    data = taken(made())
    code, said = verified(signed, data)
    assert code == 0, said
    with opened(data) as archive:
        assert archive.namelist() == [
            "README.txt",
            "keys.txt",
            "verify.py",
            "checkpoint",
            "consistency.jsonl",
            "entries.jsonl",
            "personal.jsonl",
            "manifest.json",
        ]
        manifest = json.loads(archive.read("manifest.json"))
        assert manifest["format"] == "kms-console-evidence/1"
        assert (manifest["size"], manifest["entries"], manifest["whole"]) == (40, 40, True)
        lines = archive.read("entries.jsonl").splitlines()
        root = merkle.root_of(merkle.leaf_hash(line) for line in lines)
        checkpoint = Checkpoint.objects.get(size=40)
        assert root == bytes(checkpoint.root)
        assert archive.read("checkpoint").decode() == checkpoint.note
        earlier = rows_of(archive, "consistency.jsonl")
        assert [row["size"] for row in earlier] == [25, 10]
        assert archive.read("verify.py") == evidence.program()


def test_an_auditor_compares_with_the_checkpoint_of_last_time(signed: Path) -> None:
    (signed / "previous").write_text(Checkpoint.objects.get(size=10).note)
    data = taken(made())
    code, said = verified(signed, data, "--previous", "previous")
    assert code == 0, said


def test_evidence_of_some_entries_has_a_proof_for_each(signed: Path) -> None:
    data = taken(made(Filters(outcome="denied")))
    code, said = verified(signed, data)
    assert code == 0, said
    root = bytes(Checkpoint.objects.get(size=40).root)
    with opened(data) as archive:
        manifest = json.loads(archive.read("manifest.json"))
        assert (manifest["entries"], manifest["whole"]) == (14, False)
        assert manifest["filters"] == {"outcome": "denied"}
        lines = archive.read("entries.jsonl").splitlines()
        proofs = rows_of(archive, "proofs.jsonl")
        assert len(lines) == len(proofs) == 14
        for line, proof in zip(lines, proofs, strict=True):
            path = [b64decode(one) for one in proof["hashes"]]  # type: ignore[attr-defined]
            leaf, index = merkle.leaf_hash(line), proof["index"]
            assert index == json.loads(line)["index"]
            assert merkle.verify_inclusion(leaf, index, 40, path, root)  # type: ignore[arg-type]


@pytest.mark.parametrize("outcome", ["", "denied"])
def test_a_changed_byte_of_an_entry_is_found_in_the_evidence(signed: Path, outcome: str) -> None:
    data = taken(made(Filters(outcome=outcome)))
    with opened(data) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["entries.jsonl"] = members["entries.jsonl"].replace(b'"key 9"', b'"key 8"', 1)
    forged = io.BytesIO()
    with zipfile.ZipFile(forged, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    code, said = verified(signed, forged.getvalue())
    assert code == 1, said


@pytest.mark.exhaustive
def test_the_same_evidence_has_the_same_bytes_and_goes_on_at_any_of_them(
    signed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "ROWS", 3)
    monkeypatch.setattr(rows, "_next_count", lambda found, length: 3)
    monkeypatch.setattr(taking, "SPACING", 300)
    for filters in (Filters(), Filters(outcome="denied")):
        row = made(filters)
        whole = taken(row)
        write(use(actor=ADA), use())
        row.refresh_from_db()
        assert row.entries == json.loads(opened(whole).read("manifest.json"))["entries"]
        states = list(row.marks["at"])
        assert {state[2]["member"] for state in states} >= {0, 5}
        assert hashlib.sha256(taken(row)).digest() == hashlib.sha256(whole).digest()
        offsets = [offset for offset, _, _ in states]
        near = [n + d for n in offsets for d in (-1, 0, 1)]
        chosen = random.Random(3)
        tried = {*chosen.sample(near, 20), *chosen.sample(range(len(whole)), 10), len(whole)}
        for start in tried:
            assert taken(row, start) == whole[start:], start


def test_values_that_were_erased_are_not_in_it_and_the_proofs_stay(signed: Path) -> None:
    old = made()
    value = PersonalValue.objects.get(value="Ada")
    with opened(taken(old)) as archive:
        (kept,) = rows_of(archive, "personal.jsonl")
        assert (kept["commitment"], kept["value"]) == (value.commitment, "Ada")
        assert personal.commit(b64decode(str(kept["salt"])), "Ada") == value.commitment
    with transaction.atomic():
        personal.erase(ALICE.id)
    with pytest.raises(Outdated):
        taken(old)
    data = taken(made())
    assert b"Ada" not in data
    code, said = verified(signed, data)
    assert code == 0, said


def test_there_is_no_evidence_before_something_was_signed(database: Database) -> None:
    write(use())
    with pytest.raises(NoCheckpoint, match="no signed checkpoint yet"):
        exports.size_now("evidence")


def test_evidence_that_another_version_began_is_not_gone_on_with(
    signed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = made()
    monkeypatch.setattr(evidence, "program", lambda: b"print('another')")
    with pytest.raises(Outdated, match="upgraded"):
        taken(row)


def test_the_witness_policy_goes_with_it(
    signed: Path, settings: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = signed / "policy"
    keys = (signed / "signer" / "keys.txt").read_text().split()
    policy.write_text("".join(f"log {key}\n" for key in keys) + "quorum none\n")
    settings.WITNESS_POLICY = str(policy)  # type: ignore[attr-defined]
    data = taken(made())
    with opened(data) as archive:
        assert archive.read("policy.txt").decode() == policy.read_text()
    code, said = verified(signed, data)
    assert code == 0, said
