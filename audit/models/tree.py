"""The tree's inner hashes, in tiles (C2SP tlog-tiles): derived from the entries, never changed."""

from __future__ import annotations

from django.db import models


class Tile(models.Model):
    """256 hashes of one height: at level L each covers 256^L entries. Only full tiles are kept.

    Tile N of level L covers the entries from N * 256^(L+1); level 0 holds leaf hashes. `hashes` is
    256 * 32 bytes. What the tiles don't cover yet is hashed from the entries.
    """

    pk = models.CompositePrimaryKey("level", "number")
    level = models.SmallIntegerField()
    number = models.BigIntegerField()
    hashes = models.BinaryField(max_length=256 * 32)
    root = models.BinaryField(max_length=32)  # of these 256: one hash of the level above

    def __str__(self) -> str:
        return f"tile {self.level}/{self.number}"
