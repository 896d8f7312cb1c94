"""What is remembered of the log outside its database: the signer's file, copies, witnesses.

Each is a checkpoint in a signed note (C2SP tlog-checkpoint), of which origin, size and root are
read. Signatures are not checked here: a note that somebody forged can stop the house from writing,
but can't make it take a log that it should refuse.
"""

from __future__ import annotations

import base64
import binascii
import http.client
import json
import os
import re
import ssl
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from django.conf import settings

CHECKPOINT = "checkpoint"
NOTE_LIMIT = 256 * 1024
ASK_SECONDS = 3.0  # without a byte
DEADLINE_SECONDS = 5.0  # for all of them together, however slowly they answer
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")


@dataclass(frozen=True, slots=True)
class Memory:
    """A log that somebody remembers. `who` is a phrase without address or path."""

    who: str
    origin: str
    size: int
    root: bytes


class Unreadable(Exception):
    """A memory can't be read or asked now, or holds something else."""


def signers() -> Memory | None:
    """Return what the signer remembers, None where it has signed nothing here yet or can't be read."""
    try:
        return _signers()
    except Unreadable:
        return None


def all_read() -> tuple[list[Memory], str]:
    """Return every memory that answers, and in a sentence how many don't ("" of none).

    Asks all of them at once, for a few seconds: not for use inside a transaction. What somebody
    remembers of a log that the signer has begun again since is left out.
    """
    asked = [_ask(SIGNER, _signers)]
    asked += [_ask(place, partial(_elsewhere, place)) for place in settings.AUDIT_MEMORIES]
    wait(asked, DEADLINE_SECONDS)
    found, silent = [], 0
    for answer in asked:
        if not answer.done() or answer.exception() is not None:
            silent += 1
        elif (memory := answer.result()) is not None:
            found.append(memory)
    said = f"{silent} of {len(asked)} memories of the log can't be read." if silent else ""
    return [one for one in found if not _begun_again(one, found)], said


def _begun_again(memory: Memory, known: list[Memory]) -> bool:
    """Tell whether the signer goes on under a later origin, "<origin>/<n>", than this memory's."""
    signer = next((one for one in known if one.who == SIGNER), None)
    if signer is None or signer.origin == memory.origin:
        return False
    return _generation(memory.origin, signer.origin) < _generation(signer.origin, signer.origin)


def _generation(origin: str, signer: str) -> int:
    """Return the number at an origin's end, 1 where there is none; a stranger's counts as newest."""
    name, _, number = signer.rpartition("/")
    base = name if name and number.isdecimal() else signer
    if origin == base:
        return 1
    rest = origin.removeprefix(base + "/")
    return int(rest) if rest != origin and rest.isdecimal() else 1 << 62


SIGNER = "its signer"
_asking: dict[str, Future[Memory | None]] = {}
_lock = threading.Lock()


def _ask(place: str, read: Callable[[], Memory | None]) -> Future[Memory | None]:
    """Have a thread read a memory; one that still hangs is not asked again."""
    place = f"{settings.SIGNER_FOLDER}\n{place}"
    with _lock:
        running = _asking.get(place)
        if running is not None and not running.done():
            return running
        answer: Future[Memory | None] = Future()
        _asking[place] = answer
    threading.Thread(target=_read, args=(read, answer), name="audit-memory", daemon=True).start()
    return answer


def _read(read: Callable[[], Memory | None], answer: Future[Memory | None]) -> None:
    try:
        answer.set_result(read())
    except BaseException as error:
        answer.set_exception(error)


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()
    _asking.clear()  # those threads are the parent's


os.register_at_fork(after_in_child=_after_fork)


def _signers() -> Memory | None:
    path = Path(settings.SIGNER_FOLDER) / CHECKPOINT
    try:
        with path.open("rb") as file:
            return parsed(file.read(NOTE_LIMIT + 1), SIGNER)
    except FileNotFoundError:
        if _lost(path.parent):
            raise Unreadable from None
        return None
    except OSError as error:
        raise Unreadable from error


def _lost(folder: Path) -> bool:
    """Tell whether a signer that signed before is without its last checkpoint.

    Before its first signature, and after it was told to begin again, its memory says so.
    """
    if not (folder / "keys").exists():
        return False
    try:
        return bool(json.loads((folder / "memory.json").read_text(encoding="utf-8"))["size"])
    except (OSError, ValueError, TypeError, KeyError):
        return True


def _elsewhere(place: str) -> Memory | None:
    if place.startswith(("http://", "https://")):
        return parsed(_asked(place), "a witness")
    try:
        with Path(place.removeprefix("file://")).open("rb") as file:
            return parsed(file.read(NOTE_LIMIT + 1), "a copy of a checkpoint")
    except OSError as error:
        raise Unreadable from error


def _asked(url: str) -> bytes:
    """Return what a witness answers. One that holds nothing of the log yet (404) can't be read."""
    try:
        parts = urlsplit(url)
        connection: http.client.HTTPConnection
        if parts.scheme == "https":
            connection = http.client.HTTPSConnection(
                parts.netloc, timeout=ASK_SECONDS, context=ssl.create_default_context()
            )
        else:
            connection = http.client.HTTPConnection(parts.netloc, timeout=ASK_SECONDS)
        try:
            connection.request("GET", parts.path or "/", headers={"Accept": "text/plain"})
            answer = connection.getresponse()
            data = _body(answer)
        finally:
            connection.close()
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise Unreadable from error
    if answer.status != 200:
        raise Unreadable
    return data


def _body(answer: http.client.HTTPResponse) -> bytes:
    data, deadline = b"", time.monotonic() + DEADLINE_SECONDS
    while len(data) <= NOTE_LIMIT and (part := answer.read1(NOTE_LIMIT)):
        data += part
        if time.monotonic() > deadline:
            raise TimeoutError
    return data


def parsed(note: bytes, who: str) -> Memory:
    """Return origin, size and root of a checkpoint. Raises Unreadable where it is none."""
    try:
        origin, size, root, *_ = note.decode("utf-8").split("\n")
        data = base64.b64decode(root, validate=True)
    except (ValueError, binascii.Error) as error:
        raise Unreadable from error
    if len(note) > NOTE_LIMIT or not origin or not _SIZE.fullmatch(size) or len(data) != 32:
        raise Unreadable
    return Memory(who, origin, int(size), data)
