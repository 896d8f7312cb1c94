"""Walking the log: is every entry there, unchanged, and does the head say so?

What this can't see: a superuser of the database can rewrite entries *and* head together. Against
that stand checkpoints kept elsewhere, to compare `Report.size` and `Report.root` with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import msgspec
from django.db import connections

from audit import canonical, entries
from audit.merkle import Frontier, inclusion_proof, leaf_hash
from audit.models import Entry
from audit.store import LogHead, read_head

CHUNK = 1000
# What an entry says, exactly.
_MEMBERS = {
    *("v", "index", "uuid", "at", "actor", "method", "door", "action", "object", "outcome"),
    *("reason", "source", "request_id", "approvals", "facts"),
}

# What databases give bytes as; SQLite keeps a column's value as whatever type it was written.
BINARY = (bytes, bytearray, memoryview)


@dataclass(frozen=True, slots=True)
class Report:
    """What a walk found. `root` is hex, from the entries; `problem` is a sentence or empty.

    `first_bad_index` is None where nothing is wrong or the fault is in the head itself. Where
    entries and their hashes were rewritten together it is the first that may be wrong.
    """

    ok: bool
    size: int
    root: str
    head_epoch: int
    first_bad_index: int | None = None
    problem: str = ""


class _Bad(Exception):
    def __init__(self, index: int | None, problem: str) -> None:
        super().__init__(problem)
        self.index, self.problem = index, problem


def verify(
    using: str = "default",
    *,
    start: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Report:
    """Walk the log in order, at constant memory, and compare it with its head.

    For entries before `start` only the stored leaf hashes are read (their bodies were verified
    earlier, and the root covers the hashes). `progress` is called with the number of entries
    done. Entries that others append meanwhile are not looked at.
    """
    head = read_head(connections[using])
    frontier = Frontier()
    try:
        for entry in _walk(using, head.size, start):
            _check(entry, frontier.size, whole=frontier.size >= start)
            frontier.append(bytes(entry.leaf_hash))
            if progress and frontier.size % CHUNK == 0:
                progress(frontier.size)
        _check_end(using, head, frontier)
    except _Bad as bad:
        root = frontier.root().hex()
        return Report(False, frontier.size, root, head.epoch, bad.index, bad.problem)
    if progress:
        progress(frontier.size)
    return Report(True, frontier.size, frontier.root().hex(), head.epoch)


def prove(index: int, using: str = "default") -> list[bytes]:
    """Return the inclusion proof of entry `index` in the log as it is now, for verify_inclusion.

    Reads every leaf hash, so it takes time in proportion to the log. Raises ValueError where
    there is no such entry.
    """
    return prove_in(index, read_head(connections[using]).size, using)


def prove_in(index: int, size: int, using: str = "default") -> list[bytes]:
    """Return the inclusion proof of entry `index` in the log's first `size` entries."""

    def range_hash(start: int, end: int) -> bytes:
        frontier = Frontier()
        for entry in _rows(using, start, end, whole=False):
            frontier.append(bytes(entry.leaf_hash))
        if frontier.size != end - start:
            raise ValueError(f"entries are missing between {start} and {end}")
        return frontier.root()

    return inclusion_proof(index, size, range_hash)


def _walk(using: str, size: int, start: int) -> Iterator[Entry]:
    start = min(start, size)
    yield from _rows(using, None, start, whole=False)
    yield from _rows(using, start if start else None, size, whole=True)


def _rows(using: str, start: int | None, end: int, *, whole: bool) -> Iterator[Entry]:
    """Yield the entries in [start, end) in order, page by page; None: from the very first row."""
    rows = Entry.objects.using(using).filter(index__lt=end).order_by("index")
    if not whole:
        rows = rows.only("index", "leaf_hash")
    page = rows if start is None else rows.filter(index__gte=start)
    while found := list(page[:CHUNK]):
        yield from found
        page = rows.filter(index__gt=found[-1].index)


def _check(entry: Entry, expected: int, *, whole: bool) -> None:
    """Raise _Bad unless `entry` is the one expected next, and as it was written."""
    if entry.index < expected:
        raise _Bad(entry.index, f"There is an entry {entry.index}, which no log has.")
    if entry.index > expected:
        raise _Bad(expected, f"Entry {expected} is missing.")
    if not isinstance(entry.leaf_hash, BINARY) or (whole and not isinstance(entry.body, BINARY)):
        raise _Bad(expected, f"Entry {expected} is not kept as bytes.")
    if not whole:
        return
    data = bytes(entry.body)
    if leaf_hash(data) != bytes(entry.leaf_hash):
        raise _Bad(expected, f"Entry {expected} does not match its hash.")
    try:
        body = msgspec.json.decode(data)
        sound = canonical.encode(body) == data
    except (ValueError, TypeError, msgspec.DecodeError):
        sound = False
    if not sound or not isinstance(body, dict):
        raise _Bad(expected, f"Entry {expected} is not canonical JSON.")
    if body.get("v") not in entries.VERSIONS or body.keys() != _MEMBERS:
        raise _Bad(expected, f"Entry {expected} does not have the form of an entry.")
    if body["index"] != expected:
        raise _Bad(expected, f"Entry {expected} says that it is entry {body['index']}.")
    if problem := _columns_differ(entry, body):
        raise _Bad(expected, f"Entry {expected}: {problem}")


def _columns_differ(entry: Entry, body: dict[str, Any]) -> str:
    """Return what differs between the columns and the body they were taken from, or nothing."""
    try:
        said = entries.columns(body)
        uuid, at = UUID(body["uuid"]), entries.moment(body["at"])
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return "a member is missing or of the wrong type."
    for name, value in zip(entries.COLUMNS, said, strict=True):
        wanted: object = {"uuid": uuid, "at": at}.get(name, value)
        if getattr(entry, name) != wanted:
            return f"the column {name} differs from the entry's body."
    return ""


def _check_end(using: str, head: LogHead, frontier: Frontier) -> None:
    """Raise _Bad unless the head agrees with the entries, and nothing lies behind the head."""
    if frontier.size < head.size:
        raise _Bad(frontier.size, f"Entry {frontier.size} is missing, and all after it.")
    if frontier.root() != head.root or frontier.to_bytes() != head.frontier:
        raise _Bad(*_where(head, frontier))
    # Entry and head become visible in the same commit: read the entries first.
    last = Entry.objects.using(using).order_by("-index").values_list("index", flat=True).first()
    now = read_head(connections[using])
    if now.size < head.size or (last is not None and last >= now.size):
        raise _Bad(now.size, f"There are entries behind the log's end at {now.size}.")


def _where(head: LogHead, frontier: Frontier) -> tuple[int | None, str]:
    """Tell which part of the log does not match the head, as narrowly as its frontier knows."""
    try:
        stored = Frontier.from_bytes(head.size, head.frontier)
    except ValueError:
        return None, "The log's head is damaged: its frontier is not one."
    if stored.root() != head.root:
        return None, "The log's head is damaged: its root does not follow from its frontier."
    pairs: Sequence[Any] = list(zip(stored.subtrees(), frontier.subtrees(), strict=True))
    start, end = next((ours[0], ours[1]) for theirs, ours in pairs if theirs != ours)
    if end - start == 1:
        return start, f"Entry {start} was rewritten with its hash: the head has another."
    return start, f"An entry in {start}..{end - 1} was rewritten with its hash, or the head was."
