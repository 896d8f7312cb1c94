"""A PostgreSQL server for the tests: real, with fsync, on a unix socket only, ended with them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg

from tests.parts import missing

PR_SET_PDEATHSIG = 1
START_SECONDS = 60


def _end_with_parent() -> None:
    """Have the kernel stop the server where the tests are killed."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGINT)


def _short_folder() -> str:
    """Return where the server's folder goes: memory where there is enough, since a copied
    database is three hundred files.

    A socket's path has at most 107 bytes, so not in pytest's deep folders.
    """
    memory = Path("/dev/shm")
    if memory.is_dir() and os.access(memory, os.W_OK):
        space = os.statvfs(memory)
        if space.f_bavail * space.f_frsize > 1 << 30:
            return str(memory)
    return tempfile.gettempdir()


def _binaries() -> Path:
    """Return the folder of the newest installed version's programs."""
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/postgres"),
        key=lambda path: int(path.parts[-3]),
    )
    if found:
        return found[-1].parent
    if path := shutil.which("postgres"):
        return Path(path).parent
    missing("PostgreSQL", "the package postgresql")
    raise AssertionError("missing() does not return")


class PostgreSQL:
    """One server. Its socket and data lie in one short-named folder of their own."""

    def __init__(self, folder: Path, binaries: Path) -> None:
        self.folder = folder
        self._binaries = binaries
        self._process: subprocess.Popen[bytes] | None = None
        self._version = 0
        # One connection for all that is made and dropped: a new one costs as much as a drop.
        self._own: psycopg.Connection[Any] | None = None
        # PostgreSQL refuses to run as root.
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:
            user = pwd.getpwnam("postgres")
            os.chown(folder, user.pw_uid, user.pw_gid)
            self._as = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}

    @classmethod
    @contextlib.contextmanager
    def running(cls, within: str | None = None) -> Iterator[PostgreSQL]:
        """Make a new server, in the folder `within` where one is named, and start it; stop and
        remove it on leaving.
        """
        binaries = _binaries()
        with tempfile.TemporaryDirectory(
            prefix="kms-pg-", dir=within or _short_folder(), ignore_cleanup_errors=True
        ) as folder:
            server = cls(Path(folder), binaries)
            server._initialise()
            server.start()
            try:
                yield server
            finally:
                server.stop()

    def _initialise(self) -> None:
        command = [
            self._binaries / "initdb",
            "--pgdata=" + str(self.folder / "data"),
            "--auth=trust",  # the folder is its owner's alone
            "--username=postgres",
            "--encoding=UTF8",
            "--no-locale",
            "--no-sync",
        ]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, **self._as)
        assert done.returncode == 0, done.stderr

    def start(self) -> None:
        """Start the server and wait until it answers."""
        command = [
            self._binaries / "postgres",
            "-D",
            str(self.folder / "data"),
            "-c",
            "listen_addresses=",
            "-c",
            f"unix_socket_directories={self.folder}",
        ]
        with (self.folder / "log").open("ab") as output:
            self._process = subprocess.Popen(
                command,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # Ctrl-C is for pytest, which then stops the server.
                start_new_session=True,
                preexec_fn=_end_with_parent,
                **self._as,
            )
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                with psycopg.connect(self.url("postgres")) as connection:
                    self._version = connection.info.server_version // 10_000
                return
            except psycopg.OperationalError:
                alive = self._process.poll() is None
                if not alive or time.monotonic() > deadline:
                    raise AssertionError((self.folder / "log").read_text()) from None
                time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop the server: SIGINT disconnects everybody, SIGQUIT is a crash with recovery."""
        if self._process is None:
            return
        self._hang_up()
        self._process.send_signal(how)
        try:
            self._process.wait(START_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(START_SECONDS)
        self._process = None

    def url(self, name: str) -> str:
        """Return the DATABASE_URL of a database of this server."""
        return f"postgresql://postgres@{quote(str(self.folder), safe='')}/{name}"

    def create(self, name: str, template: str | None = None) -> None:
        """Create a database, as a copy of `template` where one is named."""
        copied = f' TEMPLATE "{template}"' if template else ""
        if template and self._version >= 15:  # older ones know no other way
            copied += " STRATEGY file_copy"
        self._command(f'CREATE DATABASE "{name}"' + copied)

    def drop(self, name: str) -> None:
        """Drop a database, and whoever is still connected to it."""
        self._command(f'DROP DATABASE "{name}" WITH (FORCE)')

    def _command(self, sql: str) -> None:
        if self._own is None or self._own.closed:
            self._own = psycopg.connect(self.url("postgres"), autocommit=True)
        try:
            self._own.execute(sql)
        except psycopg.OperationalError:  # a test ended all connections of the server
            self._hang_up()
            self._own = psycopg.connect(self.url("postgres"), autocommit=True)
            self._own.execute(sql)

    def _hang_up(self) -> None:
        if self._own is not None:
            self._own.close()
            self._own = None
