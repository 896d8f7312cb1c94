"""The settings of an Azure key store: what is taken, what is refused, and that nothing is reached."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

import pytest

from keys.backends import registry
from keys.backends.azure.backend import AzureBackend
from keys.backends.azure.configuration import read
from keys.backends.base import Protection
from keys.errors import Invalid, Unsupported
from keys.secret import Secret

VAULT = "https://contoso.vault.azure.net"


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"vault_url": "http://contoso.vault.azure.net"}, "vault_url"),
        ({"vault_url": "contoso.vault.azure.net"}, "vault_url"),
        ({"vault_url": "https://"}, "vault_url"),
        ({"vault_url": "https://contoso.vault.azure.net/keys/one"}, "vault_url"),
        ({"vault_url": "https://contoso.vault.azure.net?x=1"}, "vault_url"),
        ({"vault_url": "https://someone:pass@contoso.vault.azure.net"}, "vault_url"),
        ({"vault_url": "https://contoso.vault.azure.net:port"}, "vault_url"),
        ({"vault_url": "https://[bad"}, "vault_url"),
        ({"vault_url": "https://кontoso.vault.azure.net"}, "vault_url"),
        ({"vault_url": 7}, "vault_url"),
        ({"vault_url": VAULT, "hsm": "maybe"}, "hsm"),
        ({"vault_url": VAULT, "tenant_id": "a b"}, "tenant_id"),
        ({"vault_url": VAULT, "tenant_id": "../other"}, "tenant_id"),
        ({"vault_url": VAULT, "client_id": "a/b"}, "client_id"),
        ({"vault_url": VAULT, "authority": "http://127.0.0.1:1"}, "authority"),
        ({"vault_url": VAULT, "authority": "https://login.example/tenant"}, "authority"),
        ({"vault_url": VAULT, "ca_file": "ca.pem"}, "ca_file"),
        ({"vault_url": VAULT, "vault": "x"}, "vault"),
        ({"hsm": "yes"}, "vault_url"),
    ],
)
def test_a_wrong_setting_is_named(settings: Mapping[str, Any], named: str) -> None:
    with pytest.raises(Invalid, match=named):
        registry.check_settings("azure", settings, "")


def test_good_settings_are_taken() -> None:
    for settings in (
        {"vault_url": VAULT},
        {"vault_url": f"{VAULT}/", "hsm": "yes"},
        {"vault_url": "https://127.0.0.1:8443", "authority": "https://127.0.0.1:8444"},
        {"vault_url": VAULT, "authority": "login.microsoftonline.us", "tenant_id": "contoso.com"},
        {"vault_url": VAULT, "client_id": str(uuid.uuid4()), "ca_file": "/etc/ssl/own.pem"},
    ):
        registry.check_settings("azure", settings, "env:AZURE_SECRET")
    assert read({"vault_url": f"{VAULT}/"}).vault_url == VAULT
    assert (
        read({"vault_url": VAULT, "authority": "login.example"}).authority
        == "https://login.example"
    )


@pytest.mark.parametrize(
    ("settings", "protection"),
    [
        ({"vault_url": VAULT}, Protection.SOFTWARE),
        ({"vault_url": VAULT, "hsm": "no"}, Protection.SOFTWARE),
        ({"vault_url": VAULT, "hsm": "yes"}, Protection.HSM),
        ({"vault_url": "https://contoso.managedhsm.azure.net"}, Protection.HSM),
        ({"vault_url": "https://contoso.managedhsm.usgovcloudapi.net"}, Protection.HSM),
        ({"vault_url": "https://127.0.0.1:8443", "hsm": "managed"}, Protection.HSM),
    ],
)
def test_how_keys_are_protected_follows_from_the_settings(
    settings: Mapping[str, Any], protection: Protection
) -> None:
    assert registry.protection("azure", settings) is protection


def test_a_client_secret_needs_a_tenant_and_an_application() -> None:
    with pytest.raises(Invalid, match="tenant_id and client_id"):
        AzureBackend(uuid.uuid4(), {"vault_url": VAULT}, Secret(b"secret"))


def test_what_azure_has_not_is_refused_without_asking() -> None:
    backend = AzureBackend(uuid.uuid4(), {"vault_url": VAULT}, None)
    for call in (
        lambda: backend.generate(uuid.uuid4(), "AES_256"),
        lambda: backend.generate(uuid.uuid4(), "ML_DSA_65"),
        lambda: backend.generate(uuid.uuid4(), "RSA_2048", exportable=True),
        lambda: backend.export_material("a/0123"),
    ):
        with pytest.raises(Unsupported):
            call()
    assert len(backend.random(32)) == 32
    with pytest.raises(Invalid):
        backend.random(0)
    backend.close()
