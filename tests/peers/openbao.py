"""A real OpenBao server."""

from __future__ import annotations
