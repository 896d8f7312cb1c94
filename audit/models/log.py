"""The log's tables. Entries are only ever added, only by audit.writer; triggers say so too."""

from __future__ import annotations

from typing import Any

from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper


class EntryIndex(models.BigIntegerField):  # type: ignore[type-arg]
    """A bigint that on SQLite *is* the row id: one B-tree less, and no second id to replace by."""

    def db_type(self, connection: BaseDatabaseWrapper) -> str | None:
        return "integer" if connection.vendor == "sqlite" else super().db_type(connection)


class Entry(models.Model):
    """One leaf of the log. `body` is canonical JSON, kept verbatim; the rest is for search.

    Text columns are the body's text cut to 200 characters, with NUL as U+FFFD (PostgreSQL can't
    store it); see audit.entries.
    """

    index = EntryIndex(primary_key=True)
    uuid = models.UUIDField(unique=True)
    at = models.DateTimeField()
    leaf_hash = models.BinaryField(max_length=32)
    body = models.BinaryField()
    actor_kind = models.TextField()
    actor_id = models.TextField()
    actor_name = models.TextField()
    method = models.TextField()
    door = models.TextField()
    action = models.TextField()
    object_kind = models.TextField()
    object_id = models.TextField()
    object_name = models.TextField()
    object_version = models.BigIntegerField(null=True)
    classification = models.TextField(null=True)  # None in entries of version 1
    outcome = models.TextField()
    reason = models.TextField()
    request_id = models.TextField()
    source = models.TextField()

    class Meta:
        ordering = ["index"]
        # Each index is paid for by every append, so only those that grow at their end are here. What
        # people look for is found by audit.index, which is built beside the log.
        indexes = [
            models.Index(fields=["at"], name="audit_entry_at"),
            # Very few, and what the root key's safety rests on: not left to an index beside the log.
            models.Index(
                fields=["index"],
                condition=models.Q(object_kind="root_key"),
                name="audit_entry_root_key",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.index} {self.action} {self.outcome}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        raise TypeError("Entries are appended by audit.writer.")


class Head(models.Model):
    """The one row that says where the log ends. Whoever appends moves it, by compare-and-set.

    `epoch` counts the changes that decisions rest on. It is in this row so that the very UPDATE
    that appends an entry confirms that nothing changed meanwhile.
    """

    id = models.SmallIntegerField(primary_key=True, default=1)
    size = models.BigIntegerField()
    frontier = models.BinaryField()
    root = models.BinaryField(max_length=32)
    epoch = models.BigIntegerField()
    updated_at = models.DateTimeField()

    class Meta:
        constraints = [models.CheckConstraint(condition=models.Q(id=1), name="audit_head_one_row")]

    def __str__(self) -> str:
        return f"size {self.size}, epoch {self.epoch}"


class Change(models.Model):
    """What changed in an epoch: one row for each subject. Old epochs may be pruned."""

    epoch = models.BigIntegerField()
    subject = models.TextField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["epoch", "subject"], name="audit_change_once")
        ]

    def __str__(self) -> str:
        return f"{self.epoch} {self.subject}"
