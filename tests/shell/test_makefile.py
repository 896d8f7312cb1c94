"""The Makefile and .ci/run: what they say they do."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.parts import missing

BASE_DIR = Path(__file__).resolve().parent.parent.parent
MAKEFILE = (BASE_DIR / "Makefile").read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def _make() -> None:
    if shutil.which("make") is None:
        missing("make", "make")


def make(
    *words: str, folder: Path = BASE_DIR, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    environ = {k: v for k, v in os.environ.items() if k not in {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}}
    return subprocess.run(
        [shutil.which("make") or "make", *words],
        cwd=folder,
        env={**environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder with the Makefile and locks, and a virtual environment that looks installed."""
    for name in ("Makefile", "requirements.lock", "requirements-dev.lock"):
        shutil.copy(BASE_DIR / name, tmp_path / name)
    binaries = tmp_path / ".venv" / "bin"
    binaries.mkdir(parents=True)
    python = binaries / "python"
    python.write_text('#!/bin/sh\necho "python $*"\n')
    python.chmod(0o755)
    for stamp in (".made", ".runtime", ".development"):
        (tmp_path / ".venv" / stamp).touch()
    return tmp_path


def test_make_alone_lists_every_target() -> None:
    shown = make().stdout
    phony = re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    assert phony is not None
    for target in phony[1].split():
        assert re.search(rf"^  make {target}\b +\S", shown, re.MULTILINE), target
    assert make("help").stdout == shown


def test_run_takes_port_and_data_as_they_are_written(clone: Path) -> None:
    assert make("-s", "run", folder=clone).stdout == (
        "python manage.py up --demo --port 8000 --data ./var\n"
    )
    assert make("-s", "run", "PORT=8123", "DATA=some 'odd' folder", folder=clone).stdout == (
        "python manage.py up --demo --port 8123 --data some 'odd' folder\n"
    )


def test_the_last_command_of_run_takes_the_shells_place() -> None:
    """Else a signal to the recipe would end the shell and leave `up` running."""
    for target in ("run", "test", "test-exhaustive"):
        recipe = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)
        assert recipe is not None
        assert recipe[1].splitlines()[-1].startswith("\t@exec ")


def test_nothing_is_installed_again_until_the_lock_changes(clone: Path) -> None:
    assert "Installing" not in make("setup", folder=clone).stdout
    stamp = (clone / ".venv" / ".development").stat().st_mtime
    os.utime(clone / "requirements-dev.lock", (stamp + 5, stamp + 5))
    assert "Installing requirements-dev.lock into .venv" in make("setup", folder=clone).stdout


def test_packages_are_installed_by_their_hashes_only() -> None:
    installs = [line for line in MAKEFILE.splitlines() if "pip install" in line]
    assert len(installs) == 2, "uv's and pip's"
    assert all("--require-hashes" in line for line in installs)


def only(tmp_path: Path, *names: str) -> dict[str, str]:
    """Return an environment whose PATH leads to these programs and nothing else."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sh", *names):
        (folder / name).symlink_to(shutil.which(name) or f"/bin/{name}")
    return {"PATH": str(folder)}


def test_a_missing_python_is_told_in_plain_words(clone: Path, tmp_path: Path) -> None:
    shutil.rmtree(clone / ".venv")
    ended = make("setup", "SHELL=/bin/sh", folder=clone, env=only(tmp_path))
    assert ended.returncode != 0
    assert "KMS Console needs Python 3.11 or newer, and none was found." in ended.stderr
    assert not (clone / ".venv").exists()


def test_a_python_that_can_not_make_environments_is_told_what_to_install(
    clone: Path, tmp_path: Path
) -> None:
    """Debian's python3 without python3-venv: it can do everything but import ensurepip."""
    shutil.rmtree(clone / ".venv")
    env = only(tmp_path)
    python = tmp_path / "bin" / "python3"
    python.write_text('#!/bin/sh\ncase "$2" in *ensurepip*) exit 1;; esac\nexit 0\n')
    python.chmod(0o755)
    ended = make("setup", "SHELL=/bin/sh", folder=clone, env=env)
    assert ended.returncode != 0
    assert "Debian: apt-get install python3-venv" in ended.stderr


def test_ci_runs_the_checks_and_then_the_tests_last() -> None:
    script = BASE_DIR / ".ci" / "run"
    assert os.access(script, os.X_OK)
    lines = [line for line in script.read_text().splitlines() if line and not line.startswith("#")]
    assert "set -euo pipefail" in lines
    assert "export CI=true" in lines
    assert lines[-3:] == ["make check", "make peers", 'make test ARGS="-p no:cacheprovider"']
    assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0
