"""What a witness remembers of each log: one file each, checked and replaced in one step."""

from __future__ import annotations

import hashlib
import re
import threading
from pathlib import Path
from typing import IO

from audit.checkpoints import files, notes
from audit.errors import NoteError, SignerError
from audit.merkle import EMPTY_ROOT

_FILE = re.compile(r"[0-9a-f]{64}")


def name_of(origin: str) -> str:
    """Return the hex SHA-256 of an origin: its file, and its address at the witness."""
    return hashlib.sha256(origin.encode()).hexdigest()


class State:
    """The last cosigned note of each log. `lock` is held from the check to the replacement."""

    def __init__(self, folder: Path) -> None:
        files.private_folder(folder)
        self._folder = files.private_folder(folder / "state")
        # Two processes on one folder would each see what the other is about to replace.
        self._only: IO[str] = files.take_lock(
            folder / "lock", "Another witness is at work in this folder."
        )
        self.lock = threading.Lock()

    def close(self) -> None:
        """Let the folder go."""
        self._only.close()

    def last(self, origin: str) -> tuple[int, bytes]:
        """Return size and root of what was cosigned last; of an empty log where nothing was.

        Raises SignerError where the file is there and damaged: a witness that forgot must not sign.
        """
        text = self.note(name_of(origin))
        if text is None:
            return 0, EMPTY_ROOT
        try:
            tree = notes.parse_checkpoint(text)[1]
        except NoteError:
            tree = None
        if tree is None or tree.origin != origin:
            raise SignerError("What the witness remembers of a log is damaged.")
        return tree.size, tree.root

    def note(self, name: str) -> str | None:
        """Return the note in the file of that name, None where there is none. Raises SignerError."""
        if not _FILE.fullmatch(name):
            return None
        try:
            return (self._folder / name).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError):
            raise SignerError("What the witness remembers of a log can't be read.") from None

    def replace(self, origin: str, note: str) -> None:
        """Remember a note instead of the last; on the disk on return. Raises OSError."""
        files.write(self._folder / name_of(origin), note)
