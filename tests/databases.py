"""Real databases for tests: each test gets its own copy of a migrated template.

Tests commit, run threads and start processes, and the log's triggers forbid to clean up behind
them; so nothing is rolled back or flushed, the copy is thrown away. `database` is SQLite; tests
marked `each_database` run on SQLite and on PostgreSQL. Loaded as a plugin by tests/conftest.py.
"""

from __future__ import annotations

import contextlib
import itertools
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from asgiref.local import Local
from django.core.management import call_command
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from kms_console.databases import from_url
from tests.postgresql import PostgreSQL

ALIASES = ("default", "material")
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Database:
    """This test's databases. The URLs suit DATABASE_URL and MATERIAL_DATABASE_URL of a process.

    `server` is the PostgreSQL server, None on SQLite.
    """

    vendor: str
    url: str
    material_url: str
    server: PostgreSQL | None = None

    @property
    def path(self) -> Path:
        """The file of the SQLite database."""
        assert self.vendor == "sqlite"
        return Path(self.url.removeprefix("sqlite:///"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    marker = metafunc.definition.get_closest_marker("each_database")
    if marker is None or "database" not in metafunc.fixturenames:
        return
    # `fast`: the one database that `make test` has time for; the other is exhaustive.
    fast = marker.kwargs.get("fast")
    later = pytest.mark.exhaustive
    vendors = [
        pytest.param(vendor, marks=[later] if fast not in (None, vendor) else [])
        for vendor in ("sqlite", "postgresql")
    ]
    metafunc.parametrize("database", vendors, indirect=True)


@contextlib.contextmanager
def connected_to(url: str, material_url: str) -> Iterator[None]:
    """Point Django, in all threads, at these databases; on leaving close whatever was opened."""
    opened: list[BaseDatabaseWrapper] = []

    def remember(connection: BaseDatabaseWrapper, **_: Any) -> None:
        opened.append(connection)

    before = {alias: dict(connections.settings[alias]) for alias in ALIASES}
    handler: Any = connections
    storage = handler._connections
    connection_created.connect(remember)
    try:
        _point({"default": from_url(url), "material": from_url(material_url)})
        # Another engine needs another wrapper, and in every thread: give all of them a new store.
        handler._connections = Local(handler.thread_critical)
        yield
    finally:
        connection_created.disconnect(remember)
        for connection in opened:
            connection.inc_thread_sharing()
            connection.close()
            connection.dec_thread_sharing()
        _point(before)
        handler._connections = storage


def _point(databases: dict[str, dict[str, Any]]) -> None:
    """Change the settings in place: wrappers and settings.DATABASES hold the same dicts."""
    for alias, wanted in connections.configure_settings(databases).items():
        connections.settings[alias].clear()
        connections.settings[alias].update(wanted)


def _migrate(url: str, material_url: str, unblock: Any) -> None:
    with unblock(), connected_to(url, material_url):
        for alias in ALIASES:
            call_command("migrate", database=alias, verbosity=0)


@pytest.fixture(scope="session")
def sqlite_template(
    tmp_path_factory: pytest.TempPathFactory, django_db_blocker: Any
) -> dict[str, Path]:
    """The files of two migrated SQLite databases that nobody has open."""
    folder = tmp_path_factory.mktemp("sqlite-template")
    paths = {alias: folder / f"{alias}.sqlite3" for alias in ALIASES}
    _migrate(
        f"sqlite:///{paths['default']}",
        f"sqlite:///{paths['material']}",
        django_db_blocker.unblock,
    )
    return paths


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[PostgreSQL]:
    """A PostgreSQL server of our own, on a unix socket."""
    with PostgreSQL.running() as server:
        yield server


@pytest.fixture(scope="session")
def postgresql_template(postgresql_server: PostgreSQL, django_db_blocker: Any) -> dict[str, str]:
    """The names of two migrated PostgreSQL databases that nobody is connected to."""
    names = {alias: f"template_{alias}" for alias in ALIASES}
    for name in names.values():
        postgresql_server.create(name)
    _migrate(
        postgresql_server.url(names["default"]),
        postgresql_server.url(names["material"]),
        django_db_blocker.unblock,
    )
    return names


def _template(request: pytest.FixtureRequest, vendor: str) -> Any:
    """Return what to copy: a set-up console where the test asks for a `house` (tests/house.py)."""
    if "house" in request.fixturenames:
        return request.getfixturevalue(f"{vendor}_house").template
    return request.getfixturevalue(f"{vendor}_template")


@contextlib.contextmanager
def _sqlite_copy(request: pytest.FixtureRequest) -> Iterator[Database]:
    template = _template(request, "sqlite")
    folder = request.getfixturevalue("tmp_path") / "databases"
    folder.mkdir()
    urls = {}
    for alias, path in template.items():
        shutil.copyfile(path, folder / path.name)
        urls[alias] = f"sqlite:///{folder / path.name}"
    yield Database("sqlite", urls["default"], urls["material"])


@contextlib.contextmanager
def _postgresql_copy(request: pytest.FixtureRequest) -> Iterator[Database]:
    server: PostgreSQL = request.getfixturevalue("postgresql_server")
    template = _template(request, "postgresql")
    number = next(_numbers)
    names = {alias: f"test_{number}_{alias}" for alias in ALIASES}
    for alias, name in names.items():
        server.create(name, template[alias])
    try:
        yield Database(
            "postgresql", server.url(names["default"]), server.url(names["material"]), server
        )
    finally:
        for name in names.values():
            server.drop(name)


@pytest.fixture
def database(request: pytest.FixtureRequest, django_db_blocker: Any) -> Iterator[Database]:
    """This test's own migrated databases, with Django pointed at them in all threads."""
    vendor = getattr(request, "param", "sqlite")
    copy = _postgresql_copy if vendor == "postgresql" else _sqlite_copy
    from audit import guard, refusals
    from audit.writer import close_appender

    with (
        copy(request) as made,
        django_db_blocker.unblock(),
        connected_to(made.url, made.material_url),
    ):
        try:
            yield made
        finally:
            refusals.forget()
            close_appender()
            guard.forget()
