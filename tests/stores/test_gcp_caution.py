"""Google Cloud KMS: what is done in this process, and what leaves it."""

from __future__ import annotations

import base64
import json
import logging
import uuid
from collections import UserDict
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from google.cloud import kms_v1

from keys.algorithms import Usage
from keys.backends.base import Backend, NoMaterial, Parent
from keys.backends.gcp import configuration
from keys.backends.gcp.backend import GcpBackend
from keys.backends.gcp.connection import TOKEN_ENDPOINT, Connection, service_account_of
from keys.errors import BackendRefused, BackendUnavailable, Invalid, StateForbids
from keys.secret import Secret
from tests.peers.faults import GrpcFaultProxy
from tests.peers.google import GoogleServer

OAEP, WRAP = "RSAES_OAEP_SHA_256", "RSA_AES_KEY_WRAP_SHA_256"
MESSAGE = b"dose: 5 mg, twice a day"
PUBLIC = {"key_ring": "projects/p/locations/l/keyRings/r"}
HERE = {**PUBLIC, "endpoint": "http://127.0.0.1:9"}


class Hands:
    """A clock that a test moves, in seconds."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Hands:
    return Hands()


@pytest.fixture
def proxy(google_server: GoogleServer) -> Iterator[GrpcFaultProxy]:
    with GrpcFaultProxy(google_server.open_target) as proxy:
        yield proxy


@pytest.fixture
def store(google_server: GoogleServer, proxy: GrpcFaultProxy, clock: Hands) -> Iterator[GcpBackend]:
    settings = {**google_server.settings(), "endpoint": proxy.target}
    backend = GcpBackend(uuid.uuid4(), settings, None, clock=clock)
    yield backend
    backend.close()


@pytest.fixture
def pair(store: Backend) -> str:
    """An RSA pair that encrypts and wraps: both are done here, with its public key."""
    parent = Parent(uuid.uuid4(), algorithm=OAEP)
    usage = Usage.ENCRYPT_DECRYPT
    return store.generate(uuid.uuid4(), "RSA_2048", usage=usage, parent=parent).handle


# --- a public key that is kept protects nothing that Google would not


def test_a_pair_that_was_disabled_at_google_protects_nothing_any_more(
    store: Backend, pair: str, google_server: GoogleServer, clock: Hands
) -> None:
    def protected() -> None:
        store.decrypt(pair, OAEP, store.encrypt(pair, OAEP, MESSAGE, b""), b"")
        store.unwrap(pair, WRAP, store.wrap(pair, WRAP, bytes(32)))

    def refused(error: type[Exception]) -> None:
        with pytest.raises(error):
            store.encrypt(pair, OAEP, MESSAGE, b"")
        with pytest.raises(error):
            store.wrap(pair, WRAP, bytes(32))

    def put(state: str) -> None:
        version = kms_v1.CryptoKeyVersion(name=pair, state=state)
        google_server.call(
            kms_v1.UpdateCryptoKeyVersionRequest(
                crypto_key_version=version, update_mask={"paths": ["state"]}
            )
        )

    protected()
    put("DISABLED")
    clock.now += 5
    refused(StateForbids)
    put("ENABLED")
    protected()
    google_server.call(kms_v1.DestroyCryptoKeyVersionRequest(name=pair))
    clock.now += 5
    refused(NoMaterial)


def test_what_is_disabled_from_here_is_refused_at_once(store: Backend, pair: str) -> None:
    store.encrypt(pair, OAEP, MESSAGE, b"")
    store.suspend(pair)
    with pytest.raises(StateForbids, match="disabled"):
        store.encrypt(pair, OAEP, MESSAGE, b"")


def test_google_is_not_asked_for_the_state_at_every_use(
    store: Backend, pair: str, proxy: GrpcFaultProxy, clock: Hands
) -> None:
    def asked() -> int:
        proxy.clear()
        for _ in range(5):
            store.encrypt(pair, OAEP, MESSAGE, b"")
        return sum(seen.asked.endswith("/GetCryptoKeyVersion") for seen in proxy.seen)

    store.encrypt(pair, OAEP, MESSAGE, b"")
    assert asked() == 0
    clock.now += 5
    assert asked() == 1


# --- a store that is let go of while it is used


class Interrupted(UserDict[str, Any]):
    """A request during whose writing somebody closes the connection."""

    def __init__(self, connection: Connection, fields: Mapping[str, Any]) -> None:
        super().__init__(fields)
        self.connection = connection

    def __iter__(self) -> Iterator[str]:
        self.connection.close()
        return super().__iter__()


def test_a_call_on_a_channel_that_was_closed_is_unavailable_and_not_a_bad_ciphertext(
    google_server: GoogleServer,
) -> None:
    connection = Connection(configuration.read(google_server.settings()), None)
    fields = {"name": "any", "ciphertext": b"any"}
    with pytest.raises(BackendUnavailable, match="closed"):
        connection.call("decrypt", Interrupted(connection, fields))
    with pytest.raises(BackendUnavailable, match="closed"):
        connection.call("decrypt", fields)


def test_a_request_that_can_not_be_written_is_invalid(google_server: GoogleServer) -> None:
    connection = Connection(configuration.read(google_server.settings()), None)
    for request in ({"name": "\ud800"}, {"name": 5}, {"nonsense": 1}):
        with pytest.raises(Invalid):
            connection.call("get_crypto_key", request)
    connection.close()


# --- logs


class Kept(logging.Handler):
    """Keeps all that a log record holds."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text += record.getMessage() + repr(vars(record))


