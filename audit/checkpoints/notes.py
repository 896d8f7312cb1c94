"""Signed notes (C2SP signed-note) and the checkpoints that are written in them (C2SP tlog-checkpoint)."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from audit.checkpoints.vkeys import VerifierKey, sound_name
from audit.errors import NoteError
from audit.merkle import HASH_SIZE

# Sixteen signatures must be taken; those of ML-DSA-87 have 6 KB each.
NOTE_LIMIT = 256 * 1024
SIGNATURES_LIMIT = 100
SIZE_LIMIT = 2**63
DASH = "— "
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")
# Control characters but newline. The format forbids those below U+0020.
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature line: who says to have signed, with which key id (4 bytes), and what."""

    name: str
    key_id: bytes
    value: bytes

    def line(self) -> str:
        """Return the line of the note, with its newline."""
        return f"{DASH}{self.name} {encoded(self.key_id + self.value)}\n"


@dataclass(frozen=True, slots=True)
class Note:
    """A note's text, which ends in a newline, and its signature lines, none of them checked yet."""

    body: str
    signatures: tuple[Signature, ...]

    def text(self) -> str:
        """Return the whole signed note."""
        return self.body + "\n" + "".join(signature.line() for signature in self.signatures)

    def signed(self, more: Iterable[Signature]) -> Note:
        """Return the note with further signature lines, each at most once."""
        return Note(self.body, tuple(dict.fromkeys([*self.signatures, *more])))


@dataclass(frozen=True, slots=True)
class Tree:
    """What a checkpoint says: the log of this name had this root at this size."""

    origin: str
    size: int
    root: bytes

    def body(self) -> str:
        """Return the note's text for it."""
        return f"{self.origin}\n{self.size}\n{encoded(self.root)}\n"


def parse(text: str | bytes) -> Note:
    """Return the note that `text` is. Raises NoteError where it is none. Nothing is verified."""
    if len(text) > NOTE_LIMIT:
        raise NoteError("The note is too long.")
    if isinstance(text, bytes):
        try:
            text = text.decode("utf-8")
        except UnicodeDecodeError:
            raise NoteError("The note is not UTF-8.") from None
    if _CONTROL.search(text):
        raise NoteError("The note holds control characters.")
    body, found, lines = text.rpartition("\n\n")
    if not found or not body or not lines.endswith("\n"):
        raise NoteError("The note has no signatures.")
    return Note(body + "\n", tuple(parse_signatures(lines)))


def parse_signatures(lines: str) -> list[Signature]:
    """Return the signatures in lines as a note has them. Raises NoteError."""
    if not lines.endswith("\n"):
        raise NoteError("A signature line has no end.")
    parts = lines[:-1].split("\n")
    if len(parts) > SIGNATURES_LIMIT:
        raise NoteError("There are too many signatures.")
    return [_signature(line) for line in parts]


def _signature(line: str) -> Signature:
    name, blank, value = line.removeprefix(DASH).partition(" ")
    if not line.startswith(DASH) or not blank or not sound_name(name):
        raise NoteError("A signature line is not one.")
    data = decoded(value)
    if len(data) < 5:
        raise NoteError("A signature is too short.")
    return Signature(name, data[:4], data[4:])


def parse_tree(body: str) -> Tree:
    """Return what the text of a checkpoint's note says. Raises NoteError where it is none.

    Lines after the third (extensions) are allowed by the format; ours have none.
    """
    lines = body.split("\n")
    if len(lines) < 4 or lines.pop() != "" or not all(lines):
        raise NoteError("The checkpoint does not have the lines of one.")
    origin, size, root = lines[:3]
    if not _SIZE.fullmatch(size) or int(size) >= SIZE_LIMIT:
        raise NoteError("The checkpoint's size is not a number.")
    data = decoded(root)
    if len(data) != HASH_SIZE:
        raise NoteError("The checkpoint's root is not a SHA-256.")
    return Tree(origin, int(size), data)


def parse_checkpoint(text: str | bytes) -> tuple[Note, Tree]:
    """Return the note and what its checkpoint says. Raises NoteError. Nothing is verified."""
    note = parse(text)
    return note, parse_tree(note.body)


@dataclass(frozen=True, slots=True)
class Verified:
    """A signature that is right: whose key, and the Unix seconds it says, None where it says none."""

    key: VerifierKey
    seconds: int | None


def verify(note: Note, keys: Sequence[VerifierKey]) -> list[Verified]:
    """Return the right signatures of known keys, in the order of the keys; other lines are ignored.

    Raises NoteError where a known key's signature is wrong: then nothing of the note counts.
    """
    found = []
    for key in dict.fromkeys(keys):
        for signature in note.signatures:
            if (signature.name, signature.key_id) == (key.name, key.key_id):
                seconds = key.verify(note.body.encode(), signature.value)
                found.append(Verified(key, seconds))
                break  # a repeated line of the same key says nothing more
    return found


def encoded(data: bytes) -> str:
    """Return Base64 (RFC 4648 §4)."""
    return base64.b64encode(data).decode("ascii")


def decoded(text: str) -> bytes:
    """Return what Base64 (RFC 4648 §4) says, in its one canonical form. Raises NoteError."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise NoteError("That is not Base64.") from None
    if encoded(data) != text:
        raise NoteError("That is not Base64 in its canonical form.")
    return data
