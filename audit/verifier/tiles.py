"""Do the tiles say what the entries give? Compared on the way, each as soon as it is full."""

from __future__ import annotations

from collections.abc import Iterator

from audit.merkle import Frontier, node_hash
from audit.models import Tile
from audit.tiles import WIDTH, split
from audit.verifier.report import Findings
from audit.verifier.rows import as_bytes

PAGE = 64  # tiles that are read at once, 8 KiB each
LEVELS = 8  # 256^8 entries are more than a bigint counts
BITS = 7  # a tile's hashes stand 8 heights above those of the tile below


class Tree(Frontier):
    """A frontier that hands on the hashes that belong into tiles."""

    __slots__ = ("_tiles",)

    def __init__(self, tiles: TileWatch) -> None:
        super().__init__()
        self._tiles = tiles

    def append(self, leaf: bytes) -> None:
        """Add a leaf, given its hash."""
        self._tiles.add(0, leaf)
        carry, size, height = leaf, self.size, 0
        while size & 1:
            carry = node_hash(self._hashes.pop(), carry)
            size >>= 1
            height += 1
            if not height & BITS:
                self._tiles.add(height >> 3, carry)
        self._hashes.append(carry)
        self.size += 1


class TileWatch:
    """Gathers the hashes of each level and compares 256 of them with the tile that is stored."""

    def __init__(self, using: str, findings: Findings) -> None:
        self._using, self._findings = using, findings
        self._pending: list[list[bytes]] = [[] for _ in range(LEVELS + 1)]
        self._numbers = [0] * (LEVELS + 1)
        self._roots: list[tuple[int, bytes] | None] = [None] * (LEVELS + 1)
        self._rows: list[Iterator[tuple[int, bytes, bytes]]] = [
            self._stored(level) for level in range(LEVELS + 1)
        ]
        self._next: list[tuple[int, bytes, bytes] | None] = [
            next(rows, None) for rows in self._rows
        ]
        self.compared = 0

    def add(self, level: int, hash_: bytes) -> None:
        """Take the next hash of a level; it is the root of the tile of the level below."""
        pending = self._pending[level]
        pending.append(hash_)
        if level and (below := self._roots[level - 1]) is not None:
            number, root = below
            if root != hash_:
                self._wrong(level - 1, number, "has another root than its hashes")
            self._roots[level - 1] = None
        if len(pending) == WIDTH:
            self._compare(level, self._numbers[level], b"".join(pending))
            self._numbers[level] += 1
            pending.clear()

    def finish(self, size: int) -> None:
        """Note tiles that cover more than the log's `size` entries."""
        for level in range(LEVELS):
            row = self._next[level]
            if row is not None and (row[0] + 1) * WIDTH ** (level + 1) > size:
                self._findings.add(None, f"There is a tile {level}/{row[0]} beyond the log's end.")
        strange = Tile.objects.using(self._using).exclude(level__gte=0, level__lt=LEVELS)
        if strange.exists():
            self._findings.add(None, "There are tiles of a level that no log has.")
        self._findings.checked.append(f"{self.compared} tiles, each with what the entries give.")

    def _compare(self, level: int, number: int, hashes: bytes) -> None:
        row = self._next[level]
        while row is not None and row[0] < number:
            self._wrong(level, row[0], "is not one of the log's")
            row = next(self._rows[level], None)
        if row is not None and row[0] > number:
            self._wrong(level, number, "is missing")
        elif row is not None:
            self.compared += 1
            if row[1] != hashes:
                pairs = enumerate(zip(split(row[1]), split(hashes), strict=False))
                at = next((place for place, (one, other) in pairs if one != other), 0)
                self._wrong(level, number, "differs from the entries", at)
            self._roots[level] = (number, row[2])
            row = next(self._rows[level], None)
        self._next[level] = row

    def _wrong(self, level: int, number: int, what: str, at: int = 0) -> None:
        first: int = (number * WIDTH + at) * WIDTH**level
        self._findings.add(max(first, 0), f"The tile {level}/{number} {what}.")

    def _stored(self, level: int) -> Iterator[tuple[int, bytes, bytes]]:
        """Yield number, hashes and root of each tile of a level, page by page."""
        rows = Tile.objects.using(self._using).filter(level=level).order_by("number")
        page = rows
        while found := list(page.values_list("number", "hashes", "root")[:PAGE]):
            yield from (
                (number, as_bytes(hashes), as_bytes(root)) for number, hashes, root in found
            )
            page = rows.filter(number__gt=found[-1][0])
