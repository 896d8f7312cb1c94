"""Entries as lines: JSON Lines with every byte as hashed, CSV for spreadsheets, OCSF and CEF."""

from __future__ import annotations

import csv as csv_format
import io
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from audit import personal
from audit.entries import moment
from audit.exports import opening
from audit.exports.errors import EntryDamaged
from audit.exports.rows import rows
from audit.formats import cef, ocsf
from audit.merkle import leaf_hash
from audit.search import Filters

CSV_COLUMNS = (
    "index",
    "time",
    "uuid",
    "actor_kind",
    "actor_id",
    "actor_name",
    "method",
    "door",
    "action",
    "object_kind",
    "object_id",
    "object_name",
    "object_version",
    "classification",
    "outcome",
    "reason",
    "source",
    "request_id",
    "approvals",
    "facts",
    "leaf_hash",
)
# What a spreadsheet takes for a formula (OWASP, "CSV injection").
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")

Names = Mapping[str, str | None]
Body = Mapping[str, Any]


class Piece(NamedTuple):
    """Some of an export's bytes; how many entries are out after it; and where to go on from.

    `state` is JSON for `pieces(state, entries)`; None: nobody can begin here.
    """

    data: bytes
    entries: int
    state: Any


class Lines:
    """The entries from `first` to `size` that match, as lines of one format; None: all of them."""

    def __init__(
        self, format: str, filters: Filters | None, first: int, size: int, using: str = "default"
    ) -> None:
        self._format, self._filters = format, filters
        self._first, self._size, self._using = first, size, using

    def pieces(self, state: Any, entries: int) -> Iterator[Piece]:
        """Yield the bytes from a piece's state on, or from the beginning (None)."""
        after = self._first - 1 if state is None else int(state)
        if state is None and self._format == "csv":
            yield Piece(_row(CSV_COLUMNS), entries, after)
        for found in rows(self._filters, after, self._size, self._using):
            entries += len(found.indices)
            data = found.lines
            if self._format != "jsonl":
                data = self._rendered(found.lines)
            yield Piece(data, entries, found.indices[-1])

    def _rendered(self, lines: bytes) -> bytes:
        """Return the lines in this format, personal data opened as far as it wasn't erased."""
        render = _RENDER[self._format]
        known = opening.look_up(opening.commitments(lines), self._using)
        out = []
        for line in lines.split(b"\n")[:-1]:
            body = _decoded(line)
            try:
                out.append(render(line, body, opening.names(body, known) if known else {}))
            except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
                raise EntryDamaged(f"entry {body.get('index')} is damaged") from None
        return b"".join(out)


def _decoded(line: bytes) -> dict[str, Any]:
    try:
        body = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        body = None
    if not isinstance(body, dict):
        raise EntryDamaged(f"an entry is damaged; SHA-256 of its leaf: {leaf_hash(line).hex()}")
    return body


def _csv(line: bytes, body: Body, names: Names) -> bytes:
    """Return one row of CSV (RFC 4180) in UTF-8, all texts whole.

    A text that a spreadsheet would run as a formula gets an apostrophe before it, so this is for
    reading; JSON Lines are the evidence.
    """
    told = personal.revealed(body, names) if names else body
    actor, subject = told["actor"], told["object"]
    return _row(
        (
            str(told["index"]),
            moment(told["at"]).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z",
            told["uuid"],
            actor["kind"],
            actor["id"],
            actor["name"],
            told["method"],
            told["door"],
            told["action"],
            subject["kind"],
            subject["id"],
            subject["name"],
            "" if subject["version"] is None else str(subject["version"]),
            subject.get("classification", ""),
            told["outcome"],
            told["reason"],
            told["source"],
            told["request_id"],
            " ".join(told["approvals"]),
            msgspec.json.encode(told["facts"], order="deterministic").decode(),
            leaf_hash(line).hex(),
        )
    )


def _row(values: tuple[str, ...]) -> bytes:
    line = io.StringIO()
    csv_format.writer(line).writerow(["'" + v if v.startswith(_FORMULA) else v for v in values])
    return line.getvalue().encode()


def _ended(line: bytes) -> bytes:
    return line if line.endswith(b"\n") else line + b"\n"


_RENDER: dict[str, Callable[[bytes, Body, Names], bytes]] = {
    "csv": _csv,
    "ocsf": lambda line, body, names: _ended(ocsf.line(body, names, leaf=leaf_hash(line))),
    "cef": lambda line, body, names: _ended(cef.line(body, names, leaf=leaf_hash(line))),
}
