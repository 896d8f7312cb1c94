"""Google Cloud KMS when something goes wrong: on the way, with the credential, or with the answer."""

from __future__ import annotations

import json
import socket
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from google.cloud import kms_v1

from keys.backends.base import Backend, NoMaterial, Parent
from keys.backends.gcp import connection, making
from keys.backends.gcp.backend import GcpBackend
from keys.errors import (
    BackendError,
    BackendRefused,
    BackendUnavailable,
    CannotDecrypt,
    StateForbids,
    StillWaiting,
    Throttled,
)
from keys.secret import Secret
from tests.backends.uses import some_material
from tests.peers.faults import Fault, GrpcFaultProxy
from tests.peers.google import GoogleServer

MESSAGE, AAD = b"dose: 5 mg", b"context"
GCM = "AES_256_GCM"


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
def guarded(google_server: GoogleServer) -> Iterator[Callable[[Secret | None], Backend]]:
    """Return a function that makes a backend with a credential, of a server that asks for one."""
    made: list[Backend] = []
    settings = google_server.settings(guarded=True)

    def make(credential: Secret | None) -> Backend:
        made.append(GcpBackend(uuid.uuid4(), settings, credential))
        return made[-1]

    yield make
    for backend in made:
        backend.close()


def versions(store: Backend) -> list[str]:
    return [version.handle for view in store.discover().keys for version in view.versions]


# --- the answer is lost after the work was done


@pytest.mark.parametrize("call", ["CreateCryptoKey", "GetCryptoKeyVersion", "GetPublicKey"])
def test_a_first_version_is_made_once_whatever_answer_is_lost(
    store: Backend, proxy: GrpcFaultProxy, call: str
) -> None:
    label = uuid.uuid4()
    proxy.next(Fault.swallow(), when=f"/{call}")
    with pytest.raises(BackendUnavailable):
        store.generate(label, "ECC_NIST_P256")
    store.find(label)  # the first look finds Google still at work
    found = store.find(label)
    assert found == store.generate(label, "ECC_NIST_P256")
    assert versions(store) == [found.handle]


@pytest.mark.parametrize("call", ["UpdateCryptoKey", "CreateCryptoKeyVersion"])
def test_a_rotation_makes_one_version_whatever_answer_is_lost(
    store: Backend, proxy: GrpcFaultProxy, call: str
) -> None:
    key, label = uuid.uuid4(), uuid.uuid4()
    one = store.generate(uuid.uuid4(), "AES_256", parent=Parent(key))
    parent = Parent(key, newest=one.handle)
    proxy.next(Fault.swallow(), when=f"/{call}")
    with pytest.raises(BackendUnavailable):
        store.generate(label, "AES_256", parent=parent)
    found = store.find(label, parent)
    assert (found is not None) == (call == "CreateCryptoKeyVersion")
    two = store.generate(label, "AES_256", parent=parent)
    assert found in (None, two)
    assert versions(store) == [one.handle, two.handle]


@pytest.mark.parametrize("call", ["CreateImportJob", "CreateCryptoKey", "ImportCryptoKeyVersion"])
def test_material_is_brought_once_whatever_answer_is_lost(
    store: Backend, proxy: GrpcFaultProxy, call: str
) -> None:
    label, material = uuid.uuid4(), some_material("HMAC_256")
    proxy.next(Fault.swallow(), when=f"/{call}")
    with pytest.raises(BackendUnavailable):
        store.import_material(label, "HMAC_256", material)
    store.find(label)
    found = store.find(label)
    assert (found is not None) == (call == "ImportCryptoKeyVersion")
    brought = store.import_material(label, "HMAC_256", material)
    assert found in (None, brought)
    assert versions(store) == [brought.handle]


