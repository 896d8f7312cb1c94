"""The ciphertext envelope: it names its format, algorithm, key and version, and binds them.

    offset  bytes  what
    0       2      "K" and the format, 0x01
    2       1      algorithm code (keys.algorithms)
    3       16     key id
    19      4      version number, big endian, from 1
    23      rest   the key store's own ciphertext

The header and the caller's context are the associated data, so neither can be changed or moved to
another ciphertext. docs/ciphertext.md has the format byte by byte, docs/adr/0002 the reasons.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Mapping
from dataclasses import dataclass

from keys.algorithms import ALGORITHM_BY_CODE, ALGORITHMS, Usage
from keys.errors import CannotDecrypt, Invalid

FORMAT = 1
MAGIC = b"K"
_HEADER = struct.Struct(">cBB16sI")
HEADER_BYTES = _HEADER.size
MAX_VERSION = 2**32 - 1

MAX_PAIRS = 32
_NO_PAIRS = struct.pack(">I", 0)
MAX_NAME_BYTES = 1024
MAX_VALUE_BYTES = 1024


@dataclass(frozen=True, slots=True)
class Envelope:
    """A ciphertext's parts. Nothing in it is trustworthy until the body decrypts."""

    format: int
    algorithm: str
    key_id: uuid.UUID
    version: int
    header: bytes
    body: bytes


def seal_header(algorithm: str, key_id: uuid.UUID, version: int) -> bytes:
    """Return the 23 bytes that stand before a ciphertext. `version` counts from 1."""
    row = ALGORITHMS.get(algorithm)
    if row is None or Usage.ENCRYPT_DECRYPT not in row.usages:
        raise Invalid("That is no algorithm to encrypt with.")
    if not 1 <= version <= MAX_VERSION:
        raise Invalid("A version number is between 1 and 2^32 - 1.")
    return _HEADER.pack(MAGIC, FORMAT, row.code, key_id.bytes, version)


def parse(ciphertext: bytes) -> Envelope:
    """Return a ciphertext's parts. Raises CannotDecrypt for what seal_header() could not begin."""
    if len(ciphertext) <= HEADER_BYTES:
        raise CannotDecrypt
    header = bytes(ciphertext[:HEADER_BYTES])
    magic, form, code, key_id, version = _HEADER.unpack(header)
    row = ALGORITHM_BY_CODE.get(code)
    if magic != MAGIC or form != FORMAT or version < 1:
        raise CannotDecrypt
    if row is None or Usage.ENCRYPT_DECRYPT not in row.usages:
        raise CannotDecrypt
    body = bytes(ciphertext[HEADER_BYTES:])
    return Envelope(form, row.name, uuid.UUID(bytes=key_id), version, header, body)


def associated_data(header: bytes, context: Mapping[str, str]) -> bytes:
    """Return what a ciphertext is bound to: the header, then the context in canonical form.

    Raises Invalid for what is no context.
    """
    if len(header) != HEADER_BYTES:
        raise ValueError(f"A header has {HEADER_BYTES} bytes.")
    return header + encoded_context(context)


def encoded_context(context: Mapping[str, str]) -> bytes:
    """Return a context in canonical form.

    Pairs are sorted by the bytes of their names; each name and value is preceded by its length (32
    bits, big endian) and the whole by the number of pairs, so no two inputs give the same bytes.
    Text is bound as it is: no Unicode normalisation. Raises Invalid for what is no context.
    """
    if not context:
        return _NO_PAIRS
    if len(context) > MAX_PAIRS:
        raise Invalid(f"A context has at most {MAX_PAIRS} pairs.")
    pairs = sorted(
        (_encoded("name", name, MAX_NAME_BYTES), _encoded("value", value, MAX_VALUE_BYTES))
        for name, value in context.items()
    )
    parts = [struct.pack(">I", len(pairs))]
    for name, value in pairs:
        parts += (struct.pack(">I", len(name)), name, struct.pack(">I", len(value)), value)
    return b"".join(parts)


def _encoded(what: str, text: object, limit: int) -> bytes:
    if not isinstance(text, str):
        raise Invalid(f"A context {what} is text.")
    try:
        encoded = text.encode("utf-8")
    except UnicodeEncodeError:  # a lone surrogate
        raise Invalid(f"A context {what} is not valid Unicode.") from None
    if what == "name" and not encoded:
        raise Invalid("A context name is not empty.")
    if len(encoded) > limit:
        raise Invalid(f"A context {what} has at most {limit} bytes.")
    return encoded
