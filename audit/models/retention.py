"""Bundles of entries that were written to storage outside, and what may not be let go."""

from __future__ import annotations

import uuid

from django.db import models


class Archive(models.Model):
    """A bundle of the entries start..end-1 at a place outside the database.

    Entries may be dropped from the database only where a verified bundle holds them and no legal
    hold reaches into its time; a trigger says so too. Rows stay for ever: they say where to look.
    """

    start = models.BigIntegerField(primary_key=True)
    end = models.BigIntegerField()
    first_at = models.DateTimeField()
    last_at = models.DateTimeField()
    place = models.TextField()
    name = models.TextField()
    sha256 = models.TextField()  # of the bundle's bytes
    retain_until = models.DateTimeField(null=True)
    archived_at = models.DateTimeField()
    verified_at = models.DateTimeField(null=True)  # read back from the place and compared
    dropped_at = models.DateTimeField(null=True)  # None while (or again) in the database
    restored_at = models.DateTimeField(null=True)
    restoring_at = models.DateTimeField(null=True)  # somebody began to bring it back
    # Whether the storage was told by us to hold it, and when telling it failed last, since the last
    # success.
    hold_told = models.BooleanField(default=False)
    hold_failed_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=models.Q(end__gt=models.F("start")), name="audit_archive_not_empty"
            )
        ]

    def __str__(self) -> str:
        return f"{self.start}..{self.end - 1}"


class LegalHold(models.Model):
    """Nothing between these times is dropped, and nobody's personal data erased, until released."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    name = models.TextField(unique=True)
    reason = models.TextField()
    since = models.DateTimeField()
    until = models.DateTimeField(null=True)  # None: whatever comes
    placed_by = models.UUIDField()
    placed_at = models.DateTimeField()
    released_by = models.UUIDField(null=True)
    released_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=models.Q(until__isnull=True) | models.Q(until__gt=models.F("since")),
                name="audit_hold_has_time",
            )
        ]

    def __str__(self) -> str:
        return self.name
