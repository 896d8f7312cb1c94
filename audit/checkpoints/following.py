"""Following the log from what was signed before: only what grew from that is signed."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from audit import canonical
from audit.checkpoints.memory import Memory
from audit.errors import SignerError
from audit.merkle import HASH_SIZE, Frontier, leaf_hash
from audit.models import Archive, Entry, Tile
from audit.store import LogHead

CHUNK = 1000
WIDTH = 256  # hashes in a tile
BYTES = (bytes, bytearray, memoryview)


class Refused(SignerError):
    """The log is not what grew from what was signed. Nothing is signed until that is settled."""


class Following:
    """How far the log was read since a signing: kept over outages, so that nothing is read twice."""

    def __init__(self) -> None:
        self._since: Memory | None = None
        self._frontier = Frontier()

    def follow(
        self, memory: Memory, head: LogHead, using: str, between: Callable[[int], None]
    ) -> Frontier:
        """Do what `follow` does, from where it was when it was interrupted; Refused starts it over.

        `between` is called with the number of entries that were read, every thousand or so, and may
        interrupt by raising what it likes.
        """
        if self._since != memory or self._frontier.size > head.size:
            self._since, self._frontier = memory, memory.tree()
        try:
            return follow(memory, head, using, self._frontier, between)
        except Refused:
            self._since = None
            raise


def _no_matter(size: int) -> None:
    """Be told how far it is."""


def follow(
    memory: Memory,
    head: LogHead,
    using: str,
    frontier: Frontier | None = None,
    between: Callable[[int], None] = _no_matter,
) -> Frontier:
    """Return the frontier of the log as it is now, having read every entry since the last signing.

    Takes time in proportion to those, and constant memory; `frontier`, of entries that were read
    already, is moved on. Raises Refused.
    """
    check_head(memory, head)
    frontier = memory.tree() if frontier is None else frontier
    while frontier.size < head.size:
        between(frontier.size)
        before = frontier.size
        _entries(frontier, head.size, using)
        if frontier.size == before:
            _dropped(frontier, head.size, using)
    if frontier.root() != head.root or frontier.to_bytes() != head.frontier:
        raise Refused(
            f"The log of {head.size} entries does not continue the one of {memory.size} entries"
            " that was signed."
        )
    return frontier


def check_head(memory: Memory, head: LogHead) -> None:
    """Raise Refused where the log is smaller than what was signed, or another of the same size."""
    if head.size < memory.size:
        raise Refused(
            f"The log has {head.size} entries; {memory.size} were signed. Entries were removed."
        )
    if head.size == memory.size and head.root.hex() != memory.root:
        raise Refused(f"The log's {head.size} entries are not those that were signed.")


def _entries(frontier: Frontier, until: int, using: str) -> None:
    rows = (
        Entry.objects.using(using)
        .filter(index__gte=frontier.size, index__lt=until)
        .order_by("index")
        .values_list("index", "leaf_hash", "body")[:CHUNK]
    )
    for index, leaf, body in list(rows):
        if index != frontier.size:
            return  # a gap: who called us looks whether it may be there
        if not isinstance(leaf, BYTES) or not isinstance(body, BYTES):
            raise Refused(f"Entry {index} is not kept as bytes.")
        data = bytes(body)
        if leaf_hash(data) != bytes(leaf):
            raise Refused(f"Entry {index} does not match its hash.")
        if not _sound(data, index):
            raise Refused(f"Entry {index} does not have the form of an entry.")
        frontier.append(bytes(leaf))


def _sound(data: bytes, index: int) -> bool:
    """Whether an entry is canonical JSON and says its own index."""
    try:
        body = msgspec.json.decode(data)
        return (
            isinstance(body, dict) and body.get("index") == index and canonical.encode(body) == data
        )
    except (ValueError, TypeError, RecursionError, msgspec.DecodeError):
        return False


def _dropped(frontier: Frontier, until: int, using: str) -> None:
    """Take hashes of entries that were archived and dropped from their tile. Raises Refused."""
    index = frontier.size
    archived = Archive.objects.using(using).filter(
        start__lte=index, end__gt=index, dropped_at__isnull=False
    )
    ends = archived.order_by("-end").values_list("end", flat=True)
    end = ends.first()
    tile = Tile.objects.using(using).filter(level=0, number=index // WIDTH)
    hashes = tile.values_list("hashes", flat=True).first() if end is not None else None
    if end is None or hashes is None:
        raise Refused(f"Entry {index} is missing.")
    data = bytes(hashes)
    last = min(end, until, (index // WIDTH + 1) * WIDTH)
    for at in range(index % WIDTH, last - index // WIDTH * WIDTH):
        frontier.append(data[at * HASH_SIZE : (at + 1) * HASH_SIZE])
