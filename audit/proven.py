"""Whether a log continues the one that somebody remembers, and what of that was proved before."""

from __future__ import annotations

from audit import proofs
from audit.merkle import EMPTY_ROOT, verify_consistency
from audit.store import LogHead

# Tiles that are hashed from entries for one proof, about 25,000 entries; more wait for the keeper.
UNBUILT_LIMIT = 100
KEPT = 64


class Proven:
    """What was proved of one database's log: remembered trees that the log of `_head` continues."""

    def __init__(self) -> None:
        self._head: tuple[int, bytes] | None = None
        self._trees: set[tuple[int, bytes]] = set()

    def continues(self, head: LogHead, size: int, root: bytes, using: str) -> bool:
        """Tell whether the log of `head` begins with the tree of `size` entries and this root.

        Where that was proved of an earlier head, only that the log grew from there is proved, once.
        Raises ValueError where entries are missing, TilesMissing where it would take too long.
        """
        if size == head.size:
            return root == head.root
        if size == 0:
            return root == EMPTY_ROOT
        self._follow(head, using)
        if (size, root) in self._trees:
            return True
        if not _grew(size, root, head, using):
            return False
        if len(self._trees) >= KEPT:
            self._trees.clear()
        self._trees.add((size, root))
        return True

    def _follow(self, head: LogHead, using: str) -> None:
        now = (head.size, head.root)
        if self._head == now:
            return
        before = self._head
        grew = before is not None and before[0] < head.size
        if not (self._trees and before and grew and _grew(*before, head, using)):
            self._trees.clear()
        self._head = now


def _grew(size: int, root: bytes, head: LogHead, using: str) -> bool:
    proof = proofs.consistency(size, head.size, using, unbuilt=UNBUILT_LIMIT)
    return verify_consistency(size, head.size, root, head.root, proof)
