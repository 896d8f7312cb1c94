"""The key stores under test: real ones, in this process and in a bounded pool."""

from __future__ import annotations

import base64
import os
import uuid
from collections.abc import Iterator

import pytest

from keys.backends.base import Backend
from keys.backends.bounded import Bounded
from keys.backends.pkcs11.backend import Pkcs11Backend
from keys.backends.software.backend import SoftwareBackend
from keys.secret import Secret
from tests.databases import Database
from tests.hsm import Token

STORE_ID = uuid.UUID("5f0c6f5e-0d0b-4f4e-9f55-3a0f0a5c0001")


@pytest.fixture
def root_key(monkeypatch: pytest.MonkeyPatch) -> str:
    """A root key of this test's own, by the environment."""
    key = base64.b64encode(os.urandom(32)).decode()
    monkeypatch.setenv("KMS_ROOT_KEY", key)
    return key


@pytest.fixture
def software(database: Database, root_key: str) -> Iterator[SoftwareBackend]:
    backend = SoftwareBackend(STORE_ID, {}, None)
    yield backend
    backend.close()


@pytest.fixture
def hsm(softhsm: Token) -> Iterator[Pkcs11Backend]:
    backend = Pkcs11Backend(STORE_ID, softhsm.settings, Secret(softhsm.pin.encode()))
    yield backend
    backend.close()


@pytest.fixture(params=["software", "pkcs11", "bounded"])
def store(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """Each key store in turn; everything the contract promises must hold for all of them."""
    if request.param == "software":
        yield request.getfixturevalue("software")
    elif request.param == "pkcs11":
        yield request.getfixturevalue("hsm")
    else:
        inner = request.getfixturevalue("hsm")
        bounded = Bounded(inner, workers=2, timeout=60)
        yield bounded
        bounded.close()
