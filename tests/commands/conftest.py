"""New data folders for commands: migrated databases that nobody has set up, and no root key yet."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.test.utils import override_settings

from audit.models import Entry
from audit.writer import close_appender
from keys import snapshot
from keys.callers import Caller, Door, Kind, Method, Role
from keys.models import Key, Principal
from tests.databases import ALIASES, Database, connected_to
from tests.house import _quick
from tests.processes import Broker


@dataclass
class Folder:
    """A data folder, and what commands wrote when they ran on it."""

    path: Path
    database: Database
    written: list[str] = field(default_factory=list)
    # How many entries the log had when the folder was handed to the test.
    entries: int = 0

    @property
    def secrets(self) -> Path:
        return self.path / "secrets"

    @property
    def root_key(self) -> Path:
        return self.secrets / "root-key"

    def run(self, name: str, *words: str) -> str:
        """Run a command as a person types it, and return what it printed on standard output."""
        out = StringIO()
        try:
            call_command(name, *words, stdout=out)
        finally:
            self.written.append(out.getvalue())
        return out.getvalue()

    def person(self, username: str) -> Caller:
        """Return a person who signed in at the console."""
        row = Principal.objects.get(user__username=username)
        return Caller(row.id, Kind.PERSON, row.name, Role(row.role), Method.SESSION, Door.CONSOLE)

    def key(self, alias: str) -> Key:
        return Key.objects.get(alias=alias)


def furnished(path: Path, made: Database, place: Broker) -> Iterator[Folder]:
    """Yield a data folder on `made`, to which Django is connected already."""
    folder = Folder(path, made)
    folder.secrets.mkdir(parents=True, mode=0o700)
    with (
        override_settings(SECRETS_DIR=folder.secrets, DATA_DIR=path),
        _quick(folder.root_key, place),
    ):
        snapshot.cache.forget()
        try:
            yield folder
        finally:
            close_appender()
            snapshot.cache.forget()


@pytest.fixture
def folder(database: Database, tmp_path: Path, broker_place: Broker) -> Iterator[Folder]:
    """A new data folder for one test."""
    yield from furnished(tmp_path / "data", database, broker_place)


@pytest.fixture(scope="module")
def demo(
    sqlite_template: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
    broker_place: Broker,
    django_db_blocker: Any,
) -> Iterator[Folder]:
    """The worked example, loaded once for all tests of a module, which only look at it."""
    base = tmp_path_factory.mktemp("demo")
    urls = {}
    for alias in ALIASES:
        shutil.copyfile(sqlite_template[alias], base / f"{alias}.sqlite3")
        urls[alias] = f"sqlite:///{base / f'{alias}.sqlite3'}"
    made = Database("sqlite", urls["default"], urls["material"])
    with django_db_blocker.unblock(), connected_to(made.url, made.material_url):
        for folder in furnished(base / "data", made, broker_place):
            folder.run("prepare")
            folder.run("load_demo")
            folder.entries = Entry.objects.count()
            yield folder
