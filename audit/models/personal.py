"""Personal data that entries commit to without holding it."""

from __future__ import annotations

from django.db import models


class PersonalValue(models.Model):
    """A value and the salt of its commitment: HMAC-SHA256(salt, value), as entries have it.

    Erasing empties both; the commitment in the entries stays what it was, and tells nothing.
    """

    commitment = models.TextField(primary_key=True)
    subject = models.TextField()  # whose: a principal's id; "" of nobody known
    value = models.TextField(null=True)
    salt = models.BinaryField(max_length=32, null=True)
    created_at = models.DateTimeField()
    erased_at = models.DateTimeField(null=True)

    class Meta:
        indexes = [
            models.Index(fields=["subject"], name="audit_personal_subject"),
            # For what is equal or begins so; on PostgreSQL only this order of letters serves both.
            models.Index(
                fields=["value"], name="audit_personal_value", opclasses=["text_pattern_ops"]
            ),
        ]
        constraints = [
            # One commitment for each value of a person, so that equal ones are seen to be equal.
            models.UniqueConstraint(fields=["subject", "value"], name="audit_personal_once"),
            models.CheckConstraint(
                condition=models.Q(erased_at__isnull=True, value__isnull=False, salt__isnull=False)
                | models.Q(erased_at__isnull=False, value__isnull=True, salt__isnull=True),
                name="audit_personal_erased_whole",
            ),
        ]

    def __str__(self) -> str:
        return self.commitment
