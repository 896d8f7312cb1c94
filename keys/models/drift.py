"""What a key's store last said of it, and where that differs from what the console believes."""

from __future__ import annotations

import uuid

from django.db import models
from django.db.models import Q


class StoreView(models.Model):
    """The store's side of one key: what it last said, and what the console takes for granted there."""

    key = models.OneToOneField(
        "keys.Key", on_delete=models.PROTECT, primary_key=True, related_name="store_view"
    )
    # keys.backends.views.KeyView as plain values; {} where nothing of the key was there.
    seen = models.JSONField(default=dict, blank=True)
    seen_at = models.DateTimeField(null=True, blank=True)
    # Why the store could not be asked the last time, or empty.
    trouble = models.CharField(max_length=500, blank=True)
    # What the console has no columns of its own for, as it was when the key was made or adopted, or
    # as it was accepted since. Null: not looked at yet.
    rotation_days = models.PositiveIntegerField(null=True, blank=True)
    tags = models.JSONField(null=True, blank=True)
    # When it is to be looked at next.
    look_at = models.DateTimeField()

    class Meta:
        indexes = [models.Index(fields=["look_at"], name="store_view_due")]

    def __str__(self) -> str:
        return f"the store's view of {self.key_id}"


class DriftField(models.TextChoices):
    """What can differ."""

    KEY_MISSING = "key_missing", "The key is not there"
    KEY_STATE = "key_state", "Key state"
    DESTRUCTION = "destruction", "Destruction date"
    VERSION_MISSING = "version_missing", "A version is not there"
    VERSION_UNKNOWN = "version_unknown", "A version the console doesn't know"
    VERSION_STATE = "version_state", "Version state"
    VERSION_DESTRUCTION = "version_destruction", "A version's destruction date"
    PRIMARY = "primary", "Primary version"
    MATERIAL = "material", "Key material"
    ROTATION = "rotation", "Automatic rotation by the store"
    TAGS = "tags", "Tags"


class DriftState(models.TextChoices):
    OPEN = "open", "Open"
    ACCEPTED = "accepted", "Accepted"
    REPAIRED = "repaired", "Repaired"
    REVERTED = "reverted", "Reverted"
    GONE = "gone", "Gone by itself"


class Drift(models.Model):
    """One difference. While it is open, a key has one of each field and handle."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    key = models.ForeignKey("keys.Key", on_delete=models.PROTECT, related_name="drifts")
    field = models.CharField(max_length=24, choices=DriftField.choices)
    # The version's handle and number, where it is about one; number 0: about the whole key, or a
    # version that the console has no number for.
    handle = models.CharField(max_length=500, blank=True)
    number = models.PositiveIntegerField(default=0)
    # Plain values, for a person to read and for the decision to act on.
    believed = models.JSONField(null=True, blank=True)
    observed = models.JSONField(null=True, blank=True)
    state = models.CharField(max_length=16, choices=DriftState.choices, default=DriftState.OPEN)
    found_at = models.DateTimeField()
    seen_at = models.DateTimeField()
    decided_at = models.DateTimeField(null=True, blank=True)
    decided_by = models.ForeignKey(
        "keys.Principal", on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    reason = models.CharField(max_length=500, blank=True)

    class Meta:
        ordering = ["-found_at", "id"]
        constraints = [
            models.UniqueConstraint(
                fields=["key", "field", "handle"],
                condition=Q(state="open"),
                name="one_open_drift_of_a_kind",
            ),
        ]
        indexes = [
            models.Index(fields=["found_at"], condition=Q(state="open"), name="drift_open"),
        ]

    def __str__(self) -> str:
        return f"{self.field} of {self.key_id}"
