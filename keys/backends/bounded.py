"""A bounded pool of threads and a deadline around a slow key store: it can't stall the others.

The caller waits at most `timeout` seconds, then gets BackendUnavailable; the call itself goes on in
its thread (no foreign library can be interrupted) and keeps its place until it returns. When every
place is taken, callers are refused at once rather than queued without end.

What is safe to repeat is tried again a few times, with full jitter, within the caller's deadline.
Making and importing material is not: what became of it is found out by the job that asked. A store
that fails again and again is left alone for a while (keys.backends.breaker).
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import replace
from typing import Any, ClassVar, NoReturn, TypeVar

from keys.algorithms import MessageType, Usage
from keys.backends.base import Backend, Capabilities, Health, Material, Parent, Protection
from keys.backends.breaker import Breaker, Circuit, Clock, is_outage
from keys.backends.views import KeyView, Page
from keys.errors import BackendUnavailable, KeyServiceError, Throttled
from keys.secret import Secret

Answer = TypeVar("Answer")

# How many calls may wait for a thread, for each thread.
QUEUE_PER_WORKER = 16
# How often what is safe to repeat is tried at most, and the longest wait before the second try and
# before any, in seconds (exponential, full jitter: M. Brooker, "Exponential Backoff And Jitter").
TRIES = 3
FIRST_WAIT = 0.2
LONGEST_WAIT = 2.0

TOO_BUSY = "The key store was too busy to start in time; it was not asked."


class _GivenUp(BackendUnavailable):
    """This pool ended the call; the store said nothing. `begun`: it may have done what was asked."""

    def __init__(self, detail: str = "", *, begun: bool = False) -> None:
        super().__init__(detail)
        self.begun = begun


class Bounded(Backend):
    """Any backend, in a pool of its own."""

    kind: ClassVar[str] = "bounded"
    protection: ClassVar[Protection] = Protection.SOFTWARE

    def __init__(
        self,
        backend: Backend,
        *,
        workers: int,
        timeout: float,
        queue: int | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._backend = backend
        self._timeout = timeout
        self._clock = clock or Clock()
        self._breaker = Breaker(self._clock)
        self._known: Capabilities | None = None
        places = workers + (workers * QUEUE_PER_WORKER if queue is None else queue)
        self._places = threading.BoundedSemaphore(places)
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix=f"keystore-{backend.kind}")
        # An instance carries what its backend is; only the class can't know.
        self.kind = backend.kind  # type: ignore[misc]
        self.protection = backend.protection  # type: ignore[misc]

    @classmethod
    def check_settings(cls, settings: Mapping[str, Any]) -> NoReturn:
        raise NotImplementedError("Ask the backend's own class.")

    def _run(self, call: Callable[[], Answer]) -> Answer:
        """Call the store once, where it is not left alone."""
        trial = self._breaker.admit()
        return self._reported(call, self._clock.monotonic() + self._timeout, trial)

    def _repeat(self, call: Callable[[], Answer], *, proof: bool = True) -> Answer:
        """The same for what is safe to repeat: a few tries within the one deadline.

        `proof`: whether an answer proves that the store is there; some can be found in this process.
        """
        deadline = self._clock.monotonic() + self._timeout
        trial = self._breaker.admit()
        attempt = 1
        while True:
            try:
                return self._reported(call, deadline, trial, proof=proof)
            except BackendUnavailable as error:
                wait = self._wait(error, attempt)
                if wait is None or self._clock.monotonic() + wait >= deadline:
                    raise
                self._clock.sleep(wait)
                try:
                    trial = self._breaker.admit()
                except BackendUnavailable:
                    raise error from None  # what the store said tells more
            attempt += 1

    def _wait(self, error: BackendUnavailable, attempt: int) -> float | None:
        """Return how many seconds to wait before the next try; None: there is none."""
        over = attempt >= TRIES or self._breaker.state is not Circuit.CLOSED
        if over or isinstance(error, _GivenUp):
            return None
        jitter = self._clock.chance() * min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** (attempt - 1))
        if isinstance(error, Throttled):
            # Chance on top of what was asked: not everybody at the very same moment.
            return max(error.retry_after or 0.0, 0.0) + jitter
        return jitter if is_outage(error) else None

    def _reported(
        self, call: Callable[[], Answer], deadline: float, trial: bool, *, proof: bool = True
    ) -> Answer:
        """One try, whose outcome the circuit breaker is told."""
        try:
            answer = self._in_pool(call, deadline)
        except _GivenUp as error:
            # What couldn't even begin tells nothing of the store, but a trial has to end.
            if error.begun or trial:
                self._breaker.failed(trial=trial)
            raise
        except BackendUnavailable as error:
            if is_outage(error):
                self._breaker.failed(trial=trial)
            else:
                self._breaker.answered()
            raise
        except Exception:
            self._breaker.undecided(trial=trial)
            raise
        if proof:
            self._breaker.answered()
        else:
            self._breaker.undecided(trial=trial)
        return answer

    def _in_pool(self, call: Callable[[], Answer], deadline: float) -> Answer:
        """Call in a thread of the pool. Raises _GivenUp at the deadline, or where there is no place."""
        if not self._places.acquire(blocking=False):
            raise _GivenUp("Too many calls wait for this key store.")
        try:
            future = self._pool.submit(self._in_time, call, deadline)
        except RuntimeError:  # the pool was shut down
            self._places.release()
            raise _GivenUp("This key store is being closed.") from None
        future.add_done_callback(self._release)
        try:
            return future.result(max(0.0, deadline - self._clock.monotonic()))
        except CancelledError:
            raise _GivenUp("This key store is being closed.") from None
        except FutureTimeout:
            if future.cancel():
                raise _GivenUp(TOO_BUSY) from None
            raise _GivenUp(
                f"The key store did not answer in {self._timeout:g} seconds; "
                "whether it did what was asked is not known.",
                begun=True,
            ) from None

    def _in_time(self, call: Callable[[], Answer], deadline: float) -> Answer:
        # Nobody waits any more for a call whose deadline passed in the queue: do not start it.
        if self._clock.monotonic() >= deadline:
            raise _GivenUp(TOO_BUSY)
        return call()

    def _release(self, future: Future[Any]) -> None:
        self._places.release()

    def capabilities(self) -> Capabilities:
        """What was known last, where the store can't be asked now."""
        try:
            self._known = self._repeat(self._backend.capabilities, proof=False)
        except BackendUnavailable:
            if self._known is None:
                raise
        return self._known

    def health(self) -> Health:
        """Always asks, also where the store is left alone: what comes of it decides the circuit."""
        outage = False
        try:
            found = self._in_pool(self._backend.health, self._clock.monotonic() + self._timeout)
        except _GivenUp as error:
            found, outage = Health(False, error.detail), error.begun
        except KeyServiceError as error:
            found, outage = Health(False, error.detail), is_outage(error)
        if found.ok:
            self._breaker.answered()
        elif outage or self._breaker.state is not Circuit.CLOSED:
            self._breaker.failed(trial=True)
        return replace(found, facts={**found.facts, "circuit": self._breaker.told()})

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._breaker.close()
        self._backend.close()

    def generate(
        self,
        label: uuid.UUID,
        spec: str,
        *,
        usage: Usage | None = None,
        exportable: bool = False,
        parent: Parent | None = None,
    ) -> Material:
        return self._run(
            lambda: self._backend.generate(
                label, spec, usage=usage, exportable=exportable, parent=parent
            )
        )

    def find(self, label: uuid.UUID, parent: Parent | None = None) -> Material | None:
        return self._repeat(lambda: self._backend.find(label, parent))

    def import_material(
        self,
        label: uuid.UUID,
        spec: str,
        material: Secret,
        *,
        usage: Usage | None = None,
        exportable: bool = False,
        parent: Parent | None = None,
    ) -> Material:
        return self._run(
            lambda: self._backend.import_material(
                label, spec, material, usage=usage, exportable=exportable, parent=parent
            )
        )

    def export_material(self, handle: str) -> Secret:
        return self._repeat(lambda: self._backend.export_material(handle))

    def destroy(self, handle: str) -> None:
        self._repeat(lambda: self._backend.destroy(handle))

    def destroy_all(self, handles: Sequence[str]) -> None:
        self._repeat(lambda: self._backend.destroy_all(handles))

    def check_destroyable(self, handle: str, among: Sequence[str]) -> None:
        self._backend.check_destroyable(handle, among)

    def remove(self, handle: str) -> None:
        self._repeat(lambda: self._backend.remove(handle))

    def discover(self, cursor: str = "", limit: int = 100) -> Page:
        return self._repeat(lambda: self._backend.discover(cursor, limit))

    def inspect(self, reference: str) -> KeyView | None:
        return self._repeat(lambda: self._backend.inspect(reference))

    def observe(self, wanted: KeyView) -> KeyView | None:
        return self._repeat(lambda: self._backend.observe(wanted))

    def expressed(self, wanted: KeyView) -> KeyView:
        return self._backend.expressed(wanted)

    def conform(self, wanted: KeyView) -> None:
        self._repeat(lambda: self._backend.conform(wanted))

    def suspend(self, handle: str) -> None:
        self._repeat(lambda: self._backend.suspend(handle))

    def resume(self, handle: str) -> None:
        self._repeat(lambda: self._backend.resume(handle))

    def deactivate(self, handle: str) -> None:
        self._repeat(lambda: self._backend.deactivate(handle))

    def encrypt(self, handle: str, algorithm: str, plaintext: bytes, aad: bytes) -> bytes:
        # With a public key a store may do this, verify() and wrap() here.
        return self._repeat(
            lambda: self._backend.encrypt(handle, algorithm, plaintext, aad), proof=False
        )

    def decrypt(self, handle: str, algorithm: str, ciphertext: bytes, aad: bytes) -> bytes:
        return self._repeat(lambda: self._backend.decrypt(handle, algorithm, ciphertext, aad))

    def sign(
        self,
        handle: str,
        algorithm: str,
        message: bytes,
        *,
        message_type: MessageType = MessageType.MESSAGE,
    ) -> bytes:
        return self._repeat(
            lambda: self._backend.sign(handle, algorithm, message, message_type=message_type)
        )

    def verify(
        self,
        handle: str,
        algorithm: str,
        message: bytes,
        signature: bytes,
        *,
        message_type: MessageType = MessageType.MESSAGE,
    ) -> bool:
        return self._repeat(
            lambda: self._backend.verify(
                handle, algorithm, message, signature, message_type=message_type
            ),
            proof=False,
        )

    def mac(self, handle: str, algorithm: str, message: bytes) -> bytes:
        return self._repeat(lambda: self._backend.mac(handle, algorithm, message))

    def verify_mac(self, handle: str, algorithm: str, message: bytes, tag: bytes) -> bool:
        return self._repeat(lambda: self._backend.verify_mac(handle, algorithm, message, tag))

    def wrap(self, handle: str, algorithm: str, target: bytes) -> bytes:
        return self._repeat(lambda: self._backend.wrap(handle, algorithm, target), proof=False)

    def unwrap(self, handle: str, algorithm: str, wrapped: bytes) -> bytes:
        return self._repeat(lambda: self._backend.unwrap(handle, algorithm, wrapped))

    def agree(self, handle: str, algorithm: str, peer: bytes) -> bytes:
        return self._repeat(lambda: self._backend.agree(handle, algorithm, peer))

    def decapsulate(self, handle: str, algorithm: str, ciphertext: bytes) -> bytes:
        return self._repeat(lambda: self._backend.decapsulate(handle, algorithm, ciphertext))

    def derive(
        self, handle: str, algorithm: str, *, salt: bytes, info: bytes, length: int
    ) -> bytes:
        return self._repeat(
            lambda: self._backend.derive(handle, algorithm, salt=salt, info=info, length=length)
        )

    def random(self, count: int) -> bytes:
        return self._repeat(lambda: self._backend.random(count))
