"""Whom entries mean: what commitments to personal data stand for, put back for people to read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from audit import personal
from audit.models import Entry
from keys import trail


def shown(rows: Sequence[Entry]) -> None:
    """Make rows in memory ready for a page: with names, and `damaged` where the bytes can't be read."""
    personal.reveal(rows)
    for row in rows:
        row.damaged = trail.written(row) is None  # type: ignore[attr-defined]


def opened(body: Any) -> Any:
    """Return a body, or a part of one, with values in the place of commitments; erased ones say so."""
    values = personal.opened(set(_commitments(body)))
    return _with(body, values) if values else body


def _commitments(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        if value.startswith(personal.PREFIX):
            yield value
    elif isinstance(value, dict):
        for member in value.values():
            yield from _commitments(member)
    elif isinstance(value, list):
        for member in value:
            yield from _commitments(member)


def _with(value: Any, values: dict[str, str | None]) -> Any:
    if isinstance(value, str) and value in values:
        told = values[value]
        return personal.ERASED if told is None else told
    if isinstance(value, dict):
        return {name: _with(member, values) for name, member in value.items()}
    return [_with(member, values) for member in value] if isinstance(value, list) else value
