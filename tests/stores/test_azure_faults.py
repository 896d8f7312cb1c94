"""What goes wrong between the console and Azure, and what the console makes of it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from keys.algorithms import Usage
from keys.backends.azure import connection
from keys.backends.azure.backend import AzureBackend
from keys.backends.azure.failures import Forbidden
from keys.backends.base import NoMaterial
from keys.errors import (
    BackendError,
    BackendRefused,
    BackendUnavailable,
    KeyServiceError,
    StateForbids,
    Throttled,
    Unsupported,
)
from tests.backends.keeping import Kept, kept
from tests.peers.azure import Azure, Open
from tests.peers.faults import Fault, FaultProxy, in_front_of

EC, ECDSA, OAEP = "ECC_NIST_P256", "ECDSA_SHA_256", "RSAES_OAEP_SHA_256"


@dataclass
class Behind:
    """A vault, reached straight and through a proxy, with a key in it."""

    server: Azure
    settings: dict[str, Any]
    proxy: FaultProxy
    straight: AzureBackend
    unsure: AzureBackend
    key: Kept

    @property
    def handle(self) -> str:
        return self.key.versions[0].handle

    def calls(self) -> list[Callable[[], object]]:
        """One call of each kind."""
        return [
            lambda: self.unsure.generate(uuid.uuid4(), EC),
            lambda: self.unsure.find(uuid.uuid4(), self.key.parent),
            lambda: self.unsure.sign(self.handle, ECDSA, b"x"),
            lambda: self.unsure.discover(),
            lambda: self.unsure.observe(self.key.wanted),
            lambda: self.unsure.conform(self.key.wanted),
            lambda: self.unsure.suspend(self.handle),
            lambda: self.unsure.destroy_all([self.handle]),
        ]


@pytest.fixture(scope="module")
def place(azure_server: Azure, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Behind]:
    settings = azure_server.vault()
    proxy, through = in_front_of(settings, tmp_path_factory.mktemp("proxy"))
    assert isinstance(proxy, FaultProxy)
    straight, unsure = azure_server.backend(settings), azure_server.backend(through)
    assert unsure.health().ok
    yield Behind(azure_server, settings, proxy, straight, unsure, kept(straight, EC))
    for one in (straight, unsure, proxy):
        one.close()


@pytest.fixture
def behind(place: Behind, monkeypatch: pytest.MonkeyPatch) -> Behind:
    """Signed in, and without faults. No fault lets a call change the key that is there."""
    monkeypatch.setattr(connection, "PATIENCE", 0.3)
    place.proxy.clear()
    return place


# --- asked to wait, or not answered


@pytest.mark.parametrize(
    ("header", "seconds"), [("7", 7.0), ("0", 0.0), ("soon", None), (None, None)]
)
def test_throttling_says_how_long_to_wait(
    behind: Behind, header: str | None, seconds: float | None
) -> None:
    headers = {} if header is None else {"Retry-After": header}
    behind.proxy.next(Fault.status(429, b"{}", headers), times=None)
    for call in behind.calls():
        with pytest.raises(Throttled) as caught:
            call()
        assert caught.value.retry_after == seconds


def test_throttling_may_name_a_date(behind: Behind) -> None:
    at = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    behind.proxy.next(Fault.status(429, b"", {"Retry-After": at}))
    with pytest.raises(Throttled) as caught:
        behind.unsure.discover()
    assert 30 < (caught.value.retry_after or 0) <= 90


@pytest.mark.parametrize(
    "fault", [Fault.status(500), Fault.status(503, b"busy"), Fault.reset(), Fault.swallow()]
)
def test_a_vault_in_trouble_is_asked_once_and_may_be_asked_again(
    behind: Behind, fault: Fault
) -> None:
    for call in behind.calls():
        behind.proxy.clear()
        behind.proxy.next(fault, times=None)
        with pytest.raises(BackendUnavailable):
            call()
        assert len(behind.proxy.seen) == 1, "what may be tried again is decided elsewhere"
        behind.proxy.clear()
    assert behind.unsure.health().ok


def test_no_answer_in_time_is_told_as_not_known(
    azure_server: Azure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "READ_SECONDS", 0.3)
    settings = azure_server.vault()
    proxy, through = in_front_of(settings, tmp_path)
    backend = azure_server.backend(through)
    proxy.next(Fault.hang())
    with pytest.raises(BackendUnavailable, match="not known"):
        backend.find(uuid.uuid4())
    backend.close()
    proxy.close()


def test_a_version_whose_making_was_not_answered_is_there_once(behind: Behind) -> None:
    label, key = uuid.uuid4(), kept(behind.straight, EC)
    behind.proxy.next(Fault.swallow(), when="/create")
    with pytest.raises(BackendUnavailable):
        behind.unsure.generate(label, EC, parent=key.parent)
    found = behind.unsure.find(label, key.parent)
    assert found is not None
    assert behind.unsure.generate(label, EC, parent=key.parent) == found
    seen = behind.straight.observe(key.wanted)
    assert seen is not None
    assert len(seen.versions) == 2


def test_a_server_that_is_not_there_is_unavailable(azure_server: Azure) -> None:
    gone = FaultProxy("127.0.0.1", 1)
    gone.close()
    nowhere = azure_server.settings(f"https://127.0.0.1:{gone.port}")
    without_sign_in = azure_server.vault() | {"authority": f"https://127.0.0.1:{gone.port}"}
    for settings in (nowhere, without_sign_in):
        backend = azure_server.backend(settings)
        with pytest.raises(BackendUnavailable, match="can't be reached") as caught:
            backend.find(uuid.uuid4())
        assert type(caught.value) is BackendUnavailable
        health = backend.health()
        assert not health.ok
        assert health.detail
        backend.close()


def test_a_server_whose_certificate_is_not_trusted_gets_nothing(
    azure_server: Azure, tmp_path: Path
) -> None:
    settings = azure_server.vault()
    proxy, _ = in_front_of(settings, tmp_path)
    backend = azure_server.backend({**settings, "vault_url": proxy.url})
    with pytest.raises(BackendUnavailable, match="vault's certificate is not trusted"):
        backend.discover()
    assert not proxy.seen
    backend.close()
    sign_in, elsewhere = in_front_of({"vault_url": settings["authority"]}, tmp_path)
    backend = azure_server.backend({**settings, "authority": elsewhere["vault_url"]})
    with pytest.raises(BackendUnavailable, match="sign-in server's certificate is not trusted"):
        backend.discover()
    backend.close()
    for one in (proxy, sign_in):
        one.close()
    with pytest.raises(BackendUnavailable, match="ca_file names no file"):
        azure_server.backend({**settings, "ca_file": str(tmp_path / "none.pem")})


# --- answers that make no sense


BODIES = [
    b"", b"null", b"[]", b"{}", b'"text"', b"\xff\x00{", b'{"value": 7}', b'{"value": [7]}',
    b'{"value": [{}]}', b'{"value": [{"kid": 7}]}', b'{"value": [{"kid": "x"}], "nextLink": 3}',
    b'{"key": {}}', b'{"key": {"kid": 3}}', b'{"kid": "https://a/keys/b/c", "value": "AAAA"}',
    b'{"key": {"kid": "https://a/keys/b/c", "kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}}',
    b'{"key": {"kid": "https://a/keys/b/c", "kty": "RSA", "n": "!!", "e": 3}, "attributes": 3}',
]  # fmt: skip


@pytest.mark.parametrize("body", BODIES)
def test_an_answer_that_makes_no_sense_is_an_error_of_the_store(
    behind: Behind, body: bytes
) -> None:
    behind.proxy.next(Fault.garbage(body), times=None)
    errors = 0
    for call in behind.calls():
        try:
            call()
        except KeyServiceError:
            errors += 1
    # An empty list is an answer that some of them understand.
    assert errors >= 3
    for call in (behind.calls()[0], behind.calls()[2]):
        with pytest.raises(BackendError) as caught:
            call()
        assert not isinstance(caught.value, NoMaterial)


def changed(**members: Any) -> Fault:
    """The vault's own answer with members of its JSON changed."""
    return Fault.alter(lambda body: json.dumps({**json.loads(body), **members}).encode())


