"""Who waits for the log: threads and event loops, and how they are told what became of their events."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from audit.errors import AuditError, LogWriteFailed
from audit.events import Event

log = logging.getLogger(__name__)

# Long enough for a slow disk; the appender itself gives up sooner and says why.
WAIT_SECONDS = 30.0
TOO_SLOW = "the log's database did not answer in time"

# What a waiter is told: the index of its first entry, or why there is none.
Answer = int | AuditError


@dataclass(slots=True)
class Item:
    """Events that are appended together, decided at `epoch` on what `subjects` name."""

    events: tuple[Event, ...]
    epoch: int
    subjects: frozenset[str]
    future: Future[int] | asyncio.Future[int]
    loop: Loop | None = None  # of an asyncio.Future

    def begin(self) -> bool:
        """Tell whether it still waits. A thread that waits can't give up from here on."""
        if isinstance(self.future, Future):
            return self.future.set_running_or_notify_cancel()
        return not self.future.done()


Answers = list[tuple[Item, Answer]]


class Loop:
    """One event loop that waits. One timer watches all its futures: one each costs more than the rest."""

    __slots__ = ("_limit", "_timer", "_waiting", "aio")

    def __init__(self, aio: asyncio.AbstractEventLoop, limit: float) -> None:
        self.aio = aio
        self._limit = limit
        self._waiting: deque[tuple[float, asyncio.Future[int]]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, future: asyncio.Future[int]) -> None:
        """Have a future of this loop fail with LogWriteFailed where it waits longer than the limit."""
        self._waiting.append((self.aio.time() + self._limit, future))
        if self._timer is None:
            self._timer = self.aio.call_later(self._limit, self._look)

    def settle(self, answers: Sequence[tuple[Item, Answer]], heard: Callable[[], None]) -> None:
        """Tell who waits here, on the loop; call `heard` once they have run."""
        for item, answer in answers:
            settle(item.future, answer)
        waiting = self._waiting
        while waiting and waiting[0][1].done():
            waiting.popleft()
        # Runs after those who waited, since a loop's callbacks run in their order.
        self.aio.call_soon(heard)

    def _look(self) -> None:
        self._timer = None
        now = self.aio.time()
        while self._waiting:
            deadline, future = self._waiting[0]
            if not future.done():
                if deadline > now:
                    self._timer = self.aio.call_at(deadline, self._look)
                    return
                future.set_exception(LogWriteFailed(TOO_SLOW))
            self._waiting.popleft()


_here = threading.local()


def running(limit: float = WAIT_SECONDS) -> Loop:
    """Return the running event loop's. Raises RuntimeError where none runs."""
    aio = asyncio.get_running_loop()
    found: Loop | None = getattr(_here, "loop", None)
    if found is None or found.aio is not aio:
        found = _here.loop = Loop(aio, limit)
    return found


@dataclass(slots=True)
class Hearing:
    """How many event loops have not yet let those run whom a commit released."""

    loops: int = 0


def release(answers: Answers, hearing: Hearing, wake: threading.Condition) -> None:
    """Tell waiters. Waking an event loop costs a system call, so each is woken once.

    `hearing` counts, under `wake`, the loops that have not heard; the last one notifies.
    """
    loops: dict[Loop, Answers] = {}
    for item, answer in answers:
        if item.loop is None:
            settle(item.future, answer)
        else:
            loops.setdefault(item.loop, []).append((item, answer))
    hearing.loops = len(loops)

    def heard() -> None:
        with wake:
            hearing.loops -= 1
            if not hearing.loops:
                wake.notify()

    for loop, theirs in loops.items():
        try:
            loop.aio.call_soon_threadsafe(loop.settle, theirs, heard)
        except RuntimeError:
            log.debug("An event loop ended before its entries were written.")
            heard()


def settle(future: Future[int] | asyncio.Future[int], answer: Answer) -> None:
    """Tell one waiter."""
    if future.done():  # who waited on an event loop may have given up
        return
    if isinstance(answer, int):
        future.set_result(answer)
    else:
        future.set_exception(answer)
