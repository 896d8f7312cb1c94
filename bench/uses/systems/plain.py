"""The plain server in Go (bench/peers): the least that a key server can do."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from bench.uses import load, machine
from bench.uses.systems import System
from bench.uses.work import Door, Work, native

NAME, SYNCED = "plain Go", "plain Go, fsync"
KEYS = {alias: alias for alias in ("data", "p256", "ed25519")}
WORKS = [work for work in Work if work not in (Work.BATCH_1K_GCM, Work.BATCH_100_GCM)]


@contextlib.contextmanager
def running(folder: Path, *, synced: bool) -> Iterator[System]:
    """Run the plain server; `synced`: no answer before its line is on the disk. Raises load.Missing."""
    program = load.build("peers")
    address = f"127.0.0.1:{machine.free_port()}"
    command = [str(program), "-listen", address, "-audit", str(folder / "audit.jsonl")]
    if synced:
        command.append("-sync")
    token, log = secrets.token_urlsafe(32), folder / "plain.log"
    with machine.running(command, {"PATH": os.defpath, "PLAIN_TOKEN": token}, log) as pid:
        machine.until_answers(address, pid, log)
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        requests = native(Door(address, headers), KEYS, {work: {} for work in WORKS})
        name = SYNCED if synced else NAME
        yield System(name, (address,), requests, {"server": (pid,)})