def test_an_answer_about_another_key_is_not_taken(behind: Behind) -> None:
    other = "https://127.0.0.1/keys/another/0123456789abcdef0123456789abcdef"
    behind.unsure.sign(behind.handle, ECDSA, b"x")
    behind.proxy.next(changed(kid=other), when="/sign")
    with pytest.raises(BackendError, match="another key"):
        behind.unsure.sign(behind.handle, ECDSA, b"x")


def test_results_of_a_wrong_shape_are_not_taken(behind: Behind) -> None:
    rsa = behind.straight.generate(uuid.uuid4(), "RSA_2048", usage=Usage.WRAP_UNWRAP).handle
    for value in (None, 7, "", "AA", "A" * 200, "!!!!", {}):
        for when, call in (
            ("/sign", lambda: behind.unsure.sign(behind.handle, ECDSA, b"x")),
            ("/wrapkey", lambda: behind.unsure.wrap(rsa, OAEP, b"x")),
        ):
            behind.proxy.next(changed(value=value), when=when)
            with pytest.raises(BackendError):
                call()


def test_a_key_of_another_spec_than_asked_for_is_not_taken(behind: Behind) -> None:
    rsa = behind.straight.generate(uuid.uuid4(), "RSA_2048").handle.partition("/")[0]
    (answer,) = [json.dumps(key) for key in _bundles(behind, rsa)]
    behind.proxy.next(Fault.garbage(answer), when="/create")
    with pytest.raises(BackendError, match="another key than"):
        behind.unsure.generate(uuid.uuid4(), EC)


