"""A server that speaks the protocol of Azure Key Vault: OURS, or a real vault where one is named.

`azure_vault` is a key vault, `azure_managed_hsm` a managed HSM, which has symmetric keys beside.
With PEER_AZURE_URL the tests run against that vault, signed in by the SDK's own chain.
"""

from __future__ import annotations

import json
import os
import secrets
import ssl
import subprocess
import sys
import tempfile
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from keys.secret import Secret
from tests.peers.peer import Peer
from tests.processes import BASE_DIR, Process

if TYPE_CHECKING:
    from azure.keyvault.keys import KeyClient

    from keys.backends.azure.backend import AzureBackend

OURS = (
    "tests.peers.azure_server, OURS, after Azure's published REST API: "
    "no server that somebody else wrote can be had here"
)


@dataclass(frozen=True, slots=True)
class Azure:
    """The running server: a directory that opens vaults."""

    authority: str
    tenant: str
    client_id: str
    secret: str
    ca_file: str

    def vault(self, **rules: Any) -> dict[str, Any]:
        """Open a vault and return its settings. Rules: tests.peers.azure_server.vault.Rules."""
        return self.settings(
            self._post("/vaults", rules)["url"], managed=bool(rules.get("managed"))
        )

    def settings(self, url: str, *, managed: bool = False) -> dict[str, Any]:
        return {
            "vault_url": url,
            "tenant_id": self.tenant,
            "client_id": self.client_id,
            "authority": self.authority,
            "ca_file": self.ca_file,
        } | ({"hsm": "managed"} if managed else {})

    def change(self, settings: Mapping[str, Any], **change: Any) -> None:
        """Change a vault: `rules`, `revoke` (tokens) or `certificates` (names of their keys)."""
        self._post(f"/vaults/{settings['vault_url'].rpartition(':')[2]}", change)

    def backend(self, settings: Mapping[str, Any], *, secret: str = "") -> AzureBackend:
        """Return a backend of a vault, signed in with the right secret or another."""
        from keys.backends.azure.backend import AzureBackend

        return AzureBackend(uuid.uuid4(), settings, Secret((secret or self.secret).encode()))

    def client(self, settings: Mapping[str, Any]) -> KeyClient:
        """Return Azure's own client of a vault: what somebody beside the console works with."""
        from azure.identity import ClientSecretCredential
        from azure.keyvault.keys import KeyClient

        options: dict[str, Any] = {"connection_verify": self.ca_file, "use_env_settings": False}
        credential = ClientSecretCredential(
            self.tenant,
            self.client_id,
            self.secret,
            authority=self.authority,
            disable_instance_discovery=True,
            **options,
        )
        return KeyClient(
            settings["vault_url"], credential, verify_challenge_resource=False, **options
        )

    def _post(self, path: str, body: Mapping[str, Any]) -> Any:
        request = urllib.request.Request(
            self.authority + path, json.dumps(body).encode(), {"X-Tests": self.secret}
        )
        trust = ssl.create_default_context(cafile=self.ca_file)
        with urllib.request.urlopen(request, timeout=60, context=trust) as answer:
            return json.load(answer)


@pytest.fixture(scope="session")
def azure_server() -> Iterator[Azure]:
    """Our server. It ends with its standard input: also when the tests are killed."""
    with tempfile.TemporaryDirectory(prefix="kms-azure-") as name:
        folder = Path(name)
        command = [sys.executable, "-m", "tests.peers.azure_server", name]
        environment = {"PATH": os.environ.get("PATH", ""), "PYTHONPATH": str(BASE_DIR)}
        process = Process(command, environment, folder / "output", stdin=subprocess.PIPE)
        try:
            tenant, client, secret = str(uuid.uuid4()), str(uuid.uuid4()), secrets.token_hex(16)
            process.tell(f"{tenant}\n{client}\n{secret}\n")
            process.wait_for("}\n")
            authority = json.loads(process.text)["authority"]
            yield Azure(authority, tenant, client, secret, str(folder / "ca.pem"))
        finally:
            process.kill()


@pytest.fixture(scope="session")
def azure_vault(request: pytest.FixtureRequest) -> Peer:
    url = os.environ.get("PEER_AZURE_URL")
    if url:
        return Peer("azure", f"the vault {url} at Azure", lambda: {"vault_url": url})
    server: Azure = request.getfixturevalue("azure_server")
    return Peer("azure", OURS, server.vault, server.secret.encode())


@pytest.fixture(scope="session")
def azure_managed_hsm(azure_server: Azure) -> Peer:
    return Peer(
        "azure", OURS, lambda: azure_server.vault(managed=True), azure_server.secret.encode()
    )


Open = Callable[..., "tuple[AzureBackend, KeyClient]"]


@pytest.fixture
def open_vault(azure_server: Azure) -> Iterator[Open]:
    """Return a function that opens a vault of our server by its rules.

    It returns the console's backend of it, and a client of somebody beside the console.
    """
    opened: list[Any] = []

    def open_vault(**rules: Any) -> tuple[AzureBackend, KeyClient]:
        settings = azure_server.vault(**rules)
        pair = azure_server.backend(settings), azure_server.client(settings)
        opened.extend(pair)
        return pair

    yield open_vault
    for one in opened:
        one.close()
