"""What goes wrong between the console and transit: lost answers, throttling, nonsense, outages."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from keys.backends.base import Backend, Material, Parent
from keys.backends.vault import connection, records, views
from keys.backends.views import KeyView, VersionView
from keys.errors import (
    BackendError,
    BackendRefused,
    BackendUnavailable,
    KeyServiceError,
    StateForbids,
    Throttled,
    Unsupported,
)
from keys.states import KeyState, VersionState
from tests.backends.uses import some_material
from tests.peers.faults import Fault, FaultProxy
from tests.peers.openbao import Admin
from tests.peers.peer import Peer

AAD = b"header and context"
GCM = "AES_256_GCM"
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def proxy(openbao_admin: Admin) -> Iterator[FaultProxy]:
    with FaultProxy("127.0.0.1", openbao_admin.port) as made:
        yield made


@pytest.fixture(scope="module")
def mount(openbao_place: Mapping[str, Any]) -> str:
    return str(openbao_place["mount"])


@pytest.fixture
def store(openbao: Peer, proxy: FaultProxy, mount: str) -> Iterator[Backend]:
    """A store behind the proxy. Tests of this file share an engine."""
    proxy.clear()
    made = openbao.backend({"address": proxy.url, "mount": mount})
    yield made
    proxy.clear()
    made.close()


@pytest.fixture
def impatient(
    openbao: Peer, proxy: FaultProxy, mount: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Backend]:
    """A store that waits half a second for an answer."""
    monkeypatch.setattr(connection, "TIMEOUTS", (5.0, 0.5))
    proxy.clear()
    made = openbao.backend({"address": proxy.url, "mount": mount})
    yield made
    proxy.clear()
    made.close()


def versions(admin: Admin, mount: str, material: Material) -> int:
    return int(admin.key(mount, material.handle.partition(":")[0])["latest_version"])


# --- done, and the answer lost


def test_a_key_whose_creation_was_not_answered_is_there_once(
    store: Backend, proxy: FaultProxy, openbao_admin: Admin, mount: str
) -> None:
    label, parent = uuid.uuid4(), Parent(uuid.uuid4())
    proxy.next(Fault.swallow(), when=f"POST /v1/{mount}/keys/")
    with pytest.raises(BackendUnavailable):
        store.generate(label, "AES_256", parent=parent)
    found = store.find(label, parent)
    assert found is not None
    assert store.generate(label, "AES_256", parent=parent) == found
    assert versions(openbao_admin, mount, found) == 1


def test_a_rotation_that_was_not_answered_is_done_once(
    impatient: Backend, proxy: FaultProxy, openbao_admin: Admin, mount: str
) -> None:
    first = impatient.generate(uuid.uuid4(), "HMAC_256")
    label, parent = uuid.uuid4(), Parent(uuid.uuid4(), newest=first.handle)
    proxy.next(Fault.swallow(hang=True), when="/rotate")
    with pytest.raises(BackendUnavailable, match="not known"):
        impatient.generate(label, "HMAC_256", parent=parent)
    found = impatient.find(label, parent)
    assert found is not None
    assert found.handle == first.handle[:-1] + "2"
    assert impatient.generate(label, "HMAC_256", parent=parent) == found
    assert versions(openbao_admin, mount, found) == 2


def test_a_rotation_that_never_arrived_is_done_by_the_next_try(
    store: Backend, proxy: FaultProxy, openbao_admin: Admin, mount: str
) -> None:
    first = store.generate(uuid.uuid4(), "AES_256")
    label, parent = uuid.uuid4(), Parent(uuid.uuid4(), newest=first.handle)
    proxy.next(Fault.reset(), when="/rotate")
    with pytest.raises(BackendUnavailable):
        store.generate(label, "AES_256", parent=parent)
    assert store.find(label, parent) is None
    made = store.generate(label, "AES_256", parent=parent)
    assert versions(openbao_admin, mount, made) == 2


def test_an_import_that_was_not_answered_is_there_once(
    store: Backend, proxy: FaultProxy, openbao_admin: Admin, mount: str
) -> None:
    key, secret = uuid.uuid4(), some_material("AES_256")
    proxy.next(Fault.swallow(), when="/import\r")
    with pytest.raises(BackendUnavailable):
        store.import_material(uuid.uuid4(), "AES_256", secret, parent=Parent(key))
    first = store.import_material(uuid.uuid4(), "AES_256", secret, parent=Parent(key))
    assert versions(openbao_admin, mount, first) == 1
    other, parent = some_material("AES_256"), Parent(key, newest=first.handle)
    proxy.next(Fault.swallow(), when="/import_version")
    with pytest.raises(BackendUnavailable):
        store.import_material(uuid.uuid4(), "AES_256", other, parent=parent)
    second = store.import_material(uuid.uuid4(), "AES_256", other, parent=parent)
    assert versions(openbao_admin, mount, second) == 2


@pytest.mark.parametrize("step", ["/config", "DELETE /v1/"])
@pytest.mark.parametrize("fault", [Fault.swallow(), Fault.reset()])
def test_a_destruction_that_broke_off_ends_with_the_next_try(
    store: Backend, proxy: FaultProxy, step: str, fault: Fault
) -> None:
    made = store.generate(uuid.uuid4(), "AES_256")
    proxy.next(fault, when=step)
    with pytest.raises(BackendUnavailable):
        store.destroy_all([made.handle])
    store.destroy_all([made.handle])
    assert store.inspect(made.handle[:-2]) is None


@pytest.mark.parametrize("step", ["/config", "/trim"])
@pytest.mark.parametrize("fault", [Fault.swallow(), Fault.reset()])
def test_a_version_whose_destruction_broke_off_goes_with_the_next_try(
    store: Backend, proxy: FaultProxy, step: str, fault: Fault
) -> None:
    first = store.generate(uuid.uuid4(), "AES_256")
    parent = Parent(uuid.uuid4(), newest=first.handle)
    second = store.generate(uuid.uuid4(), "AES_256", parent=parent)
    proxy.next(fault, when=step)
    with pytest.raises(BackendUnavailable):
        store.destroy(first.handle)
    store.destroy(first.handle)
    seen = store.inspect(first.handle[:-2])
    assert seen is not None
    assert [one.handle for one in seen.versions] == [second.handle]


def test_a_version_that_appears_while_its_key_is_being_deleted_is_not_deleted_with_it(
    store: Backend, proxy: FaultProxy, openbao_admin: Admin, mount: str
) -> None:
    """Somebody rotates between the first look and the deletion."""
    for destroy in (lambda one: store.destroy_all([one]), store.destroy, store.remove):
        made = store.generate(uuid.uuid4(), "AES_256")
        path = f"{mount}/keys/{made.handle[:-2]}"

        def rotated(answer: bytes, path: str = path) -> bytes:
            openbao_admin.ask("POST", f"{path}/rotate", {})
            return answer

        proxy.next(Fault.alter(rotated), when="/config")
        with pytest.raises(Unsupported, match="doesn't know: 2"):
            destroy(made.handle)
        key = openbao_admin.ask("GET", path)["data"]
        assert (key["latest_version"], key["deletion_allowed"]) == (2, False)


# --- a 404 that is not the engine's own


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        ("<html><h1>404 Not Found</h1></html>", {"Content-Type": "text/html"}),
        ("", {}),
        ("{}", JSON),
        ('{"errors": null}', JSON),
        ('{"errors": [], "message": "no such route"}', JSON),
        ('{"errors": []}', {"Content-Type": "text/html"}),
        ('{"errors": ["no existing key named x"]}', {"Content-Type": "text/plain"}),
    ],
)
def test_a_404_that_is_not_the_engines_own_is_no_proof_that_a_key_is_gone(
    store: Backend, proxy: FaultProxy, body: str, headers: Mapping[str, str]
) -> None:
    """A proxy's page, or another service at the address: nothing may be taken for destroyed."""
    label, parent = uuid.uuid4(), Parent(uuid.uuid4())
    made = store.generate(label, "AES_256", parent=parent)
    wanted = KeyView("", "", KeyState.ENABLED, (VersionView(made.handle, VersionState.ACTIVE),))
    proxy.next(Fault.status(404, body, headers), times=None)
    for call in (
        lambda: store.destroy_all([made.handle]),
        lambda: store.destroy(made.handle),
        lambda: store.remove(made.handle),
        lambda: store.find(label, parent),
        lambda: store.observe(wanted),
        lambda: store.encrypt(made.handle, GCM, b"x", AAD),
        store.discover,
    ):
        with pytest.raises(BackendError) as caught:
            call()
        assert type(caught.value) is BackendError
    proxy.clear()
    assert store.find(label, parent) == made