def _bundles(behind: Behind, name: str) -> list[Any]:
    found, _ = behind.straight._connection.send("GET", f"/keys/{name}")
    return [found]


def test_a_page_that_leads_elsewhere_is_not_followed(behind: Behind) -> None:
    for link in ("https://elsewhere.example/keys", "https://elsewhere.example/?x=1", 7):
        behind.proxy.next(changed(nextLink=link), when="GET /keys?")
        with pytest.raises(BackendError, match="next page"):
            behind.unsure.discover()
    behind.proxy.next(
        changed(nextLink="https://elsewhere.example/keys?$skiptoken=MQ=="), when="GET /keys?"
    )
    page = behind.unsure.discover()
    behind.proxy.clear()
    behind.unsure.discover(page.cursor)
    assert all(
        seen.asked.startswith(("GET /keys", "GET /deletedkeys")) for seen in behind.proxy.seen
    )


# --- who the console is, and what it may do


@pytest.mark.parametrize(
    ("secret", "why"),
    [
        ("{}-expired", "AADSTS7000222: the client secret has expired"),
        ("wrong", "AADSTS7000215: the client secret is wrong"),
        ("{}-early", "not yet valid"),
    ],
)
def test_a_credential_that_is_no_good_is_told_by_its_reason(
    azure_server: Azure, secret: str, why: str
) -> None:
    given = secret.format(azure_server.secret)
    backend = azure_server.backend(azure_server.vault(), secret=given)
    with pytest.raises(BackendRefused, match=why) as caught:
        backend.find(uuid.uuid4())
    assert azure_server.secret not in str(caught.value)
    assert not backend.health().ok
    assert azure_server.secret not in backend.health().detail
    backend.close()


def test_another_application_or_tenant_is_refused(azure_server: Azure) -> None:
    settings = azure_server.vault()
    for change in ({"client_id": str(uuid.uuid4())}, {"tenant_id": str(uuid.uuid4())}):
        backend = azure_server.backend(settings | change)
        with pytest.raises(BackendRefused):
            backend.find(uuid.uuid4())
        backend.close()


def test_a_token_that_was_revoked_is_replaced(behind: Behind) -> None:
    behind.server.change(behind.settings, revoke=True)
    assert behind.straight.find(uuid.uuid4()) is None
    behind.server.change(behind.settings, revoke=True)
    assert behind.unsure.sign(behind.handle, ECDSA, b"x")


