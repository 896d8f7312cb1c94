"""Whether the log is whole, for callers who may ask."""

from __future__ import annotations

from collections.abc import Callable

from audit import verifier
from audit.events import Subject
from audit.merkle import Frontier
from audit.models import Entry
from keys import gate
from keys.actions import Action
from keys.callers import Caller
from keys.errors import Invalid
from keys.trail.reading import log_head


def verify_audit(caller: Caller, progress: Callable[[int], None] | None = None) -> verifier.Report:
    """Walk the whole log and return what was found; that somebody did is recorded. Raises Denied.

    `progress` is called with the number of entries done.
    """
    gate.read(caller, Action.VERIFY_AUDIT, Subject("log", "log"))
    return verifier.verify(progress=progress)


def root_at(caller: Caller, size: int) -> str:
    """Return the root, in hex, that the log had when it had `size` entries.

    To compare with one that was noted elsewhere then: the old log must be the beginning of this one.
    Rests on the stored leaf hashes, which verify_audit checks. Raises Denied, or Invalid where the log
    has fewer entries.
    """
    gate.read(caller, Action.READ_AUDIT)
    if not 0 <= size <= log_head(caller).size:
        raise Invalid("The log does not have that many entries.", field="size")
    frontier = Frontier()
    rows = Entry.objects.filter(index__lt=size).order_by("index")
    for leaf in rows.values_list("leaf_hash", flat=True).iterator(chunk_size=10_000):
        frontier.append(bytes(leaf))
    return frontier.root().hex()
