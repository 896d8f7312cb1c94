"""How far each stream to a SIEM has come."""

from __future__ import annotations

from django.db import models


class Cursor(models.Model):
    """The next entry that a stream has to deliver; everything before it was taken by the receiver."""

    stream = models.TextField(primary_key=True)
    next = models.BigIntegerField(default=0)
    delivered_at = models.DateTimeField(null=True)
    failing_since = models.DateTimeField(null=True)
    problem = models.TextField(default="")
    # A lease: which keeper delivers now, and when another one may take over.
    holder = models.TextField(default="")
    held_until = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return f"{self.stream} {self.next}"
