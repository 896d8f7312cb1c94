"""One child process: started in a group of its own, its log, and when it is started again."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from kms_console.supervisor import Refusal, processes
from kms_console.supervisor.folder import DataFolder

LOG_LIMIT = 20 * 1024 * 1024
READ_LIMIT = 64 * 1024

# How our children begin a line: Django's format (with a time before the level) or uvicorn's.
_FIRST_LINE = re.compile(
    r"^(?:\d{4}-\d\d-\d\d \S+ )?(?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL)\b"
    r"|^Traceback \(|^System check identified some"
)
_LOUD = {"WARNING", "ERROR", "CRITICAL", None}  # None: a traceback or a finding of Django's checks


@dataclass(frozen=True)
class Part:
    """What is started, and how long it may take to stop."""

    name: str
    command: Sequence[str]
    grace: float  # seconds between SIGTERM and SIGKILL
    folder: Path  # working directory
    environment: Mapping[str, str]
    vital: bool = True  # whether all must end where it can't be kept running
    echo: bool = True  # whether warnings and errors in its log are shown on the terminal too


@dataclass(frozen=True)
class RestartPolicy:
    """After which pause a child that died by itself starts again, and when that is given up."""

    first_pause: float = 0.5  # seconds; doubled with every further failure
    longest_pause: float = 30.0
    settled_after: float = 60.0  # seconds; a child that lived so long starts counting anew
    failures: int = 5  # this many in a row are the end

    def pause(self, failures: int) -> float:
        return min(self.first_pause * 2.0 ** min(failures - 1, 30), self.longest_pause)


class Child:
    """A part as a process. All of its methods are called from one thread and don't wait."""

    def __init__(self, part: Part, folder: DataFolder, say: Callable[[str], None]) -> None:
        self.part = part
        self.log = folder.logs / f"{part.name}.log"
        self.pid_file = folder.run / f"{part.name}.pid"
        self.failures = 0
        self._say = say
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._start_again: float | None = None
        self._read = 0
        self._partial = b""
        self._loud = False

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    def start(self, answer: IO[bytes] | None = None) -> None:
        """Start the process, its output appended to its log. Raises Refusal where that fails.

        With `answer` standard output goes there, and only the rest into the log.
        """
        if self.log.exists() and self.log.stat().st_size > LOG_LIMIT:
            self.log.replace(self.log.with_suffix(".log.1"))
        try:
            # The child writes its log itself: whatever becomes of us, it isn't left with a broken
            # pipe, and not a line is lost.
            with self.log.open("ab") as log:
                self._read = log.tell()
                self._process = subprocess.Popen(  # noqa: S603  (our own command lines)
                    list(self.part.command),
                    stdin=subprocess.DEVNULL,
                    stdout=answer if answer is not None else log,
                    stderr=log,
                    cwd=self.part.folder,
                    env=dict(self.part.environment),
                    process_group=0,  # a Ctrl-C at the terminal must not reach it before us
                )
        except OSError as error:
            raise Refusal(f"{self.part.name} can't be started: {error.strerror}.") from None
        self._partial, self._loud = b"", False
        self._started, self._start_again = time.monotonic(), None
        processes.write_pid_file(self.pid_file, self._process.pid)

    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def watch(self, policy: RestartPolicy) -> None:
        """Start the process again, after a pause, where it ended by itself.

        Raises Refusal where it has failed too often in a row and is vital.
        """
        self.relay()
        if self.alive():
            return
        now = time.monotonic()
        if self._start_again is None:
            self.failures = 1 if now - self._started >= policy.settled_after else self.failures + 1
            ending = self._ending()
            if self.failures >= policy.failures and self.part.vital:
                raise Refusal(
                    f"{self.part.name} {ending}, {self.failures} times in a row: see {self.log}."
                )
            pause = policy.pause(self.failures)
            self._say(f"{self.part.name} {ending}; starting it again in {pause:g} s ({self.log}).")
            self._start_again = now + pause
        if now >= self._start_again:
            self.start()

    @property
    def exit_code(self) -> int | None:
        """How the process ended; None while it runs."""
        return self._process.poll() if self._process is not None else None

    def terminate(self) -> None:
        """Ask the process to end."""
        if self._process is not None and self.alive():
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the process and all of its group at once."""
        if self._process is not None and self.alive():
            processes.signal_group(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def forget(self) -> None:
        """Remove the pid file of a process that has ended."""
        self.relay()
        self.pid_file.unlink(missing_ok=True)

    def relay(self) -> None:
        """Show what the log has got in the way of warnings and errors since the last call."""
        if not self.part.echo:
            return
        try:
            with self.log.open("rb") as log:
                log.seek(self._read)
                new = log.read(READ_LIMIT)
        except OSError:
            return
        self._read += len(new)
        *lines, self._partial = (self._partial + new).split(b"\n")
        for line in lines:
            written = line.decode("utf-8", "replace")
            first = _FIRST_LINE.match(written)
            if first is not None:
                self._loud = first["level"] in _LOUD
            if self._loud:
                self._say(f"{self.part.name}: {written}")

    def last_lines(self, count: int) -> list[str]:
        """Return the end of the log."""
        try:
            return self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-count:]
        except OSError:
            return []

    def _ending(self) -> str:
        code = self._process.returncode if self._process is not None else None
        if code is not None and code < 0:
            return f"was ended by {signal.Signals(-code).name}"
        return f"ended by itself (exit code {code})"
