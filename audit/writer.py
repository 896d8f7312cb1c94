"""Appending to the log: `append` inside a change's own transaction, `Appender` for uses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from django.db import connections, transaction

from audit import guard, store
from audit.appender import Appender, appender, close_appender, on_epoch
from audit.events import Event
from audit.store import LogHead

__all__ = [
    "Appender",
    "LogHead",
    "append",
    "appender",
    "close_appender",
    "epoch",
    "head",
    "news",
    "on_epoch",
    "probe",
    "prune_changes",
]


# How far the epoch moves when somebody goes on with an older database: further than any process
# can be ahead. Nobody knows what changed in between, so everybody reads everything again.
LEAP = 1 << 32


def append(
    events: Sequence[Event], *, subjects: Iterable[str] = (), using: str = "default"
) -> list[int]:
    """Append `events` in the caller's transaction and return their indices.

    Where `subjects` are named, the epoch rises by one and they are written down as what changed:
    decisions that rest on them and are not yet in the log are made again. Call it last in the
    transaction, since it takes the head, which every other writer waits for.

    Raises RuntimeError outside transaction.atomic(), TypeError where `subjects` is one string, and
    LogRolledBack where the log is smaller than anybody remembers (audit.guard).
    """
    connection = connections[using]
    if not connection.in_atomic_block:
        raise RuntimeError("append() belongs inside the transaction.atomic() of the change")
    if isinstance(subjects, str):
        raise TypeError("subjects is a collection of names, not one name")
    names = set(subjects)
    if not events and not names:
        return []
    guard.recall(using)
    at = store.read_head(connection, lock=True)
    guard.check(at, using)
    epoch = at.epoch + 1 if names else at.epoch
    if guard.letting():
        # Epochs that others remember were used before the database was put back, for other changes.
        epoch = at.epoch + LEAP
    then = store.extend(connection, at, events, epoch=epoch)
    if names:
        store.add_changes(connection, epoch, names)
    transaction.on_commit(lambda: guard.note(then.size, then.root, using), using=using)
    return list(range(at.size, then.size))


def news(since: int, using: str = "default") -> frozenset[str] | None:
    """Take the head until the caller's transaction ends; return what changed after the epoch `since`.

    None where nobody can tell any more. Raises RuntimeError outside transaction.atomic().
    """
    connection = connections[using]
    if not connection.in_atomic_block:
        raise RuntimeError("news() belongs inside the transaction.atomic() of the change")
    epoch = store.read_head(connection, lock=True).epoch
    if epoch == since:
        return frozenset()
    changes = store.read_changes(connection, since, epoch)
    return frozenset().union(*changes.values()) if len(changes) == epoch - since else None


def head(using: str = "default") -> LogHead:
    """Return where the log ends now."""
    return store.read_head(connections[using])


def epoch(using: str = "default") -> int:
    """Return the number of changes so far; what is loaded *after* this call is at least as new.

    Changes begin here, outside their transactions, so this is where a process's first look at what
    is remembered of the log is taken.
    """
    if not connections[using].in_atomic_block:
        guard.ready(using)
    return head(using).epoch


def probe(using: str = "default") -> None:
    """Write the head as it is, and commit. Raises django.db.Error where the log can't be written."""
    with transaction.atomic(using=using), connections[using].cursor() as cursor:
        cursor.execute("UPDATE audit_head SET updated_at = updated_at WHERE id = 1")


def prune_changes(keep: int, using: str = "default") -> int:
    """Forget what changed before the last `keep` epochs; return how many rows went.

    A decision older than that is then made again, whatever it rests on.
    """
    if keep < 0:
        raise ValueError("keep must not be negative")
    connection = connections[using]
    with transaction.atomic(using=using):
        return store.drop_changes(connection, store.read_head(connection).epoch - keep)
