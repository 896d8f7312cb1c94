"""The log must not be smaller than anybody remembers, nor another one: then it was rolled back.

Such a log takes no entries until it is settled, by putting the right database back or by
`manage.py accept_log`. Memories are this process's own (the largest log that it has seen
committed), the signer's, and what settings.AUDIT_MEMORIES names: copies of checkpoints, witnesses.
They are compared before a process's first append and then every CHECK_SECONDS, beside the log and
never inside a transaction. Reading goes on meanwhile.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from django.db import DatabaseError, connections

from audit import memories, store
from audit.errors import LogRolledBack, TilesMissing
from audit.memories import Memory
from audit.models import Checkpoint, Entry
from audit.proven import Proven
from audit.store import LogHead

log = logging.getLogger(__name__)

CHECK_SECONDS = 10.0
# The action whose entry says that an operator settled it, and among how many of the newest
# entries this process looks for it.
ACCEPTANCE = "accept_log"
ACCEPTANCE_LIMIT = 10_000
# From so many entries on a log without any memory is worth a complaint, signed or not.
SMALL = 1000
# The last look is late after so many rounds that were missed.
LATE = 6
UNTIL_SETTLED = "It takes no entries until this is settled."


@dataclass(frozen=True, slots=True)
class _Mark:
    """The largest log that this process has seen committed; `at` in microseconds since the epoch."""

    size: int
    root: bytes
    at: int


@dataclass(slots=True)
class _State:
    """What is known of one database's log."""

    mark: _Mark | None = None
    refusal: str = ""
    complaint: str = ""
    since: float = field(default_factory=time.monotonic)
    looked: float | None = None  # time.monotonic() of the last look that came to an end
    tries: int = 0  # looks that ended, in whatever way
    signers: Memory | None = None  # what the signer remembered when it was last asked
    proven: Proven = field(default_factory=Proven)
    lock: threading.Lock = field(default_factory=threading.Lock)  # one looks
    marking: threading.Lock = field(default_factory=threading.Lock)  # around `mark`


_lock = threading.Lock()
_states: dict[str, _State] = {}
_letting = threading.local()
_now = threading.Event()  # don't wait for the next round
_thread: threading.Thread | None = None


def _state(using: str) -> _State:
    with _lock:
        return _states.setdefault(using, _State())


def ready(using: str = "default") -> None:
    """See to it that this process has compared the log with what is remembered; outside transactions.

    The first call looks, which may ask witnesses; a thread does so from then on. Who calls meanwhile
    waits for that look, and makes none of its own.
    """
    state = _state(using)
    if state.looked is not None:
        return
    tries = state.tries
    with state.lock:
        if state.looked is None and state.tries == tries:
            _look(state, using)
    _start()


def recall(using: str = "default") -> None:
    """Read the signer's own memory, a small file, where nothing was compared yet.

    For a caller that begins with a transaction, before it takes the head.
    """
    state = _state(using)
    if state.looked is None and state.signers is None:
        state.signers = memories.signers()


def start(using: str = "default") -> None:
    """See to it that this process looks soon, without waiting: for who only tells how things are."""
    if _state(using).looked is None:
        _start()
        _now.set()


def look(using: str = "default") -> None:
    """Compare the log with every memory now. What can't be read is told by `complaint`."""
    state = _state(using)
    with state.lock:
        _look(state, using)
    _start()


def _look(state: _State, using: str) -> None:
    """Do that, under the state's lock."""
    try:
        mark = state.mark
        # Memories before the head: whoever signs meanwhile signs what is committed then.
        known, silent = memories.all_read()
        state.signers = next((one for one in known if one.who == memories.SIGNER), None)
        head = store.read_head(connections[using])
        refusal, unproved = _compared(head, known, mark, state, using)
        complaint = " ".join(filter(None, [silent or _unremembered(head, known, using), unproved]))
    except DatabaseError as error:
        log.info("The log can't be compared with its memories: %s", type(error).__name__)
        return
    finally:
        state.tries += 1
    if refusal != state.refusal:
        told = refusal or "The log is again what it was remembered to be."
        log.log(logging.ERROR if refusal else logging.WARNING, "%s", told)
    state.refusal, state.complaint = refusal, complaint
    state.looked = time.monotonic()


def _unremembered(head: LogHead, known: list[Memory], using: str) -> str:
    """Say so where nobody remembers a log that somebody should; a fresh house needs no memory yet."""
    if known or (head.size <= SMALL and not Checkpoint.objects.using(using).exists()):
        return ""
    return "No memory of the log is here: set KMS_AUDIT_MEMORIES to where its checkpoints are."


def _compared(
    head: LogHead, known: list[Memory], mark: _Mark | None, state: _State, using: str
) -> tuple[str, str]:
    """Return in sentences why the log is refused, and what could not be found out."""
    unproved = ""
    for memory in known:
        said, more = _difference(head, memory.size, memory.root, memory.who, state, using)
        if said:
            return said, ""
        unproved = unproved or more
    if mark is None:
        return "", unproved
    said, more = _difference(head, mark.size, mark.root, PROCESS, state, using)
    if said and _accepted_since(mark, head, using):
        with state.marking:
            if state.mark == mark:  # no newer one, of what was written since
                state.mark = None
        return "", unproved
    return said, unproved or more


