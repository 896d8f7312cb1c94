"""Whom entries mean: what commitments to personal data stand for, put back for people to read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from audit import personal
from audit.exports import opening
from audit.models import Entry
from keys import trail


def shown(rows: Sequence[Entry]) -> None:
    """Make rows in memory ready for a page: with names, and `damaged` where the bytes can't be read."""
    personal.reveal(rows)
    for row in rows:
        row.damaged = trail.written(row) is None  # type: ignore[attr-defined]


def opened(body: dict[str, Any]) -> dict[str, Any]:
    """Return a body with values in the place of its commitments; erased ones say so."""
    names = opening.names(body, opening.look_up(personal.texts(body)))
    told: dict[str, Any] = personal.revealed(body, names)
    return told
