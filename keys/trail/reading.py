"""Reading the trail: searched, and proved."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from audit import retention, search, writer
from audit.canonical import INTEGER_LIMIT
from audit.errors import AuditError
from audit.events import Outcome
from audit.index.words import decoded
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
        missing = NotFound(_where(index))
        raise reads.not_found(caller, Action.READ_AUDIT, "entry", str(index), missing)
    return found


def citing(caller: Caller, approval: str, limit: int = PAGE) -> list[Entry]:
    """Return the entries that cite a request for votes, oldest first.

    The request, the votes, and what was done after them, up to `limit` of each: none of the three
    can be crowded out by whoever puts the request's id into other entries. Raises Denied.
    """
    gate.read(caller, Action.READ_AUDIT)
    found: dict[int, Entry] = {}
    whole = Filters(text=approval)
    pending = replace(whole, outcome=Outcome.PENDING.value)
    for wanted in (pending, replace(whole, action=Action.VOTE.value), whole):
        hits = islice(search.oldest(wanted), limit)
        found |= {entry.index: entry for entry in hits if _cites(entry, approval)}
    return [found[index] for index in sorted(found)]


def _cites(entry: Entry, approval: str) -> bool:
    body = decoded(bytes(entry.body))
    return body is not None and approval in body.approvals


def written(entry: Entry) -> dict[str, Any] | None:
    """Return what an entry's bytes say; None where somebody damaged them so that they can't be read."""
    data = bytes(entry.body)
    if decoded(data) is None:
        return None
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body["facts"], dict) else None


def _where(index: int) -> str:
    """Return why an entry isn't there, in a sentence."""
    bundle = retention.archived(index)
    if bundle is None:
        return "There is no such entry."
    return f"It is in the archive: entries {bundle.start} to {bundle.end - 1}. Bring them back to read it."


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
