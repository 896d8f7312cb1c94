"""What can go wrong with the log. Whoever gets one of these must let no result leave."""

from __future__ import annotations


class AuditError(Exception):
    """Something about the audit log went wrong."""


class LogWriteFailed(AuditError):
    """The entry could not be made durable, or nobody can tell whether it was."""


class LogRolledBack(LogWriteFailed):
    """The log is smaller than somebody remembers, or another one; the message says so, for anybody."""


class QueueFull(AuditError):
    """Too many entries wait for the log; this one was refused rather than queued."""


class Superseded(AuditError):
    """Something this entry's decision rests on changed before the entry was written.

    The entry was not appended. `epoch` is the log's epoch now: load, decide and submit again.
    """

    def __init__(self, epoch: int) -> None:
        super().__init__(f"decided before epoch {epoch}")
        self.epoch = epoch


class PlaceError(AuditError):
    """A place outside said no, or can't do what it was asked. Trying again won't help."""


class PlaceMissing(PlaceError):
    """Nothing of that name is at the place."""


class PlaceOverfull(PlaceError):
    """A place takes less at once than it was given. Less may help; the same again won't."""


class PlaceUnavailable(AuditError):
    """A place outside did not answer as it should. Trying again may help.

    `retry_after` is how many seconds it asked us to wait, None where it did not say.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class StreamError(AuditError):
    """A stream's address can't be used, or what it should send is not in the log as it was written."""


class NoteError(AuditError):
    """A signed note, a verifier key or a witness policy is not what it should be."""


class SignerError(AuditError):
    """The signer can't sign, or must not; the message is a sentence for an operator."""


class WitnessError(AuditError):
    """A witness gave no cosignature; the message is a sentence without its address."""


class TilesMissing(AuditError):
    """More of the tree has no tiles yet than is hashed at once: the keeper (`manage.py trail`) builds them."""


class UnclearSearch(AuditError):
    """What is looked for can't be: the text says why, in a sentence for who asked."""


class ArchiveFault(AuditError):
    """A bundle can't be made, or is not what the tree says it must be."""
