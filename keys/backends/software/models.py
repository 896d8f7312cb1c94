"""Wrapped key material, in the database `material` (kms_console.databases sends it there)."""

from __future__ import annotations

import uuid

from django.db import models
from django.utils import timezone


class WrappedMaterial(models.Model):
    """One version's material, sealed under a root key. Only a new root key's seal ever replaces `wrapped`."""

    label = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    store_id = models.UUIDField(db_index=True)
    spec = models.CharField(max_length=40)
    wrapped = models.BinaryField()
    # Id of the root key that sealed it, as in its header: 16 hexadecimal digits.
    root_id = models.CharField(max_length=16, db_index=True, default="")
    check_value = models.CharField(max_length=16)
    public_key = models.BinaryField(null=True)
    exportable = models.BooleanField(default=False)  # also bound by the seal
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        verbose_name = "wrapped material"
        verbose_name_plural = "wrapped material"

    def __str__(self) -> str:
        return f"{self.spec} {self.label}"


class RootKey(models.Model):
    """A root key that another key store holds: wrapped by a key there, opened there at start."""

    # The id that stands in what it sealed: 16 hexadecimal digits.
    id = models.CharField(primary_key=True, max_length=16)
    wrapped = models.BinaryField()
    # Where it is opened: a row of keys.KeyStore in the metadata database, its handle and algorithm.
    store_id = models.UUIDField()
    handle = models.CharField(max_length=500)
    algorithm = models.CharField(max_length=64)
    # making: not used yet; current: seals; retiring: opens what is not sealed anew yet; retired.
    state = models.CharField(max_length=16)
    created_at = models.DateTimeField(default=timezone.now)
    retired_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["state"], condition=models.Q(state="current"), name="one_current_root_key"
            ),
        ]

    def __str__(self) -> str:
        return self.id
