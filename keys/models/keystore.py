"""Key stores: configured instances of a backend."""

from __future__ import annotations

import uuid

from django.db import models

from keys.backends.base import Protection


class KeyStore(models.Model):
    """One place where key material lives.

    `settings` never hold a secret; `credentials` says where it is found: `env:NAME` or `file:/path`.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=128, unique=True)
    title = models.CharField(max_length=128)
    kind = models.CharField(max_length=16)
    settings = models.JSONField(default=dict, blank=True)
    credentials = models.CharField(max_length=500, blank=True)
    protection = models.CharField(max_length=16, choices=[(p.value, p.value) for p in Protection])
    enabled = models.BooleanField(default=True)
    created_at = models.DateTimeField()
    # The last health check; written by the sweep, not part of the configuration.
    checked_at = models.DateTimeField(null=True, blank=True)
    healthy = models.BooleanField(null=True, blank=True)
    health_detail = models.CharField(max_length=500, blank=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.title
