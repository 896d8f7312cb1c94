"""`manage.py up` for real: every process, its start, its watch, its end."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kms_console.supervisor import processes
from kms_console.supervisor.folder import lock, open_folder
from tests.shell.running import (
    BASE_DIR,
    PARTS,
    PATIENCE,
    READY,
    free_port,
    running_up,
    up_environment,
)

STOPPED = ["web", "beat", "worker", "trail", "signer", "broker"]


def refused(*options: str) -> str:
    """Run `up` where it refuses, and return the one line that it says."""
    ended = subprocess.run(
        [sys.executable, "manage.py", "up", *options],
        cwd=BASE_DIR,
        env=up_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert ended.returncode == 1
    assert ended.stdout == ""
    lines = ended.stderr.splitlines()
    assert len(lines) == 1, ended.stderr
    return lines[0]


def marks(data: Path) -> list[tuple[str]]:
    connection = sqlite3.connect(data / "metadata" / "metadata.sqlite3")
    try:
        return connection.execute("SELECT session_key FROM django_session").fetchall()
    finally:
        connection.close()


def leave_mark(data: Path) -> None:
    connection = sqlite3.connect(data / "metadata" / "metadata.sqlite3")
    with connection:
        connection.execute("INSERT INTO django_session VALUES ('a mark', '', '2099-01-01')")
    connection.close()


def open_to_others(data: Path) -> list[str]:
    """Return everything in the data folder that somebody but its owner could get at."""
    found = [data, *data.rglob("*")]
    assert len(found) > 10
    return [str(path) for path in found if path.lstat().st_mode & 0o077]


def wait_until_other(path: Path, pid: int) -> int:
    """Return the pid of the process that took the place of `pid`."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        found = processes.running(path)
        if found not in (None, pid):
            return found
        time.sleep(0.05)
    raise AssertionError(f"nothing took the place of process {pid}")


def test_it_starts_stops_in_order_restarts_and_keeps_its_data(tmp_path: Path) -> None:
    data, port = tmp_path / "a folder", free_port()

    with running_up(data, port, "--demo") as first:
        first.wait_for_line(READY)
        account = first.wait_for_line("Ada Lindqvist").split()
        answer = first.readiness()
        assert (answer.http_status, answer.status) == (200, "ok"), answer
        assert {"database", "log", "broker", "worker", "beat"} <= set(answer.parts)
        pids = first.pids()
        assert list(pids) == PARTS
        assert all(os.getpgid(pid) == pid for pid in pids.values()), "each in a group of its own"
        first.signal(signal.SIGINT)
        assert first.wait_for_end() == 0, first.output
        assert first.stopped() == STOPPED
        assert first.pids() == {}
        assert all(processes.identity(pid) is None for pid in pids.values())
        assert "Traceback" not in first.output
    secrets = {file: file.read_bytes() for file in (data / "secrets").iterdir() if file.is_file()}
    assert {"django-secret-key", "root-key"} <= {file.name for file in secrets}
    logs = "".join(log.read_text() for log in (data / "logs").iterdir())
    assert account[1] not in logs, "the password that was printed stands in no log"
    assert open_to_others(data) == []
    leave_mark(data)

    # The second run is killed as a power cut would kill it: its children stay behind.
    with running_up(data, port) as second:
        second.wait_for_line(READY)
        left = second.pids()
        second.signal(signal.SIGKILL)
        second.wait_for_end()
        assert second.pids() == left

        # The third ends them, watches its own, and stops on SIGTERM too.
        with running_up(data, port) as third:
            third.wait_for_line(READY)
            ended = [line for line in third.lines if line.startswith("Ending ")]
            assert [line.split()[1] for line in ended] == STOPPED
            assert all(processes.identity(pid) is None for pid in left.values())
            worker = third.pids()["worker"]
            os.kill(worker, signal.SIGKILL)
            third.wait_for_line("worker was ended by SIGKILL; starting it again")
            wait_until_other(data / "run" / "worker.pid", worker)
            third.signal(signal.SIGTERM)
            assert third.wait_for_end() == 0, third.output
            assert third.stopped() == STOPPED
    assert {file: file.read_bytes() for file in secrets} == secrets
    assert marks(data) == [("a mark",)]


