"""Pages that look again by themselves while something is about to happen.

They stop after two minutes: a page left open must not keep its session alive.
"""

from __future__ import annotations

from django.http import HttpRequest

SECONDS = 4
LOOKS = 30


def again(request: HttpRequest, wanted: bool) -> str:
    """Return the address to look at next, or nothing where that is not wanted or enough."""
    text = request.GET.get("look", "0")
    looks = int(text) if text.isascii() and text.isdigit() and len(text) < 4 else LOOKS
    return f"{request.path}?look={looks + 1}" if wanted and looks < LOOKS else ""
