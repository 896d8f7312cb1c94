"""The log, live, to a SIEM: at least once, by a durable cursor."""

from __future__ import annotations


def trouble() -> str:
    """Return in a sentence which streams are behind, or ""."""
    return ""
