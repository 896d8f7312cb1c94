"""What the signer signed."""

from __future__ import annotations

from django.db import models


class Checkpoint(models.Model):
    """One signed checkpoint (C2SP tlog-checkpoint), as it was published. Never changed.

    `note` is the signed note with every signature and cosignature that was there when it was
    written; a later row of the same size may have more. `size` and `root` repeat it.
    """

    size = models.BigIntegerField()
    root = models.BinaryField(max_length=32)
    origin = models.TextField()
    note = models.TextField()
    signed_at = models.DateTimeField()

    class Meta:
        ordering = ["-id"]
        indexes = [models.Index(fields=["size"], name="audit_checkpoint_size")]

    def __str__(self) -> str:
        return f"{self.origin} {self.size}"
