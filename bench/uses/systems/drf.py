"""A plain view of Django REST framework with a row of audit for each request: bench/drf_baseline."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from bench import parts
from bench.uses import machine
from bench.uses.systems import System
from bench.uses.work import Door, Work, native
from tests.postgresql import PostgreSQL

NAME = "plain DRF view"
KEYS = {alias: alias for alias in ("data", "p256", "ed25519")}
WORKS = (Work.ENCRYPT, Work.DECRYPT, Work.DATA_KEY, Work.SIGN_P256, Work.SIGN_ED25519)
FOREIGN = ("KMS_", "DATABASE_URL", "DJANGO_")


@contextlib.contextmanager
def running(folder: Path) -> Iterator[System]:
    """Run the view under uvicorn and a2wsgi, on a PostgreSQL of its own, which syncs to a disk."""
    with PostgreSQL.running(parts._folder()) as server:
        server.create("baseline")
        kept = {name: text for name, text in os.environ.items() if not name.startswith(FOREIGN)}
        environment = {
            **kept,
            "DJANGO_SETTINGS_MODULE": "bench.drf_baseline.settings",
            "BASELINE_DATABASE_URL": server.url("baseline"),
        }
        command = [sys.executable, "-m", "bench.drf_baseline"]
        done = subprocess.run(
            command, cwd=machine.ROOT, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"the baseline can't be set up: {done.stderr[-800:]}")
        token = json.loads(done.stdout)["token"]
        postmaster = int((server.folder / "data" / "postmaster.pid").read_text().split()[0])
        address, log = f"127.0.0.1:{machine.free_port()}", folder / "drf.log"
        command = [sys.executable, "-m", "uvicorn", "bench.drf_baseline.asgi:application"]
        command += ["--host", "127.0.0.1", "--port", address.partition(":")[2]]
        command += ["--loop", "uvloop", "--http", "httptools", "--no-access-log"]
        command += ["--no-proxy-headers", "--no-server-header", "--no-date-header"]
        with machine.running(command, environment, log) as pid:
            machine.until_answers(address, pid, log)
            headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
            requests = native(Door(address, headers), KEYS, {work: {} for work in WORKS})
            roots = {"server": (pid,), "database": (postmaster,)}
            yield System(NAME, (address,), requests, roots)
