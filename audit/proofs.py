"""Inclusion and consistency proofs (RFC 9162 §2.1) from the tiles, in a few rows however long the log is.

What the tiles don't cover yet is hashed from the entries. Nothing here says that the log is right:
who gets a proof checks it against a root that was signed.
"""

from __future__ import annotations

from collections import OrderedDict

from audit import merkle, tiles
from audit.models import Entry, Tile
from audit.tiles import WIDTH

BITS = 8  # WIDTH is 2 to this
KEPT = 256  # tiles that a prover keeps in memory, about 20 KB each


class Prover:
    """Proofs in the log of `size` entries. One that makes many proofs reads each tile once or so.

    Raises ValueError where an entry that a proof needs is missing.
    """

    def __init__(self, size: int, using: str = "default") -> None:
        self.size = size
        self._using = using
        self._kept: OrderedDict[tuple[int, int], list[bytes]] = OrderedDict()

    def inclusion(self, index: int) -> list[bytes]:
        """Return the audit path of entry `index`. Raises ValueError for one outside."""
        return merkle.inclusion_proof(index, self.size, self.range_hash)

    def consistency(self, first: int) -> list[bytes]:
        """Return the proof that the log of `first` entries is the beginning of this one.

        Raises ValueError unless 0 < first <= size.
        """
        return merkle.consistency_proof(first, self.size, self.range_hash)

    def root(self) -> bytes:
        """Return the root over the first `size` entries."""
        return self.range_hash(0, self.size) if self.size else merkle.EMPTY_ROOT

    def frontier(self) -> merkle.Frontier:
        """Return the right edge of the tree over the first `size` entries."""
        hashes, start = [], 0
        for bit in reversed(range(self.size.bit_length())):
            if self.size >> bit & 1:
                hashes.append(self.range_hash(start, start + (1 << bit)))
                start += 1 << bit
        return merkle.Frontier(self.size, hashes)

    def range_hash(self, start: int, end: int) -> bytes:
        """Return the tree hash of the entries start..end-1, as merkle.RangeHash."""
        count = end - start
        if count & (count - 1) == 0 and start % count == 0:
            return self._perfect(start, count)
        middle = start + (1 << (count - 1).bit_length() - 1)
        return merkle.node_hash(self.range_hash(start, middle), self.range_hash(middle, end))

    def _perfect(self, start: int, count: int) -> bytes:
        """Return the root of a perfect subtree, from the highest tiles that its height allows."""
        height = count.bit_length() - 1
        level, width = height // BITS, 1 << height % BITS
        first = start >> level * BITS
        hashes = self._tile(level, first // WIDTH)[first % WIDTH : first % WIDTH + width]
        if len(hashes) != width:
            raise ValueError(f"an entry in {start}..{start + count - 1} is missing")
        return merkle.root_of(hashes)

    def _tile(self, level: int, number: int) -> list[bytes]:
        """Return the hashes of a tile, full or not."""
        at = (level, number)
        if at in self._kept:
            self._kept.move_to_end(at)
            return self._kept[at]
        row = Tile.objects.using(self._using).filter(level=level, number=number)
        stored = row.values_list("hashes", flat=True).first()
        if stored is not None:
            hashes = tiles.split(bytes(stored))
        else:
            hashes = self._leaves(number) if level == 0 else self._roots_below(level, number)
        self._kept[at] = hashes
        if len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return hashes

    def _leaves(self, number: int) -> list[bytes]:
        """Return the leaf hashes of a tile of level 0 that isn't there yet, up to the first gap."""
        first = number * WIDTH
        rows = Entry.objects.using(self._using).filter(
            index__gte=first, index__lt=min(first + WIDTH, self.size)
        )
        hashes: list[bytes] = []
        for index, leaf in rows.order_by("index").values_list("index", "leaf_hash"):
            if index != first + len(hashes):
                break
            hashes.append(bytes(leaf))
        return hashes

    def _roots_below(self, level: int, number: int) -> list[bytes]:
        """Return the roots of the whole tiles below a tile that isn't full yet."""
        first = number * WIDTH
        end = min(first + WIDTH, self.size >> level * BITS)
        rows = Tile.objects.using(self._using).filter(
            level=level - 1, number__gte=first, number__lt=end
        )
        stored = dict(rows.values_list("number", "root"))
        hashes = []
        for below in range(first, end):
            if below in stored:
                hashes.append(bytes(stored[below]))
                continue
            found = self._tile(level - 1, below)
            if len(found) < WIDTH:
                break
            hashes.append(merkle.root_of(found))
        return hashes


def inclusion(index: int, size: int, using: str = "default") -> list[bytes]:
    """Return the audit path of entry `index` in the log of `size` entries. Raises ValueError."""
    return Prover(size, using).inclusion(index)


def consistency(first: int, second: int, using: str = "default") -> list[bytes]:
    """Return the proof that the log of `first` entries begins that of `second`. Raises ValueError."""
    return Prover(second, using).consistency(first)


def root_at(size: int, using: str = "default") -> bytes:
    """Return the root that the log had when it had `size` entries. Raises ValueError."""
    return Prover(size, using).root()
