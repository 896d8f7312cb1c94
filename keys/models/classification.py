"""Classifications: the policy that every key of one kind of data follows."""

from __future__ import annotations

import uuid

from django.db import models
from django.db.models import F, Q

from keys.backends.base import Protection


class Classification(models.Model):
    """What keys for one class of data may be, how long they serve, and who must agree.

    Days count from a version's activation (for imports: from the recorded origination).
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=128, unique=True)
    title = models.CharField(max_length=128)
    description = models.CharField(max_length=500, blank=True)
    allowed_specs = models.JSONField()
    minimum_protection = models.CharField(
        max_length=16, choices=[(p.value, p.value) for p in Protection]
    )
    key_stores = models.ManyToManyField("keys.KeyStore", related_name="classifications", blank=True)
    rotation_days = models.PositiveIntegerField(default=365)
    rotation_paused = models.BooleanField(default=False)
    rotation_paused_reason = models.CharField(max_length=500, blank=True)
    # SP 800-57 part 1 rev. 5, table 1: how long a version may protect, and be used on what it protected.
    originator_days = models.PositiveIntegerField(default=730)
    recipient_days = models.PositiveIntegerField(default=1825)
    # Null: one officer acts alone. Else M officers other than the requester must agree, of at least N.
    quorum_m = models.PositiveSmallIntegerField(null=True, blank=True)
    quorum_n = models.PositiveSmallIntegerField(null=True, blank=True)
    destruction_days = models.PositiveSmallIntegerField(default=30)
    # Whether a suspended version still decrypts and verifies.
    suspended_decrypts = models.BooleanField(default=False)
    # Whether keys can be made exportable at all; exporting always needs votes.
    allows_export = models.BooleanField(default=False)
    created_at = models.DateTimeField()

    class Meta:
        ordering = ["name"]
        constraints = [
            models.CheckConstraint(
                condition=Q(quorum_m__isnull=True, quorum_n__isnull=True)
                | Q(quorum_m__gte=2, quorum_n__gte=F("quorum_m") + 1),
                name="quorum_is_two_or_more_of_more",
            ),
            models.CheckConstraint(
                condition=Q(rotation_days__gte=1), name="rotation_at_least_a_day"
            ),
            models.CheckConstraint(
                condition=Q(originator_days__gte=F("rotation_days")),
                name="originator_covers_rotation",
            ),
            models.CheckConstraint(
                condition=Q(recipient_days__gte=F("originator_days")),
                name="recipient_covers_originator",
            ),
            models.CheckConstraint(
                condition=Q(destruction_days__gte=1, destruction_days__lte=120),
                name="destruction_1_to_120_days",
            ),
        ]

    def __str__(self) -> str:
        return self.title
