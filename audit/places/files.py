"""A folder as a place: file:///folder, a disk or a share that is mounted there."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit

from audit.errors import PlaceError, PlaceMissing, PlaceUnavailable
from audit.places.base import Place, checked, collected, pieces, sha256, stream

# A full or read-only disk, a share that is away: an administrator mends these, and we go on.
_PASSING = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ESTALE, errno.ETIMEDOUT}
    | {errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.EHOSTDOWN, errno.ENODEV, errno.ENXIO}
)
READ_ONLY = 0o440


class FilePlace(Place):
    """Files below a folder, written whole and flushed to the disk.

    A file system on Linux enforces neither retention nor holds against who owns the files: they get
    mode 0440 and nothing more. Let the folder be on storage that does, where it matters.
    """

    def __init__(self, url: str) -> None:
        super().__init__(url)
        parts = urlsplit(url)
        path = unquote(parts.path)
        if parts.netloc not in ("", "localhost") or not path.startswith("/") or "\0" in path:
            raise PlaceError("the address of a folder is file:///folder")
        self._folder = Path(path)

    def put(
        self,
        name: str,
        data: bytes | Path,
        *,
        retain_until: datetime | None = None,
        hold: bool = False,
        replace: bool = False,
    ) -> None:
        path = self._folder / checked(name)
        with _translated():
            path.parent.mkdir(parents=True, exist_ok=True)
            if not replace and path.exists():
                _same(path, data)
                # Whoever put it there may have been killed before it was durable.
                _flush(path)
                _flush_folders(path.parent, self._folder)
                return
            temporary = path.parent / f".{secrets.token_hex(8)}"
            try:
                _write(temporary, data)
                if replace:
                    temporary.replace(path)
                else:
                    _link(temporary, path, data)
            finally:
                temporary.unlink(missing_ok=True)
            _flush_folders(path.parent, self._folder)

    def get(self, name: str) -> bytes:
        return collected(self.read(name))

    def read(self, name: str) -> Iterator[bytes]:
        path = self._folder / checked(name)
        with _translated(), path.open("rb") as file:
            yield from pieces(file)

    def names(self, prefix: str = "") -> list[str]:
        found = []
        with _translated():
            for folder, folders, files in os.walk(self._folder, onerror=_complain):
                folders[:] = [one for one in folders if not one.startswith(".")]
                below = Path(folder).relative_to(self._folder)
                found += [(below / file).as_posix() for file in files if not file.startswith(".")]
        return sorted(name for name in found if name.startswith(prefix))

    def hold(self, name: str, on: bool) -> None:
        """Do nothing but look whether the name is there: a file system knows no holds."""
        path = self._folder / checked(name)
        with _translated():
            path.stat()


def _write(path: Path, data: bytes | Path) -> None:
    with path.open("xb") as file:
        for chunk in stream(data):
            file.write(chunk)
        file.flush()
        os.fchmod(file.fileno(), READ_ONLY)
        os.fsync(file.fileno())


def _link(temporary: Path, path: Path, data: bytes | Path) -> None:
    """Give the file its name, unless the name is taken: atomically, which a rename would not be."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        _same(path, data)
        _flush(path)


def _same(path: Path, data: bytes | Path) -> None:
    if sha256(path) != sha256(data):
        raise PlaceError("something else is kept under that name, and is not overwritten")


def _flush_folders(folder: Path, top: Path) -> None:
    """Make the new names durable: of the file, and of the folders that were made for it."""
    while True:
        _flush(folder)
        if folder == top:
            break
        folder = folder.parent
    # Also the name of the place's own folder may be new; who may not look above it didn't make it.
    with contextlib.suppress(PermissionError):
        _flush(top.parent)


def _flush(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk before this returns."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _complain(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):  # no folder yet: no names yet
        raise error


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise PlaceMissing("nothing has that name") from None
    except OSError as error:
        text = f"the folder can't be used: {os.strerror(error.errno or errno.EIO)}"
        if error.errno in _PASSING:
            raise PlaceUnavailable(text) from None
        raise PlaceError(text) from None
