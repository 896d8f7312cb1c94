"""Group commit: one thread per process writes what many uses of keys want to have recorded.

No timer: while one batch commits, the next one gathers. A batch takes the head, finds out what
changed since its items were decided, appends those that still hold, commits once, and then
releases every waiter.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from django.conf import settings
from django.db import Error as DatabaseError
from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from audit import direct, guard, outages, store, waiting
from audit.errors import AuditError, LogRolledBack, LogWriteFailed, QueueFull, Superseded
from audit.events import Event
from audit.store import LogHead
from audit.waiting import Answers, Hearing, Item

log = logging.getLogger(__name__)

# epoch, and the subjects that changed up to it; None: unknown, so everything.
EpochCallback = Callable[[int, frozenset[str] | None], None]

# SQLite has one writer: a bound on how long the others wait for one batch.
BATCH_LIMIT = 2000
# Beyond so many epochs, reading what changed takes longer than deciding again.
CHANGES_LIMIT = 10_000
# How long a batch is tried while the database can't be reached. Once it could not be, later
# batches are tried once each, so that their waiters hear soon, until one succeeds.
PATIENCE_SECONDS = 4.0
PAUSE_SECONDS = 0.05
# How long event loops may take over hearing of one commit before the next batch is taken.
HEAR_SECONDS = 0.001


@dataclass(slots=True)
class _Result:
    """What one transaction found out and did; `head` is where the log ends then."""

    news: _News
    answers: Answers
    head: LogHead


_NOBODY = Hearing()


class _News:
    """What changed after some epoch, as far as the change table still tells."""

    def __init__(self, epoch: int, changes: Mapping[int, frozenset[str]]) -> None:
        self.epoch = epoch
        self._changes = changes
        self._since: dict[int, frozenset[str] | None] = {epoch: frozenset()}

    def since(self, epoch: int) -> frozenset[str] | None:
        """Return the subjects that changed after `epoch`; None where nobody can tell."""
        if epoch not in self._since:
            later = [names for at, names in self._changes.items() if at > epoch]
            # Every epoch names at least one subject, so a gap means that rows were pruned. An
            # epoch from the future means that an older database was put back.
            whole = len(later) == self.epoch - epoch
            self._since[epoch] = frozenset().union(*later) if whole else None
        return self._since[epoch]

    def concern(self, item: Item) -> bool:
        """Tell whether `item` rests on something that changed after it was decided."""
        if not item.subjects:
            return False
        changed = self.since(item.epoch)
        return changed is None or not changed.isdisjoint(item.subjects)


class Appender:
    """The log's writer for uses, in a thread and with a database connection of its own."""

    def __init__(
        self,
        using: str = "default",
        limit: int | None = None,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        self._using = using
        self._patience = patience
        self._limit = settings.AUDIT_QUEUE_LIMIT if limit is None else limit
        self._queue: deque[Item] = deque()
        self._waiting = 0  # events in the queue
        self._wake = threading.Condition()
        self._asleep = False  # until something is queued
        self._hearing = _NOBODY
        self._closing = False
        self._reached = True
        self._seen: int | None = None
        self._callbacks: list[EpochCallback] = []
        self._thread = threading.Thread(target=self._run, name="audit-appender", daemon=True)
        self._thread.start()

    def submit(self, *events: Event, epoch: int, subjects: frozenset[str]) -> Future[int]:
        """Queue `events`, decided at `epoch` on what `subjects` name; return a future of an index.

        They are appended one after the other, or none of them; the index is the first one's.
        Only enqueues, so it may be called from an event loop. The future fails with Superseded
        where one of the subjects changed after `epoch`, and with LogWriteFailed where the entries
        could not be made durable: then no result may leave. Raises QueueFull at once where
        settings.AUDIT_QUEUE_LIMIT entries wait, LogWriteFailed once closed, ValueError for nothing.
        """
        future: Future[int] = Future()
        self._enqueue(Item(events, epoch, subjects, future))
        return future

    def submit_aio(
        self, *events: Event, epoch: int, subjects: frozenset[str]
    ) -> asyncio.Future[int]:
        """Do the same for the running event loop, which is woken once for all that a commit ends.

        The future fails with LogWriteFailed after waiting.WAIT_SECONDS, too.
        """
        loop = waiting.running()
        future: asyncio.Future[int] = loop.aio.create_future()
        self._enqueue(Item(events, epoch, subjects, future, loop))
        loop.watch(future)  # only now: what could not be queued leaves nothing behind
        return future

    def _enqueue(self, item: Item) -> None:
        if not item.events:
            raise ValueError("there is nothing to append")
        with self._wake:
            if self._closing:
                raise LogWriteFailed("the log's writer is closed")
            if self._waiting >= self._limit:
                raise QueueFull(f"{self._limit} entries wait for the log")
            self._queue.append(item)
            self._waiting += len(item.events)
            if self._asleep:
                self._asleep = False
                self._wake.notify()

    @property
    def failing(self) -> bool:
        """Whether the last batch could not be written; the next one that can be ends it."""
        return not self._reached

    def on_epoch(self, callback: EpochCallback) -> None:
        """Have `callback(epoch, subjects)` called whenever a newer epoch is met.

        It runs in the appender's thread, outside any transaction and before the waiters of that
        batch are released, so it must be short. `subjects` None means: anything may have changed.
        """
        self._callbacks.append(callback)

    def close(self, timeout: float = 30.0) -> None:
        """Write what is queued, then stop. Raises LogWriteFailed where that takes longer."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join(timeout)
        if self._thread.is_alive():
            raise LogWriteFailed(f"the log's writer did not finish within {timeout:g} s")

    def _run(self) -> None:
        try:
            while batch := self._next_batch():
                try:
                    self._commit(batch)
                except BaseException as error:
                    log.exception("The log's writer met an error of its own.")
                    self._fail(batch, LogWriteFailed(f"the log's writer failed: {error!r}"))
        finally:
            connections[self._using].close()

    def _next_batch(self) -> list[Item]:
        """Return what waits, about BATCH_LIMIT entries; wait for it; empty once closed and drained."""
        batch: list[Item] = []
        while not batch:
            with self._wake:
                self._let_hear()
                while not self._queue:
                    if self._closing:
                        return []
                    self._asleep = True
                    self._wake.wait()
                taken, count = [], 0
                while self._queue and count < BATCH_LIMIT:
                    item = self._queue.popleft()
                    taken.append(item)
                    count += len(item.events)
                self._waiting -= count
            # From here on a waiter can't cancel; one that did so before is not recorded.
            batch = [item for item in taken if item.begin()]
        return batch

    def _let_hear(self) -> None:
        """Let the loops just woken run what waited there: mostly it comes back with the next entry.

        Half a batch now and half a batch then would cost two commits, and the two threads would
        fight for the interpreter meanwhile. Called under the lock.
        """
        hearing, self._hearing = self._hearing, _NOBODY
        if hearing.loops:
            self._wake.wait_for(lambda: not hearing.loops, HEAR_SECONDS)

    def _commit(self, batch: Sequence[Item], unsure: bool = False) -> None:
        """Make `batch` durable and release its waiters.

        `unsure`: an earlier try may have committed before its connection was lost, so the items
        are looked for first, under the head's lock, which that try's transaction holds as long as
        it lives.
        """
        deadline = time.monotonic() + (self._patience if self._reached else 0.0)
        while True:
            try:
                guard.ready(self._using)
                result = self._attempt(batch, unsure)
            except LogRolledBack as error:
                self._fail(batch, error)
                return
            except DatabaseError as error:
                if not outages.is_outage(error, connections[self._using]):
                    self._commit_singly(batch, unsure, error)
                    return
                unsure = True
                self._disconnect()
                if time.monotonic() >= deadline:
                    if self._reached:
                        log.error("The audit log can't be written: %s", str(error).strip())
                    self._reached = False
                    self._fail(batch, LogWriteFailed("the log's database can't be reached"))
                    return
                time.sleep(PAUSE_SECONDS)
            except Exception as error:
                self._commit_singly(batch, unsure, error)
                return
            else:
                if not self._reached:
                    log.warning("The audit log can be written again.")
                self._reached = True
                self._release(result)
                return

    def _commit_singly(self, batch: Sequence[Item], unsure: bool, error: Exception) -> None:
        """Let one item that the database refuses not take the others with it."""
        self._disconnect()
        if len(batch) > 1:
            for item in batch:
                self._commit([item], unsure)
            return
        log.error("An entry can't be written to the audit log.", exc_info=error)
        self._fail(batch, LogWriteFailed(f"the log refused the entry: {type(error).__name__}"))

    def _attempt(self, batch: Sequence[Item], unsure: bool) -> _Result:
        connection = connections[self._using]
        with transaction.atomic(using=self._using, durable=True):
            postgresql = connection.vendor == "postgresql"
            head = (
                direct.take_head(connection)
                if postgresql
                else store.read_head(connection, lock=True)
            )
            guard.check(head, self._using)
            there = store.find(connection, [i.events[0].uuid for i in batch]) if unsure else {}
            news = self._news(connection, head.epoch, batch)
            answers: Answers = []
            fresh: list[Item] = []
            for item in batch:
                if there and (index := there.get(item.events[0].uuid)) is not None:
                    answers.append((item, index))
                elif news.concern(item):
                    answers.append((item, Superseded(news.epoch)))
                else:
                    fresh.append(item)
            if fresh:
                at = head.size
                events = [event for item in fresh for event in item.events]
                write = direct.write if postgresql else None
                head = store.extend(connection, head, events, epoch=head.epoch, write=write)
                for item in fresh:
                    answers.append((item, at))
                    at += len(item.events)
        return _Result(news, answers, head)

    def _news(self, connection: BaseDatabaseWrapper, epoch: int, batch: Sequence[Item]) -> _News:
        """Read what changed since the oldest decision in `batch` and since we last looked."""
        epochs = [item.epoch for item in batch if item.subjects]
        if self._seen is None and epochs:
            self._seen = min(epochs)
        if self._seen is not None:
            epochs.append(self._seen)
        oldest = min(epochs, default=epoch)
        if not 0 < epoch - oldest <= CHANGES_LIMIT:
            return _News(epoch, {})
        return _News(epoch, store.read_changes(connection, oldest, epoch))

    def _release(self, result: _Result) -> None:
        guard.note(result.head.size, result.head.root, self._using)
        self._tell(result.news)
        self._answer(result.answers)

    def _tell(self, news: _News) -> None:
        """Call the callbacks where the epoch is not the one we last saw."""
        if self._seen is None or self._seen == news.epoch:
            return
        changed = news.since(self._seen)
        try:
            for callback in (*_subscribers, *self._callbacks):
                callback(news.epoch, changed)
        except Exception:
            # The next batch tries again. Nothing is allowed by it meanwhile: what was decided on
            # an old snapshot carries its old epoch, and is compared with the log.
            log.exception("A subscriber to the log's epoch failed.")
        else:
            self._seen = news.epoch

    def _fail(self, batch: Sequence[Item], error: AuditError) -> None:
        self._answer([(item, error) for item in batch])

    def _answer(self, answers: Answers) -> None:
        hearing = self._hearing = Hearing()
        waiting.release(answers, hearing, self._wake)

    def _disconnect(self) -> None:
        """Drop the connection; the next use opens a new one."""
        connection = connections[self._using]
        try:
            connection.close()
        except Exception as error:
            log.debug("Closing a broken connection failed: %s", error)
            connection.connection = None


_lock = threading.Lock()
_current: Appender | None = None
_owner = 0
_subscribers: list[EpochCallback] = []


def appender() -> Appender:
    """Return this process's appender; the first call in a process starts it."""
    global _current, _owner
    if _current is not None and _owner == os.getpid():
        return _current
    with _lock:
        if _current is None or _owner != os.getpid():
            _current, _owner = Appender(), os.getpid()
        return _current


def close_appender() -> None:
    """Write what is queued and stop this process's appender; `appender()` starts another."""
    global _current
    with _lock:
        current, _current = _current, None
    if current is not None and _owner == os.getpid():
        current.close()


def on_epoch(callback: EpochCallback) -> None:
    """Subscribe to every appender of this process and of its forked children; see Appender."""
    if callback not in _subscribers:
        _subscribers.append(callback)


def _after_fork() -> None:
    """The child's lock is free whoever held it; its parent's appender is known by `_owner`."""
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)
atexit.register(close_appender)
