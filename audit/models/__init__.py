"""The record's tables: the log itself, what is derived from it, and what is kept beside it."""

from audit.models.checkpoints import Checkpoint
from audit.models.exports import Export, SavedFilter
from audit.models.log import Change, Entry, EntryIndex, Head
from audit.models.personal import PersonalValue
from audit.models.retention import Archive, LegalHold
from audit.models.search import Block, Posting
from audit.models.streams import Cursor
from audit.models.tree import Tile

__all__ = [
    "Archive",
    "Block",
    "Change",
    "Checkpoint",
    "Cursor",
    "Entry",
    "EntryIndex",
    "Export",
    "Head",
    "LegalHold",
    "PersonalValue",
    "Posting",
    "SavedFilter",
    "Tile",
]
