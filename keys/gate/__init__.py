"""The gate: resolve, decide, approve, record. Every way to use or change a key passes here.

`gate.use`, `gate.change` and `gate.read` are the only callers of `policy.decide` and of the audit
writer. A function behind the gate can't forget to be checked or to leave an entry.
"""

from keys.gate.batches import Batch, Item
from keys.gate.changes import Change, change
from keys.gate.operation import Operation, use
from keys.gate.reads import read, refused, refused_aio
from keys.gate.uses import Use

__all__ = [
    "Batch",
    "Change",
    "Item",
    "Operation",
    "Use",
    "change",
    "read",
    "refused",
    "refused_aio",
    "use",
]