def test_a_destruction_whose_answer_was_lost_goes_on(store: Backend, proxy: GrpcFaultProxy) -> None:
    handle = store.generate(uuid.uuid4(), "AES_256").handle
    proxy.next(Fault.swallow(), when="/DestroyCryptoKeyVersion")
    with pytest.raises(BackendUnavailable):
        store.destroy(handle)
    with pytest.raises(StillWaiting):
        store.destroy(handle)
    asked = [seen.asked.rpartition("/")[2] for seen in proxy.seen]
    changes = [name for name in asked if name.startswith(("Update", "Destroy"))]
    # Disabled first, which some organisations' policies ask for, and destroyed once.
    assert changes == ["UpdateCryptoKeyVersion", "DestroyCryptoKeyVersion"]


def test_an_answer_that_does_not_come_is_not_waited_for_without_end(
    store: Backend, proxy: GrpcFaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = store.generate(uuid.uuid4(), "AES_256").handle
    monkeypatch.setattr(connection, "CALL_SECONDS", 0.3)
    proxy.next(Fault.hang(), when="/Encrypt")
    with pytest.raises(BackendUnavailable, match="in time"):
        store.encrypt(handle, GCM, MESSAGE, AAD)


# --- refusals


def test_throttling_is_passed_on_with_googles_own_delay(
    store: Backend, proxy: GrpcFaultProxy
) -> None:
    handle = store.generate(uuid.uuid4(), "AES_256").handle
    proxy.next(Fault.throttle(7.5, b"Quota exceeded"))
    with pytest.raises(Throttled) as caught:
        store.encrypt(handle, GCM, MESSAGE, AAD)
    assert caught.value.retry_after == 7.5
    proxy.next(Fault.throttle())
    with pytest.raises(Throttled) as caught:
        store.encrypt(handle, GCM, MESSAGE, AAD)
    assert caught.value.retry_after is None
    proxy.clear()
    assert store.encrypt(handle, GCM, MESSAGE, AAD)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("PERMISSION_DENIED", BackendRefused),
        ("UNAUTHENTICATED", BackendRefused),
        ("UNAVAILABLE", BackendUnavailable),
        ("DEADLINE_EXCEEDED", BackendUnavailable),
        ("ABORTED", BackendUnavailable),
        ("CANCELLED", BackendUnavailable),
        ("INTERNAL", BackendUnavailable),
        ("UNKNOWN", BackendUnavailable),
        ("DATA_LOSS", BackendError),
        ("OUT_OF_RANGE", CannotDecrypt),
        ("INVALID_ARGUMENT", CannotDecrypt),
        ("FAILED_PRECONDITION", StateForbids),
        ("NOT_FOUND", NoMaterial),
    ],
)
def test_each_of_googles_refusals_is_one_of_the_consoles_errors(
    store: Backend, proxy: GrpcFaultProxy, code: str, error: type[Exception]
) -> None:
    handle = store.generate(uuid.uuid4(), "AES_256").handle
    sealed = store.encrypt(handle, GCM, MESSAGE, AAD)
    proxy.next(Fault.status(code, "because"), when="/Decrypt")
    with pytest.raises(error) as caught:
        store.decrypt(handle, GCM, sealed, AAD)
    assert type(caught.value) is error
    assert store.decrypt(handle, GCM, sealed, AAD) == MESSAGE


def test_a_store_that_is_away_is_said_to_be_away() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    settings = {
        "key_ring": "projects/p/locations/l/keyRings/r",
        "endpoint": f"http://127.0.0.1:{port}",
    }
    store = GcpBackend(uuid.uuid4(), settings, None)
    with pytest.raises(BackendUnavailable):
        store.find(uuid.uuid4())
    assert not store.health().ok
    store.close()


# --- answers that make no sense


def test_an_answer_that_is_no_message_is_an_error(store: Backend, proxy: GrpcFaultProxy) -> None:
    handle = store.generate(uuid.uuid4(), "AES_256").handle
    proxy.next(Fault.garbage())
    with pytest.raises(BackendError) as caught:
        store.encrypt(handle, GCM, MESSAGE, AAD)
    assert type(caught.value) is BackendError


def altered(kind: Any, change: Callable[[Any], None]) -> Fault:
    """The server's own answer, changed on its way."""

    def alter(body: bytes) -> bytes:
        message = kind.pb().FromString(body)
        change(message)
        return bytes(message.SerializeToString())

    return Fault.alter(alter)


