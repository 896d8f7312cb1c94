"""Taking entries out: as files that can be taken up again, and as evidence with its proofs."""

from __future__ import annotations

from audit.exports.forgetting import forget_person
from audit.exports.formats import FORMATS, Format
from audit.exports.keeping import Progress, create, forget_old, progress, size_now
from audit.exports.taking import content, length, reaches, streamed

__all__ = [
    "FORMATS",
    "Format",
    "Progress",
    "content",
    "create",
    "forget_old",
    "forget_person",
    "length",
    "progress",
    "reaches",
    "size_now",
    "streamed",
]
