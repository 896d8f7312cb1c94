"""How a block's terms are kept: the rows of `Posting`, and the bytes in them.

A row for each term would be more rows than there are entries, since ids are many and each stands in
few entries. So the terms of a block lie together in rows by *bucket*, a few hundred a block:

- words by their first two letters (a row of the bucket "wa" holds "wages", "wallet" and so on), so
  that whatever begins with some letters is in one row of a block, however many words that are;
- one row for each first letter, with the entries that hold any word that begins with it;
- whole terms (fields such as "action=encrypt", and ids) in 256 rows by a hash;
- commitments to personal data in one row, since the beginning of a name may stand for many.

Bytes of a row of words: how many (uint32), the length of the text (uint32), the text: a newline
before, between and after the words in the order of their bytes; then as below. Of whole terms: how
many (uint32), then their hashes of 8 bytes each, ascending; then as below. Of a first letter: one
set of entries. As below: the length of each set of entries (uint16), then the sets.

A set of entries: fewer than 256 as sorted offsets in the block (uint16 each), else a bitmap of 512
bytes, whose bit n (bit n % 8 of byte n // 8) is the entry at offset n. All numbers big-endian.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Sequence

from audit.personal import PREFIX

BLOCK = 4096
BITMAP_SIZE = BLOCK // 8
_FEW = 256
_HASH_SIZE = 8
# What whole terms begin with that are commitments: an id among the words has "=" before it.
COMMITMENT = "=" + PREFIX
EVERYTHING = (1 << BLOCK) - 1


def term_hash(term: str) -> bytes:
    """Return the 8 bytes by which a whole term is known."""
    return hashlib.blake2b(term.encode("utf-8", "replace"), digest_size=_HASH_SIZE).digest()


def bucket_of_term(term: str, hashed: bytes) -> str:
    """Return the bucket of a whole term: a name that no two letters of a word can be."""
    return "@" if term.startswith(COMMITMENT) else f"#{hashed[0]:02x}"


def bitmap(offsets: Iterable[int]) -> int:
    """Return a set of offsets as a number whose bit n says whether n is in it."""
    data = bytearray(BITMAP_SIZE)
    for offset in offsets:
        data[offset >> 3] |= 1 << (offset & 7)
    return int.from_bytes(data, "little")


def offsets(bits: int) -> list[int]:
    """Return what is in a bitmap, ascending."""
    found = []
    for at, byte in enumerate(bits.to_bytes(BITMAP_SIZE, "little")):
        if byte:
            found += [at * 8 + bit for bit in _BITS[byte]]
    return found


_BITS = [[bit for bit in range(8) if byte >> bit & 1] for byte in range(256)]


_PACK = [struct.Struct(f">{count}H").pack for count in range(_FEW)]


def pack_set(sorted_offsets: Sequence[int]) -> bytes:
    """Return a set of entries in bytes, from its ascending offsets."""
    if len(sorted_offsets) < _FEW:
        return _PACK[len(sorted_offsets)](*sorted_offsets)
    return bitmap(sorted_offsets).to_bytes(BITMAP_SIZE, "little")


def unpack_set(data: bytes) -> int:
    """Return a set of entries as a bitmap."""
    if len(data) == BITMAP_SIZE:
        return int.from_bytes(data, "little")
    return bitmap(struct.unpack(f">{len(data) // 2}H", data))


def _pack_sets(sets: Sequence[bytes]) -> bytes:
    return struct.pack(f">{len(sets)}H", *map(len, sets)) + b"".join(sets)


def _unpack_sets(data: bytes, start: int, count: int, first: int, until: int) -> int:
    """Return the union of the sets first..until-1 of `count`, whose lengths stand at `start`."""
    before = struct.unpack_from(f">{until}H", data, start)
    at = start + 2 * count + sum(before[:first])
    found = 0
    for length in before[first:until]:
        found |= unpack_set(data[at : at + length])
        at += length
    return found


def pack_words(words: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Return a row of words and their sets; sorted by the words' bytes."""
    text = b"\n" + b"".join(word + b"\n" for word, _ in words)
    return struct.pack(">II", len(words), len(text)) + text + _pack_sets([one for _, one in words])


def find_words(data: bytes, beginning: bytes) -> int:
    """Return which entries hold a word that begins so, from a row of words."""
    count, length = struct.unpack_from(">II", data)
    text = data[8 : 8 + length]
    wanted = b"\n" + beginning
    at = text.find(wanted)
    if at < 0:
        return 0
    first, until = text.count(b"\n", 0, at), 0
    # They are sorted, so those that begin alike stand together.
    last = text.rfind(wanted)
    until = first + text.count(b"\n", at, last + 1)
    return _unpack_sets(data, 8 + length, count, first, until)


def pack_terms(terms: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Return a row of whole terms and their sets; sorted by their hashes."""
    head = struct.pack(">I", len(terms)) + b"".join(hashed for hashed, _ in terms)
    return head + _pack_sets([one for _, one in terms])


def find_term(data: bytes, hashed: bytes) -> int:
    """Return which entries hold the whole term of this hash, from a row of whole terms."""
    (count,) = struct.unpack_from(">I", data)
    end = 4 + count * _HASH_SIZE
    at = data.find(hashed, 4, end)
    while at >= 0 and (at - 4) % _HASH_SIZE:  # across two hashes
        at = data.find(hashed, at + 1, end)
    if at < 0:
        return 0
    place = (at - 4) // _HASH_SIZE
    return _unpack_sets(data, end, count, place, place + 1)
