"""One real service for these tests, started once, and clients of it.

Django is not set up for a test here: an application that uses the client has none.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from audit import guard, refusals, verifier
from audit.writer import close_appender
from keys import administration, snapshot
from kms_console_client import AsyncClient, Client
from tests.api.test_processes import serving
from tests.databases import Database, connected_to
from tests.house import Furnished, House, _environment, _quick
from tests.peers.faults import FaultProxy
from tests.processes import Broker


@dataclass
class Service:
    """A running console: `billing` may use `invoices`, `signing` and `macs`."""

    house: House
    root_key: Path
    place: Broker
    unblock: Callable[..., Any]
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @contextmanager
    def inside(self) -> Iterator[House]:
        """Work on the console's databases from here, as its operator and its people do."""
        urls = self.house.database.url, self.house.database.material_url
        with self.unblock(), connected_to(*urls), _quick(self.root_key, self.place):
            snapshot.cache.forget()
            try:
                yield self.house
            finally:
                refusals.forget()
                close_appender()
                guard.forget()
                snapshot.cache.forget()

    def new_token(self) -> tuple[str, str]:
        """Return another token of `billing`'s, and its credential's id."""
        with self.inside():
            issued = administration.issue_credential(self.house.ada, "billing")
            return issued.token.reveal().decode(), str(issued.credential.id)


@pytest.fixture(scope="session")
def service(
    sqlite_house: Furnished,
    tmp_path_factory: pytest.TempPathFactory,
    root_key: Path,
    broker_place: Broker,
    django_db_blocker: Any,
) -> Iterator[Service]:
    """A console that serves on a port of 127.0.0.1. Afterwards its log must still be whole."""
    folder = tmp_path_factory.mktemp("client")
    urls = []
    for path in sqlite_house.template.values():
        shutil.copyfile(path, folder / path.name)
        urls.append(f"sqlite:///{folder / path.name}")
    database = Database("sqlite", urls[0], urls[1])
    environment = _environment(database, folder, root_key, broker_place)
    house = House(database, folder, sqlite_house.tokens, environment)
    made = Service(house, root_key, broker_place, django_db_blocker.unblock)
    with made.inside():
        for name, spec, operations in (
            ("signing", "ECC_NIST_P256", ("sign", "verify", "public_key")),
            ("macs", "HMAC_256", ("mac", "verify_mac")),
        ):
            house.grant("billing", house.key(spec=spec, name=name, alias=name), *operations)
    with serving(house) as server:
        made.port = server.port
        yield made
    with made.inside():
        report = verifier.verify()
        assert report.ok, report.problem


@pytest.fixture
def token(service: Service) -> str:
    return service.house.token("billing")


@pytest.fixture
def client(service: Service, token: str) -> Iterator[Client]:
    with Client(service.url, token, timeout=60) as one:
        yield one


@pytest.fixture
def proxy(service: Service) -> Iterator[FaultProxy]:
    """What stands between a client and the service, and lets things go wrong."""
    with FaultProxy("127.0.0.1", service.port) as one:
        yield one


@dataclass
class Asker:
    """Calls either kind of client in the same way, each time with a new one where `keep` is not."""

    kind: str

    def __call__(
        self, url: str, token: str, *calls: tuple[str, tuple[Any, ...]], **how: Any
    ) -> Any:
        """Make calls one after the other on one client; return the last one's answer."""
        how = {"timeout": 60.0, **how}
        if self.kind == "waiting":
            with Client(url, token, **how) as client:
                return [getattr(client, name)(*given) for name, given in calls][-1]

        async def ask() -> Any:
            async with AsyncClient(url, token, **how) as client:
                return [await getattr(client, name)(*given) for name, given in calls][-1]

        return asyncio.run(ask())


@pytest.fixture(params=["waiting", "asyncio"])
def ask(request: pytest.FixtureRequest) -> Asker:
    return Asker(request.param)
