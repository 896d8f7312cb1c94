"""Many items, one decision, one entry: what a batch is, and the Merkle root over its items.

A leaf is the item's outcome in canonical JSON (RFC 8785); the root over all leaves (RFC 6962, 2.1)
stands in the entry. Who has an item's ciphertext or signature can show later that it was part of
the batch; who has only the entry learns nothing of the items. docs/api.md says how to recompute it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from audit import merkle
from keys.errors import KeyServiceError

R = TypeVar("R")

ALL_FAILED, SOME_FAILED = "all_items_failed", "some_items_failed"


@dataclass(frozen=True, slots=True)
class Item:
    """What one item is asked with: an operation's own arguments."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Done(Generic[R]):
    """One item's end. `evidence` is what its leaf commits to: a ciphertext, a signature, a MAC."""

    result: R | None
    error: KeyServiceError | None
    version: int | None
    evidence: bytes

    def leaf(self, position: int) -> bytes:
        """Return the item's leaf, counted from 0."""
        code = self.error.code if self.error is not None else ""
        digest = hashlib.sha256(self.evidence).hexdigest() if self.evidence else ""
        return (
            f'{{"error":"{code}","evidence":"{digest}","item":{position},"version":{self.version or 0}}}'
        ).encode()


@dataclass(frozen=True, slots=True)
class Batch(Generic[R]):
    """A batch's end: each item's, in order, and the entry that holds the root (hex) over them."""

    entry: str
    root: str
    items: tuple[Done[R], ...]


def root_of(items: Sequence[Done[Any]]) -> str:
    """Return the Merkle root over the items' leaves, in hex."""
    leaves = (merkle.leaf_hash(done.leaf(position)) for position, done in enumerate(items))
    return merkle.root_of(leaves).hex()
