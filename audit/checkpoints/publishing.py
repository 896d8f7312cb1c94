"""Checkpoints on their way outside: a folder of notes, and how far each place has come.

Each place gets every note, in order; one that fails holds up nobody else and goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from audit import places
from audit.checkpoints import files
from audit.errors import PlaceError, PlaceUnavailable

log = logging.getLogger(__name__)

# How many notes a place gets in one go; what remains comes with the next.
BATCH = 100


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a place has come: the last note that it took, and since when it takes none."""

    last: tuple[int, int] = (0, 0)  # stamp and size
    failing_since: str = ""


class Outbox:
    """Notes that wait for places. `queue` and `deliver` may be called from different threads."""

    def __init__(self, folder: Path, urls: Sequence[str]) -> None:
        self._folder = folder / "outbox"
        self._progress = folder / "published.json"
        self._urls = list(dict.fromkeys(urls))

    def queue(self, name: str, note: str) -> None:
        """Let a note, named `<size>-<stamp>`, be published. Durable on return; raises OSError."""
        if self._urls:
            files.write(files.private_folder(self._folder) / name, note)

    def deliver(self) -> int:
        """Publish what waits at every place; return how many of them are behind afterwards."""
        waiting = self._waiting()
        progress = self._read()
        if waiting and self._urls:
            with ThreadPoolExecutor(len(self._urls), "publish") as pool:
                started = {
                    pool.submit(self._at_one, url, progress[_key(url)], waiting): url
                    for url in self._urls
                }
                for done in as_completed(started):
                    progress[_key(started[done])] = done.result()
                    self._write(progress)
        self._tidy(waiting, progress)
        return sum(1 for url in self._urls if progress[_key(url)].failing_since)

    def failing(self) -> str:
        """Return in a sentence which places take nothing, or ""."""
        progress = self._read()
        since = [p.failing_since for p in progress.values() if p.failing_since]
        if not since:
            return ""
        return (
            f"Publishing checkpoints fails at {len(since)} of {len(self._urls)} places"
            f" since {min(since)}."
        )

    def _at_one(self, url: str, progress: Progress, waiting: Sequence[tuple[int, int]]) -> Progress:
        """Publish at one place; nothing is raised."""
        try:
            place = places.open_place(url)
            for at in [at for at in waiting if at > progress.last][:BATCH]:
                note = (self._folder / _name(at)).read_bytes()
                place.put(f"checkpoints/{_name(at)}", note)
                if urlsplit(url).scheme not in ("http", "https"):
                    place.put("checkpoint", note, replace=True)
                progress = replace(progress, last=at)
        except (PlaceError, PlaceUnavailable, OSError, ImportError) as error:
            if not progress.failing_since:
                log.warning("A checkpoint could not be published: %s", _said(error))
                now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
                progress = replace(progress, failing_since=now)
            return progress
        return replace(progress, failing_since="")

    def _waiting(self) -> list[tuple[int, int]]:
        """Return (stamp, size) of every note in the folder, in the order of their making."""
        found = []
        for path in self._folder.glob("[0-9]*") if self._folder.is_dir() else ():
            size, _, stamp = path.name.partition("-")
            if size.isdecimal() and stamp.isdecimal():
                found.append((int(stamp), int(size)))
        return sorted(found)

    def _tidy(self, waiting: Sequence[tuple[int, int]], progress: dict[str, Progress]) -> None:
        """Remove what every place has got."""
        for at in waiting:
            if all(progress[_key(url)].last >= at for url in self._urls):
                (self._folder / _name(at)).unlink(missing_ok=True)

    def _read(self) -> dict[str, Progress]:
        try:
            rows = json.loads(self._progress.read_text(encoding="utf-8"))
            known = {
                key: Progress((int(row["last"][0]), int(row["last"][1])), str(row["failing_since"]))
                for key, row in rows.items()
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError):
            known = {}  # everything that still waits is published again: the places know it
        return {_key(url): known.get(_key(url), Progress()) for url in self._urls}

    def _write(self, progress: dict[str, Progress]) -> None:
        rows = {key: asdict(one) for key, one in progress.items()}
        files.write(self._progress, json.dumps(rows, indent=1) + "\n")


def _key(url: str) -> str:
    """Name a place without its address."""
    return hashlib.sha256(url.encode()).hexdigest()[:16]


def _name(at: tuple[int, int]) -> str:
    return f"{at[1]}-{at[0]}"


def _said(error: Exception) -> str:
    if isinstance(error, ImportError):
        return "the library for this kind of place is not installed."
    return error.strerror or "an input/output error" if isinstance(error, OSError) else str(error)
