"""`manage.py up` as a real process, for tests: its lines, its answers, its children."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kms_console.supervisor import processes
from kms_console.supervisor.probe import Readiness, readiness

BASE_DIR = Path(__file__).resolve().parent.parent.parent
# What `up` itself allows for a start, and more: a bound against hanging, not a measure of speed.
PATIENCE = 300.0
PARTS = ["broker", "worker", "beat", "web", "signer", "trail"]
READY = "KMS Console is ready"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def up_environment() -> dict[str, str]:
    """Return this process's environment without what names another data folder or server."""
    foreign = {"KMS_DATA", "DATABASE_URL", "MATERIAL_DATABASE_URL", "REDIS_URL"}
    foreign |= {"KMS_ROOT_KEY", "KMS_ROOT_KEY_PATH"}
    kept = {name: value for name, value in os.environ.items() if name not in foreign}
    return {**kept, "KMS_SWEEP_SECONDS": "1", "PYTHONUNBUFFERED": "1"}


class Up:
    """A running `up`. Its lines are read as they come."""

    def __init__(self, data: Path, port: int, *options: str) -> None:
        self.data = data
        self.address = f"http://127.0.0.1:{port}"
        self.lines: list[str] = []
        command = [sys.executable, "manage.py", "up", "--port", str(port), "--data", str(data)]
        self.process = subprocess.Popen(
            [*command, *options],
            cwd=BASE_DIR,
            env=up_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            process_group=0,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            self.lines.extend(line.rstrip("\n") for line in lines)

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    def wait_for_line(self, text: str) -> str:
        """Return the first line with `text`; fail with all that was said where none comes."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            for line in list(self.lines):
                if text in line:
                    return line
            if self.process.poll() is not None and not self._reader.is_alive():
                break
            time.sleep(0.05)
        raise AssertionError(f"no line with {text!r} in:\n{self.output}")

    def wait_for_end(self) -> int:
        code = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return code

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def readiness(self) -> Readiness:
        return readiness(self.address, {})

    def pids(self) -> dict[str, int]:
        """Return the pid of every part that runs."""
        found = {name: processes.running(self.data / "run" / f"{name}.pid") for name in PARTS}
        return {name: pid for name, pid in found.items() if pid is not None}

    def stopped(self) -> list[str]:
        """Return the parts in the order in which they were stopped."""
        return [line.split()[1] for line in self.lines if line.startswith("Stopping ")]


@contextmanager
def running_up(data: Path, port: int, *options: str) -> Iterator[Up]:
    """Start `up`; whatever the test does, nothing of it is left running afterwards."""
    up = Up(data, port, *options)
    try:
        yield up
    finally:
        if up.process.poll() is None:
            up.process.kill()
            up.wait_for_end()
        for pid in up.pids().values():
            processes.signal_group(pid, signal.SIGKILL)


def recorded_pid(path: Path) -> int:
    """Return the pid in a pid file, whatever has become of the process."""
    return int(json.loads(path.read_text())["pid"])
