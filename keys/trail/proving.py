"""What shows that the trail was only ever added to: checkpoints, and proofs between any two sizes."""

from __future__ import annotations

from dataclasses import replace

from audit import checkpoints, proofs
from audit.models import Checkpoint
from keys import gate
from keys.actions import Action
from keys.callers import Caller
from keys.errors import Invalid, LogUnavailable, NotFound
from keys.gate import reads
from keys.trail.reading import Proof, log_head


def latest_checkpoint(caller: Caller) -> Checkpoint:
    """Return the newest signed checkpoint. Raises Denied, or NotFound where nothing was signed yet."""
    gate.read(caller, Action.READ_AUDIT)
    found = checkpoints.latest()
    if found is None:
        missing = NotFound("There is no signed checkpoint yet.")
        raise reads.not_found(caller, Action.READ_AUDIT, "checkpoint", "latest", missing)
    return found


def prove_entry(caller: Caller, index: int) -> Proof:
    """Return the proof that an entry stands in the log as it is now, under the root in its head.

    Raises Denied or NotFound, LogUnavailable where the log has a hole.
    """
    gate.read(caller, Action.READ_AUDIT)
    head = log_head(caller)
    if not 0 <= index < head.size:
        raise NotFound("There is no such entry.")
    return replace(_proof(head.size, index=index), root=head.root)


def prove_at(caller: Caller, index: int, size: int) -> Proof:
    """Return the proof that an entry stands in the log as it was when it had `size` entries.

    Raises Denied, NotFound where there is no such entry, and Invalid where the log has not that many,
    or did not have this one then.
    """
    gate.read(caller, Action.READ_AUDIT)
    head = log_head(caller)
    if not 0 <= index < head.size:
        missing = NotFound("There is no such entry.")
        raise reads.not_found(caller, Action.READ_AUDIT, "entry", str(index), missing)
    if not index < size <= head.size:
        raise Invalid(f"size must be between {index + 1} and {head.size}.", field="size")
    return _proof(size, index=index)


def prove_consistency(caller: Caller, first: int, second: int) -> Proof:
    """Return the proof that the log of `first` entries is the beginning of that of `second`.

    `size` and `root` are those of the second (RFC 9162, 2.1.4). Raises Denied, and Invalid unless
    0 < first <= second <= the log's size.
    """
    gate.read(caller, Action.READ_AUDIT)
    head = log_head(caller)
    if not 0 < first <= head.size:
        raise Invalid(f"first must be between 1 and {head.size}.", field="first")
    if not first <= second <= head.size:
        raise Invalid(f"second must be between {first} and {head.size}.", field="second")
    return _proof(second, first=first)


def _proof(size: int, *, index: int | None = None, first: int = 0) -> Proof:
    prover = proofs.Prover(size)
    try:
        hashes = prover.consistency(first) if index is None else prover.inclusion(index)
        root = prover.root()
    except ValueError as error:
        raise LogUnavailable(f"There is no proof: {error}.") from None
    return Proof(size, root.hex(), [one.hex() for one in hashes])