# --- refused, throttled, out of order


def test_a_throttled_call_says_how_long_to_wait(store: Backend, proxy: FaultProxy) -> None:
    for said, told in ((7, 7.0), (None, None)):
        proxy.next(Fault.throttle(said))
        with pytest.raises(Throttled) as caught:
            store.random(8)
        assert caught.value.retry_after == told
    proxy.next(Fault.status(429, b"", {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}))
    with pytest.raises(Throttled) as caught:
        store.random(8)
    assert caught.value.retry_after is None


def test_the_servers_own_quota_throttles(openbao: Peer, openbao_admin: Admin, mount: str) -> None:
    settings = {"address": openbao_admin.address, "mount": mount}
    made = openbao.backend(settings)
    made.random(8)
    quota = f"sys/quotas/rate-limit/{mount}"
    openbao_admin.ask("POST", quota, {"rate": 0.001, "path": f"{mount}/"})
    try:
        with pytest.raises(Throttled):
            for _ in range(3):
                made.random(8)
    finally:
        openbao_admin.ask("DELETE", quota)
    made.close()


@pytest.mark.parametrize(
    ("code", "body", "error"),
    [
        (500, {"errors": ["1 error occurred"]}, BackendUnavailable),
        (502, {}, BackendUnavailable),
        (503, {"errors": ["Vault is sealed"]}, BackendUnavailable),
        (412, {"errors": ["required index state not present"]}, BackendUnavailable),
        (473, {}, BackendUnavailable),
        (404, {"errors": ["no handler for route"]}, BackendError),
        (405, {"errors": ["1 error occurred: unsupported operation"]}, Unsupported),
        (400, {"errors": ["refusing to use soft-deleted key"]}, StateForbids),
        (400, {"errors": ["something new"]}, BackendError),
        (418, {}, BackendError),
        (302, {}, BackendUnavailable),
    ],
)
def test_each_status_is_its_own_kind_of_error(
    store: Backend, proxy: FaultProxy, code: int, body: dict[str, Any], error: type[Exception]
) -> None:
    store.random(8)
    proxy.next(Fault.status(code, json.dumps(body), JSON))
    with pytest.raises(KeyServiceError) as caught:
        store.random(8)
    assert type(caught.value) is error
    assert len(store.random(8)) == 8


