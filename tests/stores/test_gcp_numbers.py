"""Google Cloud KMS gives out the numbers of versions: to the console, to its own schedule, to others.

A mark among a key's labels says for whom the next number is. These are the stories in which the number
goes to somebody else, or the mark is written over.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator

import pytest
from google.cloud import kms_v1

from keys.backends.base import Backend, Parent
from keys.backends.gcp.backend import GcpBackend
from keys.errors import BackendRefused, BackendUnavailable, Conflict
from tests.backends.keeping import Kept, kept
from tests.backends.uses import some_material
from tests.peers.faults import Fault, GrpcFaultProxy
from tests.peers.google import GoogleServer

LOST = Fault.status("UNAVAILABLE", "nobody knows")


@pytest.fixture
def proxy(google_server: GoogleServer) -> Iterator[GrpcFaultProxy]:
    with GrpcFaultProxy(google_server.open_target) as proxy:
        yield proxy


@pytest.fixture
def store(google_server: GoogleServer, proxy: GrpcFaultProxy) -> Iterator[Backend]:
    """A store behind the proxy."""
    settings = {**google_server.settings(), "endpoint": proxy.target}
    backend = GcpBackend(uuid.uuid4(), settings, None)
    yield backend
    backend.close()


@pytest.fixture
def another(google_server: GoogleServer, store: Backend) -> Iterator[Backend]:
    """The same key ring in another process, which shares no lock and needs no proxy."""
    settings = {"key_ring": ring_of(store), "endpoint": google_server.open_target}
    backend = GcpBackend(uuid.uuid4(), settings, None)
    yield backend
    backend.close()


def ring_of(store: Backend) -> str:
    return store.health().facts["key ring"]


def name_of(handle: str) -> str:
    return handle.partition("/cryptoKeyVersions/")[0]


def made_by_google(server: GoogleServer, key: Kept, *, primary: bool = True) -> str:
    """Have a version that the console didn't ask for, as Google's own schedule makes one."""
    name, number = name_of(key.versions[0].handle), len(key.versions) + 1
    server.call(kms_v1.CreateCryptoKeyVersionRequest(parent=name))
    if primary:
        server.call(
            kms_v1.UpdateCryptoKeyPrimaryVersionRequest(
                name=name, crypto_key_version_id=str(number)
            )
        )
    return f"{name}/cryptoKeyVersions/{number}"


def meanwhile(happens: Callable[[], object]) -> Fault:
    """Let something happen while an answer is on its way."""

    def change(body: bytes) -> bytes:
        happens()
        return body

    return Fault.alter(change)


# --- a number that went to somebody else


def test_a_version_of_googles_own_schedule_is_never_taken_for_the_one_that_was_asked_for(
    store: Backend, proxy: GrpcFaultProxy, google_server: GoogleServer
) -> None:
    key, label = kept(store, "AES_256"), uuid.uuid4()
    key.rotation_days = 90
    key.align()
    proxy.next(LOST, when="/CreateCryptoKeyVersion")
    with pytest.raises(BackendUnavailable):
        key.generate(label)
    with google_server.later(days=91):
        (view,) = store.discover().keys
    assert len(view.versions) == 2 and view.versions[1].primary
    # Nothing to take back, and nothing to serve as the console's.
    assert store.find(label, key.parent) is None
    with pytest.raises(Conflict, match="its own rotation"):
        key.generate(label)
    # Also when it is primary no more: services may have used it, so it is theirs.
    store.conform(key.wanted)
    assert store.find(label, key.parent) is None
    ours = key.generate(label)
    assert ours.handle.endswith("/3")
    assert store.find(label, key.parent) == ours


def test_google_may_rotate_between_two_looks(
    store: Backend, proxy: GrpcFaultProxy, google_server: GoogleServer
) -> None:
    key, label = kept(store, "AES_256"), uuid.uuid4()
    proxy.next(LOST, when="/CreateCryptoKeyVersion")
    with pytest.raises(BackendUnavailable):
        key.generate(label)
    proxy.next(meanwhile(lambda: made_by_google(google_server, key)), when="/GetCryptoKey")
    assert store.find(label, key.parent) is None
    assert proxy.pending == 0


def test_what_google_refused_to_make_leaves_no_mark_behind(
    store: Backend, proxy: GrpcFaultProxy, google_server: GoogleServer
) -> None:
    key, label = kept(store, "AES_256"), uuid.uuid4()
    proxy.next(Fault.status("PERMISSION_DENIED", "no"), when="/CreateCryptoKeyVersion")
    with pytest.raises(BackendRefused):
        key.generate(label)
    stranger = made_by_google(google_server, key, primary=False)
    assert store.find(label, key.parent) is None
    assert key.generate(label).handle != stranger


def test_a_version_that_google_made_is_not_taken_for_material_that_was_brought(
    store: Backend, proxy: GrpcFaultProxy, google_server: GoogleServer
) -> None:
    key, label, material = kept(store, "AES_256"), uuid.uuid4(), some_material("AES_256")
    proxy.next(LOST, when="/ImportCryptoKeyVersion")
    with pytest.raises(BackendUnavailable):
        store.import_material(label, "AES_256", material, parent=key.parent)
    made_by_google(google_server, key, primary=False)
    assert store.find(label, key.parent) is None
    with pytest.raises(Conflict, match="not made by the console"):
        store.import_material(label, "AES_256", material, parent=key.parent)


# --- labels that two write


def test_a_tag_that_is_put_right_takes_no_mark_away(
    store: Backend, another: Backend, proxy: GrpcFaultProxy
) -> None:
    key, label = kept(store, "AES_256"), uuid.uuid4()
    key.tags = {"team": "billing"}
    parent = key.parent

    def rotate() -> None:
        another.generate(label, "AES_256", parent=parent)

    # conform() has looked at the key when another process rotates it.
    proxy.next(meanwhile(rotate), when="/GetCryptoKey")
    store.conform(key.wanted)
    assert proxy.pending == 0
    found = store.find(label, parent)
    assert found is not None and found.handle.endswith("/2")
    (view,) = store.discover().keys
    assert view.tags == {"team": "billing"}


def test_a_mark_that_is_written_takes_no_tag_away(store: Backend, proxy: GrpcFaultProxy) -> None:
    key, label = kept(store, "AES_256"), uuid.uuid4()
    key.tags = {"team": "billing"}
    thread = threading.Thread(target=store.conform, args=(key.wanted,))

    def conform() -> None:
        thread.start()
        thread.join(0.2)  # it has to wait for the mark; without a lock it would be done

    # The labels were read, and the mark is about to be written.
    proxy.next(meanwhile(conform), when="/GetCryptoKey", after=1)
    made = store.generate(label, "AES_256", parent=key.parent)
    thread.join()
    assert proxy.pending == 0
    (view,) = store.discover().keys
    assert view.tags == {"team": "billing"}
    assert store.find(label, key.parent) == made


def test_a_mark_that_was_written_over_is_written_again_once_the_version_is_there(
    store: Backend, proxy: GrpcFaultProxy, google_server: GoogleServer
) -> None:
    key, label = kept(store, "AES_256"), uuid.uuid4()
    name = name_of(key.versions[0].handle)

    def write_over() -> None:
        old = kms_v1.CryptoKey(name=name, labels={"kms-console-key": str(key.id)})
        google_server.call(
            kms_v1.UpdateCryptoKeyRequest(crypto_key=old, update_mask={"paths": ["labels"]})
        )

    proxy.next(meanwhile(write_over), when="/CreateCryptoKeyVersion")
    made = store.generate(label, "AES_256", parent=Parent(key.id, newest=key.versions[0].handle))
    assert store.find(label, key.parent) == made
