"""Requests that wait for officers, and their votes."""

from __future__ import annotations

import uuid

from django.db import models
from django.db.models import Q


class ApprovalState(models.TextChoices):
    OPEN = "open", "Waiting for votes"
    APPROVED = "approved", "Approved"
    REJECTED = "rejected", "Rejected"
    WITHDRAWN = "withdrawn", "Withdrawn"
    EXPIRED = "expired", "Expired"
    VOID = "void", "Void"
    EXECUTED = "executed", "Carried out"
    FAILED = "failed", "Failed"


class Approval(models.Model):
    """One action that waits for M officers. `digest` covers everything they agree to."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    action = models.CharField(max_length=48)
    subject_kind = models.CharField(max_length=24)
    subject_id = models.CharField(max_length=64)
    subject_name = models.CharField(max_length=256)
    key = models.ForeignKey(
        "keys.Key", on_delete=models.PROTECT, null=True, blank=True, related_name="approvals"
    )
    parameters = models.JSONField()
    requester = models.ForeignKey(
        "keys.Principal", on_delete=models.PROTECT, related_name="requests"
    )
    reason = models.CharField(max_length=500, blank=True)
    # The canonical request (RFC 8785) as voted on, kept verbatim, and its SHA-256 in hex.
    request = models.BinaryField()
    digest = models.CharField(max_length=64)
    # SHA-256 over action, subject and parameters: the same wish is not asked for twice at a time.
    fingerprint = models.CharField(max_length=64)
    quorum_m = models.PositiveSmallIntegerField()
    quorum_n = models.PositiveSmallIntegerField()
    officers = models.JSONField()
    state = models.CharField(
        max_length=16, choices=ApprovalState.choices, default=ApprovalState.OPEN
    )
    state_reason = models.CharField(max_length=500, blank=True)
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    decided_at = models.DateTimeField(null=True, blank=True)
    executed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-created_at"]
        constraints = [
            # A quorum of nobody must not be possible, whatever the code does.
            models.CheckConstraint(condition=Q(quorum_m__gte=1), name="approval_needs_a_vote"),
            models.UniqueConstraint(
                fields=["fingerprint"],
                condition=Q(state__in=["open", "approved"]),
                name="one_open_request_per_wish",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.action} {self.subject_name}"


class Vote(models.Model):
    """One officer's word on one request; final. It binds the request's digest."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    approval = models.ForeignKey(Approval, on_delete=models.PROTECT, related_name="votes")
    officer = models.ForeignKey("keys.Principal", on_delete=models.PROTECT, related_name="votes")
    approve = models.BooleanField()
    digest = models.CharField(max_length=64)
    comment = models.CharField(max_length=500, blank=True)
    demo = models.BooleanField(default=False)
    created_at = models.DateTimeField()

    class Meta:
        ordering = ["created_at"]
        constraints = [
            models.UniqueConstraint(fields=["approval", "officer"], name="one_vote_per_officer")
        ]

    def __str__(self) -> str:
        return "approve" if self.approve else "reject"
