"""The record, for callers who may: searched, proved, taken out, verified."""

from keys.trail.exporting import FORMATS, export_audit
from keys.trail.reading import PAGE, Proof, find_entry, log_head, prove_entry, search_audit
from keys.trail.verifying import root_at, verify_audit

__all__ = [
    "FORMATS",
    "PAGE",
    "Proof",
    "export_audit",
    "find_entry",
    "log_head",
    "prove_entry",
    "root_at",
    "search_audit",
    "verify_audit",
]
