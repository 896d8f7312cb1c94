"""A set-up console with one cast, for every test that needs more than an empty database.

Ada is administrator; Olga, Otto and Oona are officers; Udo is auditor. The application `billing`
may encrypt, decrypt and generate data keys with the key `invoices`; `stranger` has a token and no
grant. `internal` keys need no votes; `patient-health` needs two of three officers and rotates every
90 days. Set-up is done once per session and database; each test gets a copy. Loaded as a plugin by
tests/conftest.py.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.hashers import PBKDF2PasswordHasher
from django.db.models import DateTimeField, F
from django.test.utils import override_settings

from audit import personal, verifier
from audit.models import Entry
from audit.writer import close_appender
from keys import administration, jobs, limits, sealing, snapshot
from keys.algorithms import SPECS
from keys.backends import registry
from keys.callers import Caller, Door, Kind, Method, Role
from keys.errors import PendingApproval
from keys.gate import record
from keys.models import Approval, Credential, Grant, Job, Key, KeyStore, KeyVersion, Principal
from keys.secret import Secret
from keys.services import operator
from keys.states import VERSION_EDGES, VersionState
from tests.databases import ALIASES, Database, connected_to
from tests.processes import Broker

PEOPLE = {
    "ada": ("Ada", Role.ADMINISTRATOR),
    "olga": ("Olga", Role.OFFICER),
    "otto": ("Otto", Role.OFFICER),
    "oona": ("Oona", Role.OFFICER),
    "udo": ("Udo", Role.AUDITOR),
}
# Every ordered pair of different version states: 42, of which states.VERSION_EDGES allows 13.
ALL_PAIRS = list(itertools.permutations(VersionState, 2))
LEGAL_PAIRS = [(a, b) for a, b in ALL_PAIRS if b in VERSION_EDGES[a]]


class QuickHasher(PBKDF2PasswordHasher):
    """Django's own password hash with one round: other processes verify it without being told."""

    iterations = 1


def password(username: str) -> str:
    return f"correct horse battery of {username}"


