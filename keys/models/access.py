"""Who may do what: principals, their credentials, their grants."""

from __future__ import annotations

import uuid

from django.conf import settings
from django.db import models
from django.db.models import Q

from keys.callers import Kind, Role


class Installation(models.Model):
    """One row, written when set-up is done. While it is there, set-up stays closed."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    set_up_at = models.DateTimeField()

    class Meta:
        constraints = [models.CheckConstraint(condition=Q(id=1), name="one_installation")]

    def __str__(self) -> str:
        return f"set up {self.set_up_at:%Y-%m-%d}"


class Principal(models.Model):
    """A person, an application, or a service of our own. Ids are never used again."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    kind = models.CharField(max_length=16, choices=[(kind.value, kind.value) for kind in Kind])
    name = models.CharField(max_length=128)
    name_folded = models.CharField(max_length=256, unique=True)
    role = models.CharField(max_length=16, blank=True, choices=[(r.value, r.value) for r in Role])
    description = models.CharField(max_length=500, blank=True)
    # How a person signs in; the account's own flags (staff, superuser) mean nothing here.
    user = models.OneToOneField(
        settings.AUTH_USER_MODEL,
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="principal",
    )
    active = models.BooleanField(default=True)
    demo = models.BooleanField(default=False)
    created_at = models.DateTimeField()

    class Meta:
        ordering = ["name_folded"]
        constraints = [
            models.CheckConstraint(
                condition=Q(kind=Kind.APPLICATION, role="") | ~Q(kind=Kind.APPLICATION),
                name="applications_have_no_role",
            ),
        ]

    def __str__(self) -> str:
        return self.name


class Limit(models.Model):
    """How much an application may use keys, where somebody set that. Null: as much as it likes."""

    principal = models.OneToOneField(
        Principal, on_delete=models.PROTECT, primary_key=True, related_name="limit"
    )
    # Uses a second, and how many at once after a rest.
    rate = models.PositiveIntegerField(null=True, blank=True)
    burst = models.PositiveIntegerField(null=True, blank=True)
    # Uses in a day (UTC).
    quota = models.PositiveBigIntegerField(null=True, blank=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(rate__isnull=False) | Q(burst__isnull=True, quota__isnull=False),
                name="limit_limits_something",
            ),
            models.CheckConstraint(
                condition=(Q(rate__isnull=True) | Q(rate__gte=1))
                & (Q(burst__isnull=True) | Q(burst__gte=1))
                & (Q(quota__isnull=True) | Q(quota__gte=1)),
                name="limit_allows_something",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.principal_id}: {self.rate} a second, {self.quota} a day"


class QuotaCount(models.Model):
    """How much of a day's quota was handed out to processes, in blocks.

    What a process that died had not used stays counted: never too few, at most a block too many.
    """

    principal = models.OneToOneField(
        Principal, on_delete=models.PROTECT, primary_key=True, related_name="quota_count"
    )
    day = models.DateField()
    leased = models.PositiveBigIntegerField(default=0)

    def __str__(self) -> str:
        return f"{self.principal_id}: {self.leased} on {self.day}"


class Credential(models.Model):
    """What an application proves itself with. Only a digest is kept; the secret is shown once."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    principal = models.ForeignKey(Principal, on_delete=models.PROTECT, related_name="credentials")
    kind = models.CharField(max_length=16, default="bearer")
    # SHA-256 of a token of 256 random bits, in hex: nothing to guess, so no slow hash is needed.
    digest = models.CharField(max_length=64, unique=True)
    hint = models.CharField(max_length=16)
    source_networks = models.JSONField(default=list, blank=True)
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return f"{self.principal_id} {self.hint}…"


class Grant(models.Model):
    """A principal may do these operations with one key, or with every key of a classification.

    Conditions: `context` pairs that the request's context must contain, a time span, networks.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    principal = models.ForeignKey(Principal, on_delete=models.PROTECT, related_name="grants")
    key = models.ForeignKey(
        "keys.Key", on_delete=models.PROTECT, null=True, blank=True, related_name="grants"
    )
    classification = models.ForeignKey(
        "keys.Classification",
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="grants",
    )
    operations = models.JSONField()
    context = models.JSONField(default=dict, blank=True)
    not_before = models.DateTimeField(null=True, blank=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    source_networks = models.JSONField(default=list, blank=True)
    created_at = models.DateTimeField()
    created_by = models.ForeignKey(Principal, on_delete=models.PROTECT, related_name="+")
    revoked_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-created_at"]
        constraints = [
            models.CheckConstraint(
                condition=Q(key__isnull=False, classification__isnull=True)
                | Q(key__isnull=True, classification__isnull=False),
                name="grant_names_key_or_classification",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.principal_id}: {', '.join(self.operations)}"
