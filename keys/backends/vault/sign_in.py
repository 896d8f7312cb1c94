"""The token that requests carry: the one configured, or one that an AppRole signs in for.

A renewable token is renewed when half of its life is over; an AppRole signs in again where that
doesn't help, and where the server doesn't know its token any more. Nothing runs in the background.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from keys.backends.vault.configuration import Configuration
from keys.backends.vault.connection import Answer, Connection
from keys.errors import BackendError, BackendRefused, BackendUnavailable, Invalid
from keys.secret import Secret

# Seconds between two tries to renew a token that can't be renewed now.
PATIENCE = 30.0


@dataclass(frozen=True, slots=True)
class Held:
    """A token. `renew_at` and `ends_at` on the monotonic clock; None: it has no end we know of."""

    token: Secret
    renewable: bool = False
    renew_at: float | None = None
    ends_at: float | None = None


class SignIn:
    """Signs in on first use. Threads share it; one of them renews, the others go on."""

    def __init__(
        self,
        configuration: Configuration,
        connection: Connection,
        credential: Secret,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._by_role = configuration.by_role
        self._role_id = configuration.role_id
        self._connection = connection
        self._credential = _sendable(credential)
        self.clock = clock
        self._held: Held | None = None
        self._lock = threading.Lock()

    def token(self) -> Secret:
        """Return a token to use now. Raises BackendRefused, BackendUnavailable."""
        held = self._held
        if held is None:
            with self._lock:
                held = self._held = self._held or self._begin()
            return held.token
        if held.renew_at is None or self.clock() < held.renew_at:
            return held.token
        over = held.ends_at is not None and self.clock() >= held.ends_at
        # While the old token is good, nobody waits for the one who renews it.
        if self._lock.acquire(blocking=over):
            try:
                if self._held is held:
                    self._held = self._renewed(held)
            finally:
                self._lock.release()
        return (self._held or held).token

    def again(self, used: Secret) -> Secret | None:
        """After a refusal: return a new token where the one that was used is not known any more.

        None: the token is fine, so what it may do is at fault. Raises BackendRefused where it isn't
        and there is no other.
        """
        if self._look_up(used) is not None:
            return None
        if not self._by_role:
            raise BackendRefused(
                "The token is not valid at the store any more (expired or revoked), or may not look "
                "itself up: give the key store a new one."
            )
        with self._lock:
            if self._held is None or self._held.token == used:
                self._held = self._log_in()
            return self._held.token

    # --- one step each, under the lock

    def _begin(self) -> Held:
        if self._by_role:
            return self._log_in()
        # How long it lives is worth knowing; where it may not be asked, the token is used as it is.
        return self._described(self._credential, self._look_up(self._credential) or {}, "ttl")

    def _log_in(self) -> Held:
        secret_id = self._credential.reveal().decode()
        body = {"role_id": self._role_id, "secret_id": secret_id}
        answer = self._connection.send("POST", "auth/approle/login", body)
        if answer.status in (400, 401, 403):
            raise BackendRefused(
                "The store refuses the AppRole: its role_id is wrong, or its secret id is, or has "
                "expired or been used up."
            )
        return self._granted(answer)

    def _renewed(self, held: Held) -> Held:
        trouble: BackendUnavailable | BackendError | None = None
        if held.renewable:
            try:
                answer = self._connection.send(
                    "POST", "auth/token/renew-self", {}, token=held.token
                )
                if answer.ok:
                    renewed = self._granted(answer, held.token)
                    if renewed.renew_at is None or renewed.renew_at > self.clock() + PATIENCE:
                        return renewed
                    held = renewed  # the end of all renewals is near
            except (BackendUnavailable, BackendError) as error:
                trouble = error
        if self._by_role and trouble is None:
            return self._log_in()
        # The server will say when it is over.
        return Held(held.token, held.renewable, self.clock() + PATIENCE, held.ends_at)

    def _look_up(self, token: Secret) -> Mapping[str, Any] | None:
        """Return what the server says of a token; None where it doesn't know it."""
        answer = self._connection.send("GET", "auth/token/lookup-self", token=token)
        if answer.status in (401, 403):
            return None
        if not answer.ok:
            raise answer.failure()
        return answer.data

    def _granted(self, answer: Answer, known: Secret | None = None) -> Held:
        if not answer.ok:
            raise answer.failure()
        token = answer.auth.get("client_token")
        if not isinstance(token, str) or not token:
            if known is None:
                raise BackendError("The store signed the console in and gave no token.")
            return self._described(known, answer.auth, "lease_duration")
        return self._described(_sendable(Secret(token.encode())), answer.auth, "lease_duration")

    def _described(self, token: Secret, said: Mapping[str, Any], life: str) -> Held:
        seconds, now = said.get(life), self.clock()
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or seconds <= 0:
            return Held(token)
        renewable = said.get("renewable") is True
        if not renewable and not self._by_role:
            return Held(token)  # nothing can be done about its end
        return Held(token, renewable, now + seconds / 2, now + seconds)


def _sendable(secret: Secret) -> Secret:
    """Return a token or secret id that fits into a header. Raises Invalid, without showing it."""
    value = secret.reveal()
    if not value or len(value) > 8192 or any(not 0x21 <= byte <= 0x7E for byte in value):
        raise Invalid("The credential is no token or secret id: it holds blanks or odd characters.")
    return secret
