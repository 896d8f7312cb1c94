"""Archiving entries to storage outside, dropping them, bringing them back; legal holds.

Entries leave the database only in whole bundles (audit.retention.bundles) that were read back from
their place and compared with the tree; tiles and checkpoints stay for ever, so that every proof is
as it was. See docs/audit/retention.md.
"""

from __future__ import annotations

from audit.retention.archives import (
    ENTRIES,
    archived,
    bring_back,
    check,
    delete_rows,
    may_delete,
    next_range,
    register,
    rows_left,
    unfinished,
    write_bundle,
)
from audit.retention.holds import active_holds, held, reaching, sync_holds, trouble, under_hold
from audit.retention.where import check_kept

__all__ = [
    "ENTRIES",
    "active_holds",
    "archived",
    "bring_back",
    "check",
    "check_kept",
    "delete_rows",
    "held",
    "may_delete",
    "next_range",
    "reaching",
    "register",
    "rows_left",
    "sync_holds",
    "trouble",
    "under_hold",
    "unfinished",
    "write_bundle",
]
