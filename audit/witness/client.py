"""Asking a witness for its cosignature (C2SP tlog-witness, add-checkpoint)."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from audit.checkpoints import notes
from audit.errors import NoteError, WitnessError

TIMEOUT = 10.0  # seconds for one exchange, from connecting to the last byte
ANSWER_LIMIT = 64 * 1024
PROOF_LIMIT = 63  # lines
SIZE_TYPE = "text/x.tlog.size"

# size -> the consistency proof from there to the checkpoint; ValueError where there is none.
Prove = Callable[[int], Sequence[bytes]]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a witness answered."""

    status: int
    kind: str
    body: bytes


def add_checkpoint(
    url: str, old_size: int, prove: Prove, note: notes.Note, timeout: float = TIMEOUT
) -> list[notes.Signature]:
    """Submit a checkpoint and return the signature lines that came back, unverified.

    `old_size` is what the witness is thought to remember; where it says another size, that is tried
    once. Nothing is redirected. Raises WitnessError for every failure, also where the witness
    remembers more than the checkpoint has.
    """
    size = notes.parse_tree(note.body).size
    for attempt in (1, 2):
        answer = _exchange(url, _request(old_size, size, prove, note), timeout)
        if answer.status != 409 or attempt == 2:
            break
        remembered = _size(answer)
        if remembered > size:
            raise WitnessError(
                f"A witness remembers {remembered} entries, and the checkpoint has {size}."
            )
        if remembered == old_size:
            break  # then it is the root that it disagrees with
        old_size = remembered
    if answer.status != 200:
        raise WitnessError(_REASONS.get(answer.status, f"A witness answered {answer.status}."))
    try:
        return notes.parse_signatures(answer.body.decode("utf-8"))
    except (NoteError, UnicodeDecodeError):
        raise WitnessError("A witness answered with something that is no signature.") from None


_REASONS = {
    403: "A witness does not know the keys that signed the checkpoint.",
    404: "A witness does not know this log.",
    409: "A witness remembers another log of this size.",
    422: "A witness found that the log does not continue what it remembers.",
    429: "A witness is too busy.",
    503: "A witness is too busy.",
}


def _request(old: int, size: int, prove: Prove, note: notes.Note) -> bytes:
    try:
        proof = prove(old) if 0 < old < size else []
    except ValueError:
        raise WitnessError("The log has no proof from what a witness remembers.") from None
    lines = [f"old {old}\n", *(f"{notes.encoded(step)}\n" for step in proof), "\n"]
    return ("".join(lines) + note.text()).encode()


def _size(answer: Answer) -> int:
    text = answer.body.decode("ascii", "replace").removesuffix("\n")
    if answer.kind != SIZE_TYPE or not text.isdecimal() or len(text) > 19:
        raise WitnessError("A witness answered 409 without saying what it remembers.")
    return int(text)


def _exchange(url: str, body: bytes, timeout: float) -> Answer:
    """POST the body and return the answer, within `timeout` seconds in all. Raises WitnessError."""
    try:
        parts = urlsplit(url)
        connection = _connection(parts, timeout)
    except ValueError:
        raise WitnessError("A witness's address is none.") from None
    try:
        with _deadline(connection, timeout):
            path = parts.path.rstrip("/") + "/add-checkpoint"
            headers = {"Content-Type": "text/plain; charset=utf-8", "User-Agent": "kms-console"}
            connection.request("POST", path, body, headers)
            answer = connection.getresponse()
            data = answer.read(ANSWER_LIMIT + 1)
            kind = answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    except (OSError, http.client.HTTPException, ValueError):
        raise WitnessError("A witness can't be reached.") from None
    finally:
        connection.close()
    if len(data) > ANSWER_LIMIT:
        raise WitnessError("A witness answered more than it should.")
    return Answer(answer.status, kind, data)


def _connection(parts: SplitResult, timeout: float) -> http.client.HTTPConnection:
    if parts.scheme == "https":
        context = ssl.create_default_context()
        return http.client.HTTPSConnection(
            parts.hostname or "", parts.port, timeout=timeout, context=context
        )
    if parts.scheme != "http" or not parts.hostname:
        raise ValueError("no address")
    # What comes back is signed, and verified: TLS hides what is asked, it isn't what is trusted.
    return http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout)


@contextlib.contextmanager
def _deadline(connection: http.client.HTTPConnection, seconds: float) -> Iterator[None]:
    """End an exchange that takes too long; a timeout of the socket begins anew with every byte."""

    def end() -> None:
        if connection.sock is not None:
            with contextlib.suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