@dataclass
class House:
    """One test's console: its cast, and short ways to get it into a state."""

    database: Database
    folder: Path
    tokens: dict[str, str] = field(repr=False)
    environment: dict[str, str] = field(repr=False)
    # Set to False by a test that leaves the database out of reach.
    reachable: bool = True
    # Set to False by a test that forges what the log would tell.
    honest: bool = True
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def person(self, username: str) -> Caller:
        """Return a signed-in person at the console's door, with a new request id."""
        row = Principal.objects.get(user__username=username)
        return Caller(row.id, Kind.PERSON, row.name, Role(row.role), Method.SESSION, Door.CONSOLE)

    @property
    def ada(self) -> Caller:
        return self.person("ada")

    @property
    def olga(self) -> Caller:
        return self.person("olga")

    @property
    def otto(self) -> Caller:
        return self.person("otto")

    @property
    def oona(self) -> Caller:
        return self.person("oona")

    @property
    def udo(self) -> Caller:
        return self.person("udo")

    def application(self, name: str, source: str = "127.0.0.1") -> Caller:
        """Return an application with its token at the API's door."""
        row = Principal.objects.get(name=name)
        credential = row.credentials.order_by("created_at")[0]
        return Caller(
            row.id,
            Kind.APPLICATION,
            row.name,
            Role.NONE,
            Method.BEARER,
            Door.REST,
            credential_id=credential.id,
            source=source,
        )

    @property
    def billing(self) -> Caller:
        return self.application("billing")

    @property
    def stranger(self) -> Caller:
        return self.application("stranger")

    @property
    def invoices(self) -> Key:
        return Key.objects.get(alias="invoices")

    def token(self, application: str) -> str:
        """Return the bearer token of an application, as a client sends it."""
        return self.tokens[application]

    def password(self, username: str) -> str:
        return password(username)

    def key(self, classification: str = "internal", spec: str = "AES_256", **more: Any) -> Key:
        """Return a new key, made by Olga."""
        name = more.pop("name", f"Key {next(self._numbers)}")
        return administration.create_key(self.olga, classification, name=name, spec=spec, **more)

    def version(self, key: Key, number: int) -> KeyVersion:
        return key.versions.get(number=number)

    def grant(self, application: str, key: Key, *operations: str, **more: Any) -> Grant:
        """Grant operations on one key, by Olga; votes included where they are needed."""
        wanted = {"operations": list(operations), "key": str(key.id), **more}
        try:
            return administration.create_grant(self.olga, application, **wanted)
        except PendingApproval as pending:
            self.approve(pending.extra["approval"])
        return Grant.objects.filter(principal__name=application, key=key).latest("created_at")

    def approve(
        self, approval_id: str, by: Iterable[Caller] | None = None, *, execute: bool = True
    ) -> Approval:
        """Cast approving votes (Otto's and Oona's), carry the request out as the worker does."""
        approval = Approval.objects.get(pk=approval_id)
        for officer in (self.otto, self.oona) if by is None else by:
            administration.vote(officer, str(approval_id), approve=True, digest=approval.digest)
        if execute:
            administration.execute(str(approval_id))
        approval.refresh_from_db()
        return approval

    def pending(self, change: Any, caller: Caller, reference: str, **arguments: Any) -> Approval:
        """Ask for a change that needs votes, and return its request."""
        with pytest.raises(PendingApproval) as pending:
            change(caller, reference, **arguments)
        return Approval.objects.get(pk=pending.value.extra["approval"])

    def move(self, key: Key, number: int, to: VersionState | str, **more: Any) -> KeyVersion:
        """Move a version by Olga's hand."""
        to = str(to)
        return administration.transition_version(
            self.olga, str(key.id), number=number, to=to, **more
        )

    def let_days_pass(self, days: int) -> None:
        """Move every date that is waited for into the past by `days`.

        The database's clock can't be moved, and the windows are checked by it, so what is stored
        moves instead. Requests keep their dates, which are part of what was voted on.
        """
        for model in (Key, KeyVersion, Job, Credential, Grant):
            dates = [f.name for f in model._meta.fields if isinstance(f, DateTimeField)]
            model.objects.update(**{name: F(name) - timedelta(days=days) for name in dates})
        snapshot.cache.forget()

    def run_due_jobs(self) -> list[Job]:
        """Carry out what is due, in this process, as the worker would."""
        return [jobs.run(identity) for identity in jobs.due()]

    def version_in(
        self, state: VersionState | str, classification: str = "internal", **more: Any
    ) -> tuple[Key, int]:
        """Return a new key and the number of its version in this state, reached by legal steps."""
        state = VersionState(state)
        key = self.key(classification, **more)
        number = 1
        if state == VersionState.PRE_ACTIVE:
            administration.rotate_key(self.olga, str(key.id), activate=False)
            number = 2
        elif state in (VersionState.DEACTIVATED, VersionState.DESTROYED):
            administration.rotate_key(self.olga, str(key.id))
        elif state in (VersionState.COMPROMISED, VersionState.DESTROYED_COMPROMISED):
            self.move(key, 1, VersionState.COMPROMISED, reason="a laptop was stolen")
        elif state == VersionState.SUSPENDED:
            self.move(key, 1, VersionState.SUSPENDED)
        if state in (VersionState.DESTROYED, VersionState.DESTROYED_COMPROMISED):
            self.move(key, 1, state)
            KeyVersion.objects.filter(key=key, number=1).update(
                destroy_at=F("destroy_at") - timedelta(days=31)
            )
            job = Job.objects.get(key=key, kind="destroy_version")
            Job.objects.filter(pk=job.pk).update(run_after=F("run_after") - timedelta(days=31))
            assert jobs.run(job.id).state == "succeeded"
        key.refresh_from_db()
        assert key.versions.get(number=number).state == state
        return key, number

    def entries(self, **filters: Any) -> list[dict[str, Any]]:
        """Return what entries say as people read them, oldest first; `filters` are columns of Entry."""
        rows = Entry.objects.filter(**filters).order_by("index")
        bodies = [json.loads(bytes(row.body)) for row in rows]
        revealed: list[dict[str, Any]] = personal.revealed(
            bodies, personal.opened(personal.texts(bodies))
        )
        return revealed

    def last_entry(self, **filters: Any) -> dict[str, Any]:
        return self.entries(**filters)[-1]


def _set_up() -> dict[str, str]:
    """Set the console up as a person would, and return the applications' tokens."""
    people = [
        {"name": name, "username": username, "role": role.value, "password": password(username)}
        for username, (name, role) in PEOPLE.items()
    ]
    administration.set_up(operator(), people=Secret(json.dumps(people).encode()))
    administration.create_key_store(operator(), name="software", kind="software")
    administration.create_classification(
        operator(),
        name="internal",
        title="Internal",
        allowed_specs=sorted(SPECS),
        key_stores=["software"],
    )
    administration.create_classification(
        operator(),
        name="patient-health",
        title="Patient health",
        allowed_specs=sorted(SPECS),
        key_stores=["software"],
        rotation_days=90,
        quorum_m=2,
        quorum_n=3,
    )
    row = Principal.objects.get(user__username="olga")
    olga = Caller(row.id, Kind.PERSON, row.name, Role.OFFICER, Method.SESSION, Door.CONSOLE)
    administration.create_key(olga, "internal", name="Invoices", spec="AES_256")
    tokens = {}
    for name in ("billing", "stranger"):
        administration.create_application(operator(), name=name)
        issued = administration.issue_credential(operator(), name)
        tokens[name] = issued.token.reveal().decode()
    administration.create_grant(
        olga, "billing", operations=["encrypt", "decrypt", "generate_data_key"], key="invoices"
    )
    return tokens


