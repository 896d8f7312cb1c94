"""The envelope's bytes: one message encrypted under a data key, its head, its chunks. docs/client.md has it all.

A message is a head and chunks. Each message has a key of its own, derived from the data key, the
whole head and the context, and with it a commitment that a reader compares first: a head, a context
or a data key other than the writer's ends there. Chunks follow STREAM (Hoang, Reyhanitabar, Rogaway,
Vizar: "Online Authenticated-Encryption and its Nonce-Reuse Misuse-Resistance", CRYPTO 2015): a
chunk's nonce is its position and whether it is the last, so none can be left out, moved, repeated or
cut off, and no nonce comes twice under one key.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from kms_console_client.calls import Context
from kms_console_client.errors import CannotDecrypt, InvalidRequest

MAGIC = b"KMSE"
VERSION = 1
# AES-256-GCM in chunks, message key and commitment by HKDF-Expand with SHA-512.
SUITE = 1
LABEL = b"kms-console envelope 1\x00"
DATA_KEY = 64
MESSAGE_ID = 32
COMMITMENT = 32
TAG = 16
# A chunk's size is a power of two: 4 KiB to 16 MiB.
SMALLEST, USUAL, LARGEST = 12, 16, 24
# A message has fewer chunks than this: far below what one AES-GCM key may encrypt.
CHUNKS = 1 << 32
# magic (4), version (1), suite (1), chunk size (1), length of the encrypted data key (2)
FIXED = 9
ENCRYPTED_LIMIT = 4096
HEAD_LIMIT = FIXED + ENCRYPTED_LIMIT + MESSAGE_ID + COMMITMENT

Bytes = bytes | bytearray | memoryview
# Given info, returns 64 bytes that only the data key's holder can compute.
Expand = Callable[[bytes], bytes]


def refusal() -> CannotDecrypt:
    return CannotDecrypt("The message can't be decrypted with this key and context.")


def canonical(context: Context | None) -> bytes:
    """Return a context's canonical form (docs/ciphertext.md). Raises InvalidRequest where it isn't text."""
    if not context:
        return bytes(4)
    try:
        return _canonical(tuple(context.items()))
    except (AttributeError, TypeError, UnicodeEncodeError):
        raise InvalidRequest("A context is pairs of text.", field="context") from None


@lru_cache(maxsize=1024)  # an application has few contexts, or many that come once
def _canonical(items: tuple[tuple[str, str], ...]) -> bytes:
    pairs = sorted((name.encode(), value.encode()) for name, value in items)
    parts = [len(pairs).to_bytes(4, "big")]
    for pair in pairs:
        for text in pair:
            parts += (len(text).to_bytes(4, "big"), text)
    return b"".join(parts)


def nonce(position: int, last: bool) -> bytes:
    """Return the 12 bytes that no other chunk of this message has."""
    return position.to_bytes(11, "big") + (b"\x01" if last else b"\x00")


class Message:
    """One message being written or read: its key is in no other's."""

    __slots__ = ("_cipher", "head", "size")

    def __init__(self, key: bytes, head: bytes, size: int) -> None:
        self._cipher = AESGCM(key)
        # All that stands before the first chunk.
        self.head = head
        # The most bytes of content that a chunk has.
        self.size = size

    def __repr__(self) -> str:
        return "Message()"

    def seal(self, data: Bytes) -> bytes:
        """Return the whole message."""
        size = self.size
        if len(data) <= size:
            return self.head + self._cipher.encrypt(nonce(0, True), data, None)
        view, encrypt, length = memoryview(data), self._cipher.encrypt, len(data)
        parts = [self.head]
        for position, start in enumerate(range(0, length, size)):
            end = start + size
            parts.append(encrypt(nonce(position, end >= length), view[start:end], None))
        return b"".join(parts)

    def open(self, chunks: Bytes) -> bytes:
        """Return the content of a message's chunks. Raises CannotDecrypt."""
        step, view = self.size + TAG, memoryview(chunks)
        if len(view) <= step:
            return self._open(view, 0, True)
        ends = range(0, len(view), step)
        return b"".join(
            [
                self._open(view[start : start + step], position, start + step >= len(view))
                for position, start in enumerate(ends)
            ]
        )

    def _open(self, chunk: Bytes, position: int, last: bool) -> bytes:
        # Only an empty message has an empty chunk: nothing is written in two ways.
        if len(chunk) > TAG or (position == 0 and last and len(chunk) == TAG):
            try:
                return self._cipher.decrypt(nonce(position, last), chunk, None)
            except InvalidTag:
                pass
        raise refusal()

    def seal_stream(self, source: BinaryIO, target: BinaryIO) -> int:
        """Write the whole message; return how many bytes of content it has."""
        target.write(self.head)
        total, process = 0, os.getpid()
        for position, last, chunk in pieces(source, self.size):
            if os.getpid() != process:
                raise RuntimeError("Two processes must not go on with one message.")
            _check(position)
            target.write(self._cipher.encrypt(nonce(position, last), chunk, None))
            total += len(chunk)
        return total

    def open_stream(self, source: BinaryIO, target: BinaryIO) -> int:
        """Write the content of the chunks that follow in `source`; return its length. Raises CannotDecrypt."""
        total = 0
        for position, last, chunk in pieces(source, self.size + TAG):
            _check(position)
            content = self._open(chunk, position, last)
            target.write(content)
            total += len(content)
        return total


