"""The transit engine at its mount: requests with a token, and keys as they are now."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from keys.backends.base import NoMaterial
from keys.backends.vault import failures, records
from keys.backends.vault.configuration import Configuration
from keys.backends.vault.connection import Answer, Connection
from keys.backends.vault.records import TransitKey
from keys.backends.vault.sign_in import SignIn
from keys.errors import BackendError, BackendRefused
from keys.secret import Secret

# How many keys' descriptions are kept: what a version's algorithm and public key are never changes.
REMEMBERED = 4096


class Engine:
    """One mount. Threads may share it."""

    def __init__(self, configuration: Configuration, credential: Secret) -> None:
        self.mount = configuration.mount
        self.connection = Connection(configuration)
        self.sign_in = SignIn(configuration, self.connection, credential)
        # Whether the server has soft deletion; learnt from any key that it describes.
        self.soft_deletes: bool | None = None
        self._known: dict[str, TransitKey] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        self.connection.close()
        self._known.clear()

    def ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        query: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send a request with a token to a path of the server, and return the answer.

        Raises BackendRefused where the token is not good for it, and as Connection.send() does.
        """
        token = self.sign_in.token()
        answer = self.connection.send(method, path, body, token=token, query=query)
        if answer.status not in (401, 403):
            return answer
        # A refused request was not carried out: with a new token it is sent once more.
        renewed = self.sign_in.again(token)
        if renewed is not None:
            answer = self.connection.send(method, path, body, token=renewed, query=query)
        if answer.status in (401, 403):
            raise BackendRefused(f"The token's policies do not allow {method} {path}.")
        return answer

    def do(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
    ) -> Mapping[str, Any]:
        """Do something at the mount and return its data. Raises what anything but a success means."""
        answer = self.ask(method, f"{self.mount}/{path}", body)
        if not answer.ok:
            raise answer.failure()
        return answer.data

    # --- keys

    def read(self, name: str) -> TransitKey | None:
        """Return a key as it is now, None where there is none."""
        answer = self.ask("GET", f"{self.mount}/keys/{name}")
        if answer.nothing:
            self.forget(name)
            return None
        if not answer.ok:
            raise answer.failure()
        key = records.transit_key(name, answer.data)
        self.soft_deletes = key.soft_deleted is not None
        with self._lock:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            self._known[name] = key
        return key

    def there(self, name: str) -> TransitKey:
        """Return a key as it is now. Raises NoMaterial."""
        key = self.read(name)
        if key is None:
            raise NoMaterial("There is no such key at the store.")
        return key

    def known(self, name: str, version: int) -> TransitKey:
        """Return a key that has this version, perhaps as it was before. Raises NoMaterial."""
        key = self._known.get(name)
        if key is None or version > key.latest:
            key = self.there(name)
        if version not in key.versions:
            raise NoMaterial("The key at the store has no such version.")
        return key

    def forget(self, name: str) -> None:
        self._known.pop(name, None)

    def names(self) -> list[str]:
        """Return the names of all keys in their order."""
        answer = self.ask("LIST", f"{self.mount}/keys")
        if answer.nothing:
            return []
        if not answer.ok:
            raise answer.failure()
        found = answer.data.get("keys")
        if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
            raise BackendError("The store's list of keys makes no sense.")
        # "import/" is the engine's own, for the key that imports are wrapped with.
        return sorted(name for name in found if not name.endswith("/"))

    # --- the server

    def check_mount(self) -> None:
        """Raise BackendError where something else than a transit engine is mounted, or nothing.

        Every token may ask this of a mount that it has to do with.
        """
        answer = self.ask("GET", f"sys/internal/ui/mounts/{self.mount}")
        if not answer.ok:
            raise answer.failure()
        kind = answer.data.get("type")
        if kind != "transit":
            raise BackendError(f"What is mounted at {self.mount} is no transit engine.")

    def find_soft_deletion(self) -> bool:
        """Whether the server has soft deletion, which tells OpenBao from Vault; asked for once.

        Versions don't tell: a build of one's own has none. The path's help does, and every token may
        read it.
        """
        if self.soft_deletes is None:
            path = f"{self.mount}/keys/x/soft-delete"
            answer = self.ask("GET", path, query={"help": "1"})
            if not answer.ok and not failures.says(answer.errors, "unsupported path"):
                raise answer.failure()
            self.soft_deletes = answer.ok
        return self.soft_deletes

    def server(self) -> Answer:
        """Return sys/health: of any node that can serve, without a token."""
        query = {"standbyok": "true", "perfstandbyok": "true"}
        return self.connection.send("GET", "sys/health", query=query)
