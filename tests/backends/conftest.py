"""The key stores under test: real ones, in this process, in a bounded pool, and behind servers."""

from __future__ import annotations

import base64
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from keys.backends.base import Backend
from keys.backends.bounded import Bounded
from keys.backends.pkcs11.backend import Pkcs11Backend
from keys.backends.software.backend import SoftwareBackend
from keys.secret import Secret
from tests.backends.uses import COMMON
from tests.databases import Database
from tests.hsm import Token
from tests.peers.peer import GAPS, Peer

STORE_ID = uuid.UUID("5f0c6f5e-0d0b-4f4e-9f55-3a0f0a5c0001")

HERE = Path(__file__).parent

LOCAL = ("software", "pkcs11", "bounded")
# Fixtures of tests/peers, each a server.
PEERS = ("openbao", "moto", "ministack", "google_kms", "azure_vault", "azure_managed_hsm")
# Others of these show in `make test` nearly all that these would: only where there is time, but for
# moto's rotation on demand, which ministack lacks.
TWINS = frozenset({"moto", "azure_managed_hsm"})

# Over a network, what these show of a secret and a pair holds for other specs where there is time.
OF_FEW_SPECS = frozenset(
    {
        "test_imported_material_is_found_used_and_taken_once",
        "test_suspending_keeps_the_material_and_resuming_gives_back_every_use",
        "test_what_was_protected_before_deactivation_can_still_be_read",
    }
)
FEW = ("AES_256", "ECC_NIST_P256")

# What a gap means for a test that meets it.
MEANINGS = {
    "import": "takes no material from outside",
    "states": "does not enforce the states that it shows",
    "rotation": "does not rotate on demand",
    "deletes": "never ends a destruction within a test",
    "identity": "does not check credentials",
    "sealing": "does not notice that a ciphertext was changed",
    "rsa": "has an RSA of its own",
    "digests": "signs no digest that is handed over",
    "agreement": "has no ECDH",
    "period": "keeps no number of days of a rotation",
}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The whole matrix of specs over a network takes too long for `make test`."""
    for item in items:
        callspec = getattr(item, "callspec", None)
        parameters = callspec.params if callspec else {}
        where, spec = parameters.get("store") or parameters.get("peer"), parameters.get("spec", "")
        if where not in PEERS or item.path.parent != HERE:
            continue
        few = getattr(item, "originalname", "") in OF_FEW_SPECS and spec not in ("", *FEW)
        if few or not _is_quick(where, spec, stateful="peer" in parameters):
            item.add_marker(pytest.mark.exhaustive)


def _is_quick(where: str, spec: str, *, stateful: bool) -> bool:
    if where not in TWINS:
        return spec in ("", *COMMON)
    return where == "moto" and (spec == "AES_256" or (stateful and not spec))


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


@pytest.fixture(scope="session")
def places() -> dict[str, Mapping[str, Any]]:
    """A place in each peer that the tests of a session share: their keys have names of their own."""
    return {}


def place_of(request: pytest.FixtureRequest, name: str) -> Backend:
    """Return a backend of the test's own: what another test did to its connections is its affair."""
    places: dict[str, Mapping[str, Any]] = request.getfixturevalue("places")
    peer: Peer = request.getfixturevalue(name)
    if name not in places:
        places[name] = peer.fresh()
    backend = peer.backend(places[name])
    request.addfinalizer(backend.close)
    return backend


@pytest.fixture(params=[*LOCAL, *PEERS])
def store(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """Each key store in turn; everything the contract promises must hold for all of them."""
    if request.param == "software":
        yield request.getfixturevalue("software")
    elif request.param == "pkcs11":
        yield request.getfixturevalue("hsm")
    elif request.param == "bounded":
        inner = request.getfixturevalue("hsm")
        bounded = Bounded(inner, workers=2, timeout=60)
        yield bounded
        bounded.close()
    else:
        yield place_of(request, request.param)


@pytest.fixture(params=PEERS)
def peer(request: pytest.FixtureRequest) -> Peer:
    """Each server in turn whose keys have states of their own."""
    found: Peer = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def remote(request: pytest.FixtureRequest, peer: Peer) -> Backend:
    """The place in `peer` that the tests of this session share."""
    return place_of(request, request.node.callspec.params["peer"])


@pytest.fixture
def gaps(request: pytest.FixtureRequest) -> frozenset[str]:
    """What the server under test does not do as its model does; nothing, where there is none."""
    parameters = request.node.callspec.params
    name = parameters.get("store") or parameters["peer"]
    if name in LOCAL:
        return frozenset()
    peer: Peer = request.getfixturevalue(name)
    assert peer.gaps <= GAPS, "gaps are told in the words of GAPS"
    return peer.gaps


@pytest.fixture
def needs(request: pytest.FixtureRequest, gaps: frozenset[str]) -> Callable[[str], None]:
    """Return a function that skips the test, with the reason, where the server has this gap."""

    def needs(what: str) -> None:
        assert what in GAPS
        if what in gaps:
            parameters = request.node.callspec.params
            name = parameters.get("store") or parameters["peer"]
            pytest.skip(f"{request.getfixturevalue(name).whose} {MEANINGS.get(what, what)}")

    return needs
