"""One token, logged in once, with a bounded pool of sessions.

- The login session is kept as long as the connection. It is the only read-write one; what changes
  the token goes through it, under MANAGE. Nobody ever calls C_Logout: it would void every object
  handle in use by other threads. The token logs out when its last session is closed.
- Sessions of the pool open without a PIN: login belongs to the process, not to the session.
- python-pkcs11 binds an object to the session it was found on, so each session keeps its own cache.
- A connection has a generation. When the token goes away the generation is raised: what was found
  before is void, since an old handle may name *another* key after a reconnect.
- A session is closed by its holder: closing one that another thread is inside crashes SoftHSM.
"""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pkcs11

from keys.backends.pkcs11 import failures
from keys.backends.pkcs11.module import Module, open_module
from keys.errors import BackendError, BackendUnavailable
from keys.secret import Secret

# One process-wide lock around search, generate, import and destroy: libraries are weakest there.
MANAGE = threading.RLock()

SESSION_WAIT_SECONDS = 10.0
KEYS_PER_SESSION = 2_000


@dataclass(frozen=True, slots=True)
class Selector:
    """Which token: the library's path, the token's label or serial number, the slot where named."""

    module: str
    token_label: str | None
    token_serial: str | None
    slot: int | None


@dataclass(slots=True, repr=False)
class Pooled:
    """A session and the keys found on it, newest last."""

    session: pkcs11.Session
    module: Module
    generation: int
    keys: OrderedDict[str, Any] = field(default_factory=OrderedDict)

    def is_logged_in(self) -> bool:
        """Whether the session is alive and sees private objects."""
        return self.module.is_logged_in(self.session)

    def close(self) -> None:
        self.module.close_session(self.session)

    def remember(self, handle: str, key: Any) -> None:
        self.keys[handle] = key
        while len(self.keys) > KEYS_PER_SESSION:
            self.keys.popitem(last=False)


