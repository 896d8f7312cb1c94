"""Several real processes on one log: together, forked, and killed in the middle."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from audit.models import Entry
from audit.verifier import verify
from audit.writer import appender, head
from tests.audit.helpers import use
from tests.databases import Database

pytestmark = pytest.mark.each_database
ROOT = Path(__file__).resolve().parent.parent.parent
SECONDS = 120


def start(database: Database, folder: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = os.environ | {
        "DATABASE_URL": database.url,
        "MATERIAL_DATABASE_URL": database.material_url,
        "KMS_DATA": str(folder / "data"),
    }
    return subprocess.Popen(
        [sys.executable, "-m", "tests.audit.worker", *arguments],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> dict[str, int]:
    """Wait for a process to end well; return what was acknowledged to it."""
    output, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, errors
    return acknowledged(output.splitlines())


def acknowledged(lines: list[str]) -> dict[str, int]:
    return {line.split()[0]: int(line.split()[1]) for line in lines}


def stored() -> dict[str, int]:
    return {str(uuid): index for uuid, index in Entry.objects.values_list("uuid", "index")}


def test_two_processes_share_one_log_without_gap_or_fork(
    database: Database, tmp_path: Path
) -> None:
    processes = [start(database, tmp_path, "appends", name, "300") for name in ("a", "b")]
    first, second = [finish(process) for process in processes]
    assert first | second == stored()
    assert sorted(stored().values()) == list(range(600))
    assert verify().ok


def test_a_forked_child_appends_by_itself(database: Database, tmp_path: Path) -> None:
    entries = finish(start(database, tmp_path, "forks"))
    assert len(entries) == 108
    assert entries == stored()
    assert verify().ok


def test_no_acknowledged_entry_is_lost_when_its_process_is_killed(
    database: Database, tmp_path: Path
) -> None:
    known: dict[str, int] = {}
    for enough in (1, 40, 150):
        process = start(database, tmp_path, "appends", f"until-{enough}", "1000000")
        assert process.stdout is not None and process.stderr is not None
        lines = [process.stdout.readline() for _ in range(enough)]
        process.kill()
        # What was acknowledged before the kill may still stand in the pipe.
        rest, _ = process.communicate(timeout=SECONDS)
        lines += [line for line in rest.splitlines() if len(line.split()) == 2]
        known |= acknowledged(lines)
        report = verify()
        assert report.ok, report
        assert known.items() <= stored().items()
    # The log goes on where it ended.
    size = head().size
    assert appender().submit(use(), epoch=0, subjects=frozenset()).result() == size
    assert uuid.UUID(max(known)) and len(known) >= 191
