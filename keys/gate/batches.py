"""Many items, one decision, one entry: what a batch is, and the Merkle root over its items.

A leaf is the item's outcome in canonical JSON (RFC 8785); the root over all leaves (RFC 6962, 2.1)
stands in the entry. Who has an item's ciphertext or signature can show later that it was part of
the batch; who has only the entry learns nothing of the items. docs/api.md says how to recompute it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from audit import merkle
from audit.events import Outcome
from keys.actions import Action
from keys.errors import KeyServiceError
from keys.gate import record
from keys.gate.uses import Use

R = TypeVar("R")

ALL_FAILED, SOME_FAILED = "all_items_failed", "some_items_failed"
# An entry names so many different grants, keys or versions of its items, and no more.
NAMED = 32


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


def gathered(whole: Use, ended: Sequence[tuple[Use, Done[R]]]) -> Batch[R]:
    """Return the batch, and leave with its use, and with other keys it worked with, what their entries say."""
    done = tuple(end for _, end in ended)
    root = root_of(done)
    others: dict[tuple[str, Action], list[tuple[Use, Done[R]]]] = {}
    for use, end in ended:
        for place, other in use.others.items():
            others.setdefault(place, []).append((other, end))
    for place, part in others.items():
        whole.others[place] = part[0][0]
        _tell(part[0][0], part, root)
    _tell(whole, ended, root)
    return Batch("", root, done)


def _tell(use: Use, ended: Sequence[tuple[Use, Done[R]]], root: str) -> None:
    """Put into the facts how many items there were and what they were about; the root stands for the rest."""
    errors = [end.error for _, end in ended if end.error is not None]
    denied = sum(record.failure(error)[0] is Outcome.DENIED for error in errors)
    facts: dict[str, Any] = {"items": len(ended), "failed": len(errors), "items_root": root}
    if denied:
        facts["denied"] = denied
    for name in ("grant", "to", "from"):
        if told := _distinct(one.facts[name] for one, _ in ended if name in one.facts):
            facts[name] = told[0] if len(told) == 1 else told
    if any("valid" in one.facts for one, _ in ended):
        facts["valid"] = sum(one.facts.get("valid") is True for one, _ in ended)
    versions = _distinct(one.number for one, _ in ended if one.number is not None)
    use.number = versions[0] if len(versions) == 1 else None
    if len(versions) > 1:
        facts["versions"] = sorted(versions)
    # Of the contexts, the entry says the names.
    use.context = {name: "" for one, _ in ended for name in one.context}
    use.facts = {**use.facts, **facts}


def _distinct(values: Iterable[Any]) -> list[Any]:
    found: list[Any] = []
    for value in values:
        if len(found) < NAMED and value not in found:
            found.append(value)
    return found


def outcome_of(use: Use) -> tuple[Outcome, str]:
    """Return how a batch went as a whole, from the facts of its use."""
    items, failed = use.facts["items"], use.facts["failed"]
    if not failed:
        return Outcome.SUCCESS, ""
    if failed < items:
        return Outcome.SUCCESS, SOME_FAILED
    denied = use.facts.get("denied", 0) == items
    return Outcome.DENIED if denied else Outcome.FAILED, ALL_FAILED
