"""Exports, checkpoints and proofs, as the API shows them."""

from __future__ import annotations

import uuid
from datetime import UTC
from typing import Annotated

from audit import checkpoints, exports
from audit.models import Checkpoint as CheckpointRow
from audit.models import Export as ExportRow
from kms_console.api.rest import shapes
from kms_console.api.rest.shown import utc

ExportFormat = Annotated[str, shapes.one_of(exports.FORMATS, "ExportFormat")]


class Export(shapes.Shape):
    """An export of the log's first `size` entries. Its bytes are at `content`, the same each time.

    `total` is how many entries there will be, `done` how many were taken out so far. `bytes` is null
    until somebody took out all of it.
    """

    id: uuid.UUID
    format: ExportFormat
    filters: dict[str, str]
    size: int
    total: int
    done: int
    finished: bool
    bytes: int | None
    created_at: shapes.Time
    finished_at: shapes.Moment
    content: str


class Checkpoint(shapes.Shape):
    """The newest signed checkpoint: a signed note (C2SP tlog-checkpoint), and the keys to check it with."""

    origin: str
    size: int
    root: shapes.Hex
    signed_at: shapes.Time
    note: str
    keys: list[str]


class Consistency(shapes.Shape):
    """The proof (RFC 9162, 2.1.4) that the log of `first` entries is the beginning of that of `second`."""

    first: int
    second: int
    root: shapes.Hex
    hashes: list[shapes.Hex]


def export(row: ExportRow, content: str) -> Export:
    """Return what is shown of an export; `content` is the address of its bytes."""
    progress = exports.progress(row)
    return Export(
        id=row.id,
        format=row.format,
        filters=row.filters,
        size=row.size,
        total=progress.total,
        done=progress.done,
        finished=progress.finished,
        bytes=progress.bytes,
        created_at=row.created_at.astimezone(UTC),
        finished_at=utc(row.finished_at),
        content=content,
    )


def checkpoint(row: CheckpointRow) -> Checkpoint:
    return Checkpoint(
        origin=row.origin,
        size=row.size,
        root=bytes(row.root).hex(),
        signed_at=row.signed_at.astimezone(UTC),
        note=row.note,
        keys=checkpoints.keys(),
    )
