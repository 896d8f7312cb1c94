"""What people take out of the trail, and the filters they keep."""

from __future__ import annotations

import uuid

from django.db import models


class SavedFilter(models.Model):
    """A question that somebody asks again and again. `query` is what the audit page's form holds."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    owner = models.UUIDField()
    name = models.TextField()
    query = models.JSONField()
    shared = models.BooleanField(default=False)  # with everybody who may read the trail
    created_at = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["owner", "name"], name="audit_filter_once")]

    def __str__(self) -> str:
        return self.name


class Export(models.Model):
    """One export: what was asked for, of the log as it was at `size`.

    Its bytes follow from the row and the log, so that a download can be taken up again anywhere.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    principal = models.UUIDField()
    format = models.TextField()
    filters = models.JSONField()
    size = models.BigIntegerField()
    created_at = models.DateTimeField()
    # Where in the bytes which entry begins, as the first pass found it; see audit.exports.
    marks = models.JSONField(default=list)
    finished_at = models.DateTimeField(null=True)
    entries = models.BigIntegerField(null=True)
    bytes = models.BigIntegerField(null=True)

    class Meta:
        indexes = [models.Index(fields=["principal", "created_at"], name="audit_export_own")]

    def __str__(self) -> str:
        return f"{self.format} of {self.size}"
