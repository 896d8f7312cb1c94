"""Azure's client for one vault: one attempt a call, short timeouts, and its errors translated.

The uses of a key go through the client's own send_request() rather than the SDK's
CryptographyClient. That one encrypts and wraps in this process, from the public key, whatever the
vault says of the version; what is encrypted so to a version that is disabled, or gone for good,
can't be read again. Asked directly, the vault refuses, and its own log shows the use.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from azure.core.rest import HttpRequest
from azure.identity import ClientSecretCredential, DefaultAzureCredential
from azure.keyvault.keys import DeletedKey, KeyClient, KeyProperties

from keys.backends.azure.configuration import Configuration, authority_is_loopback
from keys.backends.azure.failures import answered, asked, json_of
from keys.backends.azure.naming import Handle, handle_of
from keys.backends.base import NoMaterial
from keys.errors import BackendError, BackendUnavailable, Invalid
from keys.secret import Secret

Answer = TypeVar("Answer")

CONNECT_SECONDS, READ_SECONDS = 5, 15
# Azure gives at most 25 a page, whatever is asked for.
PAGE = 25
# How long a deletion, a recovery or a purge is waited for, and how often it is looked at.
PATIENCE, PAUSE = 10.0, 0.25


class Connection:
    """One vault. Methods return plain values and models of the SDK, and raise errors of keys.errors."""

    def __init__(self, configuration: Configuration, credential: Secret | None) -> None:
        # One attempt: what may be tried again is decided in keys.backends.bounded. But for a connection
        # that does not come about: nothing was sent yet, so asking once more does nothing twice.
        options: dict[str, Any] = {
            "retry_total": 1,
            "retry_connect": 1,
            "retry_read": 0,
            "retry_status": 0,
            "connection_timeout": CONNECT_SECONDS,
            "read_timeout": READ_SECONDS,
            "permit_redirects": False,
        }
        if configuration.ca_file:
            if not Path(configuration.ca_file).is_file():
                raise BackendUnavailable("The setting ca_file names no file that is there.")
            options["connection_verify"] = configuration.ca_file
        if configuration.loopback:
            options["use_env_settings"] = False  # no proxy between this machine and itself
        self._credential = asked(lambda: _credential(configuration, credential, options))
        self.client = asked(
            lambda: KeyClient(
                configuration.vault_url,
                self._credential,
                # A challenge must name the domain of the vault, lest a token go to somebody else.
                # A server of this machine has no such domain.
                verify_challenge_resource=not configuration.loopback,
                **options,
            )
        )

    def close(self) -> None:
        self.client.close()
        self._credential.close()

    def send(
        self, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> tuple[Mapping[str, Any], Mapping[str, str]]:
        """Return the body, a JSON object, and the headers of Azure's answer."""
        response = asked(lambda: self.client.send_request(HttpRequest(method, path, json=body)))
        if response.status_code >= 400:
            raise answered(response.status_code, json_of(response), response.headers)
        found = json_of(response)
        if response.status_code != 200 or not isinstance(found, Mapping):
            raise BackendError("Azure's answer is no JSON object.")
        return found, response.headers

    def use(self, handle: Handle, operation: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Ask for one cryptographic operation; the answer is of the version that was asked."""
        found, _ = self.send("POST", f"/keys/{handle.name}/{handle.version}/{operation}", body)
        if handle_of(str(found.get("kid"))) != handle:
            raise BackendError("Azure answered with another key than was asked.")
        return found

    def versions(self, name: str) -> list[KeyProperties]:
        """Return a key's versions, oldest first; [] where there is no such key (or it is deleted).

        Azure lists them in no order of time, and tells times in whole seconds: where the newest two
        are as old as each other, its current version is the newest.
        """
        try:
            rows = asked(lambda: list(self.client.list_properties_of_key_versions(name)))
        except NoMaterial:
            return []
        rows = [row for row in rows if handle_of(row.id).name == name]
        rows.sort(
            key=lambda row: (row.created_on is not None and row.created_on.timestamp(), row.version)
        )
        if len(rows) > 1 and rows[-1].created_on == rows[-2].created_on:
            newest = self.current(name)
            rows.sort(key=lambda row: row.version == newest)
        return rows

    def current(self, name: str) -> str | None:
        """Return the version that Azure takes where none is named; None where it does not say."""
        try:
            return handle_of(asked(lambda: self.client.get_key(name)).id).version
        except NoMaterial:
            return None

    def deleted(self, name: str) -> DeletedKey | None:
        """Return a key that is deleted and not purged, or None."""
        try:
            return asked(lambda: self.client.get_deleted_key(name))
        except NoMaterial:
            return None


def eventually(ready: Callable[[], Answer | None]) -> Answer | None:
    """Return what `ready` returns as soon as that is true; None when patience is over."""
    deadline = time.monotonic() + PATIENCE
    while not (found := ready()):
        if time.monotonic() >= deadline:
            return None
        time.sleep(PAUSE)
    return found


def _credential(
    configuration: Configuration, credential: Secret | None, options: Mapping[str, Any]
) -> Any:
    more = dict(options)
    if configuration.authority:
        more["authority"] = configuration.authority
        if authority_is_loopback(configuration):
            # Azure's directory of authorities knows no server of this machine.
            more["disable_instance_discovery"] = True
    if credential is not None:
        if not (configuration.tenant_id and configuration.client_id):
            raise Invalid(
                "A client secret needs the settings tenant_id and client_id.", field="settings"
            )
        try:
            secret = credential.reveal().decode()
        except UnicodeDecodeError:
            raise BackendUnavailable("The client secret is no text.") from None
        return ClientSecretCredential(
            configuration.tenant_id, configuration.client_id, secret, **more
        )
    if configuration.client_id:
        more["managed_identity_client_id"] = configuration.client_id
    if configuration.tenant_id:
        more["workload_identity_tenant_id"] = configuration.tenant_id
    return DefaultAzureCredential(exclude_interactive_browser_credential=True, **more)
