"""Merkle tree hashes and proofs as in RFC 6962 §2.1 and RFC 9162 §2.1, over SHA-256."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence

HASH_SIZE = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()

# (start, end) -> the tree hash of the leaves start..end-1; end > start.
RangeHash = Callable[[int, int], bytes]


def leaf_hash(entry: bytes) -> bytes:
    """Return the hash of a leaf: SHA-256(0x00 || entry)."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node: SHA-256(0x01 || left || right)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class Frontier:
    """The right edge of a tree: the roots of its perfect subtrees, the largest first.

    All that is needed to append a leaf and to know the root; one hash for each 1 bit of `size`.
    """

    __slots__ = ("_hashes", "size")

    def __init__(self, size: int = 0, hashes: Sequence[bytes] = ()) -> None:
        if size < 0 or len(hashes) != size.bit_count():
            raise ValueError(f"a tree of {size} leaves has {size.bit_count()} subtrees")
        if any(len(item) != HASH_SIZE for item in hashes):
            raise ValueError("a hash has 32 bytes")
        self.size = size
        self._hashes = list(hashes)

    def append(self, leaf: bytes) -> None:
        """Add a leaf, given its hash: amortised O(1)."""
        carry, size = leaf, self.size
        while size & 1:  # a perfect subtree of the same height stands to the left
            carry = node_hash(self._hashes.pop(), carry)
            size >>= 1
        self._hashes.append(carry)
        self.size += 1

    def extend(self, leaves: Iterable[bytes]) -> None:
        """Add leaves, given their hashes."""
        for leaf in leaves:
            self.append(leaf)

    def root(self) -> bytes:
        """Return the tree's root hash; SHA-256("") for an empty tree."""
        if not self._hashes:
            return EMPTY_ROOT
        root = self._hashes[-1]
        for left in reversed(self._hashes[:-1]):
            root = node_hash(left, root)
        return root

    def subtrees(self) -> list[tuple[int, int, bytes]]:
        """Return (start, end, hash) of each perfect subtree, from left to right."""
        result, start = [], 0
        for level, hash_ in zip(self._levels(), self._hashes, strict=True):
            result.append((start, start + (1 << level), hash_))
            start += 1 << level
        return result

    def _levels(self) -> list[int]:
        return [bit for bit in reversed(range(self.size.bit_length())) if self.size >> bit & 1]

    def to_bytes(self) -> bytes:
        """Return the hashes, one after the other; `from_bytes` needs the size beside them."""
        return b"".join(self._hashes)

    @classmethod
    def from_bytes(cls, size: int, data: bytes) -> Frontier:
        """Return the frontier of a tree of `size` leaves. Raises ValueError where unfit."""
        if len(data) % HASH_SIZE:
            raise ValueError("a frontier is a row of 32-byte hashes")
        return cls(size, [data[at : at + HASH_SIZE] for at in range(0, len(data), HASH_SIZE)])


def root_of(leaves: Iterable[bytes]) -> bytes:
    """Return the root over leaf hashes."""
    frontier = Frontier()
    frontier.extend(leaves)
    return frontier.root()


def _split(size: int) -> int:
    """Return the largest power of two smaller than `size` (> 1)."""
    return 1 << (size - 1).bit_length() - 1


def inclusion_proof(index: int, size: int, get_hash: RangeHash) -> list[bytes]:
    """Return the audit path of leaf `index` in the tree of `size` leaves (RFC 6962 §2.1.1).

    `get_hash(start, end)` gives the tree hash of a range. Raises ValueError for a leaf outside.
    """
    if not 0 <= index < size:
        raise ValueError(f"there is no leaf {index} in a tree of {size}")
    path, start, end = [], 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            path.append(get_hash(middle, end))
            end = middle
        else:
            path.append(get_hash(start, middle))
            start = middle
    return path[::-1]


def _are_hashes(proof: Sequence[bytes]) -> bool:
    """Tell whether every step is a hash: a longer and a shorter one together could make a known node."""
    return all(len(step) == HASH_SIZE for step in proof)


def verify_inclusion(
    leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes
) -> bool:
    """Tell whether `proof` shows the leaf hash at `index` under `root` (RFC 9162 §2.1.3.2)."""
    if not 0 <= index < size or not _are_hashes(proof):
        return False
    node, last, result = index, size - 1, leaf
    for step in proof:
        if last == 0:
            return False
        if node & 1 or node == last:
            result = node_hash(step, result)
            while not node & 1 and node:
                node >>= 1
                last >>= 1
        else:
            result = node_hash(result, step)
        node >>= 1
        last >>= 1
    return last == 0 and result == root


def consistency_proof(first: int, second: int, get_hash: RangeHash) -> list[bytes]:
    """Return the proof that the tree of `first` leaves is a prefix of that of `second`.

    RFC 6962 §2.1.2. Raises ValueError unless 0 < first <= second; an empty tree is a prefix of
    every tree and needs no proof.
    """
    if not 0 < first <= second:
        raise ValueError(f"no consistency proof from {first} to {second}")
    path, start, end, whole = [], 0, second, True
    while first != end:
        middle = start + _split(end - start)
        if first <= middle:
            path.append(get_hash(middle, end))
            end = middle
        else:
            path.append(get_hash(start, middle))
            start, whole = middle, False
    if not whole:
        path.append(get_hash(start, end))
    return path[::-1]


def verify_consistency(
    first: int, second: int, first_root: bytes, second_root: bytes, proof: Sequence[bytes]
) -> bool:
    """Tell whether `proof` shows one tree to be a prefix of the other (RFC 9162 §2.1.4.2)."""
    if not _are_hashes(proof):
        return False
    if first == second:
        return not proof and first_root == second_root
    if first == 0:
        return not proof and first_root == EMPTY_ROOT and second > 0
    if not 0 < first < second:
        return False
    path = list(proof)
    if first & (first - 1) == 0:
        path.insert(0, first_root)
    if not path:
        return False
    node, last = first - 1, second - 1
    while node & 1:
        node >>= 1
        last >>= 1
    old = new = path[0]
    for step in path[1:]:
        if last == 0:
            return False
        if node & 1 or node == last:
            old, new = node_hash(step, old), node_hash(step, new)
            while not node & 1 and node:
                node >>= 1
                last >>= 1
        else:
            new = node_hash(new, step)
        node >>= 1
        last >>= 1
    return last == 0 and old == first_root and new == second_root
