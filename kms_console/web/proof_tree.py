"""An inclusion proof, drawn: the entry's leaf at the bottom, the root at the top, hashes between.

Each row is one level of the tree. On the way from the root to the leaf one of two children is on the
path (its hash is computed), the other one is given by the proof. RFC 9162, 2.1.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from audit.merkle import node_hash

WIDTH, BOX, HIGH, ROW, EDGE = 360, 164, 38, 58, 6


@dataclass(frozen=True, slots=True)
class Box:
    """One node: which entries it covers (start..end-1), its hash in hex, and where it is drawn."""

    kind: str  # root, path, given, leaf
    start: int
    end: int
    hash: str
    x: int
    y: int

    @property
    def middle(self) -> int:
        return self.x + BOX // 2

    @property
    def first_line(self) -> int:
        return self.y + 16

    @property
    def second_line(self) -> int:
        return self.y + 30

    @property
    def covers(self) -> str:
        """Which entries it stands for, in words."""
        if self.end - self.start == 1:
            return f"Entry {self.start:,}"
        return f"Entries {self.start:,} to {self.end - 1:,}"

    @property
    def brief(self) -> str:
        return f"{self.hash[:10]}…{self.hash[-4:]}"


@dataclass(frozen=True, slots=True)
class Line:
    """From a node down to one of its children."""

    kind: str  # path or given
    x1: int
    y1: int
    x2: int
    y2: int


@dataclass(frozen=True, slots=True)
class Step:
    """One hash of the proof, from the leaf upwards: what is put together, and what comes of it."""

    number: int
    side: str  # where the given hash stands: left or right
    given: Box
    result: Box


@dataclass(frozen=True, slots=True)
class Drawing:
    """All that the page draws, and the same as steps in words. `holds`: the root comes out."""

    boxes: list[Box]
    lines: list[Line]
    steps: list[Step]
    holds: bool
    height: int
    width: int = WIDTH
    box: int = BOX
    high: int = HIGH


def draw(index: int, size: int, leaf: bytes, hashes: Sequence[bytes], root: bytes) -> Drawing:
    """Lay out the proof that `leaf` is entry `index` of the `size` entries under `root`.

    `hashes` is the audit path, from the leaf up. Raises ValueError where it has not as many hashes
    as a proof of that size.
    """
    if not 0 <= index < size:
        raise ValueError(f"there is no entry {index} among {size}")
    splits = _splits(index, size)
    if len(splits) != len(hashes):
        raise ValueError(f"this proof has {len(splits)} hashes, not {len(hashes)}")
    # The hash of the path's node above each given one, from the leaf up.
    values = [leaf]
    for (_, _, _, right), given in zip(reversed(splits), hashes, strict=True):
        values.append(node_hash(values[-1], given) if right else node_hash(given, values[-1]))
    values.reverse()
    at = _Box(values[0].hex(), 0, size, (WIDTH - BOX) // 2, EDGE)
    top = at.box("root" if splits else "leaf")
    boxes, lines, steps, above = [top], [], [], top
    for depth, (start, middle, end, right) in enumerate(splits):
        y = EDGE + (depth + 1) * ROW
        left_x, right_x = EDGE, WIDTH - BOX - EDGE
        given_hash = hashes[len(hashes) - 1 - depth].hex()
        # `right`: the given hash is the right child, the path goes on to the left.
        path_range, given_range = (
            ((start, middle), (middle, end)) if right else ((middle, end), (start, middle))
        )
        path = _Box(values[depth + 1].hex(), *path_range, left_x if right else right_x, y)
        other = _Box(given_hash, *given_range, right_x if right else left_x, y).box("given")
        node = path.box("leaf" if depth == len(splits) - 1 else "path")
        lines += [_line("given", above, other), _line("path", above, node)]
        boxes += [node, other]
        steps.append(Step(len(splits) - depth, "right" if right else "left", other, above))
        above = node
    return Drawing(
        boxes, lines, steps[::-1], values[0] == root, EDGE * 2 + len(splits) * ROW + HIGH
    )


@dataclass(frozen=True, slots=True)
class _Box:
    hash: str
    start: int
    end: int
    x: int
    y: int

    def box(self, kind: str) -> Box:
        return Box(kind, self.start, self.end, self.hash, self.x, self.y)


def _line(kind: str, above: Box, below: Box) -> Line:
    return Line(kind, above.middle, above.y + HIGH, below.middle, below.y)


def _splits(index: int, size: int) -> list[tuple[int, int, int, bool]]:
    """Return (start, middle, end, whether the leaf is in the left half) from the root to the leaf."""
    start, end, found = 0, size, []
    while end - start > 1:
        middle = start + (1 << (end - start - 1).bit_length() - 1)
        left = index < middle
        found.append((start, middle, end, left))
        start, end = (start, middle) if left else (middle, end)
    return found
