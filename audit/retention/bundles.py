"""The bundle: a gzip file of JSON Lines, first a header, then the bodies of entries, byte for byte.

The header's members: `format`, `start` and `end` (the entries are start..end-1), `checkpoint` (a
signed note, C2SP tlog-checkpoint), and in base64 the hashes `left` and `right` of the perfect
subtrees on both sides. With them whoever holds nothing but the bundle and the log's public key can
compute the checkpoint's root (RFC 9162 §2.1) from the lines. The same range under the same
checkpoint gives the same bytes.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec

from audit import canonical, tiles
from audit.errors import ArchiveFault
from audit.merkle import HASH_SIZE, leaf_hash, node_hash, root_of
from audit.models import Checkpoint, Entry, Tile
from audit.proofs import Prover
from audit.tiles import WIDTH

FORMAT = "kms-console-archive/1"
CHUNK = 1024 * 1024
LINE_LIMIT = 8 * 1024 * 1024  # no entry comes near it
TILES_AT_ONCE = 16
TILE_HEIGHT = 8  # a tile of level 0 is a subtree of this height


class Header(msgspec.Struct, forbid_unknown_fields=True):
    """The bundle's first line."""

    format: str
    start: int
    end: int
    checkpoint: str
    left: list[str]
    right: list[str]


@dataclass(frozen=True, slots=True)
class Made:
    """A bundle in a file: the hex SHA-256 of its bytes, and the times of its entries."""

    sha256: str
    first_at: datetime
    last_at: datetime


class _Spine:
    """Perfect subtrees from left to right, merged as they come: a root in constant memory."""

    def __init__(self) -> None:
        self.size = 0
        self._stack: list[tuple[int, bytes]] = []

    def add(self, height: int, hash_: bytes) -> None:
        self.size += 1 << height
        while self._stack and self._stack[-1][0] == height:
            hash_ = node_hash(self._stack.pop()[1], hash_)
            height += 1
        self._stack.append((height, hash_))

    def root(self) -> bytes:
        root = self._stack[-1][1]
        for _, left in reversed(self._stack[:-1]):
            root = node_hash(left, root)
        return root