@pytest.fixture
def log() -> Iterator[Kept]:
    """All that Google's libraries log at DEBUG."""
    logger, kept = logging.getLogger("google"), Kept()
    before = logger.level
    logger.addHandler(kept)
    logger.setLevel(logging.DEBUG)
    yield kept
    logger.removeHandler(kept)
    logger.setLevel(before)


def test_no_plaintext_and_no_token_is_logged_however_much_is_logged(
    google_server: GoogleServer, log: Kept
) -> None:
    logging.getLogger("google.elsewhere").debug("it listens")
    settings = google_server.settings(guarded=True)
    store = GcpBackend(uuid.uuid4(), settings, Secret(google_server.credential()))
    handle = store.generate(uuid.uuid4(), "AES_256").handle
    sealed = store.encrypt(handle, "AES_256_GCM", MESSAGE, b"")
    assert store.decrypt(handle, "AES_256_GCM", sealed, b"") == MESSAGE
    store.close()
    assert "it listens" in log.text
    for secret in (base64.b64encode(MESSAGE).decode(), MESSAGE.decode(), "Bearer", "assertion"):
        assert secret not in log.text


# --- where tokens come from


@pytest.mark.parametrize(
    ("settings", "address"),
    [
        (PUBLIC, "https://oauth2.example.org/token"),
        (PUBLIC, "http://oauth2.googleapis.com/token"),
        (PUBLIC, "http://127.0.0.1:9/token"),
        (PUBLIC, "http://169.254.169.254/token"),
        ({**PUBLIC, "endpoint": "127.0.0.1.example.org:9"}, "http://127.0.0.1:9/token"),
        (HERE, "http://10.0.0.1/token"),
        (HERE, "http://127.0.0.1.example.org/token"),
        (HERE, "http://127.0.0.1@example.org/token"),
        (HERE, "http://example.org\\@127.0.0.1/token"),
        (HERE, "file:///etc/passwd"),
        (HERE, ""),
    ],
)
def test_a_key_file_sends_the_console_nowhere_but_to_google(
    google_server: GoogleServer, settings: Mapping[str, str], address: str
) -> None:
    written = {**json.loads(google_server.credential()), "token_uri": address}
    with pytest.raises(BackendRefused, match="token_uri") as caught:
        # Nothing is asked of anybody here, whatever comes of it.
        service_account_of(Secret(json.dumps(written).encode()), configuration.read(settings))
    assert not address or address not in str(caught.value)


def test_a_store_with_such_a_key_file_does_not_even_begin(google_server: GoogleServer) -> None:
    # The key file of a test server on this machine, for Google itself.
    store = GcpBackend(uuid.uuid4(), PUBLIC, Secret(google_server.credential()))
    with pytest.raises(BackendRefused, match="token_uri"):
        store.discover()
    assert "token_uri" in store.health().detail


def test_a_key_file_names_google_or_for_a_test_server_this_machine(
    google_server: GoogleServer,
) -> None:
    real = json.loads(google_server.credential())
    for settings, address in (
        (PUBLIC, TOKEN_ENDPOINT),
        (HERE, TOKEN_ENDPOINT),
        (HERE, "http://127.0.0.1:9/token"),
        ({**PUBLIC, "endpoint": "https://[::1]:9"}, "https://[::1]:9/token"),
    ):
        written = Secret(json.dumps({**real, "token_uri": address}).encode())
        assert service_account_of(written, configuration.read(settings)) is not None
