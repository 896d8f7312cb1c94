"""The way from a handle to objects on a session: connecting, trying out, finding again, retrying."""

from __future__ import annotations

import threading
import uuid
from collections import OrderedDict
from collections.abc import Callable
from typing import TypeVar

import pkcs11

from keys.algorithms import ALGORITHMS, Algorithm, KeySpec, Usage
from keys.backends import materials
from keys.backends.base import NoMaterial
from keys.backends.pkcs11 import abilities as trying
from keys.backends.pkcs11 import failures, objects
from keys.backends.pkcs11.abilities import Abilities
from keys.backends.pkcs11.acts import NotAble
from keys.backends.pkcs11.checking import check, parsed
from keys.backends.pkcs11.configuration import Configuration
from keys.backends.pkcs11.connection import MANAGE, Connection, Pooled, release, share
from keys.errors import BackendUnavailable, Unsupported
from keys.secret import Secret

Answer = TypeVar("Answer")

PUBLIC_CACHE_SIZE = 10_000
ATTEMPTS = 4

# What a token can do does not change while the process lives, unless its firmware does.
_tried: dict[tuple[str, bytes, tuple[int, ...]], Abilities] = {}


class Keyring:
    """One key store's keys on a token. Threads may share it."""

    def __init__(self, configuration: Configuration, pin: Secret) -> None:
        self._configuration = configuration
        self._pin = pin
        self._lock = threading.Lock()
        self._shared: Connection | None = None
        self._closed = False
        self._abilities: Abilities | None = None
        self._publics: OrderedDict[str, tuple[objects.Found, materials.PublicKey]] = OrderedDict()

    def connection(self) -> Connection:
        """Return this process's connection to the token. Raises BackendUnavailable."""
        with self._lock:
            if self._closed:
                raise BackendUnavailable("This key store was closed.")
            if self._shared is None:
                selector, sessions = self._configuration.selector, self._configuration.sessions
                self._shared = share(selector, self._pin, sessions)
            return self._shared

    def close(self) -> None:
        with self._lock:
            self._closed = True
            connection, self._shared = self._shared, None
        if connection is not None:
            release(connection)

    def abilities(self) -> Abilities:
        """Return what the token can do; the first to ask in this process tries it out."""
        if self._abilities is None:
            connection = self.connection()
            with connection.managing() as session:
                _, token = connection.connected()
                name = (
                    self._configuration.selector.module,
                    bytes(token.serial),
                    tuple(token.firmware_version),
                )
                if name not in _tried:
                    _tried[name] = trying.find_out(session, token.slot)
                self._abilities = _tried[name]
        return self._abilities

    def offered(self, name: str, usage: Usage | None) -> tuple[KeySpec, Usage]:
        """Return spec and purpose of a key to be made. Raises Unsupported, naming what would work."""
        spec, abilities = materials.spec_named(name), self.abilities()
        if name not in abilities.algorithms:
            able = ", ".join(abilities.algorithms)
            raise Unsupported(f"This token makes no {name} keys. It makes: {able}.")
        purpose = spec.usages[0] if usage is None else Usage(usage)
        if not abilities.for_purpose(spec, purpose):
            able = ", ".join(one for one in spec.usages if abilities.for_purpose(spec, one))
            raise Unsupported(f"This token has {name} keys only for: {able}.")
        return spec, purpose

    # --- use

    def use(
        self,
        handle: str,
        usage: Usage,
        algorithm: str,
        act: Callable[[objects.Found, Algorithm], Answer],
    ) -> Answer:
        """Run `act` on the objects that `handle` names, where they are for `usage`.

        Raises NoMaterial, Unsupported, StateForbids, BackendUnavailable.
        """

        def run(pooled: Pooled) -> Answer:
            found = self._loaded(pooled, handle)
            return act(found, algorithm_of(found, usage, algorithm))

        return self.in_session(handle, run)

    def in_session(self, handle: str | None, act: Callable[[Pooled], Answer]) -> Answer:
        """Run `act` on a session; again where the session or an object handle had become void.

        Every use may be run twice: none changes the token. That a key is not there is believed only
        of a search by a session that is surely logged in (_loaded), never of a void handle.
        """
        connection, looked_again = self.connection(), False
        for _ in range(ATTEMPTS):
            with connection.session(handle) as pooled:
                try:
                    return act(pooled)
                except NotAble:
                    if looked_again:
                        raise failures.forbidden() from None
                    looked_again = True
                    pooled.keys.pop(handle or "", None)
                except pkcs11.PKCS11Error as error:
                    if failures.is_lost(error) or connection.is_void(pooled):
                        connection.lost(pooled.generation)
                    elif isinstance(error, failures.STALE):
                        pooled.keys.pop(handle or "", None)
                    else:
                        raise failures.translated(error) from None
        raise BackendUnavailable("The token keeps going away.")

    def _loaded(self, pooled: Pooled, handle: str) -> objects.Found:
        found: objects.Found | None = pooled.keys.get(handle)
        if found is not None:
            pooled.keys.move_to_end(handle)
            return found
        label, _ = parsed(handle)
        abilities = self.abilities()
        with MANAGE:
            if not pooled.is_logged_in():
                raise pkcs11.SessionHandleInvalid
            found = objects.find(pooled.session, label, abilities)
            if found is None:
                raise NoMaterial
            check(found, handle)
        pooled.remember(handle, found)
        return found

    def public(self, handle: str, algorithm: str) -> tuple[materials.PublicKey, Algorithm]:
        """Return a pair's public key for use here, and the algorithm."""
        with self._lock:
            known = self._publics.get(handle)
        if known is None:
            found = self.in_session(handle, lambda pooled: self._loaded(pooled, handle))
            row = algorithm_of(found, Usage.SIGN_VERIFY, algorithm)
            assert found.public_key is not None
            known = (found, materials.load_public_key(found.public_key, found.spec))
            with self._lock:
                self._publics[handle] = known
                while len(self._publics) > PUBLIC_CACHE_SIZE:
                    self._publics.popitem(last=False)
            return known[1], row
        return known[1], algorithm_of(known[0], Usage.SIGN_VERIFY, algorithm)

    def forget(self, handle: str) -> None:
        """Let go of a key that was changed or destroyed, on every session."""
        self.connection().evict(handle)
        with self._lock:
            self._publics.pop(handle, None)

    def complete(self, session: pkcs11.Session, label: uuid.UUID) -> objects.Found | None:
        """Return what is under `label`; what a crash left half made is removed. Under managing()."""
        found = objects.find(session, label, self.abilities())
        if found is None:
            objects.clear_half_made(session, label)
        return found


def algorithm_of(found: objects.Found, usage: Usage, name: str) -> Algorithm:
    """Return the algorithm, where the key is for that. Raises Unsupported: what would work."""
    offered = found.algorithms
    if usage is not found.usage or name not in offered:
        able = (
            f"It can do: {', '.join(offered)}." if offered else "The token can't use it any more."
        )
        raise Unsupported(
            f"This {found.spec.name} key in a token is for {found.usage}, not for {usage} with "
            f"{name}. {able}"
        )
    return ALGORITHMS[name]