def subtrees(start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield (start, height) of the perfect subtrees that cover start..end-1, from left to right."""
    while start < end:
        height = (end - start).bit_length() - 1
        if start:
            height = min(height, (start & -start).bit_length() - 1)
        yield start, height
        start += 1 << height


def make(path: Path, start: int, end: int, checkpoint: Checkpoint, using: str = "default") -> Made:
    """Write the bundle of the entries start..end-1 to a file, verifying each entry on the way.

    Each body must have its stored hash, the tile must have that hash, and the tiles must lead to the
    checkpoint's root. Raises ArchiveFault where they don't, ValueError where the range isn't one of
    whole tiles below the checkpoint.
    """
    if start % WIDTH or end % WIDTH or not 0 <= start < end <= checkpoint.size:
        raise ValueError(f"{start}..{end - 1} can't be a bundle")
    prover = Prover(checkpoint.size, using)

    def hashes(first: int, last: int) -> list[str]:
        found = (prover.range_hash(at, at + (1 << h)) for at, h in subtrees(first, last))
        return [b64encode(one).decode() for one in found]

    try:
        left, right = hashes(0, start), hashes(end, checkpoint.size)
    except ValueError as error:
        raise ArchiveFault(f"the tree is not whole: {error}") from None
    header = Header(FORMAT, start, end, checkpoint.note, left, right)
    spine = _begun(header)
    first_at = last_at = None
    with path.open("wb") as raw, gzip.GzipFile("", "wb", 6, raw, mtime=0) as file:
        file.write(canonical.encode(msgspec.to_builtins(header)) + b"\n")
        for rows, leaves in _tiles(start, end, using):
            spine.add(TILE_HEIGHT, root_of(leaves))
            file.write(b"".join(bytes(row.body) + b"\n" for row in rows))
            times = [row.at for row in rows]
            first_at = min([*times, *([first_at] if first_at else [])])
            last_at = max([*times, *([last_at] if last_at else [])])
    _check_root(spine, header, checkpoint.size, bytes(checkpoint.root))
    assert first_at is not None and last_at is not None
    return Made(_sha256(path), first_at, last_at)


def _tiles(start: int, end: int, using: str) -> Iterator[tuple[list[Entry], list[bytes]]]:
    """Yield the entries of each tile, verified, with the tile's hashes."""
    rows = Entry.objects.using(using).only("index", "at", "leaf_hash", "body").order_by("index")
    step = TILES_AT_ONCE * WIDTH
    for first in range(start, end, step):
        last = min(first + step, end)
        known = tile_hashes(first, last, using)
        found = list(rows.filter(index__gte=first, index__lt=last))
        for at in range(first, last, WIDTH):
            entries = found[at - first : at - first + WIDTH]
            leaves = known[at // WIDTH]
            for index, entry, leaf in zip(range(at, at + WIDTH), entries, leaves, strict=False):
                if entry.index != index or not bytes(entry.leaf_hash) == leaf == leaf_hash(
                    bytes(entry.body)
                ):
                    raise ArchiveFault(f"entry {index} is missing or is not what the tree has")
            if len(entries) != WIDTH:
                raise ArchiveFault(f"an entry from {at} on is missing")
            yield entries, leaves


def tile_hashes(start: int, end: int, using: str = "default") -> dict[int, list[bytes]]:
    """Return the leaf hashes of each tile in a range of whole tiles. Raises ArchiveFault for a gap."""
    wanted = range(start // WIDTH, end // WIDTH)
    rows = Tile.objects.using(using).filter(
        level=0, number__gte=wanted.start, number__lt=wanted.stop
    )
    found = {number: tiles.split(bytes(h)) for number, h in rows.values_list("number", "hashes")}
    for number in wanted:
        if len(found.get(number, ())) != WIDTH:
            raise ArchiveFault(f"the tile of entry {number * WIDTH} is missing")
    return found


def read(
    chunks: Iterable[bytes], start: int, end: int, sha256: str, using: str = "default"
) -> Iterator[list[tuple[int, bytes, bytes]]]:
    """Yield (index, body, leaf hash) of a stored bundle's entries, 256 at a time, at constant memory.

    What is yielded is what the tree has. At the end the bytes must have this SHA-256 and the lines
    must lead to the root of the checkpoint that the bundle names. Raises ArchiveFault.
    """
    digest = hashlib.sha256()
    lines = _lines(_unpacked(chunks, digest))
    header = _header(next(lines, b""), start, end)
    spine, at = _begun(header), start
    known: dict[int, list[bytes]] = {}
    batch: list[tuple[int, bytes, bytes]] = []
    for line in lines:
        if at >= end:
            raise ArchiveFault("the bundle has more entries than it says")
        if at // WIDTH not in known:
            known = tile_hashes(at, min(at + TILES_AT_ONCE * WIDTH, end), using)
        leaf = leaf_hash(line)
        if leaf != known[at // WIDTH][at % WIDTH]:
            raise ArchiveFault(f"entry {at} in the bundle is not what the tree has")
        batch.append((at, line, leaf))
        at += 1
        if at % WIDTH == 0:
            spine.add(TILE_HEIGHT, root_of(one[2] for one in batch))
            yield batch
            batch = []
    if at != end:
        raise ArchiveFault(f"the bundle ends before entry {end}")
    if digest.hexdigest() != sha256:
        raise ArchiveFault("the bundle's bytes are not those that were written")
    _check_root(spine, header, *_checkpoint_of(header))


def _begun(header: Header) -> _Spine:
    spine = _Spine()
    for (_, height), text in zip(subtrees(0, header.start), header.left, strict=True):
        spine.add(height, b64decode(text))
    return spine


def _check_root(spine: _Spine, header: Header, size: int, root: bytes) -> None:
    """Add what is to the right and compare. Raises ArchiveFault."""
    try:
        for (_, height), text in zip(subtrees(header.end, size), header.right, strict=True):
            spine.add(height, b64decode(text))
    except ValueError:
        raise ArchiveFault("the bundle's hashes don't fit its checkpoint") from None
    if spine.size != size or spine.root() != root:
        raise ArchiveFault("the entries don't lead to the root that was signed")


def _checkpoint_of(header: Header) -> tuple[int, bytes]:
    """Return size and root of the checkpoint that a bundle names (C2SP tlog-checkpoint)."""
    try:
        _, size, root, *_ = header.checkpoint.split("\n")
        return int(size), b64decode(root, validate=True)
    except ValueError:
        raise ArchiveFault("the bundle's checkpoint can't be read") from None


def _header(line: bytes, start: int, end: int) -> Header:
    try:
        header = msgspec.json.decode(line, type=Header)
        hashes = [b64decode(text, validate=True) for text in [*header.left, *header.right]]
        sound = all(len(one) == HASH_SIZE for one in hashes)
        sound = sound and len(header.left) == sum(1 for _ in subtrees(0, start))
    except (ValueError, msgspec.MsgspecError):
        raise ArchiveFault("the bundle's header can't be read") from None
    if not sound or (header.format, header.start, header.end) != (FORMAT, start, end):
        raise ArchiveFault("the bundle's header is not that of these entries")
    return header


def _unpacked(chunks: Iterable[bytes], digest: hashlib._Hash) -> Iterator[bytes]:
    """Yield what a gzip file holds, never much at once whatever the file claims."""
    stream = zlib.decompressobj(wbits=31)
    try:
        for chunk in chunks:
            digest.update(chunk)
            if stream.eof:
                raise ArchiveFault("something follows the bundle's end")
            while chunk:
                yield stream.decompress(chunk, CHUNK)
                chunk = stream.unconsumed_tail
            if stream.unused_data:
                raise ArchiveFault("something follows the bundle's end")
    except zlib.error:
        raise ArchiveFault("the bundle can't be unpacked") from None
    yield stream.flush()
    if not stream.eof:
        raise ArchiveFault("the bundle is cut off")


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from whole
        if len(rest) > LINE_LIMIT:
            raise ArchiveFault("a line of the bundle is too long")
    if rest:
        raise ArchiveFault("the bundle's last line is cut off")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
