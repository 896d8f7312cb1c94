"""The log must not be smaller than anybody remembers: then it was rolled back, and takes no entries."""

from __future__ import annotations


def trouble() -> str:
    """Return in a sentence why the log takes no entries, or ""."""
    return ""