def test_a_refusal_in_the_middle_is_told_apart_by_the_token(
    store: Backend, proxy: FaultProxy
) -> None:
    store.random(8)
    for _ in range(2):
        proxy.next(Fault.status(403, json.dumps({"errors": ["permission denied"]})))
        with pytest.raises(BackendRefused, match="policies"):
            store.random(8)
    proxy.next(Fault.status(403, json.dumps({"errors": ["permission denied"]})), times=2)
    with pytest.raises(BackendRefused, match="expired or revoked"):
        store.random(8)


def test_a_redirection_is_not_followed_and_the_token_stays(
    store: Backend, proxy: FaultProxy
) -> None:
    store.random(8)
    with FaultProxy("127.0.0.1", proxy.upstream[1]) as elsewhere:
        there = {"Location": f"{elsewhere.url}/v1/sys/health"}
        for code in (301, 307, 308):
            proxy.next(Fault.status(code, b"", there))
            with pytest.raises(BackendUnavailable, match="redirection"):
                store.random(8)
        assert elsewhere.seen == []


def test_a_server_that_hangs_is_given_up(impatient: Backend, proxy: FaultProxy) -> None:
    impatient.random(8)
    proxy.next(Fault.hang())
    with pytest.raises(BackendUnavailable, match="not answer"):
        impatient.random(8)
    assert len(impatient.random(8)) == 8


