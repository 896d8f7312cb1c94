"""How the signer is doing: a file that it leaves, and what the log itself tells where there is none."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from django.conf import settings
from django.db import connections

from audit.checkpoints import files
from audit.models import Checkpoint, Entry
from audit.store import read_head

SIGNING, REFUSING, WAITING = "signing", "refusing", "waiting"
FOLLOWING = "following"  # a long log, and not yet at its end
# Beyond the time in which a change must be signed, before anybody is told.
PATIENCE = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class Status:
    """What the signer left behind at its last look, in sentences for anybody."""

    at: str
    state: str = SIGNING
    problem: str = ""
    publishing: str = ""
    witnesses: str = ""


def leave(folder: Path, status: Status) -> None:
    """Write the status; the next one will follow soon, so this one need not survive a power cut."""
    files.write(folder / "status.json", json.dumps(asdict(status)) + "\n", durable=False)


def left(folder: Path) -> Status | None:
    """Return the status that a signer left, None where there is none that can be read."""
    try:
        row = json.loads((folder / "status.json").read_text(encoding="utf-8"))
        found = Status(**{str(name): str(value) for name, value in row.items()})
        _time(found.at)
    except (OSError, ValueError, TypeError, AttributeError):
        return None
    return found


def trouble(using: str = "default") -> str:
    """Return in a sentence or more why the log is not being signed, or "".

    The signer may work on another machine: then its rows in the database tell.
    """
    found = left(Path(settings.SIGNER_FOLDER))
    allowed = timedelta(seconds=2 * settings.CHECKPOINT_SECONDS) + PATIENCE
    if found is None:
        return _unsigned(allowed, using)
    if datetime.now(UTC) - _time(found.at) > allowed:
        return (
            _unsigned(allowed, using) or f"The signer was last seen at work at {_minute(found.at)}."
        )
    sentences = [found.publishing, found.witnesses]
    if found.state != SIGNING:
        sentences.insert(0, found.problem)
    return " ".join(sentence for sentence in sentences if sentence)


def _unsigned(allowed: timedelta, using: str) -> str:
    """Tell since when entries have been waiting to be signed, or that a resting log wasn't signed."""
    newest = (
        Checkpoint.objects.using(using).order_by("-id").values_list("size", "signed_at").first()
    )
    size, signed_at = newest or (0, None)
    head = read_head(connections[using])
    now = datetime.now(UTC)
    if head.size > size:
        first = Entry.objects.using(using).filter(index=size).values_list("at", flat=True).first()
        if first is not None and now - first <= allowed:
            return ""
        if signed_at is None:
            return "The log was never signed: no signer was seen at work."
        return f"The log was last signed at {_when(signed_at)}; it has {head.size - size} more entries."
    rest = timedelta(seconds=2 * settings.CHECKPOINT_IDLE_SECONDS)
    if signed_at is not None and now - signed_at > rest + allowed:
        return f"The log was last signed at {_when(signed_at)}."
    return ""


def _time(text: str) -> datetime:
    """Return a time with its zone. Raises ValueError."""
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError("a time without its zone")
    return time


def _when(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M UTC}"


def _minute(text: str) -> str:
    return _when(_time(text))
