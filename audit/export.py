"""Streaming the log out: JSON Lines with every byte as hashed, and CSV for spreadsheets."""

from __future__ import annotations

import csv as csv_format
import io
from collections.abc import Iterator

import msgspec
from django.db.models import F

from audit.models import Entry, Head
from audit.search import Filters

PAGE = 1000
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


def jsonl(filters: Filters) -> Iterator[bytes]:
    """Yield matching entries, oldest first, one line each: the body, byte for byte as hashed.

    SHA-256(0x00 || line without its newline) is the entry's leaf hash. Canonical JSON has no
    newline within. Ends at the log's end as it was at the first line.
    """
    for entry in _entries(filters):
        yield bytes(entry.body) + b"\n"


def csv(filters: Filters) -> Iterator[bytes]:
    """Yield matching entries, oldest first, as CSV (RFC 4180) in UTF-8 with a header row.

    All texts are whole, as in the body. A text that a spreadsheet would run as a formula gets an
    apostrophe before it, so this is for reading; jsonl is the evidence.
    """
    yield _line(CSV_COLUMNS)
    for entry in _entries(filters):
        body = msgspec.json.decode(bytes(entry.body))
        actor, subject = body["actor"], body["object"]
        yield _line(
            (
                str(entry.index),
                entry.at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
                body["uuid"],
                actor["kind"],
                actor["id"],
                actor["name"],
                body["method"],
                body["door"],
                body["action"],
                subject["kind"],
                subject["id"],
                subject["name"],
                "" if subject["version"] is None else str(subject["version"]),
                body["outcome"],
                body["reason"],
                body["source"],
                body["request_id"],
                " ".join(body["approvals"]),
                msgspec.json.encode(body["facts"], order="deterministic").decode(),
                bytes(entry.leaf_hash).hex(),
            )
        )


def _entries(filters: Filters) -> Iterator[Entry]:
    """Yield matching entries page by page, so that memory stays constant and no read stays open."""
    size = Head.objects.values_list("size", flat=True).get(id=1)
    rows = filters.apply(Entry.objects.filter(index__lt=size).order_by(F("index")))
    page = rows
    while found := list(page[:PAGE]):
        yield from found
        page = rows.filter(index__gt=found[-1].index)


def _line(values: tuple[str, ...]) -> bytes:
    line = io.StringIO()
    csv_format.writer(line).writerow([_harmless(value) for value in values])
    return line.getvalue().encode()


def _harmless(value: str) -> str:
    return "'" + value if value.startswith(_FORMULA) else value
