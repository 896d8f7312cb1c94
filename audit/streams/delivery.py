"""Delivering: one thread a stream, so that a slow receiver holds up nobody else.

A stream's entries go out in order. Nothing is passed over: what a receiver refuses is offered again,
with growing pauses, until it takes it.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from django.db import Error, connections

from audit import writer
from audit.errors import AuditError, PlaceError, PlaceOverfull, PlaceUnavailable, StreamError
from audit.events import uuid7
from audit.places.http import Cutter
from audit.streams import batches, state
from audit.streams.addresses import Stream, configured
from audit.streams.batches import Batch
from audit.streams.hooks import HookSender
from audit.streams.syslog import SyslogSender

log = logging.getLogger(__name__)

STOP_SECONDS = 10.0
# A receiver that refused a batch as too long gets twice as many entries again after so many batches.
GROW_AFTER = 100


class Sender(Protocol):
    def send(self, batch: Batch, cutter: Cutter) -> None: ...


@dataclass(slots=True)
class Pace:
    """How long to wait, in seconds: for new entries, for another keeper, after a failure."""

    poll: float = 1.0
    first: float = 1.0
    longest: float = 60.0
    failures: int = field(default=0, init=False)

    def after_failure(self, retry_after: float | None) -> float:
        """Return a growing pause with jitter; never less than what the receiver asked for."""
        pause = min(self.longest, self.first * 2.0 ** min(self.failures, 20))
        self.failures += 1
        jittered = pause * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, guards nothing
        return max(jittered, retry_after or 0.0)


def deliver_all(stop: threading.Event, using: str = "default") -> None:
    """Deliver every stream of settings.AUDIT_STREAMS until `stop` is set. Blocks; never raises.

    Addresses that can't be used are told of by `trouble`; the other streams go on.
    """
    streams, problems = configured()
    for problem in problems:
        log.error("A stream of the audit log can't be used: %s.", problem)
    runners = [Runner(stream, stop, using=using) for stream in streams]
    threads = [
        threading.Thread(target=runner.run, name=f"stream-{number}", daemon=True)
        for number, runner in enumerate(runners, 1)
    ]
    for thread in threads:
        thread.start()
    stop.wait()
    for runner in runners:
        runner.cutter.cut()
    for thread in threads:
        thread.join(STOP_SECONDS)


class Runner:
    """The delivery of one stream."""

    def __init__(
        self,
        stream: Stream,
        stop: threading.Event,
        *,
        pace: Callable[[], Pace] = Pace,
        using: str = "default",
    ) -> None:
        self.stream, self.stop, self.using = stream, stop, using
        self.cutter = Cutter()
        self._pace = pace()
        self._holder = uuid7()
        self._sender: Sender | None = None
        self._limit = batches.ENTRIES
        self._taken = 0

    def run(self) -> None:
        """Deliver until told to stop; on leaving close this thread's connections."""
        try:
            while not self.stop.is_set():
                self.stop.wait(self._turn())
            self._quietly(self.release)
        finally:
            _disconnect()

    def _turn(self) -> float:
        """Deliver one batch, where there is one; return how long to wait before the next turn."""
        try:
            delivered = self.deliver_one()
        except PlaceOverfull:
            return 0  # at once, with half of it
        except AuditError as error:
            if self.stop.is_set():
                return 0
            self._sender = None
            problem = str(error)
            self._quietly(lambda: state.failing(self.stream, problem, self.using))
            retry_after = error.retry_after if isinstance(error, PlaceUnavailable) else None
            return self._pace.after_failure(retry_after)
        except Error:
            _disconnect()
            return self._pace.after_failure(None)
        except Exception:
            log.exception("A stream of the audit log failed; it goes on.")
            self._sender = None
            return self._pace.after_failure(None)
        self._pace.failures = 0
        return 0 if delivered else self._pace.poll

    def deliver_one(self) -> int:
        """Deliver the next batch and move the cursor; return by how many entries.

        0 where there is nothing new or another keeper delivers this stream.
        """
        # Nothing is written while nothing happens.
        if not self._is_behind():
            return 0
        cursor = state.claim(self.stream, self._holder, self.using)
        if cursor is None:
            return 0
        size = writer.head(self.using).size
        batch = batches.following(self.stream, cursor.next, size, self.using, self._limit)
        if batch is None:
            return 0
        if batch.messages:
            self._send(batch)
        state.move(self.stream, batch.start, batch.end, self.using)
        return batch.end - batch.start

    def _is_behind(self) -> bool:
        """Tell whether there are entries to deliver. Raises StreamError where the log has become shorter."""
        # In this order: the log only grows meanwhile.
        cursor = state.position(self.stream, self.using)
        size = writer.head(self.using).size
        if cursor.next > size and cursor.delivered_at is not None:
            raise StreamError(
                f"{cursor.next} entries were delivered, and the log has {size}: verify the log"
            )
        return cursor.next < size

    def _send(self, batch: Batch) -> None:
        """Send a batch; where it is too long for the receiver, the next ones are half of it."""
        if self._sender is None:
            self._sender = (
                SyslogSender(self.stream) if self.stream.is_syslog else HookSender(self.stream)
            )
        try:
            self._sender.send(batch, self.cutter)
        except PlaceOverfull as error:
            count, self._taken = len(batch.messages), 0
            self._limit = max(1, count // 2)
            if count == 1:
                told = f"entry {batch.messages[0].index} alone is too long for the receiver"
                raise PlaceError(told) from error
            raise
        self._taken += 1
        if self._taken >= GROW_AFTER:
            self._limit, self._taken = min(batches.ENTRIES, 2 * self._limit), 0

    def release(self) -> None:
        """Let another keeper go on at once."""
        state.release(self.stream, self._holder, self.using)

    def _quietly(self, call: Callable[[], object]) -> None:
        """Say something to the database, where it listens; nothing depends on it."""
        try:
            call()
        except Error:
            _disconnect()


def _disconnect() -> None:
    """Drop this thread's connections; the next use opens new ones."""
    for connection in connections.all(initialized_only=True):
        try:
            connection.close()
        except Error as error:
            log.debug("Closing a broken connection failed: %s", type(error).__name__)
            connection.connection = None
