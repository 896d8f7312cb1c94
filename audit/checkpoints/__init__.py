"""Signed checkpoints: what the log was, said by a signer that remembers.

notes, vkeys    signed notes and verifier keys (C2SP signed-note, tlog-checkpoint)
signing         the signer's private keys
memory          what the signer remembers outside the database
following       reading on from what was signed
cosigning       asking the witnesses
publishing      carrying notes outside
signer          all of it, in rounds
status          how it is doing, for /readyz
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from audit.models import Checkpoint

__all__ = ["begin_again", "covering", "keys", "latest", "trouble"]


def latest(using: str = "default") -> Checkpoint | None:
    """Return the newest checkpoint's row, None where nothing was ever signed."""
    from audit.models import Checkpoint

    return Checkpoint.objects.using(using).order_by("-id").first()


def covering(index: int, using: str = "default") -> Checkpoint | None:
    """Return the newest checkpoint that covers entry `index`, None where none does yet."""
    newest = latest(using)
    return newest if newest is not None and newest.size > index else None


def keys() -> list[str]:
    """Return the log's verifier keys, also those of earlier origins; [] where none are known here.

    From the list in the signer's folder. Where the signer has a machine of its own, its keys.txt is
    copied into the folder here, or the witness policy names the log's keys.
    """
    from django.conf import settings

    from audit.checkpoints import memory
    from audit.errors import NoteError
    from audit.witness import policy

    found = memory.read_vkeys(Path(settings.SIGNER_FOLDER))
    if found or not settings.WITNESS_POLICY:
        return found
    try:
        return [key.text() for key in policy.load(Path(settings.WITNESS_POLICY)).logs]
    except NoteError:
        return []


def trouble() -> str:
    """Return in a sentence why the log isn't being signed, or ""."""
    from audit.checkpoints import status

    return status.trouble()


def begin_again(reason: str, folder: Path | None = None) -> str:
    """Have the signer start anew from the log as it is; see audit.checkpoints.memory.begin_again."""
    from audit.checkpoints import memory

    return memory.begin_again(reason, folder)
