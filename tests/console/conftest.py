"""The console in tests: browsers of Django's own kind, signed in as one of the cast."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from django.test import Client

from kms_console.web import throttle
from tests.console.furniture import Furnished, furnished_once
from tests.house import House, password
from tests.keys import remote
from tests.keys.remote import Vendor

SignedIn = Callable[[str], Client]


def signed_in_client(username: str, **options: bool) -> Client:
    """Return a client that went through the sign-in page, as a person would."""
    client = Client(**options)
    answer = client.post("/sign-in", {"username": username, "password": password(username)})
    assert answer.status_code == 302, answer.content.decode()
    return client


@pytest.fixture(autouse=True)
def nobody_is_throttled() -> Iterator[None]:
    throttle.forget()
    yield
    throttle.forget()


@pytest.fixture
def olga(house: House) -> Client:
    return signed_in_client("olga")


@pytest.fixture
def ada(house: House) -> Client:
    return signed_in_client("ada")


@pytest.fixture
def udo(house: House) -> Client:
    return signed_in_client("udo")


@pytest.fixture
def furnished(house: House, tmp_path_factory: pytest.TempPathFactory) -> Furnished:
    """This test's house, with something to show on every page."""
    return furnished_once(house, tmp_path_factory.getbasetemp() / "furnished")


@pytest.fixture
def vendor(house: House) -> Iterator[Vendor]:
    """The owner of the key store `cloud`, which keeps states of its own."""
    with remote.furnished(house) as found:
        yield found


@pytest.fixture(autouse=True)
def no_kind_is_left_behind() -> Iterator[None]:
    yield
    remote.unregister()