def _check(position: int) -> None:
    if position >= CHUNKS:
        raise InvalidRequest("The message is too long for chunks of this size.")


def pieces(source: BinaryIO, size: int) -> Iterator[tuple[int, bool, bytes]]:
    """Yield (position, whether it is the last, content); an empty source has one, empty piece."""
    position, piece = 0, _exactly(source, size)
    while True:
        following = _exactly(source, size) if len(piece) == size else b""
        yield position, not following, piece
        if not following:
            return
        position, piece = position + 1, following


def _exactly(source: BinaryIO, size: int) -> bytes:
    """Read `size` bytes, fewer only at the end: pipes and sockets give what they have."""
    found = source.read(size)
    if len(found) == size or not found:
        return found
    parts, left = [found], size - len(found)
    while left and (found := source.read(left)):
        parts.append(found)
        left -= len(found)
    return b"".join(parts)


def prefix(encrypted: bytes, exponent: int) -> bytes:
    """Return what a message's head begins with, up to the encrypted data key."""
    if not 0 < len(encrypted) <= ENCRYPTED_LIMIT:
        raise ValueError("The encrypted data key is too long.")
    fixed = bytes((VERSION, SUITE, exponent)) + len(encrypted).to_bytes(2, "big")
    return MAGIC + fixed + encrypted


def begin(expand: Expand, prefixed: bytes, pairs: bytes) -> Message:
    """Begin a new message. `prefixed` is its prefix(), `pairs` its canonical context."""
    head = prefixed + os.urandom(MESSAGE_ID)
    derived = expand(_info(head, pairs))
    return Message(derived[:32], head + derived[32:], 1 << prefixed[6])


def _info(head: bytes, pairs: bytes) -> bytes:
    return b"".join((LABEL, head, pairs))


@dataclass(frozen=True, slots=True)
class Head:
    """A message's head as it was read. `signed`: everything before the commitment."""

    encrypted: bytes
    signed: bytes
    commitment: bytes
    size: int

    @property
    def length(self) -> int:
        return len(self.signed) + COMMITMENT

    def accept(self, expand: Expand, pairs: bytes) -> Message:
        """Return the message to read. Raises CannotDecrypt where data key, head and context don't belong together."""
        derived = expand(_info(self.signed, pairs))
        if not hmac.compare_digest(derived[32:], self.commitment):
            raise refusal()
        return Message(derived[:32], b"", self.size)


def read_head(blob: Bytes) -> Head:
    """Return the head that a message begins with. Raises CannotDecrypt where it has none."""
    fixed = bytes(blob[:FIXED])
    end = FIXED + encrypted_length(fixed)
    signed = bytes(blob[: end + MESSAGE_ID])
    commitment = bytes(blob[end + MESSAGE_ID : end + MESSAGE_ID + COMMITMENT])
    if len(commitment) != COMMITMENT:
        raise refusal()
    return Head(signed[FIXED:end], signed, commitment, 1 << fixed[6])


def encrypted_length(fixed: bytes) -> int:
    """Return how long the encrypted data key behind these bytes is. Raises CannotDecrypt."""
    length = int.from_bytes(fixed[7:9], "big")
    if (
        len(fixed) != FIXED
        or not fixed.startswith(MAGIC)
        or (fixed[4], fixed[5]) != (VERSION, SUITE)
        or not SMALLEST <= fixed[6] <= LARGEST
        or not 0 < length <= ENCRYPTED_LIMIT
    ):
        raise refusal()
    return length


def take_head(source: BinaryIO) -> Head:
    """Read a message's head and nothing behind it. Raises CannotDecrypt where there is none."""
    fixed = _exactly(source, FIXED)
    return read_head(fixed + _exactly(source, encrypted_length(fixed) + MESSAGE_ID + COMMITMENT))
