"""An export's bytes, from any byte on: made from the nearest mark, so the log isn't read again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol

from django.db import OperationalError

from audit.exports import asked, keeping
from audit.exports.evidence import Evidence
from audit.exports.lines import Lines, Piece
from audit.models import Export
from audit.search import Filters

# Marks stand so many bytes apart, farther where there would be too many of them.
SPACING = 4 * 1024 * 1024
MOST_MARKS = 512
# How often marks are written to the row, in seconds: progress bars read them there.
SAVE_SECONDS = 2.0


class Source(Protocol):
    """What makes an export's bytes."""

    def pieces(self, state: Any, entries: int) -> Iterator[Piece]:
        """Yield the bytes from a piece's state on, or from the beginning (None)."""
        ...


class Mark(NamedTuple):
    """After `offset` bytes `entries` entries are out, and `state` tells how to go on."""

    offset: int
    entries: int
    state: Any


class Marks:
    """The marks of one row; whoever reads farther than anybody before adds some."""

    def __init__(self, row: Export) -> None:
        self._row = row
        self._marks = [Mark(*one) for one in row.marks["at"]]
        self._saved = time.monotonic()

    @property
    def last(self) -> Mark:
        return self._marks[-1] if self._marks else Mark(0, 0, None)

    def before(self, start: int) -> Mark:
        """Return the last mark at or before a byte."""
        found = [mark for mark in self._marks if mark.offset <= start]
        return found[-1] if found else Mark(0, 0, None)

    def note(self, offset: int, piece: Piece) -> None:
        """Remember that `piece` ended at `offset`, where that is far enough from the last mark."""
        if piece.state is None or offset < self.last.offset + SPACING:
            return
        self._marks.append(Mark(offset, piece.entries, piece.state))
        if len(self._marks) > MOST_MARKS:
            self._marks = self._marks[1::2]  # the last one stays
        if time.monotonic() - self._saved >= SAVE_SECONDS:
            self.save()

    def save(self, **more: Any) -> None:
        """Write the marks to the row. They only save time, so a database that is busy is no error."""
        rows = Export.objects.using(self._row._state.db or "default")
        told = {**self._row.marks, "at": [list(mark) for mark in self._marks]}
        with suppress(OperationalError):
            rows.filter(pk=self._row.pk, finished_at=None).update(marks=told, **more)
        self._row.marks = told
        self._saved = time.monotonic()


def source(row: Export, using: str = "default") -> Source:
    """Return what makes a row's bytes. Raises Outdated where the same bytes can't be made again."""
    keeping.check(row, using)
    filters = asked.filters_of(row.filters) if row.filters else None
    if row.format == "evidence":
        return Evidence(row, filters, using)
    return Lines(row.format, filters, row.marks["first"], row.size, using)


def content(row: Export, start: int = 0) -> Iterator[bytes]:
    """Return the bytes of an export from `start` on: the same ones each time.

    Raises Outdated at once; EntriesMissing as it comes to a gap.
    """
    return _from(row, source(row, row._state.db or "default"), start)


def _from(row: Export, made: Source, start: int) -> Iterator[bytes]:
    marks = Marks(row)
    at, entries, state = marks.before(start)
    try:
        for piece in made.pieces(state, entries):
            end = at + len(piece.data)
            if end > start:
                yield piece.data[max(0, start - at) :]
            at, entries = end, piece.entries
            marks.note(at, piece)
    except GeneratorExit:
        marks.save()
        raise
    if row.finished_at is None:
        marks.save(finished_at=datetime.now(UTC), entries=entries, bytes=at)
        row.refresh_from_db()


def length(row: Export) -> int:
    """Return the number of an export's bytes. Makes the rest of them where nobody has yet.

    Raises Outdated, EntriesMissing.
    """
    if row.bytes is None:
        made, marks = source(row, row._state.db or "default"), Marks(row)
        for _ in _from(row, made, marks.last.offset):
            pass
    assert row.bytes is not None
    return row.bytes


def reaches(row: Export, start: int) -> bool:
    """Tell whether an export has at least `start` bytes. Raises Outdated, EntriesMissing."""
    return start <= Marks(row).last.offset or start <= length(row)


def streamed(filters: Filters, format: str, using: str = "default") -> Iterator[bytes]:
    """Return an export of the log as it is now, which can't be taken up again, as bytes.

    Raises NoCheckpoint at once where evidence is wanted and nothing was signed.
    """
    row = keeping.planned(filters, format, keeping.size_now(format, using), using)
    return (piece.data for piece in source(row, using).pieces(None, 0))