class Connection:
    """This process's way to one token. Opened on first use, shared by key stores that name it."""

    def __init__(self, selector: Selector, pin: Secret) -> None:
        self.selector = selector
        self.pin = pin
        self.users = 0
        self.generation = 0
        self._module: Module | None = None
        self._token: Any = None
        self._login: Any = None
        self._refused: str | None = None
        self._idle: list[Pooled] = []
        self._every: list[Pooled] = []
        self._open = 0
        self._limit = 0
        self._changed = threading.Condition()

    def allow_sessions(self, count: int) -> None:
        self._limit = max(self._limit, count)

    # --- login

    def connected(self) -> tuple[Module, Any]:
        """Return the library and the token, logged in. Raises BackendUnavailable."""
        with MANAGE:
            if self._module is None or self._login is None:
                self._connect()
            assert self._module is not None
            return self._module, self._token

    def _connect(self) -> None:
        if self._refused is not None:
            raise failures.PinRefused(self._refused)
        module = open_module(self.selector.module)
        try:
            try:
                token = _token(module, self.selector)
            except pkcs11.PKCS11Error as error:
                if not failures.is_not_initialized(error):
                    raise
                module.initialize()
                token = _token(module, self.selector)
            self._login = self._logged_in(module, token)
        except pkcs11.PKCS11Error as error:
            wanted = failures.translated(error)
            if isinstance(wanted, failures.PinRefused):
                self._refused = wanted.detail
            raise wanted from None
        except OSError:
            raise BackendUnavailable("The PKCS#11 module can't be initialised.") from None
        self._module, self._token = module, token

    def _logged_in(self, module: Module, token: Any) -> Any:
        place = (self.selector.module, token.slot.slot_id)
        session = token.open(rw=True)
        if module.is_logged_in(session):
            # By sessions of an earlier generation that are still in use, or by a key store that
            # names the token otherwise. The PIN can't be tried now, only compared.
            if _pins.get(place) == self.pin:
                return session
            module.close_session(session)
            raise failures.PinRefused(
                "Something else in this process is logged in to the token with another PIN."
            )
        try:
            if token.flags & pkcs11.TokenFlag.USER_PIN_LOCKED:
                raise pkcs11.PinLocked
            if token.flags & pkcs11.TokenFlag.USER_PIN_FINAL_TRY:
                raise failures.PinRefused(
                    "One more wrong PIN would lock the token; log in by hand to clear its count."
                )
            login = token.open(rw=True, user_pin=_pin_text(self.pin))
            _pins[place] = self.pin
            return login
        finally:
            module.close_session(session)

    @contextlib.contextmanager
    def managing(self) -> Iterator[pkcs11.Session]:
        """Hold the process-wide lock and the read-write session, surely logged in.

        An empty search on a session that is not logged in would read as 'no such key', so this is
        looked at each time. A token that went away is found again; then the block runs.
        """
        with MANAGE:
            module, _ = self.connected()
            if not module.is_logged_in(self._login):
                self.lost(self.generation)
                module, _ = self.connected()
                if not module.is_logged_in(self._login):
                    raise BackendUnavailable("The token does not stay logged in.")
            generation = self.generation
            try:
                yield self._login
            except pkcs11.PKCS11Error as error:
                if failures.is_lost(error):
                    self.lost(generation)
                raise failures.translated(error) from None

    def lost(self, generation: int) -> None:
        """Give up everything of `generation`, once; the next use connects anew."""
        with MANAGE:
            if generation != self.generation:
                return
            self.generation += 1
            login, self._login = self._login, None
            with self._changed:
                idle, self._idle = self._idle, []
                self._every = []
                self._open -= len(idle)
                self._changed.notify_all()
            for pooled in idle:
                pooled.close()
            if login is not None and self._module is not None:
                self._module.close_session(login)

    def close(self) -> None:
        """Close all sessions; those in use when they come back. With the last the token logs out."""
        self.lost(self.generation)

    # --- the pool

    @contextlib.contextmanager
    def session(self, handle: str | None = None) -> Iterator[Pooled]:
        """Lend a session, one that knows `handle` where there is one. Raises BackendUnavailable."""
        pooled = self._take(handle)
        try:
            yield pooled
        finally:
            self._give_back(pooled)

    def evict(self, handle: str) -> None:
        """Forget a key on every session: a token may give its object's handle to another one."""
        with self._changed:
            for pooled in self._every:
                pooled.keys.pop(handle, None)

    def is_void(self, pooled: Pooled) -> bool:
        """Whether what `pooled` said last says nothing: the token went away meanwhile."""
        return pooled.generation != self.generation or not pooled.is_logged_in()

    def _take(self, handle: str | None) -> Pooled:
        if self._login is None:
            self.connected()
        with self._changed:
            ready = self._changed.wait_for(
                lambda: self._idle or self._open < self._limit, SESSION_WAIT_SECONDS
            )
            if not ready:
                raise BackendUnavailable("Every session of this token is in use.")
            for position in range(len(self._idle) - 1, -1, -1):
                if handle in self._idle[position].keys:
                    return self._idle.pop(position)
            if self._idle:
                return self._idle.pop()
            self._open += 1
        try:
            pooled = self._opened()
        except BaseException:
            self._forget_one()
            raise
        with self._changed:
            self._every.append(pooled)
        return pooled

    def _opened(self) -> Pooled:
        with MANAGE:
            for last in (False, True):
                module, token = self.connected()
                generation = self.generation
                try:
                    return Pooled(token.open(), module, generation)
                except pkcs11.PKCS11Error as error:
                    lost = failures.is_lost(error)
                    if lost:
                        self.lost(generation)
                    if last or not lost:
                        raise failures.translated(error) from None
            raise AssertionError("unreachable")

    def _give_back(self, pooled: Pooled) -> None:
        with self._changed:
            if pooled.generation == self.generation:
                self._idle.append(pooled)
                self._changed.notify()
                return
        pooled.close()
        self._forget_one()

    def _forget_one(self) -> None:
        with self._changed:
            self._open -= 1
            self._changed.notify()


def _token(module: Module, selector: Selector) -> Any:
    serial = None if selector.token_serial is None else selector.token_serial.encode()
    tokens = [
        token
        for token in module.lib.get_tokens(token_label=selector.token_label, token_serial=serial)
        if selector.slot is None or token.slot.slot_id == selector.slot
    ]
    if not tokens:
        raise pkcs11.NoSuchToken
    if len(tokens) > 1:
        raise pkcs11.MultipleTokensReturned
    return tokens[0]


def _pin_text(pin: Secret) -> str:
    try:
        return pin.reveal().decode("utf-8")
    except UnicodeDecodeError:
        raise BackendError("The PIN is not text.") from None


_shared: dict[Selector, Connection] = {}
# The PIN with which the process last logged in, by library and slot.
_pins: dict[tuple[str, int], Secret] = {}


def share(selector: Selector, pin: Secret, sessions: int) -> Connection:
    """Return the connection to a token, the same for every key store that names it with that PIN.

    Raises PinRefused where the process is logged in with another PIN: the login is the process's,
    and a key store with a wrong PIN must not live on another's. Call release() when done.
    """
    with MANAGE:
        found = _shared.get(selector)
        if found is None:
            found = _shared[selector] = Connection(selector, pin)
        elif found.pin != pin:
            raise failures.PinRefused(
                "Another key store of this process is logged in to the token with another PIN."
            )
        found.users += 1
        found.allow_sessions(sessions)
        return found


def release(connection: Connection) -> None:
    """Undo share(); the last one logs out."""
    with MANAGE:
        connection.users -= 1
        if connection.users > 0:
            return
        if _shared.get(connection.selector) is connection:
            del _shared[connection.selector]
        connection.close()
