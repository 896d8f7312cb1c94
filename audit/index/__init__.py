"""Which entries hold which words: built beside the log, so that appending pays nothing for it.

What the index says is a hint for audit.search, which checks each entry before it gives it out; it
proves nothing, and can be dropped and built anew from the entries at any time. See docs/adr/0012.
"""

from audit.index.building import behind, build, fault, forget, indexed
from audit.index.postings import BLOCK

__all__ = ["BLOCK", "behind", "build", "fault", "forget", "indexed"]
