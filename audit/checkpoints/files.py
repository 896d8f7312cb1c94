"""Files that must not be lost or half written: whole, flushed, and their folder flushed too."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from audit.errors import SignerError


def private_folder(path: Path) -> Path:
    """Return the folder, made with mode 0700 where there is none. Raises SignerError."""
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise SignerError(f"A folder can't be made: {error.strerror}.") from None
    return path


def write(path: Path, data: str, *, durable: bool = True) -> None:
    """Put a text into a file of mode 0600: all of it or nothing, on the disk before this returns.

    Raises OSError. With `durable` false a power cut may lose it (but not halve it).
    """
    draft = path.with_name(f".{path.name}.draft")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(data)
        file.flush()
        if durable:
            os.fsync(file.fileno())
    draft.replace(path)
    if durable:
        flush_folder(path.parent)


def flush_folder(path: Path) -> None:
    """Make a folder's names durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file for as long as it takes, waiting for who has it."""
    with path.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def take_lock(path: Path, held: str) -> IO[str]:
    """Take a lock until the returned file is closed or the process ends, however it ends.

    Raises SignerError with the sentence `held` where somebody else has it.
    """
    file = path.open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise SignerError(held) from None
    return file
