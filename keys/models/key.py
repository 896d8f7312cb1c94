"""Keys and their versions: the named thing, and the material behind it."""

from __future__ import annotations

import uuid

from django.db import models
from django.db.models import F, Q

from keys.algorithms import SPEC_CHOICES, USAGE_CHOICES
from keys.states import Condition, KeyState, VersionState


class Origin(models.TextChoices):
    """Where the material came from (KMIP: generated in the store, or registered with it)."""

    GENERATED = "generated", "Generated in the key store"
    IMPORTED = "imported", "Imported"


class ManagementModel(models.TextChoices):
    """Who holds the reins; each key shows it beside its origin and protection level."""

    PROVIDER_MANAGED = "provider-managed", "Provider-managed"
    CUSTOMER_MANAGED = "customer-managed", "Customer-managed"
    CUSTOMER_PROVIDED = "customer-provided", "Customer-provided (BYOK)"
    HSM_BACKED = "hsm-backed", "HSM-backed"


class Key(models.Model):
    """A named key. Its state is written by keys.lifecycle alone."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=128)
    alias = models.CharField(max_length=128, unique=True)
    description = models.CharField(max_length=500, blank=True)
    labels = models.JSONField(default=dict, blank=True)
    owner = models.CharField(max_length=128, blank=True)
    classification = models.ForeignKey(
        "keys.Classification", on_delete=models.PROTECT, related_name="keys"
    )
    key_store = models.ForeignKey("keys.KeyStore", on_delete=models.PROTECT, related_name="keys")
    spec = models.CharField(max_length=32, choices=SPEC_CHOICES)
    usage = models.CharField(max_length=32, choices=USAGE_CHOICES)
    algorithm = models.CharField(max_length=64)
    origin = models.CharField(max_length=16, choices=Origin.choices)
    model = models.CharField(max_length=24, choices=ManagementModel.choices)
    state = models.CharField(max_length=24, choices=KeyState.choices)
    # Decided when the key is made, and never again: whether its material may leave, by votes.
    exportable = models.BooleanField(default=False)
    # Whether it was there before the console: found in its store, and taken over as it was.
    adopted = models.BooleanField(default=False)
    # How many days ahead of a rotation the next version is made and published; null: it is not.
    publish_days = models.PositiveSmallIntegerField(null=True, blank=True)
    # This key's own period, shorter than its classification's, or null.
    rotation_days = models.PositiveIntegerField(null=True, blank=True)
    rotate_at = models.DateTimeField(null=True, blank=True)
    destroy_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField()
    created_by = models.ForeignKey("keys.Principal", on_delete=models.PROTECT, related_name="+")

    class Meta:
        ordering = ["alias"]
        constraints = [
            models.CheckConstraint(
                condition=Q(state=KeyState.PENDING_DESTRUCTION, destroy_at__isnull=False)
                | ~Q(state=KeyState.PENDING_DESTRUCTION),
                name="pending_destruction_has_a_date",
            ),
        ]
        indexes = [
            # What is due is found among a million keys without a scan.
            models.Index(
                fields=["rotate_at"], condition=Q(state="enabled"), name="key_rotation_due"
            ),
            models.Index(
                fields=["publish_days", "rotate_at"],
                condition=Q(state="enabled", publish_days__isnull=False),
                name="key_publication_due",
            ),
            models.Index(fields=["name", "id"], name="key_by_name"),
        ]

    def __str__(self) -> str:
        return self.alias


class KeyVersion(models.Model):
    """One version's material, by handle. Its id is also the label under which the store knows it."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    key = models.ForeignKey(Key, on_delete=models.PROTECT, related_name="versions")
    number = models.PositiveIntegerField()
    state = models.CharField(max_length=24, choices=VersionState.choices)
    condition = models.CharField(max_length=24, choices=Condition.choices, blank=True)
    primary = models.BooleanField(default=False)
    handle = models.CharField(max_length=500, blank=True)
    check_value = models.CharField(max_length=64, blank=True)
    public_key = models.BinaryField(null=True, blank=True)
    created_at = models.DateTimeField()
    created_by = models.ForeignKey("keys.Principal", on_delete=models.PROTECT, related_name="+")
    # When the material came to be: its activation here, or the recorded date of an import.
    originated_at = models.DateTimeField(null=True, blank=True)
    activated_at = models.DateTimeField(null=True, blank=True)
    protect_until = models.DateTimeField(null=True, blank=True)
    process_until = models.DateTimeField(null=True, blank=True)
    # Of imported material: when it is removed; it can be imported again.
    material_expires_at = models.DateTimeField(null=True, blank=True)
    deactivated_at = models.DateTimeField(null=True, blank=True)
    compromised_at = models.DateTimeField(null=True, blank=True)
    destroy_at = models.DateTimeField(null=True, blank=True)
    destroyed_at = models.DateTimeField(null=True, blank=True)
    state_reason = models.CharField(max_length=500, blank=True)

    class Meta:
        ordering = ["key", "-number"]
        constraints = [
            models.UniqueConstraint(fields=["key", "number"], name="version_number_once"),
            models.UniqueConstraint(
                fields=["key"], condition=Q(primary=True), name="one_primary_version"
            ),
            models.CheckConstraint(
                condition=Q(primary=False) | Q(state__in=["active", "suspended"]),
                name="primary_has_served",
            ),
        ]

        indexes = [
            models.Index(
                fields=["material_expires_at"],
                condition=Q(material_expires_at__isnull=False, condition=""),
                name="material_expiry_due",
            ),
            models.Index(fields=["check_value"], name="version_by_check_value"),
        ]

    def __str__(self) -> str:
        return f"version {self.number}"


class MessageCount(models.Model):
    """How many messages of a version's budget were handed out to processes, in blocks.

    What a process that died had not used stays counted: never too few, at most a block too many.
    """

    version = models.OneToOneField(
        KeyVersion, on_delete=models.PROTECT, primary_key=True, related_name="messages"
    )
    leased = models.PositiveBigIntegerField(default=0)
    limit = models.PositiveBigIntegerField()
    # Whether so much is gone that the key has to be rotated.
    low = models.BooleanField(default=False)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(leased__lte=F("limit")), name="budget_is_never_exceeded"
            ),
        ]
        indexes = [
            models.Index(fields=["version"], condition=Q(low=True), name="budget_low"),
        ]

    def __str__(self) -> str:
        return f"{self.leased} of {self.limit}"
