"""Exports as rows: made, told how far they are, forgotten."""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import connections

from audit.exports import asked, evidence
from audit.exports.errors import NoCheckpoint, Outdated
from audit.exports.formats import FORMATS
from audit.models import Checkpoint, Entry, Export, PersonalValue
from audit.search import Filters
from audit.store import read_head

KEEP_DAYS = 30


@dataclass(frozen=True, slots=True)
class Progress:
    """How much of an export is out. `total` and `done` count entries; `bytes` is None until all are."""

    total: int
    done: int
    finished: bool
    bytes: int | None


def size_now(format: str, using: str = "default") -> int:
    """Return of how many entries an export that is made now would be.

    Raises NoCheckpoint where evidence is wanted and nothing was signed yet.
    """
    if format != "evidence":
        return read_head(connections[using]).size
    latest = Checkpoint.objects.using(using).order_by("-id").first()
    if latest is None:
        raise NoCheckpoint(
            "There is no signed checkpoint yet, on which evidence rests. Is the signer running?"
        )
    return latest.size


def planned(filters: Filters, format: str, size: int, using: str = "default") -> Export:
    """Return a new row, not saved, with everything in it that later passes must find unchanged."""
    kept = asked.kept(filters)
    first = Entry.objects.using(using).order_by("index").values_list("index", flat=True).first()
    plan: dict[str, Any] = {"first": first or 0, "at": []}
    if format == "evidence":
        plan |= evidence.plan(size, using)
    return Export(
        principal=uuid.UUID(int=0),
        format=format,
        filters=kept,
        size=size,
        created_at=datetime.now(UTC),
        marks=plan,
    )


def create(
    identity: uuid.UUID,
    principal: uuid.UUID,
    filters: Filters,
    format: str,
    size: int,
    using: str = "default",
) -> Export:
    """Keep a new export of the log's first `size` entries and return its row."""
    row = planned(filters, format, size, using)
    row.id, row.principal = identity, principal
    row.marks["total"] = (
        asked.count(filters, size, using) if row.filters else max(0, size - row.marks["first"])
    )
    row.save(using=using, force_insert=True)
    return row


def check(row: Export, using: str = "default") -> None:
    """Raise Outdated where the row's bytes can't be made again as they were."""
    # Who is looked for by name is found by what is kept of the name, too.
    if FORMATS[row.format].opens or row.filters:
        erased = PersonalValue.objects.using(using).filter(erased_at__gte=row.created_at)
        if erased.exists():
            raise Outdated(
                "Personal data was erased since this export was made, so its bytes can't be made"
                " again. Make a new export."
            )
    program = row.marks.get("program")
    if program is not None and program != hashlib.sha256(evidence.program()).hexdigest():
        raise Outdated(
            "The console was upgraded since this export was made, so its bytes can't be made again."
            " Make a new export."
        )


def progress(row: Export) -> Progress:
    """Return how much of an export was taken out so far, as its marks tell."""
    if row.finished_at is not None:
        done = row.entries or 0
        return Progress(done, done, True, row.bytes)
    at = row.marks["at"]
    return Progress(row.marks["total"], at[-1][1] if at else 0, False, None)


def forget_old(using: str = "default") -> int:
    """Forget exports older than KEEP_DAYS; that they were made stands in the log. Returns how many."""
    old = datetime.now(UTC) - timedelta(days=KEEP_DAYS)
    return Export.objects.using(using).filter(created_at__lt=old).delete()[0]
