"""What can go wrong with the log. Whoever gets one of these must let no result leave."""

from __future__ import annotations


class AuditError(Exception):
    """Something about the audit log went wrong."""


class LogWriteFailed(AuditError):
    """The entry could not be made durable, or nobody can tell whether it was."""


class QueueFull(AuditError):
    """Too many entries wait for the log; this one was refused rather than queued."""


class Superseded(AuditError):
    """Something this entry's decision rests on changed before the entry was written.

    The entry was not appended. `epoch` is the log's epoch now: load, decide and submit again.
    """

    def __init__(self, epoch: int) -> None:
        super().__init__(f"decided before epoch {epoch}")
        self.epoch = epoch
