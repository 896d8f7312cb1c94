"""The data folder: what lies where, and that only one `up` at a time works on it."""

from __future__ import annotations

import fcntl
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from kms_console.supervisor import Refusal


@dataclass(frozen=True)
class DataFolder:
    """A data folder that this process may write."""

    path: Path

    @property
    def run(self) -> Path:
        """Sockets, pid files, the lock, beat's schedule: nothing that a backup needs."""
        return self.path / "run"

    @property
    def logs(self) -> Path:
        return self.path / "logs"


def open_folder(path: Path) -> DataFolder:
    """Return the data folder at `path`, made where there is none.

    Raises Refusal where it can't be made or written.
    """
    folder = DataFolder(path.resolve())
    try:
        for part in (folder.path, folder.run, folder.logs):
            part.mkdir(parents=True, exist_ok=True, mode=0o700)
            with tempfile.TemporaryFile(dir=part):
                pass
    except OSError as error:
        raise Refusal(
            f"The data folder {folder.path} can't be written: {error.strerror}. "
            "Choose another with --data."
        ) from None
    return folder


def lock(folder: DataFolder) -> IO[str]:
    """Take the folder's lock for as long as the returned file stays open.

    The system releases it when the process ends, however it ends. Raises Refusal where another
    `up` holds it.
    """
    file = (folder.run / "up.lock").open("a+", encoding="ascii")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        holder = file.read().strip()
        file.close()
        raise Refusal(
            f"Another `up` is running on {folder.path}"
            + (f" (process {holder})" if holder else "")
            + ": stop it first, or choose another folder with --data."
        ) from None
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file
