"""What is built beside the log while it grows: tiles, the search index; and the streams' deliveries."""

from __future__ import annotations


def trouble() -> str:
    """Return in a sentence what keeps this from being current, or ""."""
    return ""
