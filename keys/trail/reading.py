"""Reading the trail: searched, and proved."""

from __future__ import annotations

from dataclasses import dataclass

from audit import proofs, search, writer
from audit.canonical import INTEGER_LIMIT
from audit.errors import AuditError
from audit.models import Entry
from audit.search import Filters
from keys import gate
from keys.actions import Action
from keys.callers import Caller
from keys.errors import Invalid, LogUnavailable, NotFound
from keys.gate import reads
from keys.trail.asking import resolved

PAGE = 50


@dataclass(frozen=True, slots=True)
class Proof:
    """That an entry stands in the log of `size` entries with this root (RFC 9162, 2.1.3). All in hex."""

    size: int
    root: str
    hashes: list[str]


def search_audit(
    caller: Caller, filters: Filters | None = None, *, before: int | None = None, limit: int = PAGE
) -> list[Entry]:
    """Return matching entries, newest first, of those with an index below `before`.

    `filters.object_id` may also be an alias or a name. Raises Denied, or Invalid where the search
    text says too little.
    """
    gate.read(caller, Action.READ_AUDIT)
    return search.search(resolved(filters or Filters()), before=_checked(before), limit=limit)


def find_entry(caller: Caller, index: int) -> Entry:
    """Return one entry. Raises Denied, Invalid or NotFound."""
    gate.read(caller, Action.READ_AUDIT)
    _checked(index)
    found = Entry.objects.filter(pk=index).first()
    if found is None:
        missing = NotFound("There is no such entry.")
        raise reads.not_found(caller, Action.READ_AUDIT, "entry", str(index), missing)
    return found


def prove_entry(caller: Caller, index: int) -> Proof:
    """Return the inclusion proof of one entry in the log as it is now, from a few rows of tiles.

    Raises Denied or NotFound, LogUnavailable where the log has a hole.
    """
    gate.read(caller, Action.READ_AUDIT)
    head = log_head(caller)
    if not 0 <= index < head.size:
        raise NotFound("There is no such entry.")
    try:
        hashes = proofs.inclusion(index, head.size)
    except ValueError as error:
        raise LogUnavailable(f"There is no proof: {error}.") from None
    return Proof(head.size, head.root, [one.hex() for one in hashes])


def log_head(caller: Caller) -> Proof:
    """Return the log's size and root now, as a proof of nothing yet. Raises Denied."""
    gate.read(caller, Action.READ_AUDIT)
    try:
        head = writer.head()
    except AuditError:
        raise LogUnavailable("The audit log can't be read now.") from None
    return Proof(head.size, head.root.hex(), [])


def _checked(number: int | None) -> int | None:
    """Return an index that a database can look for. Raises Invalid."""
    if number is not None and not -1 <= number <= INTEGER_LIMIT:
        raise Invalid("There can be no entry of that number.", field="index")
    return number
