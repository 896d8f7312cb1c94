"""The load generator and the plain server: built from Go where it is there, and run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.uses import machine
from bench.uses.work import Work

BENCH = machine.ROOT / "bench"
BUILT = machine.ROOT / "build" / "bench" / "bin"
WARM = 0.2  # seconds


class Missing(Exception):
    """What is measured or measured with can't be had here; the message says what to install."""


def go() -> str:
    """Return Go's path. Raises Missing."""
    found = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if found is None:
        raise Missing("Go (https://go.dev)")
    return found


def build(name: str) -> Path:
    """Return the program made from the folder bench/`name`. Raises Missing."""
    BUILT.mkdir(parents=True, exist_ok=True)
    program = BUILT / name
    environment = {**os.environ, "GOTOOLCHAIN": "local", "GOPROXY": "off", "GOFLAGS": ""}
    command = [go(), "build", "-trimpath", "-buildvcs=false", "-o", str(program), "."]
    done = subprocess.run(
        command, cwd=BENCH / name, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise Missing(f"a newer Go: the build of bench/{name} failed, {done.stderr[-400:]}")
    return program


@dataclass(frozen=True, slots=True)
class Loaded:
    """What came of one run of the load generator; waits are milliseconds."""

    requests: int
    served: int
    errors: int
    first_error: str
    reconnects: int
    seconds: float
    p50: float
    p99: float
    p999: float
    processor: float


class Loader:
    """The load generator with every system's requests in files."""

    def __init__(self, folder: Path) -> None:
        self._program = build("load")
        self._folder = folder
        self._folders: dict[tuple[str, Work], Path] = {}

    def keep(self, system: str, requests: Mapping[Work, Sequence[bytes]]) -> None:
        """Write a system's requests where the generator reads them."""
        for work, rows in requests.items():
            folder = Path(tempfile.mkdtemp(dir=self._folder))
            for number, content in enumerate(rows):
                (folder / f"{number:03}").write_bytes(content)
            self._folders[system, work] = folder

    def __call__(
        self, system: str, addresses: Sequence[str], work: Work, connections: int, seconds: float
    ) -> Loaded:
        """Ask one system for one kind of work. Raises RuntimeError where the generator fails."""
        command = [str(self._program), "-addresses", ",".join(addresses)]
        command += ["-requests", str(self._folders[system, work]), "-warm", str(WARM)]
        command += ["-connections", str(connections), "-seconds", str(seconds)]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=machine.PATIENCE, check=False
        )
        if done.returncode:
            raise RuntimeError(f"the load generator failed: {done.stderr[-400:]}")
        told = json.loads(done.stdout)
        for name in ("p50", "p99", "p999"):
            told[name] /= 1000
        return Loaded(**told)
