"""The forms in which the trail leaves."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Format:
    """`opens`: personal data stands in it, not only commitments to it."""

    title: str
    media_type: str
    suffix: str
    opens: bool


FORMATS = {
    "jsonl": Format("JSON Lines", "application/jsonl", "jsonl", opens=False),
    "csv": Format("CSV", "text/csv; charset=utf-8", "csv", opens=True),
    "ocsf": Format("OCSF", "application/jsonl", "ocsf.jsonl", opens=True),
    "cef": Format("CEF", "text/plain; charset=utf-8", "cef", opens=True),
    "evidence": Format("Evidence (ZIP)", "application/zip", "zip", opens=True),
}
