"""Why an export can't be made, or not again."""

from __future__ import annotations

from audit.errors import AuditError


class EntriesMissing(AuditError):
    """Entries that the export needs are not in the database: archived and dropped, or lost."""


class EntryDamaged(AuditError):
    """An entry's bytes can't be read, so it can't be put into another form."""


class NoCheckpoint(AuditError):
    """Evidence rests on a signed checkpoint, and there is none yet."""


class Outdated(AuditError):
    """The export's bytes can't be made again; a new export can."""
