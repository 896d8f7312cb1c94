"""Whether the log is whole, for callers who may ask."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from audit import proofs, verifier
from audit.events import Subject
from audit.evidence import verify as rules
from keys import gate
from keys.actions import Action
from keys.callers import Caller
from keys.errors import Invalid, LogUnavailable
from keys.trail.reading import log_head


def verify_audit(
    caller: Caller,
    progress: Callable[[int], None] | None = None,
    *,
    earlier: Sequence[str] = (),
    policy: rules.Policy | None = None,
    with_archives: bool = False,
    with_index: bool = False,
) -> verifier.Report:
    """Walk the whole log and return what was found; that somebody did is recorded. Raises Denied.

    `progress` is called with the number of entries done. `earlier` are signed checkpoints that the
    caller kept elsewhere, `policy` says whose signatures are asked for; `with_archives` also reads the
    bundles of entries that were dropped from the database, `with_index` compares the whole search index.
    """
    gate.read(caller, Action.VERIFY_AUDIT, Subject("log", "log"))
    return verifier.verify(
        progress=progress,
        earlier=earlier,
        policy=policy,
        with_archives=with_archives,
        with_index=with_index,
    )


def root_at(caller: Caller, size: int) -> str:
    """Return the root, in hex, that the log had when it had `size` entries.

    To compare with one that was noted elsewhere then: the old log must be the beginning of this one.
    Rests on the stored hashes, which verify_audit checks. Raises Denied, Invalid where the log has fewer
    entries, LogUnavailable where one that it rests on is missing.
    """
    gate.read(caller, Action.READ_AUDIT)
    if not 0 <= size <= log_head(caller).size:
        raise Invalid("The log does not have that many entries.", field="size")
    try:
        return proofs.root_at(size).hex()
    except ValueError as error:
        raise LogUnavailable(f"The log is not whole: {error}.") from None
