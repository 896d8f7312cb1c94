"""The record, for callers who may: searched, proved, taken out, verified."""

from keys.trail.exporting import (
    FORMATS,
    create_export,
    export_audit,
    export_content,
    export_length,
    find_export,
    list_exports,
)
from keys.trail.filters import find_filter, list_filters, owners
from keys.trail.proving import latest_checkpoint, prove_at, prove_consistency, prove_entry
from keys.trail.reading import (
    PAGE,
    Proof,
    citing,
    find_entry,
    log_head,
    search_audit,
    written,
)
from keys.trail.verifying import root_at, verify_audit

__all__ = [
    "FORMATS",
    "PAGE",
    "Proof",
    "citing",
    "create_export",
    "export_audit",
    "export_content",
    "export_length",
    "find_entry",
    "find_export",
    "find_filter",
    "latest_checkpoint",
    "list_exports",
    "list_filters",
    "log_head",
    "owners",
    "prove_at",
    "prove_consistency",
    "prove_entry",
    "root_at",
    "search_audit",
    "verify_audit",
    "written",
]
