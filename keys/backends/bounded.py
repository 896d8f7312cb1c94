"""A bounded pool of threads and a deadline around a slow key store: it can't stall the others.

The caller waits at most `timeout` seconds, then gets BackendUnavailable; the call itself goes on in
its thread (no foreign library can be interrupted) and keeps its place until it returns. When every
place is taken, callers are refused at once rather than queued without end.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, ClassVar, NoReturn, TypeVar

from keys.algorithms import MessageType, Usage
from keys.backends.base import Backend, Capabilities, Health, Material, Parent, Protection
from keys.backends.views import KeyView, Page
from keys.errors import BackendUnavailable, KeyServiceError
from keys.secret import Secret

Answer = TypeVar("Answer")

# How many calls may wait for a thread, for each thread.
QUEUE_PER_WORKER = 16


class Bounded(Backend):
    """Any backend, in a pool of its own."""

    kind: ClassVar[str] = "bounded"
    protection: ClassVar[Protection] = Protection.SOFTWARE

    def __init__(
        self, backend: Backend, *, workers: int, timeout: float, queue: int | None = None
    ) -> None:
        self._backend = backend
        self._timeout = timeout
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
        if not self._places.acquire(blocking=False):
            raise BackendUnavailable("Too many calls wait for this key store.")
        try:
            future = self._pool.submit(self._in_time, call, time.monotonic() + self._timeout)
        except RuntimeError:  # the pool was shut down
            self._places.release()
            raise BackendUnavailable("This key store is being closed.") from None
        future.add_done_callback(self._release)
        try:
            return future.result(self._timeout)
        except FutureTimeout:
            future.cancel()
            raise BackendUnavailable(
                f"The key store did not answer in {self._timeout:g} seconds; "
                "whether it did what was asked is not known."
            ) from None

    @staticmethod
    def _in_time(call: Callable[[], Answer], deadline: float) -> Answer:
        # Nobody waits any more for a call whose deadline passed in the queue: do not start it.
        if time.monotonic() >= deadline:
            raise BackendUnavailable("The key store was too busy to start in time.")
        return call()

    def _release(self, future: Future[Any]) -> None:
        self._places.release()

    def capabilities(self) -> Capabilities:
        return self._run(self._backend.capabilities)

    def health(self) -> Health:
        try:
            return self._run(self._backend.health)
        except KeyServiceError as error:
            return Health(False, error.detail)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
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
        return self._run(lambda: self._backend.find(label, parent))

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
        return self._run(lambda: self._backend.export_material(handle))

    def destroy(self, handle: str) -> None:
        self._run(lambda: self._backend.destroy(handle))

    def destroy_all(self, handles: Sequence[str]) -> None:
        self._run(lambda: self._backend.destroy_all(handles))

    def check_destroyable(self, handle: str, among: Sequence[str]) -> None:
        self._backend.check_destroyable(handle, among)

    def remove(self, handle: str) -> None:
        self._run(lambda: self._backend.remove(handle))

    def discover(self, cursor: str = "", limit: int = 100) -> Page:
        return self._run(lambda: self._backend.discover(cursor, limit))

    def inspect(self, reference: str) -> KeyView | None:
        return self._run(lambda: self._backend.inspect(reference))

    def observe(self, wanted: KeyView) -> KeyView | None:
        return self._run(lambda: self._backend.observe(wanted))

    def expressed(self, wanted: KeyView) -> KeyView:
        return self._backend.expressed(wanted)

    def conform(self, wanted: KeyView) -> None:
        self._run(lambda: self._backend.conform(wanted))

    def suspend(self, handle: str) -> None:
        self._run(lambda: self._backend.suspend(handle))

    def resume(self, handle: str) -> None:
        self._run(lambda: self._backend.resume(handle))

    def deactivate(self, handle: str) -> None:
        self._run(lambda: self._backend.deactivate(handle))

    def encrypt(self, handle: str, algorithm: str, plaintext: bytes, aad: bytes) -> bytes:
        return self._run(lambda: self._backend.encrypt(handle, algorithm, plaintext, aad))

    def decrypt(self, handle: str, algorithm: str, ciphertext: bytes, aad: bytes) -> bytes:
        return self._run(lambda: self._backend.decrypt(handle, algorithm, ciphertext, aad))

    def sign(
        self,
        handle: str,
        algorithm: str,
        message: bytes,
        *,
        message_type: MessageType = MessageType.MESSAGE,
    ) -> bytes:
        return self._run(
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
        return self._run(
            lambda: self._backend.verify(
                handle, algorithm, message, signature, message_type=message_type
            )
        )

    def mac(self, handle: str, algorithm: str, message: bytes) -> bytes:
        return self._run(lambda: self._backend.mac(handle, algorithm, message))

    def verify_mac(self, handle: str, algorithm: str, message: bytes, tag: bytes) -> bool:
        return self._run(lambda: self._backend.verify_mac(handle, algorithm, message, tag))

    def wrap(self, handle: str, algorithm: str, target: bytes) -> bytes:
        return self._run(lambda: self._backend.wrap(handle, algorithm, target))

    def unwrap(self, handle: str, algorithm: str, wrapped: bytes) -> bytes:
        return self._run(lambda: self._backend.unwrap(handle, algorithm, wrapped))

    def agree(self, handle: str, algorithm: str, peer: bytes) -> bytes:
        return self._run(lambda: self._backend.agree(handle, algorithm, peer))

    def decapsulate(self, handle: str, algorithm: str, ciphertext: bytes) -> bytes:
        return self._run(lambda: self._backend.decapsulate(handle, algorithm, ciphertext))

    def derive(
        self, handle: str, algorithm: str, *, salt: bytes, info: bytes, length: int
    ) -> bytes:
        return self._run(
            lambda: self._backend.derive(handle, algorithm, salt=salt, info=info, length=length)
        )

    def random(self, count: int) -> bytes:
        return self._run(lambda: self._backend.random(count))