def spoil(field: str) -> Callable[[Any], None]:
    def change(message: Any) -> None:
        value = getattr(message, field)
        if isinstance(value, bool):
            setattr(message, field, not value)
        elif isinstance(value, str):
            setattr(message, field, value + "0")
        else:
            setattr(message, field, bytes([value[0] ^ 1]) + value[1:])

    return change


@pytest.mark.parametrize(
    ("method", "field"),
    [
        ("Encrypt", "ciphertext"),
        ("Encrypt", "name"),
        ("Encrypt", "verified_plaintext_crc32c"),
        ("Encrypt", "verified_additional_authenticated_data_crc32c"),
        ("Decrypt", "plaintext"),
        ("AsymmetricSign", "signature"),
        ("AsymmetricSign", "name"),
        ("AsymmetricSign", "verified_digest_crc32c"),
        ("MacSign", "mac"),
        ("MacSign", "verified_data_crc32c"),
        ("MacVerify", "success"),
        ("MacVerify", "verified_mac_crc32c"),
        ("GenerateRandomBytes", "data"),
    ],
)
def test_bytes_that_changed_on_the_way_are_never_believed(
    store: Backend, proxy: GrpcFaultProxy, method: str, field: str
) -> None:
    cipher, signer, mac = (
        store.generate(uuid.uuid4(), spec).handle
        for spec in ("AES_256", "ECC_NIST_P256", "HMAC_256")
    )
    sealed, tag = store.encrypt(cipher, GCM, MESSAGE, AAD), store.mac(mac, "HMAC_SHA_256", MESSAGE)
    proxy.next(altered(getattr(kms_v1, f"{method}Response"), spoil(field)), when=f"/{method}")
    with pytest.raises(BackendError, match="arrive whole"):
        {
            "Encrypt": lambda: store.encrypt(cipher, GCM, MESSAGE, AAD),
            "Decrypt": lambda: store.decrypt(cipher, GCM, sealed, AAD),
            "AsymmetricSign": lambda: store.sign(signer, "ECDSA_SHA_256", MESSAGE),
            "MacSign": lambda: store.mac(mac, "HMAC_SHA_256", MESSAGE),
            "MacVerify": lambda: store.verify_mac(mac, "HMAC_SHA_256", MESSAGE, tag),
            "GenerateRandomBytes": lambda: store.random(32),
        }[method]()
    assert proxy.pending == 0


def test_a_request_that_changed_on_the_way_is_refused_by_the_server(
    store: Backend, google_server: GoogleServer
) -> None:
    import grpc

    handle = store.generate(uuid.uuid4(), "AES_256").handle
    request = kms_v1.EncryptRequest(name=handle, plaintext=MESSAGE, plaintext_crc32c=1)
    with pytest.raises(grpc.RpcError, match="checksum"):
        google_server.call(request)


def test_what_a_newer_google_may_say_is_shown_and_not_tripped_over(
    store: Backend, proxy: GrpcFaultProxy
) -> None:
    store.generate(uuid.uuid4(), "AES_256")

    def newer(message: Any) -> None:
        message.crypto_key_versions[0].state = 99
        message.crypto_key_versions[0].algorithm = 999

    proxy.next(altered(kms_v1.ListCryptoKeyVersionsResponse, newer), when="/ListCryptoKeyVersions")
    (view,) = store.discover().keys
    assert "ALGORITHM_999" in view.problem
    assert view.spec == ""


def in_state(state: str) -> Fault:
    def change(message: Any) -> None:
        message.state = kms_v1.CryptoKeyVersion.CryptoKeyVersionState[state].value

    return altered(kms_v1.CryptoKeyVersion, change)


def test_a_version_that_google_failed_to_make_is_made_again(
    store: Backend, proxy: GrpcFaultProxy
) -> None:
    label = uuid.uuid4()
    proxy.next(in_state("GENERATION_FAILED"), when="/GetCryptoKeyVersion")
    material = store.generate(label, "AES_256")
    assert material.handle.endswith("/2")
    assert store.find(label) == material == store.generate(label, "AES_256")