@contextlib.contextmanager
def _quick(root_key: Path, place: Broker) -> Iterator[None]:
    """Settings of a house in tests: a root key of its own, quick passwords, its own broker's place."""
    hashers = ["tests.house.QuickHasher", *settings.PASSWORD_HASHERS]
    with (
        override_settings(PASSWORD_HASHERS=hashers, ROOT_KEY_FILE=root_key, REDIS_URL=place.url),
        _celery_at(place.url),
    ):
        yield


@contextlib.contextmanager
def _celery_at(url: str) -> Iterator[None]:
    """Point this process's Celery application at a broker; where none runs, it is refused at once."""
    from kms_console.celery import app

    def point(to: str) -> None:
        app.conf.broker_url = to
        if app._pool is not None:
            app._pool.force_close_all()
        app._pool = app.amqp._producer_pool = None

    before = app.conf.broker_url
    if before != url:
        point(url)
    yield


@dataclass(frozen=True, slots=True)
class Furnished:
    """A set-up console to copy: files or databases by alias, and its applications' tokens."""

    template: dict[str, Any]
    tokens: dict[str, str]


@pytest.fixture(scope="session")
def root_key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of this session's root key, made for it."""
    path = tmp_path_factory.mktemp("root-key") / "root-key"
    with override_settings(ROOT_KEY_FILE=path):
        sealing.create_root_key()
    return path


def _furnish(url: str, material_url: str, root_key: Path, place: Broker, unblock: Any) -> Any:
    with unblock(), connected_to(url, material_url), _quick(root_key, place):
        snapshot.cache.forget()
        try:
            return _set_up()
        finally:
            close_appender()
            snapshot.cache.forget()


@pytest.fixture(scope="session")
def sqlite_house(
    sqlite_template: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
    root_key: Path,
    broker_place: Broker,
    django_db_blocker: Any,
) -> Furnished:
    """The files of a set-up console that nobody has open, and its tokens."""
    folder = tmp_path_factory.mktemp("sqlite-house")
    paths = {alias: folder / f"{alias}.sqlite3" for alias in ALIASES}
    for alias, path in paths.items():
        shutil.copyfile(sqlite_template[alias], path)
    urls = [f"sqlite:///{paths[alias]}" for alias in ALIASES]
    tokens = _furnish(urls[0], urls[1], root_key, broker_place, django_db_blocker.unblock)
    return Furnished(paths, tokens)


@pytest.fixture(scope="session")
def postgresql_house(
    postgresql_server: Any,
    postgresql_template: dict[str, str],
    root_key: Path,
    broker_place: Broker,
    django_db_blocker: Any,
) -> Furnished:
    """The names of a set-up console's databases that nobody is connected to, and its tokens."""
    names = {alias: f"house_{alias}" for alias in ALIASES}
    for alias, name in names.items():
        postgresql_server.create(name, postgresql_template[alias])
    urls = [postgresql_server.url(names[alias]) for alias in ALIASES]
    tokens = _furnish(urls[0], urls[1], root_key, broker_place, django_db_blocker.unblock)
    return Furnished(names, tokens)


def _environment(database: Database, folder: Path, root_key: Path, place: Broker) -> dict[str, str]:
    foreign = ("KMS_", "REDIS_URL", "DATABASE_URL", "MATERIAL_DATABASE_URL", "SECRET_KEY")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return {
        **kept,
        "DJANGO_SETTINGS_MODULE": "kms_console.settings",
        "DATABASE_URL": database.url,
        "MATERIAL_DATABASE_URL": database.material_url,
        "KMS_DATA": str(folder),
        "KMS_ROOT_KEY_PATH": str(root_key),
        "REDIS_URL": place.url,
        "SECRET_KEY": settings.SECRET_KEY,
        "KMS_SWEEP_SECONDS": "1",
        "PYTHONUNBUFFERED": "1",
    }


@pytest.fixture
def house(
    database: Database,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    root_key: Path,
    broker_place: Broker,
) -> Iterator[House]:
    """This test's own set-up console. Afterwards its log must still be whole."""
    tokens = request.getfixturevalue(f"{database.vendor}_house").tokens
    folder = tmp_path / "data"
    folder.mkdir()
    environment = _environment(database, folder, root_key, broker_place)
    with _quick(root_key, broker_place):
        snapshot.cache.forget()
        record.forget()
        limits.forget()
        made = House(database, folder, tokens, environment)
        try:
            yield made
            if made.reachable:
                report = verifier.verify()
                assert report.ok is made.honest, report.problem
        finally:
            if made.reachable:
                for store in KeyStore.objects.all():
                    registry.forget(store.id)
            snapshot.cache.forget()
