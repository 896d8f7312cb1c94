"""Jobs: the intent to do something at a key store, committed before it is tried."""

from __future__ import annotations

import uuid

from django.db import models
from django.db.models import Q


class JobKind(models.TextChoices):
    CREATE = "create", "Create key"
    ROTATE = "rotate", "Rotate"
    PREPARE = "prepare", "Prepare the next version"
    IMPORT = "import", "Import material"
    ALIGN = "align", "Bring the key store in line"
    REMOVE_MATERIAL = "remove_material", "Remove imported material"
    DESTROY = "destroy", "Destroy key"
    DESTROY_VERSION = "destroy_version", "Destroy version"


class JobState(models.TextChoices):
    PENDING = "pending", "Waiting"
    RUNNING = "running", "Running"
    SUCCEEDED = "succeeded", "Done"
    FAILED = "failed", "Failed"
    CANCELLED = "cancelled", "Cancelled"


OPEN_STATES = [JobState.PENDING, JobState.RUNNING]


class Job(models.Model):
    """One outside effect. The label under which the store sees it is the target version's id."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    kind = models.CharField(max_length=24, choices=JobKind.choices)
    key = models.ForeignKey("keys.Key", on_delete=models.PROTECT, related_name="jobs")
    version = models.ForeignKey(
        "keys.KeyVersion", on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    target_version = models.PositiveIntegerField(default=0)  # 0: the whole key
    state = models.CharField(max_length=16, choices=JobState.choices, default=JobState.PENDING)
    approval = models.ForeignKey(
        "keys.Approval", on_delete=models.PROTECT, null=True, blank=True, related_name="jobs"
    )
    # Rotation: whether the new version takes over at once, or waits as pre-active. Destruction: whether
    # the console carries it out, or only waits until the store has, by itself (keys.jobs.watching).
    activate = models.BooleanField(default=True)
    requested_by = models.ForeignKey("keys.Principal", on_delete=models.PROTECT, related_name="+")
    reason = models.CharField(max_length=500, blank=True)
    created_at = models.DateTimeField()
    run_after = models.DateTimeField()
    claimed_by = models.CharField(max_length=128, blank=True)
    lease_until = models.DateTimeField(null=True, blank=True)
    attempts = models.PositiveSmallIntegerField(default=0)
    error = models.CharField(max_length=500, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-created_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["key", "kind", "target_version"],
                condition=Q(state__in=["pending", "running"]),
                name="one_open_job_per_key_kind_target",
            ),
        ]
        indexes = [
            models.Index(
                fields=["run_after"], condition=Q(state__in=["pending", "running"]), name="job_due"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.key_id}"


class Heartbeat(models.Model):
    """When a part of the house was last seen at work."""

    name = models.CharField(max_length=32, primary_key=True)
    at = models.DateTimeField()

    def __str__(self) -> str:
        return self.name
