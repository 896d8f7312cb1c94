"""How the console signs in to Vault and OpenBao, and what a key store there may be configured with."""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from keys.backends import registry
from keys.backends.vault import configuration
from keys.backends.vault.backend import VaultBackend
from keys.errors import BackendRefused, BackendUnavailable, Invalid, KeyServiceError
from keys.secret import Secret
from tests.peers.faults import Fault, FaultProxy, self_signed
from tests.peers.openbao import Admin, documented_policy
from tests.peers.peer import Peer

AAD = b"header and context"
GCM = "AES_256_GCM"


@pytest.fixture(scope="module")
def settings(openbao: Peer) -> dict[str, Any]:
    """Tests of this file share an engine."""
    return dict(openbao.fresh())


def backend(settings: dict[str, Any], credential: str, **more: str) -> VaultBackend:
    return VaultBackend(uuid.uuid4(), {**settings, **more}, Secret(credential.encode()))


class Clock:
    """A clock that stands still until a test moves it, in seconds."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


# --- tokens


def test_a_token_that_was_revoked_is_told_from_one_that_may_not(
    settings: dict[str, Any], openbao_admin: Admin
) -> None:
    token = openbao_admin.new_token("default")
    store = backend(settings, token)
    with pytest.raises(BackendRefused, match="policies do not allow"):
        store.generate(uuid.uuid4(), "AES_256")
    openbao_admin.ask("POST", "auth/token/revoke", {"token": token})
    with pytest.raises(BackendRefused, match="expired or revoked"):
        store.generate(uuid.uuid4(), "AES_256")
    health = store.health()
    assert not health.ok
    assert "expired or revoked" in health.detail
    store.close()


def test_a_token_is_renewed_when_half_of_its_life_is_over(
    settings: dict[str, Any], openbao_admin: Admin
) -> None:
    token = openbao_admin.new_token("default", f"{settings['mount']}-all", ttl="1h")
    openbao_admin.write_policy(f"{settings['mount']}-all", documented_policy(settings["mount"]))
    store, clock = backend(settings, token), Clock()
    store._engine.sign_in.clock = clock
    with FaultProxy("127.0.0.1", openbao_admin.port) as proxy:
        through = backend(settings, token, address=proxy.url)
        through._engine.sign_in.clock = clock

        def renewals() -> int:
            return sum("renew-self" in one.asked for one in proxy.seen)

        through.random(8)
        clock.now += 1_700
        through.random(8)
        assert renewals() == 0
        clock.now += 200
        through.random(8)
        through.random(8)
        assert renewals() == 1
        # A renewal that fails is tried again later, and stops nobody.
        clock.now += 1_900
        proxy.next(Fault.status(503), when="renew-self")
        through.random(8)
        through.random(8)
        assert renewals() == 2
        clock.now += 60
        through.random(8)
        assert renewals() == 3
        through.close()
    store.close()


def test_a_token_that_ends_for_good_is_used_to_its_end(
    settings: dict[str, Any], openbao_admin: Admin
) -> None:
    token = openbao_admin.new_token("default", renewable=False, ttl="1h")
    store = backend(settings, token)
    clock = Clock()
    store._engine.sign_in.clock = clock
    assert store._engine.sign_in.token() == Secret(token.encode())
    clock.now += 10_000
    assert store._engine.sign_in.token() == Secret(token.encode())
    store.close()


# --- AppRole


@pytest.fixture(scope="module")
def role(settings: dict[str, Any], openbao_admin: Admin) -> Iterator[dict[str, str]]:
    """An AppRole that may do what the documentation says: its settings."""
    if "approle/" not in openbao_admin.ask("GET", "sys/auth")["data"]:
        openbao_admin.ask("POST", "sys/auth/approle", {"type": "approle"})
    policy = f"{settings['mount']}-role"
    openbao_admin.write_policy(policy, documented_policy(settings["mount"]))
    body = {"token_policies": policy, "token_ttl": "1h", "token_max_ttl": "2h"}
    openbao_admin.ask("POST", f"auth/approle/role/{policy}", body)
    found = openbao_admin.ask("GET", f"auth/approle/role/{policy}/role-id")["data"]["role_id"]
    yield {"auth": "approle", "role_id": found}
    openbao_admin.ask("DELETE", f"auth/approle/role/{policy}")


@pytest.fixture(scope="module")
def secret_id(settings: dict[str, Any], openbao_admin: Admin, role: dict[str, str]) -> str:
    path = f"auth/approle/role/{settings['mount']}-role/secret-id"
    return str(openbao_admin.ask("POST", path, {})["data"]["secret_id"])


def test_an_app_role_signs_in_and_again_when_its_token_was_revoked(
    settings: dict[str, Any], openbao_admin: Admin, role: dict[str, str], secret_id: str
) -> None:
    store = backend(settings, secret_id, **role)
    made = store.generate(uuid.uuid4(), "AES_256")
    first = store._engine.sign_in.token()
    openbao_admin.ask("POST", "auth/token/revoke", {"token": first.reveal().decode()})
    sealed = store.encrypt(made.handle, GCM, b"x", AAD)
    assert store.decrypt(made.handle, GCM, sealed, AAD) == b"x"
    assert store._engine.sign_in.token() != first
    store.close()


def test_an_app_role_signs_in_again_where_renewing_does_not_help_any_more(
    settings: dict[str, Any], openbao_admin: Admin, role: dict[str, str], secret_id: str
) -> None:
    clock = Clock()
    with FaultProxy("127.0.0.1", openbao_admin.port) as proxy:
        store = backend(settings, secret_id, address=proxy.url, **role)
        store._engine.sign_in.clock = clock

        def signed_in() -> int:
            return sum("approle/login" in one.asked for one in proxy.seen)

        store.random(8)
        clock.now += 2_000
        store.random(8)
        assert signed_in() == 1  # renewed
        clock.now += 2_000
        proxy.next(Fault.status(403), when="renew-self")
        store.random(8)
        assert signed_in() == 2
        # The end of all renewals is near: what is granted is hardly more than what is left.
        clock.now += 2_000
        proxy.next(Fault.alter(hardly_longer), when="renew-self")
        store.random(8)
        assert signed_in() == 3
        store.close()


def hardly_longer(body: bytes) -> bytes:
    answer = json.loads(body)
    answer["auth"]["lease_duration"] = 20
    return json.dumps(answer).encode()


def test_an_app_role_without_the_permission_does_not_sign_in_again_and_again(
    settings: dict[str, Any], openbao_admin: Admin, role: dict[str, str], secret_id: str
) -> None:
    with FaultProxy("127.0.0.1", openbao_admin.port) as proxy:
        store = backend(settings, secret_id, address=proxy.url, mount="elsewhere", **role)
        for _ in range(2):
            with pytest.raises(BackendRefused, match="policies do not allow"):
                store.random(8)
        assert sum("approle/login" in one.asked for one in proxy.seen) == 1
        store.close()


def test_a_wrong_secret_id_is_said_without_showing_it(
    settings: dict[str, Any], role: dict[str, str]
) -> None:
    wrong = str(uuid.uuid4())
    store = backend(settings, wrong, **role)
    with pytest.raises(BackendRefused, match="secret id") as caught:
        store.random(8)
    assert wrong not in str(caught.value)
    store.close()


# --- what stands in between


def test_a_proxy_of_the_environment_gets_no_token_that_goes_to_this_machine(
    settings: dict[str, Any],
    openbao: Peer,
    openbao_admin: Admin,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert openbao.credential is not None
    with FaultProxy("127.0.0.1", openbao_admin.port) as proxy:
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        store = backend(settings, openbao.credential.decode())
        assert len(store.random(8)) == 8
        store.close()
        assert proxy.seen == []


@pytest.mark.parametrize(
    ("address", "direct"),
    [
        ("http://localhost:8200", True),
        ("https://127.0.0.1:8200", True),
        ("https://127.8.0.1:8200", True),
        ("https://[::1]:8200", True),
        ("https://vault.example.org:8200", False),
    ],
)
def test_a_proxy_of_the_environment_is_used_only_for_https_to_elsewhere(
    address: str, direct: bool
) -> None:
    assert configuration.read({"address": address}).direct is direct


# --- what may be configured


@pytest.mark.parametrize(
    ("changes", "setting"),
    [
        ({"address": "vault.example.org:8200"}, "address"),
        ({"address": "http://vault.example.org:8200"}, "address"),
        ({"address": "https://root:hunter2@vault.example.org"}, "address"),
        ({"address": "https://vault.example.org/v1/transit"}, "address"),
        ({"address": "https://vault.example.org:0"}, "address"),
        ({"address": "https://vault.example.org:99999999"}, "address"),
        ({"address": "https://vault example.org"}, "address"),
        ({"address": "https://[::1"}, "address"),
        ({"address": "https://"}, "address"),
        ({"address": "file:///etc/passwd"}, "address"),
        ({"address": 8200}, "address"),
        ({"mount": "../sys"}, "mount"),
        ({"mount": "a//b"}, "mount"),
        ({"mount": "transit?help=1"}, "mount"),
        ({"namespace": "team\r\nX-Vault-Token: x"}, "namespace"),
        ({"auth": "kerberos"}, "auth"),
        ({"auth": "approle"}, "role_id"),
        ({"role_id": "fccf5b8d"}, "role_id"),
        ({"ca_file": "ca.pem"}, "ca_file"),
    ],
)
def test_a_setting_that_does_not_fit_is_named(changes: dict[str, Any], setting: str) -> None:
    good = {"address": "https://vault.example.org:8200"}
    registry.check_settings("vault", good, "env:VAULT_TOKEN")
    with pytest.raises(Invalid, match=setting) as caught:
        registry.check_settings("vault", good | changes, "env:VAULT_TOKEN")
    assert "hunter2" not in str(caught.value)


def test_a_store_without_a_credential_or_with_one_of_odd_characters_is_refused(
    settings: dict[str, Any],
) -> None:
    with pytest.raises(Invalid):
        registry.check_settings("vault", settings, "")
    with pytest.raises(Invalid):
        VaultBackend(uuid.uuid4(), settings, None)
    for odd in ("two words", "hvs.line\nX-Vault-Namespace: other", "", "hvs.é"):
        with pytest.raises(Invalid) as caught:
            backend(settings, odd)
        assert not odd or odd not in str(caught.value)


def test_a_mount_that_is_no_transit_engine_is_reported(
    settings: dict[str, Any], openbao_admin: Admin, openbao: Peer
) -> None:
    assert openbao.credential is not None
    good = backend(settings, openbao.credential.decode())
    health = good.health()
    assert health.ok, health.detail
    assert health.facts["server"] == "OpenBao"
    good.close()
    root = openbao_admin.token
    for mount in ("nowhere", "sys", "cubbyhole"):
        store = backend(settings, root, mount=mount)
        health = store.health()
        assert not health.ok
        with pytest.raises(KeyServiceError):
            store.generate(uuid.uuid4(), "AES_256")
        store.close()


def test_no_server_at_the_address_is_an_outage(settings: dict[str, Any]) -> None:
    store = backend(settings, "hvs.token", address="http://127.0.0.1:9")
    with pytest.raises(BackendUnavailable):
        store.random(8)
    assert not store.health().ok
    store.close()


# --- TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return self_signed(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def over_tls(openbao_admin: Admin, certificate: Path) -> Iterator[FaultProxy]:
    with FaultProxy("127.0.0.1", openbao_admin.port, certificate=certificate, tls=False) as proxy:
        yield proxy


def test_a_private_authority_is_trusted_where_it_is_named_and_else_not(
    settings: dict[str, Any], openbao: Peer, over_tls: FaultProxy, certificate: Path
) -> None:
    assert openbao.credential is not None
    token = openbao.credential.decode()
    trusting = backend(settings, token, address=over_tls.url, ca_file=str(certificate))
    assert len(trusting.random(8)) == 8
    trusting.close()
    over_tls.clear()
    wary = backend(settings, token, address=over_tls.url)
    with pytest.raises(BackendUnavailable, match="not trusted"):
        wary.random(8)
    wary.close()
    lost = backend(settings, token, address=over_tls.url, ca_file="/nonexistent/ca.pem")
    with pytest.raises(BackendUnavailable, match="ca_file"):
        lost.random(8)
    lost.close()
    assert over_tls.seen == []  # no token went to who wasn't trusted


# --- what must not be seen


def test_neither_token_nor_plaintext_is_logged_or_shown(
    settings: dict[str, Any], openbao: Peer, caplog: pytest.LogCaptureFixture
) -> None:
    assert openbao.credential is not None
    token = openbao.credential.decode()
    caplog.set_level(logging.DEBUG)
    store = backend(settings, token)
    made = store.generate(uuid.uuid4(), "AES_256")
    sealed = store.encrypt(made.handle, GCM, b"five milligrams", AAD)
    store.decrypt(made.handle, GCM, sealed, AAD)
    shown = caplog.text + repr(vars(store._engine.sign_in)) + repr(vars(store._engine))
    for secret in (token, "five milligrams", "Zml2ZSBtaWxsaWdyYW1z"):
        assert secret not in shown
    store.close()


def test_the_documented_policy_allows_no_more_than_it_has_to(
    settings: dict[str, Any], openbao: Peer, openbao_admin: Admin
) -> None:
    """Nothing leaves the engine, and nobody but an operator mounts one or makes tokens."""
    assert openbao.credential is not None
    headers = {"X-Vault-Token": openbao.credential.decode()}
    mount = settings["mount"]
    openbao_admin.ask("POST", f"{mount}/keys/loose", {"exportable": True})
    for method, path in (
        ("GET", f"{mount}/export/encryption-key/loose"),
        ("GET", f"{mount}/backup/loose"),
        ("POST", f"{mount}/restore"),
        ("POST", f"{mount}/encrypt/not-there-yet"),
        ("POST", "sys/mounts/another"),
        ("GET", "sys/policies/acl"),
        ("POST", "auth/token/create"),
    ):
        answer = requests.request(
            method, f"{openbao_admin.address}/v1/{path}", headers=headers, json={}, timeout=30
        )
        assert answer.status_code == 403, path