PROCESS = "one of its processes"


def _difference(
    head: LogHead, size: int, root: bytes, who: str, state: _State, using: str
) -> tuple[str, str]:
    """Return in a sentence how the log is not what `who` remembers of it, or why nobody can tell."""
    if head.size < size:
        return f"The log has {head.size} entries; {who} remembers {size}. {UNTIL_SETTLED}", ""
    try:
        same = state.proven.continues(head, size, root, using)
    except ValueError:
        return f"Of the {size} entries that {who} remembers some are missing. {UNTIL_SETTLED}", ""
    except TilesMissing:
        return "", (
            "Too much of the log's tree is not built yet to compare it with what is remembered:"
            " start `manage.py trail`."
        )
    if not same:
        return f"The first {size} entries are not those that {who} remembers. {UNTIL_SETTLED}", ""
    return "", ""


def _accepted_since(mark: _Mark, head: LogHead, using: str) -> bool:
    """Tell whether an operator went on with this log after `mark` was seen in another one."""
    rows = Entry.objects.using(using).filter(index__gte=head.size - ACCEPTANCE_LIMIT)
    bodies = rows.filter(action=ACCEPTANCE, outcome="success").values_list("body", flat=True)
    return any(json.loads(bytes(body))["at"] > mark.at for body in bodies.order_by("-index")[:10])


def check(head: LogHead, using: str = "default") -> None:
    """Raise LogRolledBack unless an entry may be appended after `head`, which the caller holds."""
    if letting():
        return
    state = _state(using)
    if state.refusal:
        raise LogRolledBack(state.refusal)
    if state.looked is None:
        _check_recalled(head, state.signers)
    mark = state.mark
    if mark is None or head.size > mark.size or (head.size, head.root) == (mark.size, mark.root):
        return
    # Not a larger log, so nothing is to be proved here, while everybody waits for the head.
    state.refusal, _ = _difference(head, mark.size, mark.root, PROCESS, state, using)
    if state.refusal:
        log.error("%s", state.refusal)
        _start()
        raise LogRolledBack(state.refusal)


def _check_recalled(head: LogHead, memory: Memory | None) -> None:
    """Compare with what `recall` read: all that can be asked in a transaction.

    For a caller that begins with one; the thread's first look is on its way.
    """
    _start()
    if memory is not None and (
        memory.size > head.size or (memory.size == head.size and memory.root != head.root)
    ):
        raise LogRolledBack(f"The log is not what {memory.who} remembers. {UNTIL_SETTLED}")


def note(size: int, root: bytes, using: str = "default") -> None:
    """Remember a committed log; call it only once it is committed."""
    state = _state(using)
    with state.marking:
        if state.mark is None or size > state.mark.size:
            state.mark = _Mark(size, root, time.time_ns() // 1000)


def refusal(using: str = "default") -> str:
    """Return in a sentence why the log takes no entries, or ""."""
    return _state(using).refusal


def complaint(using: str = "default") -> str:
    """Return in a sentence which memories can't be read, or "". It does not stop the house."""
    state = _state(using)
    now, late = time.monotonic(), LATE * CHECK_SECONDS
    if state.looked is None and now - state.since > late:
        return "The log was not compared with its memories since this process began."
    if state.looked is not None and now - state.looked > late:
        return f"The log was last compared with its memories {now - state.looked:.0f} seconds ago."
    return state.complaint


def trouble(using: str = "default") -> str:
    """Return in a sentence what is wrong with the log or its memories, or ""."""
    return refusal(using) or complaint(using)


def remembered() -> list[Memory]:
    """Return what is remembered of the log outside the database and of this process, now."""
    state = _state("default")
    known = memories.all_read()[0]
    if state.mark is not None:
        known.append(Memory("this process", "", state.mark.size, state.mark.root))
    return known


@contextlib.contextmanager
def accepting() -> Iterator[None]:
    """Let this thread append to a log that is refused: for accept_log alone."""
    _letting.through = True
    try:
        yield
    finally:
        _letting.through = False


def letting() -> bool:
    """Tell whether this thread is going on with a log that was put back."""
    return getattr(_letting, "through", False)


def begin_again(using: str = "default") -> None:
    """Forget this process's own mark, once an operator has accepted the log as it is, and look."""
    state = _state(using)
    with state.lock, state.marking:
        state.mark = None
    look(using)


def forget() -> None:
    """Know nothing: for tests, each of which has a log of its own."""
    with _lock:
        _states.clear()


def _start() -> None:
    """Start the thread that looks, once per process."""
    global _thread
    with _lock:
        if _thread is None:
            _thread = threading.Thread(target=_run, name="audit-guard", daemon=True)
            _thread.start()


def _run() -> None:
    while True:
        _now.wait(CHECK_SECONDS)
        _now.clear()
        for using in list(_states):
            try:
                look(using)
            except Exception:
                log.exception("The log can't be compared with its memories.")
            finally:
                connections.close_all()


def _after_fork() -> None:
    global _lock, _thread
    _lock, _thread = threading.Lock(), None
    for state in _states.values():
        state.lock, state.marking = threading.Lock(), threading.Lock()


os.register_at_fork(after_in_child=_after_fork)
