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
from audit.errors import AuditError, PlaceUnavailable
from audit.events import uuid7
from audit.places.http import Cutter
from audit.streams import batches, state
from audit.streams.addresses import Stream, configured
from audit.streams.batches import Batch
from audit.streams.hooks import HookSender
from audit.streams.syslog import SyslogSender

log = logging.getLogger(__name__)

STOP_SECONDS = 10.0


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
        """Deliver the next batch and move the cursor; return how many entries it had.

        0 where there is nothing new or another keeper delivers this stream.
        """
        # Nothing is written while nothing happens.
        if state.position(self.stream, self.using).next >= writer.head(self.using).size:
            return 0
        cursor = state.claim(self.stream, self._holder, self.using)
        if cursor is None:
            return 0
        batch = batches.following(self.stream, cursor.next, self.using)
        if batch is None:
            return 0
        if self._sender is None:
            self._sender = (
                SyslogSender(self.stream) if self.stream.is_syslog else HookSender(self.stream)
            )
        self._sender.send(batch, self.cutter)
        state.move(self.stream, batch.start, batch.end, self.using)
        return len(batch.messages)

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
