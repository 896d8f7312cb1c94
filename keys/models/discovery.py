"""What was found in a key store: one listing, and a row for each key in it."""

from __future__ import annotations

import uuid

from django.db import models
from django.db.models import Q


class ListingState(models.TextChoices):
    RUNNING = "running", "Running"
    DONE = "done", "Done"
    FAILED = "failed", "Failed"


class Listing(models.Model):
    """One walk through a key store, page by page; a killed one goes on from its cursor."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    key_store = models.ForeignKey(
        "keys.KeyStore", on_delete=models.PROTECT, related_name="listings"
    )
    state = models.CharField(
        max_length=16, choices=ListingState.choices, default=ListingState.RUNNING
    )
    cursor = models.TextField(blank=True)
    pages = models.PositiveIntegerField(default=0)
    found = models.PositiveIntegerField(default=0)
    total = models.PositiveIntegerField(null=True, blank=True)  # where the store says how many
    error = models.CharField(max_length=500, blank=True)
    attempts = models.PositiveSmallIntegerField(default=0)
    requested_by = models.ForeignKey("keys.Principal", on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField()
    run_after = models.DateTimeField()
    claimed_by = models.CharField(max_length=128, blank=True)
    lease_until = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-created_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["key_store"], condition=Q(state="running"), name="one_listing_at_a_time"
            ),
        ]
        indexes = [
            models.Index(fields=["run_after"], condition=Q(state="running"), name="listing_due"),
        ]

    def __str__(self) -> str:
        return f"listing of {self.key_store_id}"


class FoundKey(models.Model):
    """A key as a listing found it. Which of them are the console's is asked when they are shown."""

    listing = models.ForeignKey(Listing, on_delete=models.CASCADE, related_name="keys")
    reference = models.CharField(max_length=500)
    name = models.CharField(max_length=256)
    # keys.backends.views.KeyView as plain values.
    view = models.JSONField()

    class Meta:
        ordering = ["listing", "name", "reference"]
        constraints = [
            models.UniqueConstraint(fields=["listing", "reference"], name="found_once"),
        ]

    def __str__(self) -> str:
        return self.reference
