"""Taking the trail out of the house; that it left stands in the trail."""

from __future__ import annotations

from collections.abc import Iterator

from audit import export
from audit.events import Subject
from audit.search import Filters
from keys import gate
from keys.actions import Action
from keys.callers import Caller
from keys.errors import Invalid
from keys.trail.asking import resolved, told

FORMATS = {"jsonl": export.jsonl, "csv": export.csv}


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
        facts={"format": format, "filters": told(wanted)},
    )
    return FORMATS[format](resolved(wanted))
