"""The search index: which entries hold which term. Derived from the entries by audit.index."""

from __future__ import annotations

from django.db import models


class Block(models.Model):
    """A run of 4,096 entries whose terms are indexed; blocks are indexed in order, without gaps."""

    number = models.BigIntegerField(primary_key=True)
    first_at = models.DateTimeField()  # the earliest and the latest time in it
    last_at = models.DateTimeField()

    def __str__(self) -> str:
        return f"block {self.number}"


class Posting(models.Model):
    """The entries of one block that hold one term; see audit.index for the bytes."""

    pk = models.CompositePrimaryKey("term", "block")
    term = models.TextField()
    block = models.BigIntegerField()
    entries = models.BinaryField()

    def __str__(self) -> str:
        return f"{self.term} in {self.block}"
