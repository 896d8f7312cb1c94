"""Bringing one's own key: import tickets, and the ceremonies in which officers bring one together.

No secret stands here. A ticket's wrapping key and a ceremony's components are in the material
database, under the row's id as their label.
"""

from __future__ import annotations

import uuid

from django.db import models
from django.db.models import Q


class ImportTicket(models.Model):
    """Leave to bring material for one key, wrapped under a key made for that: once, within a day."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    key = models.ForeignKey("keys.Key", on_delete=models.PROTECT, related_name="import_tickets")
    spec = models.CharField(max_length=32)  # of the wrapping key: RSA_3072 or RSA_4096
    digest = models.CharField(max_length=64, unique=True)  # SHA-256 of the token, in hex
    created_by = models.ForeignKey("keys.Principal", on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    used_at = models.DateTimeField(null=True, blank=True)
    # Whether the wrapping key is gone from the material database.
    cleared = models.BooleanField(default=False)

    class Meta:
        ordering = ["-created_at"]
        indexes = [
            models.Index(
                fields=["expires_at"], condition=Q(cleared=False), name="ticket_to_be_cleared"
            ),
        ]

    def __str__(self) -> str:
        return f"import ticket {self.id}"


class CeremonyState(models.TextChoices):
    OPEN = "open", "Under way"
    DONE = "done", "Done"
    CANCELLED = "cancelled", "Cancelled"


class Ceremony(models.Model):
    """Officers bringing one key's material together. `split`: each brings a component (XOR)."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    key = models.ForeignKey("keys.Key", on_delete=models.PROTECT, related_name="ceremonies")
    split = models.BooleanField(default=False)
    state = models.CharField(
        max_length=16, choices=CeremonyState.choices, default=CeremonyState.OPEN
    )
    # Of the whole material, once it is known.
    check_value = models.CharField(max_length=64, blank=True)
    place = models.CharField(max_length=256, blank=True)  # for the minutes
    opened_by = models.ForeignKey("keys.Principal", on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    closed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-created_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["key"], condition=Q(state="open"), name="one_open_ceremony_per_key"
            ),
        ]

    def __str__(self) -> str:
        return f"ceremony {self.id}"


class Custodian(models.Model):
    """One officer's part in a ceremony. Its id is the label of the component, where there is one."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    ceremony = models.ForeignKey(Ceremony, on_delete=models.PROTECT, related_name="custodians")
    officer = models.ForeignKey("keys.Principal", on_delete=models.PROTECT, related_name="+")
    number = models.PositiveSmallIntegerField()  # from 1, in the order of being named
    check_value = models.CharField(max_length=64, blank=True)  # of the component
    entered_at = models.DateTimeField(null=True, blank=True)
    # When the officer compared the whole material's check value, and found it right.
    confirmed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["ceremony", "number"]
        constraints = [
            models.UniqueConstraint(fields=["ceremony", "officer"], name="one_part_per_officer"),
            models.UniqueConstraint(fields=["ceremony", "number"], name="custodian_number_once"),
        ]

    def __str__(self) -> str:
        return f"custodian {self.number}"
