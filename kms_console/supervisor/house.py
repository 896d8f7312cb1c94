"""All children together: started in order, watched, and stopped in an order."""

from __future__ import annotations

import itertools
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import IO

from kms_console.supervisor import Refusal, probe
from kms_console.supervisor.child import Child, Part, RestartPolicy
from kms_console.supervisor.folder import DataFolder

TICK_SECONDS = 0.1
READY_SECONDS = 120.0
BROKER_SECONDS = 20.0
# One Ctrl-C can arrive twice: a terminal or `timeout` signals the group, and make passes it on.
SAME_SIGNAL_SECONDS = 1.0
SHOWN_LINES = 8
# What the start doesn't wait for: a store that is away, and what is started only afterwards.
NOT_WAITED_FOR = {"key_stores", "signer", "trail", "streams", "archive"}


class Stopped(Exception):
    """Somebody asked for the end while we were waiting for something else."""


class StopSignals:
    """Counts what asks us to end: the first says stop, the second says at once."""

    NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self) -> None:
        self.count = 0
        self._last = 0.0

    def install(self) -> None:
        for number in self.NUMBERS:
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.count == 0 or now - self._last > SAME_SIGNAL_SECONDS:
            self.count += 1
            self._last = now

    @property
    def stop(self) -> bool:
        return self.count >= 1

    @property
    def at_once(self) -> bool:
        return self.count >= 2


class House:
    """The children of one run."""

    def __init__(
        self,
        folder: DataFolder,
        signals: StopSignals,
        say: Callable[[str], None],
        policy: RestartPolicy | None = None,
        stop_order: Sequence[str] = (),
    ) -> None:
        self.children: list[Child] = []
        self._folder = folder
        self._signals = signals
        self._say = say
        self._policy = policy or RestartPolicy()
        self._stop_order = list(stop_order)
        self._since = datetime.now(UTC)

    def start(self, part: Part) -> None:
        """Start a part that stays."""
        child = Child(part, self._folder, self._say)
        self.children.append(child)
        child.start()

    def step(self, part: Part) -> None:
        """Run a part to its end. Raises Refusal where it fails, with the end of its log."""
        self._run(Child(part, self._folder, self._say), None)

    def ask(self, part: Part) -> str:
        """Run a part to its end and return what it printed, which goes into no log."""
        with tempfile.TemporaryFile(dir=self._folder.run) as answer:
            self._run(Child(part, self._folder, self._say), answer)
            answer.seek(0)
            return answer.read().decode("utf-8", "replace")

    def _run(self, child: Child, answer: IO[bytes] | None) -> None:
        self.children.append(child)
        child.start(answer)
        while child.alive():
            self._tick(except_for=child)
            child.relay()
        self.children.remove(child)
        child.forget()
        if child.exit_code != 0:
            lines = [line for line in child.last_lines(SHOWN_LINES) if line.strip()]
            last = lines[-1].strip() if lines else f"exit code {child.exit_code}"
            raise Refusal(f"{child.part.name} failed: {last} (all of it: {child.log})")

    def wait_for_broker(self, socket_path: Path) -> None:
        """Return when the embedded broker answers. Raises Refusal where it doesn't in time."""
        deadline = time.monotonic() + BROKER_SECONDS
        while not _answers_ping(socket_path):
            if time.monotonic() > deadline:
                raise Refusal(f"The broker doesn't answer: see {self._folder.logs / 'broker.log'}.")
            self._tick()

    def wait_until_ready(self, address: str, environ: Mapping[str, str]) -> probe.Readiness:
        """Return the first good answer of /readyz. Raises Refusal, with the reason, in the end.

        A key store that can't be reached is no reason to keep the rest from its users; whatever
        we start ourselves must be there, and must have been seen since we started it.
        """
        deadline = time.monotonic() + READY_SECONDS
        while True:
            answer = probe.readiness(address, environ)
            missing = self._missing(answer)
            if not missing:
                return answer
            if time.monotonic() > deadline:
                raise Refusal(
                    f"Not ready after {READY_SECONDS:g} s: {missing} See {self._folder.logs}."
                )
            for _ in range(3):
                self._tick()

    def _missing(self, answer: probe.Readiness) -> str:
        if answer.http_status != 200:
            return answer.reason
        for name, part in answer.parts.items():
            if name in NOT_WAITED_FOR:
                continue
            if part.get("status") != "ok":
                return f"{name}: {part.get('reason', part.get('status'))}"
            seen = part.get("seen")
            if seen is not None and datetime.fromisoformat(seen) < self._since:
                return f"{name}: not seen since this start"
        return ""

    def watch(self) -> None:
        """Keep everything running. Raises Stopped where somebody asked for the end, and Refusal
        where a child can't be kept running.
        """
        while True:
            self._tick()

    def _tick(self, except_for: Child | None = None) -> None:
        """Look after all children once. Raises Stopped where somebody asked for the end."""
        if self._signals.stop:
            raise Stopped
        for child in self.children:
            if child is not except_for:
                child.watch(self._policy)
        time.sleep(TICK_SECONDS)

    def stop(self) -> bool:
        """End all children in the stop order, others first, the last started first of those.

        Several of a kind are asked together: it takes as long as the slowest of them. Returns
        whether all went by themselves.
        """
        clean = True
        waiting = sorted(self.children, key=self._turn)
        for _, alike in itertools.groupby(waiting, key=lambda child: _kind(child.part.name)):
            clean &= self._stop(list(alike))
        self.children.clear()
        return clean

    def _turn(self, child: Child) -> tuple[int, int]:
        order, kind = self._stop_order, _kind(child.part.name)
        return order.index(kind) if kind in order else -1, -self.children.index(child)

    def _stop(self, children: Sequence[Child]) -> bool:
        """Ask these children to end, and end those that don't in their time."""
        clean, begun = True, time.monotonic()
        running = [child for child in children if child.alive()]
        for child in running:
            self._say(f"Stopping {child.part.name} (process {child.pid})")
            if not self._signals.at_once:
                child.terminate()
        while running := [child for child in running if child.alive()]:
            for child in running:
                child.relay()
                if self._signals.at_once or time.monotonic() - begun > child.part.grace:
                    self._kill(child)
                    clean = False
            time.sleep(TICK_SECONDS / 2)
        for child in children:
            child.forget()
        return clean

    def _kill(self, child: Child) -> None:
        if not self._signals.at_once:
            self._say(f"{child.part.name} did not end in {child.part.grace:g} s: killed.")
        child.kill()


def _kind(name: str) -> str:
    """Return what a part is: web for web-2."""
    kind, _, number = name.rpartition("-")
    return kind if number.isdigit() else name


def _answers_ping(path: Path) -> bool:
    """Whether a Valkey or Redis answers PING on the unix socket `path`."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(2)
            connection.connect(str(path))
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False