def test_a_missing_permission_is_named(open_vault: Open) -> None:
    backend, _ = open_vault(denied=["create", "sign", "list", "getrotationpolicy"])
    for call in (
        lambda: backend.generate(uuid.uuid4(), EC),
        lambda: backend.discover(),
        lambda: backend.find(uuid.uuid4()),
    ):
        with pytest.raises(BackendRefused, match=r"ForbiddenByRbac.*not authorized to perform"):
            call()
    assert not backend.health().ok


def test_a_clock_that_is_wrong_is_told(behind: Behind) -> None:
    told = json.dumps({"error": {"code": "Unauthorized", "message": "The token has expired."}})
    for hours, side in ((-2, "ahead of"), (2, "behind")):
        at = format_datetime(datetime.now(UTC) + timedelta(hours=hours), usegmt=True)
        behind.proxy.next(Fault.status(401, told, {"Date": at}), times=None)
        with pytest.raises(BackendRefused, match=rf"clock is 7\d\d\d seconds {side}"):
            behind.unsure.discover()
        behind.proxy.clear()


REFUSALS = [
    ("KeyDisabled", "Operation sign is not allowed on a disabled key.", StateForbids),
    ("KeyExpired", "", StateForbids),
    ("KeyNotYetValid", "", StateForbids),
    ("", "Operation sign is not allowed on a disabled key.", StateForbids),
    ("", "The key has expired.", StateForbids),
    ("", "Operation sign is not permitted on this key.", Unsupported),
    ("AccessDenied", "The user does not have keys sign permission.", Forbidden),
    ("ForbiddenByFirewall", "Client address is not authorized.", Forbidden),
    ("ForbiddenByPolicy", "The policy has expired.", Forbidden),
    ("", "", Forbidden),
]


@pytest.mark.parametrize(("inner", "message", "meant"), REFUSALS)
def test_what_a_refusal_is_about(
    behind: Behind, inner: str, message: str, meant: type[Exception]
) -> None:
    error: dict[str, Any] = {"code": "Forbidden", "message": message}
    if inner:
        error["innererror"] = {"code": inner}
    behind.unsure.sign(behind.handle, ECDSA, b"x")
    behind.proxy.next(Fault.status(403, json.dumps({"error": error})), when="/sign")
    with pytest.raises(meant) as caught:
        behind.unsure.sign(behind.handle, ECDSA, b"x")
    assert type(caught.value) is meant


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"null", b'{"error": 3}', b'{"error": {"code": 3}}', b"<html>"]
)
def test_errors_without_words_are_errors_all_the_same(behind: Behind, body: bytes) -> None:
    behind.unsure.sign(behind.handle, ECDSA, b"x")
    for status, meant in (
        (400, BackendError), (403, BackendRefused), (404, BackendError), (418, BackendError),
        (503, BackendUnavailable), (202, BackendError), (301, BackendError),
    ):  # fmt: skip
        behind.proxy.next(Fault.status(status, body), when="/sign")
        with pytest.raises(meant) as caught:
            behind.unsure.sign(behind.handle, ECDSA, b"x")
        assert not isinstance(caught.value, NoMaterial | Forbidden)


@pytest.mark.parametrize(
    "body",
    [
        b"<html><h1>404 Not Found</h1></html>",
        b"",
        b'{"error": {"code": "ResourceNotFound", "message": "KeyNotFound"}}',
    ],
)
def test_a_404_that_does_not_speak_of_a_key_is_no_proof_that_it_is_gone(
    behind: Behind, body: bytes
) -> None:
    """A proxy's page, or another service at the address: nothing may be taken for destroyed."""
    behind.proxy.next(Fault.status(404, body), times=None)
    for call in behind.calls():
        with pytest.raises(BackendError) as caught:
            call()
        assert not isinstance(caught.value, NoMaterial)
    assert behind.straight.sign(behind.handle, ECDSA, b"x")
