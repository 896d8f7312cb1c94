"""Signed checkpoints: what the log was, said by a signer that remembers."""

from __future__ import annotations


def trouble() -> str:
    """Return in a sentence why the log isn't being signed, or ""."""
    return ""
