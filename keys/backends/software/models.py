"""Wrapped key material, in the database `material` (kms_console.databases sends it there)."""

from __future__ import annotations

import uuid

from django.db import models
from django.utils import timezone


class WrappedMaterial(models.Model):
    """One version's material, sealed under the root key. Rows are made, then deleted, not changed."""

    label = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    store_id = models.UUIDField(db_index=True)
    spec = models.CharField(max_length=40)
    wrapped = models.BinaryField()
    check_value = models.CharField(max_length=16)
    public_key = models.BinaryField(null=True)
    exportable = models.BooleanField(default=False)  # also bound by the seal
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        verbose_name = "wrapped material"
        verbose_name_plural = "wrapped material"

    def __str__(self) -> str:
        return f"{self.spec} {self.label}"
