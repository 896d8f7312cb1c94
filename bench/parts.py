"""What the measurements stand on: real databases on a real disk, and events like those of real uses."""

from __future__ import annotations

import contextlib
import random
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from django.core.management import call_command

from audit.events import Actor, Event, Outcome, Subject
from tests.databases import ALIASES, connected_to
from tests.postgresql import PostgreSQL

BUILD = Path(__file__).resolve().parent.parent / "build" / "bench"
# A socket's path has at most 107 bytes.
SOCKET_LIMIT = 70


@dataclass(frozen=True, slots=True)
class Databases:
    """Where the databases are; they suit DATABASE_URL and MATERIAL_DATABASE_URL of a process.

    `folder` is the SQLite files' or the PostgreSQL server's.
    """

    vendor: str
    url: str
    material_url: str
    folder: Path


def _folder() -> str:
    BUILD.mkdir(parents=True, exist_ok=True)
    BUILD.chmod(0o755)
    return str(BUILD) if len(str(BUILD)) <= SOCKET_LIMIT else tempfile.gettempdir()


@contextlib.contextmanager
def postgresql() -> Iterator[Databases]:
    """Run a PostgreSQL with fsync on, on a disk; Django is pointed at its two migrated databases."""
    with PostgreSQL.running(_folder()) as server:
        for alias in ALIASES:
            server.create(alias)
        made = Databases("postgresql", server.url("default"), server.url("material"), server.folder)
        with _migrated(made):
            yield made


@contextlib.contextmanager
def sqlite() -> Iterator[Databases]:
    """Make two migrated SQLite files (WAL, synchronous=FULL) on a disk and point Django at them."""
    folder = Path(tempfile.mkdtemp(prefix="kms-sqlite-", dir=_folder()))
    urls = [f"sqlite:///{folder}/{alias}.sqlite3" for alias in ALIASES]
    try:
        with _migrated(Databases("sqlite", *urls, folder)) as made:
            yield made
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _migrated(made: Databases) -> Iterator[Databases]:
    from audit import guard
    from audit.writer import close_appender

    with connected_to(made.url, made.material_url):
        for alias in ALIASES:
            call_command("migrate", database=alias, verbosity=0)
        try:
            yield made
        finally:
            close_appender()
            guard.forget()


DATABASES = {"postgresql": postgresql, "sqlite": sqlite}


class Uses:
    """A house that is busy: `make()` returns one event after the other, as uses of keys make them."""

    def __init__(self, keys: int = 1000, applications: int = 20, seed: int = 1) -> None:
        self._random = random.Random(seed)
        self._keys = [str(self._uuid()) for _ in range(keys)]
        self._actors = [
            Actor("application", str(self._uuid()), f"application {number}")
            for number in range(applications)
        ]
        self._number = 0
        # Busy keys come more often than others.
        self._order = [int(keys * self._random.random() ** 2) for _ in range(5000)]
        self._sources = [f"192.0.2.{number}" for number in range(250)]

    def _uuid(self) -> uuid.UUID:
        return uuid.UUID(int=self._random.getrandbits(128), version=4)

    def make(self) -> Event:
        """Return the event of one use: a busy key more often than others, one in fifty refused."""
        self._number += 1
        number = self._number
        key = self._order[number % len(self._order)]
        identity = self._keys[key]
        denied = number % 50 == 0
        return Event(
            actor=self._actors[number % len(self._actors)],
            method="bearer",
            door="rest",
            action=("encrypt", "decrypt", "sign", "generate_data_key")[number % 4],
            object=Subject("key", identity, f"key-{key}", 1 + key % 3, "confidential"),
            outcome=Outcome.DENIED if denied else Outcome.SUCCESS,
            reason="no_grant" if denied else "",
            source=self._sources[number % 250],
            request_id=f"{number:032x}",
            facts={"grant": identity, "credential": self._keys[key - 1], "context": ["tenant"]},
        )


def events(count: int, seed: int = 1) -> list[Event]:
    """Return events like those of real uses."""
    uses = Uses(seed=seed)
    return [uses.make() for _ in range(count)]
