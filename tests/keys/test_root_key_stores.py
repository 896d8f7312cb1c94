"""The root key held by each vendor's store: held, opened by a new process, rotated, the old one ended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from keys import administration
from keys.administration.root_key import hold_root_key, rotate_root_key
from keys.backends.software.models import RootKey
from keys.errors import KeyServiceError
from keys.models import KeyStore
from keys.root_keys import opening, rows
from keys.services import operator
from keys.stores import backend, facts
from tests.house import House
from tests.keys.holding import agreed, restarted
from tests.keys.test_root_key import everything_opens, roots, steps, under
from tests.peers.peer import Peer

PEERS = ["openbao", "moto", "ministack", "google_kms", "azure_vault"]


@pytest.fixture
def peer(request: pytest.FixtureRequest) -> Peer:
    found: Peer = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def elsewhere(house: House, peer: Peer, monkeypatch: pytest.MonkeyPatch) -> KeyStore:
    """A key store of the peer's kind, called `elsewhere`."""
    reference = ""
    if peer.credential:
        monkeypatch.setenv("ELSEWHERE", peer.credential.decode())
        reference = "env:ELSEWHERE"
    opening.forget()
    return administration.create_key_store(
        operator(),
        name="elsewhere",
        kind=peer.kind,
        settings=dict(peer.fresh()),
        credentials=reference,
    )


@pytest.mark.exhaustive
@pytest.mark.parametrize("peer", PEERS, indirect=True)
def test_a_vendors_store_holds_the_root_key(
    house: House, peer: Peer, elsewhere: KeyStore, settings: Any, tmp_path: Path
) -> None:
    agreed(house, hold_root_key, key_store="elsewhere")
    first = RootKey.objects.get(state="current")
    settings.ROOT_KEY_FILE = tmp_path / "removed"
    restarted()
    everything_opens(house)
    agreed(house, rotate_root_key)
    second = rows.current().id  # type: ignore[union-attr]
    assert under() == {second}
    assert roots() == {first.id: "retired", second: "current"}
    assert steps(house, first.id)[:2] == ["made", "retired"]
    assert steps(house, first.id)[2] in ("destruction begun", "destroyed")
    restarted()
    everything_opens(house)
    opening.forget()
    if "states" in peer.gaps:
        return  # it goes on using keys that are to be deleted
    aad = opening.bound(first.id, first.algorithm)
    with pytest.raises(KeyServiceError):
        backend(facts(elsewhere)).decrypt(first.handle, first.algorithm, bytes(first.wrapped), aad)
