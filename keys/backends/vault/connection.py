"""HTTP to one server, through hvac's adapter: one attempt, no redirection, errors of keys.errors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hvac import adapters

from keys.backends.vault import failures
from keys.backends.vault.configuration import Configuration
from keys.errors import BackendError, BackendUnavailable, KeyServiceError
from keys.secret import Secret

# hvac lets the exceptions of its own transport through.
_TRANSPORT = adapters.requests.exceptions
# Seconds to connect, and to wait for each part of an answer.
TIMEOUTS = (5.0, 15.0)
POOL = 32


@dataclass(frozen=True, slots=True)
class Answer:
    """`data` is the engine's own part of a success, `auth` a new token's, `errors` its words."""

    status: int
    what: str
    data: Mapping[str, Any] = field(default_factory=dict, repr=False)
    auth: Mapping[str, Any] = field(default_factory=dict, repr=False)
    whole: Mapping[str, Any] = field(default_factory=dict, repr=False)
    errors: tuple[str, ...] = field(default=(), repr=False)
    headers: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def ok(self) -> bool:
        return self.status in (200, 204)

    @property
    def nothing(self) -> bool:
        """Whether the engine itself says that there is nothing, in its own words and no others.

        A 404 of something in between, or of an address that is no engine's, proves nothing.
        """
        return self.status == 404 and self.whole == {"errors": []}

    def failure(self) -> KeyServiceError:
        return failures.failure(self.status, self.errors, self.what, self.headers)


class Connection:
    """A pool of connections to the configured server. Threads may share it."""

    def __init__(self, configuration: Configuration) -> None:
        # The token is no part of it: it is given with each request, and nothing can print it.
        self._adapter = adapters.RawAdapter(
            base_uri=configuration.address,
            verify=configuration.ca_file or True,
            timeout=TIMEOUTS,
            allow_redirects=False,
            namespace=configuration.namespace or None,
        )
        session = self._adapter.session
        if configuration.direct:
            # No proxy of the environment's: over plain HTTP it would be told the token.
            session.trust_env = False
        pooled = type(session.get_adapter(configuration.address))
        for scheme in ("https://", "http://"):
            session.mount(scheme, pooled(max_retries=0, pool_connections=2, pool_maxsize=POOL))

    def close(self) -> None:
        self._adapter.close()

    def send(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        token: Secret | None = None,
        query: Mapping[str, str] | None = None,
    ) -> Answer:
        """Return whatever the server answers. Raises BackendUnavailable where it doesn't.

        Raises BackendError for a success that is no JSON object. What was sent may have been done.
        """
        headers = {"X-Vault-Token": token.reveal().decode()} if token is not None else {}
        what = f"{method} {path}"
        try:
            response = self._adapter.request(
                method,
                f"/v1/{path}",
                headers=headers,
                raise_exception=False,
                json=body,
                params=query,
            )
            status, content = response.status_code, response.content
        except _TRANSPORT.SSLError:
            raise BackendUnavailable(
                "The server's certificate is not trusted: check the address and ca_file."
            ) from None
        except _TRANSPORT.Timeout:
            raise BackendUnavailable(
                f"The store did not answer {what} in time; whether it did it is not known."
            ) from None
        except Exception:
            # Of the transport, of what it is built on, or of ca_file, which may not be there. Its
            # text may hold what was sent.
            raise BackendUnavailable(
                "The connection to the store failed: check the address and ca_file."
            ) from None
        return _read(status, content, what, response.headers)


def _read(status: int, content: bytes, what: str, headers: Mapping[str, Any]) -> Answer:
    done = status in (200, 204)
    try:
        found = json.loads(content) if content else {}
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        if done:
            raise BackendError(f"The store's answer to {what} makes no sense.")
        return Answer(status, what, headers=headers)
    if not done and not _calls_itself_json(headers):
        # What refuses may be something in between: its words are not the engine's.
        return Answer(status, what, headers=headers)
    errors = found.get("errors")
    words = [one for one in errors if isinstance(one, str)] if isinstance(errors, list) else []
    data, auth = found.get("data"), found.get("auth")
    return Answer(
        status,
        what,
        data=data if isinstance(data, dict) else {},
        auth=auth if isinstance(auth, dict) else {},
        whole=found,
        errors=tuple(words),
        headers=headers,
    )


def _calls_itself_json(headers: Mapping[str, Any]) -> bool:
    kind, _, _ = str(headers.get("Content-Type", "")).partition(";")
    return kind.strip().lower() == "application/json"