def test_a_version_that_google_makes_for_long_is_found_when_it_is_ready(
    store: Backend, proxy: GrpcFaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    label = uuid.uuid4()
    monkeypatch.setattr(making, "PATIENCE_SECONDS", 0.0)
    proxy.next(in_state("PENDING_GENERATION"), when="/GetCryptoKeyVersion", times=None)
    with pytest.raises(BackendUnavailable, match="still at work"):
        store.generate(label, "AES_256")
    assert store.find(label) is None, "not complete yet"
    proxy.clear()
    assert store.find(label) == store.generate(label, "AES_256")
    assert len(versions(store)) == 1


def test_a_public_key_that_is_none_is_an_error(store: Backend, proxy: GrpcFaultProxy) -> None:
    for change in (spoil("pem"), spoil("name")):
        proxy.next(altered(kms_v1.PublicKey, change), when="/GetPublicKey")
        with pytest.raises(BackendError):
            store.generate(uuid.uuid4(), "ECC_NIST_P256")


# --- the console's own credential


def test_a_service_account_signs_in_and_may_do_what_its_role_allows(
    google_server: GoogleServer, guarded: Callable[[Secret | None], Backend]
) -> None:
    keeper = guarded(Secret(google_server.credential()))
    looker = guarded(Secret(google_server.credential("looker")))
    handle = keeper.generate(uuid.uuid4(), "AES_256").handle
    assert len(looker.discover().keys) == 1
    for call in (
        lambda: looker.encrypt(handle, GCM, MESSAGE, AAD),
        lambda: looker.generate(uuid.uuid4(), "AES_256"),
    ):
        with pytest.raises(BackendRefused, match="may not do this"):
            call()


def test_without_a_valid_credential_nothing_is_told(
    google_server: GoogleServer, guarded: Callable[[Secret | None], Backend]
) -> None:
    real = json.loads(google_server.credential())
    with socket.create_server(("127.0.0.1", 0)) as server:
        nowhere = f"http://127.0.0.1:{server.getsockname()[1]}/token"
    for credential in (
        None,
        Secret(b"not JSON"),
        Secret(b"[]"),
        Secret(json.dumps({**real, "type": "authorized_user"}).encode()),
        Secret(json.dumps({**real, "private_key": "none"}).encode()),
    ):
        with pytest.raises(BackendRefused) as caught:
            guarded(credential).discover()
        assert "private_key" not in str(caught.value) and "JSON" not in str(caught.value)
    away = guarded(Secret(json.dumps({**real, "token_uri": nowhere}).encode()))
    with pytest.raises(BackendUnavailable, match="token endpoint"):
        away.discover()


def test_a_token_that_expired_and_a_clock_that_is_wrong_are_said_to_be_that(
    google_server: GoogleServer, guarded: Callable[[Secret | None], Backend]
) -> None:
    store = guarded(Secret(google_server.credential()))
    assert store.health().ok
    with google_server.later(seconds=7200):
        with pytest.raises(BackendRefused, match="credential"):
            store.discover()
        # A new one can't be had either: to the server, this machine is two hours late.
        late = guarded(Secret(google_server.credential()))
        with pytest.raises(BackendRefused, match="clock"):
            late.discover()
    assert store.health().ok


def test_without_credentials_of_any_kind_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere/at/all.json")
    store = GcpBackend(uuid.uuid4(), {"key_ring": "projects/p/locations/l/keyRings/r"}, None)
    with pytest.raises(BackendRefused, match="application default credentials"):
        store.discover()


def test_tls_is_never_left_out_where_it_was_asked_for(
    google_server: GoogleServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = google_server.folder / "keeper.json"
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(keeper))
    settings = google_server.settings(guarded=True)
    settings = {**settings, "endpoint": f"https://{google_server.guarded_target}"}
    store = GcpBackend(uuid.uuid4(), settings, None)
    with pytest.raises(BackendUnavailable):
        store.discover()
    store.close()