def prepare(data: Path) -> subprocess.CompletedProcess[str]:
    """Run the step that every start begins with."""
    return subprocess.run(
        [sys.executable, "manage.py", "prepare"],
        cwd=BASE_DIR,
        env={**up_environment(), "KMS_DATA": str(data)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def migrated(data: Path, template: dict[str, Path]) -> Path:
    """Make a data folder whose databases are there already: to migrate them takes most of a start."""
    for alias, name in (("default", "metadata"), ("material", "material")):
        folder = data / name
        folder.mkdir(parents=True, mode=0o700)
        shutil.copyfile(template[alias], folder / f"{name}.sqlite3")
        (folder / f"{name}.sqlite3").chmod(0o600)
    return data


def test_a_lost_root_key_is_asked_for_and_not_replaced(
    tmp_path: Path, sqlite_template: dict[str, Path]
) -> None:
    migrated(tmp_path, sqlite_template)
    assert prepare(tmp_path).returncode == 0
    (tmp_path / "secrets" / "root-key").unlink()
    connection = sqlite3.connect(tmp_path / "material" / "material.sqlite3")
    with connection:
        connection.execute(
            "INSERT INTO software_wrappedmaterial "
            "(label, store_id, spec, wrapped, root_id, check_value, created_at, exportable) "
            "VALUES ('00', '00', 'aes-256', x'00', '', '', '2026-01-01', 0)"
        )
    connection.close()
    ended = prepare(tmp_path)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith(
        "CommandError: The root key is gone: put it back at "
    )
    assert not (tmp_path / "secrets" / "root-key").exists()


def test_a_second_ctrl_c_ends_everything_at_once(
    tmp_path: Path, sqlite_template: dict[str, Path]
) -> None:
    with running_up(migrated(tmp_path / "data", sqlite_template), free_port()) as up:
        up.wait_for_line("Starting worker, beat and web")
        pids = up.pids()
        os.kill(pids["broker"], signal.SIGSTOP)  # it can't hear that it should end
        up.signal(signal.SIGINT)
        up.wait_for_line("Stopping broker")
        time.sleep(1.1)  # the same Ctrl-C heard twice within a second counts once
        up.signal(signal.SIGINT)
        assert up.wait_for_end() == 130, up.output
        assert up.pids() == {}


def test_a_taken_port_is_refused_in_one_line(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        line = refused("--port", str(port), "--data", str(tmp_path / "data"))
    assert line.startswith(f"up: Port {port} on 127.0.0.1 is taken")
    assert not (tmp_path / "data" / "metadata").exists()


def test_a_data_folder_that_can_not_be_written_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    line = refused("--port", str(free_port()), "--data", str(tmp_path / "file" / "data"))
    assert line.startswith("up: The data folder ")
    assert "can't be written" in line


def test_a_second_up_on_the_same_folder_is_refused_in_one_line(tmp_path: Path) -> None:
    with lock(open_folder(tmp_path / "data")):
        line = refused("--port", str(free_port()), "--data", str(tmp_path / "data"))
    assert line.startswith("up: Another `up` is running on ")
    assert f"(process {os.getpid()})" in line


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_the_worked_example_is_not_served_beyond_this_machine(tmp_path: Path, host: str) -> None:
    line = refused("--demo", "--host", host, "--data", str(tmp_path / "data"))
    assert "is not a loopback address" in line
    assert not (tmp_path / "data").exists()


def test_help_names_the_command_and_its_options() -> None:
    for words in (["up", "--help"], ["help", "up"]):
        shown = subprocess.run(
            [sys.executable, "manage.py", *words],
            cwd=BASE_DIR,
            env=os.environ.copy(),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=True,
        ).stdout
        assert all(option in shown for option in ("--host", "--port", "--data", "--demo"))