def test_a_sealed_server_and_one_that_is_not_set_up_say_so(
    store: Backend, proxy: FaultProxy
) -> None:
    for code, body, words in (
        (503, {"sealed": True, "version": "1.20.0"}, "sealed"),
        (501, {"initialized": False}, "not initialised"),
        (500, {}, "status 500"),
    ):
        proxy.next(Fault.status(code, json.dumps(body), JSON), when="sys/health")
        health = store.health()
        assert not health.ok
        assert words in health.detail


def test_what_the_server_says_is_not_passed_on(store: Backend, proxy: FaultProxy) -> None:
    """A broken server or a proxy in between may put anything into its answer, our secrets too."""
    made = store.generate(uuid.uuid4(), "AES_256")
    for code in (400, 403, 404, 500):
        body = json.dumps({"errors": ["hvs.secret five milligrams"], "data": "five milligrams"})
        proxy.next(Fault.status(code, body, JSON), when="/encrypt/")
        with pytest.raises(KeyServiceError) as caught:
            store.encrypt(made.handle, GCM, b"five milligrams", AAD)
        assert "milligrams" not in str(caught.value)
        assert "hvs" not in str(caught.value)


# --- nonsense


def everything(store: Backend) -> dict[str, Callable[[], object]]:
    """Each call that reads an answer of the engine's, on material of its own."""
    aes = store.generate(uuid.uuid4(), "AES_256")
    rsa = store.generate(uuid.uuid4(), "RSA_2048")
    mac = store.generate(uuid.uuid4(), "HMAC_256")
    pair = store.generate(uuid.uuid4(), "ECC_NIST_P256")
    edwards = store.generate(uuid.uuid4(), "ECC_NIST_EDWARDS25519")
    sealed = store.encrypt(aes.handle, GCM, b"x", AAD)
    tag = store.mac(mac.handle, "HMAC_SHA_256", b"x")
    wanted = KeyView(
        "", "", KeyState.ENABLED, (VersionView(pair.handle, VersionState.ACTIVE),), rotation_days=9
    )
    secret = some_material("AES_256")
    return {
        "encrypt": lambda: store.encrypt(aes.handle, GCM, b"x", AAD),
        "decrypt": lambda: store.decrypt(aes.handle, GCM, sealed, AAD),
        "wrap": lambda: store.wrap(rsa.handle, "RSAES_OAEP_SHA_256", b"x"),
        "sign": lambda: store.sign(pair.handle, "ECDSA_SHA_256", b"x"),
        "mac": lambda: store.mac(mac.handle, "HMAC_SHA_256", b"x"),
        "verify_mac": lambda: store.verify_mac(mac.handle, "HMAC_SHA_256", b"x", tag),
        "random": lambda: store.random(8),
        "inspect a secret": lambda: store.inspect(aes.handle[:-2]),
        "inspect a pair": lambda: store.inspect(pair.handle[:-2]),
        "inspect Ed25519": lambda: store.inspect(edwards.handle[:-2]),
        "conform": lambda: store.conform(wanted),
        "generate": lambda: store.generate(uuid.uuid4(), "AES_256"),
        "import": lambda: store.import_material(uuid.uuid4(), "AES_256", secret),
        "discover": lambda: store.discover("", 1),
    }


def test_an_answer_that_is_no_json_object_is_an_error_of_the_store(
    store: Backend, proxy: FaultProxy
) -> None:
    calls = everything(store)
    bodies = (b"", b"\xff\x00", b"[]", b"null", b'{"data": []}', b'{"data"', b"[" * 100_000)
    for call in calls.values():
        for body in bodies:
            proxy.clear()
            proxy.next(Fault.garbage(body))
            with pytest.raises(BackendError):
                call()
    assert store.health().ok


