"""Inclusion and consistency proofs (RFC 9162 §2.1) from the tiles, in a few rows however long the log is.

What the tiles don't cover yet is hashed from the entries. Nothing here says that the log is right:
who gets a proof checks it against a root that was signed.
"""

from __future__ import annotations

from collections import OrderedDict

from audit import merkle, tiles
from audit.errors import TilesMissing
from audit.models import Entry, Tile
from audit.tiles import WIDTH

BITS = 8  # WIDTH is 2 to this
KEPT = 256  # tiles that a prover keeps in memory, at most 40 KB each


class Prover:
    """Proofs in the log of `size` entries. One that makes many proofs reads each tile once or so.

    Raises ValueError where an entry that a proof needs is missing, TilesMissing where more than
    `unbuilt` tiles would have to be hashed from entries (None: however many).
    """

    def __init__(self, size: int, using: str = "default", unbuilt: int | None = None) -> None:
        self.size = size
        self._unbuilt = unbuilt
        # Seen before anything is read: what is told every few seconds must not cost much.
        if unbuilt is not None and size // WIDTH - tiles.covered(using) // WIDTH > unbuilt:
            raise TilesMissing(f"more than {unbuilt} tiles of the log are not built yet")
        self._using = using
        self._kept: OrderedDict[tuple[int, int], list[list[bytes]]] = OrderedDict()

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
        level, above = height // BITS, height % BITS
        first = start >> level * BITS
        rows = self._rows(level, first // WIDTH)
        while len(rows) <= above:  # hashed once for all proofs through this tile
            below = rows[-1]
            pairs = zip(below[::2], below[1::2], strict=False)
            rows.append([merkle.node_hash(left, right) for left, right in pairs])
        at = (first % WIDTH) >> above
        if at >= len(rows[above]):
            raise ValueError(f"an entry in {start}..{start + count - 1} is missing")
        return rows[above][at]

    def _rows(self, level: int, number: int) -> list[list[bytes]]:
        """Return a tile's hashes, and above them the rows of the tree that were needed so far."""
        at = (level, number)
        if at in self._kept:
            self._kept.move_to_end(at)
        else:
            self._kept[at] = [self._tile(level, number)]
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return self._kept[at]

    def _tile(self, level: int, number: int) -> list[bytes]:
        """Return the hashes of a tile, full or not."""
        row = Tile.objects.using(self._using).filter(level=level, number=number)
        stored = row.values_list("hashes", flat=True).first()
        if stored is not None:
            return tiles.split(bytes(stored))
        return self._leaves(number) if level == 0 else self._roots_below(level, number)

    def _leaves(self, number: int) -> list[bytes]:
        """Return the leaf hashes of a tile of level 0 that isn't there yet, up to the first gap."""
        first = number * WIDTH
        if self._unbuilt is not None and first + WIDTH <= self.size:
            self._unbuilt -= 1
            if self._unbuilt < 0:
                raise TilesMissing("too many tiles of the log are missing")
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
            found = self._rows(level - 1, below)[0]
            if len(found) < WIDTH:
                break
            hashes.append(merkle.root_of(found))
        return hashes


def inclusion(index: int, size: int, using: str = "default") -> list[bytes]:
    """Return the audit path of entry `index` in the log of `size` entries. Raises ValueError."""
    return Prover(size, using).inclusion(index)


def consistency(
    first: int, second: int, using: str = "default", unbuilt: int | None = None
) -> list[bytes]:
    """Return the proof that the log of `first` entries begins that of `second`.

    Raises ValueError, and TilesMissing as Prover does.
    """
    return Prover(second, using, unbuilt).consistency(first)


def root_at(size: int, using: str = "default") -> bytes:
    """Return the root that the log had when it had `size` entries. Raises ValueError."""
    return Prover(size, using).root()
