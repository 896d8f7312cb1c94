"""Building the tree's tiles (C2SP tlog-tiles) behind the log's end, so that proofs read few rows.

Tiles follow from the entries: who builds one twice builds the same. audit.verifier compares them.
"""

from __future__ import annotations

from django.db import IntegrityError, connections, transaction

from audit.merkle import HASH_SIZE, root_of
from audit.models import Entry, Tile
from audit.store import read_head

WIDTH = 256  # hashes in a tile
# Tiles of level 0 that one transaction writes, with those above them.
BATCH = 64


def split(hashes: bytes) -> list[bytes]:
    """Return the hashes of a tile, one by one."""
    return [hashes[at : at + HASH_SIZE] for at in range(0, len(hashes), HASH_SIZE)]


def covered(using: str = "default") -> int:
    """Return the number of entries whose leaf hashes are in tiles: 0 up to it, without a gap."""
    return _next(using, 0) * WIDTH


def build(using: str = "default", limit: int = 1000) -> int:
    """Build up to `limit` full tiles of level 0 that aren't there yet, and all that they complete.

    Returns how many of level 0 were built. Two processes at once do no harm. Raises
    django.db.Error where the database can't be written.
    """
    end = read_head(connections[using]).size // WIDTH
    built = 0
    while built < limit:
        start = _next(using, 0)
        count = min(end - start, limit - built, BATCH)
        if count <= 0:
            break
        try:
            with transaction.atomic(using=using):
                tiles = _leaves(using, start, count)
                Tile.objects.using(using).bulk_create(tiles)
        except IntegrityError:
            if _next(using, 0) == start:
                break  # the database refuses it: the verifier says why
            continue  # somebody else was quicker; look again where to begin
        built += len(tiles)
        if len(tiles) < count:
            break  # a hole in the entries; nothing is built beyond it
    _build_above(using)
    return built


def _next(using: str, level: int) -> int:
    rows = Tile.objects.using(using).filter(level=level).order_by("-number")
    last = rows.values_list("number", flat=True).first()
    return 0 if last is None else last + 1


def _tile(level: int, number: int, hashes: list[bytes]) -> Tile:
    return Tile(level=level, number=number, hashes=b"".join(hashes), root=root_of(hashes))


def _leaves(using: str, start: int, count: int) -> list[Tile]:
    """Return up to `count` tiles of level 0 from tile `start` on, as far as no entry is missing."""
    first, end = start * WIDTH, (start + count) * WIDTH
    rows = Entry.objects.using(using).filter(index__gte=first, index__lt=end)
    found = {index: bytes(leaf) for index, leaf in rows.values_list("index", "leaf_hash")}
    # Up to the first that misses a row: no tile is built over a hole, the verifier names it.
    made: list[Tile] = []
    for number in range(start, start + count):
        hashes = [found[at] for at in range(number * WIDTH, (number + 1) * WIDTH) if at in found]
        if len(hashes) < WIDTH:
            break
        made.append(_tile(0, number, hashes))
    return made


def _build_above(using: str) -> None:
    """Build the tiles of the levels above whose 256 tiles below are all there."""
    level = 1
    while (below := _next(using, level - 1)) >= WIDTH:
        for number in range(_next(using, level), below // WIDTH):
            first = number * WIDTH
            rows = Tile.objects.using(using).filter(
                level=level - 1, number__gte=first, number__lt=first + WIDTH
            )
            roots = [bytes(one) for one in rows.order_by("number").values_list("root", flat=True)]
            if len(roots) < WIDTH:
                return  # a tile is missing below
            try:
                with transaction.atomic(using=using):
                    _tile(level, number, roots).save(using=using, force_insert=True)
            except IntegrityError:
                break
        level += 1