ODD: tuple[object, ...] = (
    None, True, -1, 0, 10**6, 2**80, 1.5, "", "vault:v1:", "vault:v2:AAAA", "*", [], {}, [1], {"1": 1},
    {"x": {}}, {"1": {"public_key": "*"}}, {"1": {"creation_time": "yesterday"}},
)  # fmt: skip


def test_a_member_of_an_answer_that_makes_no_sense_is_an_error_of_the_store(
    store: Backend, proxy: FaultProxy
) -> None:
    """What a use depends on is replaced and left out: nothing but our own errors comes out."""
    calls = everything(store)
    members = {
        "encrypt": "ciphertext",
        "wrap": "ciphertext",
        "sign": "signature",
        "mac": "hmac",
        "verify_mac": "valid",
        "random": "random_bytes",
    }
    for name, member in members.items():
        for odd in ODD:
            if (member, odd) == ("valid", True):
                continue
            proxy.next(Fault.alter(lambda body, m=member, o=odd: replaced(body, m, o)))
            with pytest.raises(BackendError):
                calls[name]()


def test_a_keys_description_that_makes_no_sense_is_an_error_of_the_store(
    openbao_admin: Admin, mount: str
) -> None:
    for kind in ("aes256-gcm96", "hmac", "ecdsa-p256", "ed25519", "rsa-2048"):
        body: dict[str, object] = {"type": kind} | ({"key_size": 32} if kind == "hmac" else {})
        openbao_admin.ask("POST", f"{mount}/keys/odd-{kind}", body)
        good = openbao_admin.key(mount, f"odd-{kind}")
        assert records.transit_key("odd", good).spec is not None
        with pytest.raises(BackendError):
            records.transit_key("odd", good | {"latest_version": 10**6})  # each would be shown
        refused = 0
        for member in good:
            for odd in ODD:
                answer = {**good, member: odd}
                if odd is None:
                    del answer[member]
                try:
                    views.view(records.transit_key("odd", answer))
                except BackendError:
                    refused += 1
        assert refused > 100


def replaced(body: bytes, name: str, odd: object) -> bytes:
    """Return an answer with one member of its data replaced, or left out for None."""
    answer = json.loads(body) if body else {}
    data = answer.get("data")
    if isinstance(data, dict) and name in data:
        if odd is None:
            del data[name]
        else:
            data[name] = odd
    return json.dumps(answer).encode()


# --- HashiCorp Vault, as far as OpenBao can stand for it


def test_a_server_without_soft_deletion_is_known_and_nothing_is_promised(
    openbao: Peer, proxy: FaultProxy, mount: str
) -> None:
    """OpenBao's answers without what HashiCorp Vault lacks."""
    proxy.clear()
    unsupported = json.dumps({"errors": ["1 error occurred:\n\t* unsupported path\n\n"]})
    proxy.next(Fault.status(404, unsupported, JSON), when="/soft-delete", times=None)
    proxy.next(Fault.alter(lambda body: replaced(body, "soft_deleted", None)), times=None)
    store = openbao.backend({"address": proxy.url, "mount": mount})
    capabilities = store.capabilities()
    assert "XCHACHA20" not in capabilities.algorithms
    assert any("knows no disabled keys" in note for note in capabilities.notes)
    assert store.health().facts["server"] == "HashiCorp Vault"
    with pytest.raises(Unsupported):
        store.generate(uuid.uuid4(), "XCHACHA20")
    made = store.generate(uuid.uuid4(), "AES_256")
    for state in (KeyState.DISABLED, KeyState.PENDING_DESTRUCTION, KeyState.ENABLED):
        wanted = KeyView("", "", state, (VersionView(made.handle, VersionState.ACTIVE, True),))
        assert store.expressed(wanted).state is KeyState.ENABLED
        store.conform(wanted)
        seen = store.observe(wanted)
        assert seen is not None
        assert seen.state is KeyState.ENABLED
    store.destroy_all([made.handle])
    assert store.inspect(made.handle[:-2]) is None
    proxy.clear()
    store.close()
