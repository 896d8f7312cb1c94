"""Reading the trail: searched, proved, taken out and verified, for callers who may."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any

from audit import export, search, verifier, writer
from audit.canonical import INTEGER_LIMIT
from audit.errors import AuditError
from audit.events import Subject
from audit.merkle import Frontier
from audit.models import Entry
from audit.search import Filters
from keys import gate, targets
from keys.actions import Action
from keys.callers import Caller
from keys.errors import Invalid, LogUnavailable, NotFound
from keys.gate import reads

FORMATS = {"jsonl": export.jsonl, "csv": export.csv}
PAGE = 50
_ABOUT = ("key", "classification", "key_store", "principal")


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

    `filters.object_id` may also be an alias or a name. Raises Denied.
    """
    gate.read(caller, Action.READ_AUDIT)
    return search.search(_resolved(filters or Filters()), before=_checked(before), limit=limit)


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
    """Return the inclusion proof of one entry in the log as it is now.

    Reads every leaf hash, so it takes time in proportion to the log. Raises Denied or NotFound.
    """
    gate.read(caller, Action.READ_AUDIT)
    head = log_head(caller)
    if not 0 <= index < head.size:
        raise NotFound("There is no such entry.")
    try:
        hashes = verifier.prove_in(index, head.size)
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


def export_audit(
    caller: Caller, filters: Filters | None = None, format: str = "jsonl"
) -> Iterator[bytes]:
    """Return matching entries as lines of JSON (`jsonl`, the evidence) or `csv` (for reading).

    That they left is recorded, with the filters, before the first line is given out. Raises Denied
    or Invalid at once, not at the first line.
    """
    if format not in FORMATS:
        raise Invalid(f"format must be one of: {', '.join(sorted(FORMATS))}.", field="format")
    wanted = filters or Filters()
    gate.read(
        caller,
        Action.EXPORT_AUDIT,
        Subject("log", "log"),
        facts={"format": format, "filters": _told(wanted)},
    )
    return FORMATS[format](_resolved(wanted))


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


def _checked(number: int | None) -> int | None:
    """Return an index that a database can look for. Raises Invalid."""
    if number is not None and not -1 <= number <= INTEGER_LIMIT:
        raise Invalid("There can be no entry of that number.", field="index")
    return number


def _resolved(filters: Filters) -> Filters:
    """Return filters whose object is named by id: people know an alias or a name."""
    if not filters.object_id:
        return filters
    kinds = [kind for kind in _ABOUT if filters.object_kind in ("", kind)]
    for kind in kinds:
        try:
            found: targets.Target[Any] = getattr(targets, kind)(filters.object_id, {})
        except NotFound:
            continue
        return replace(filters, object_id=found.id)
    return filters


def _told(filters: Filters) -> dict[str, str]:
    """Return the filters that were set, as an entry tells them."""
    told = {}
    for field in fields(filters):
        value = getattr(filters, field.name)
        if value:
            told[field.name] = (
                value.isoformat() if isinstance(value, datetime) else str(value)[:200]
            )
    return told
