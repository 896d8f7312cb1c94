"""Taking the trail out of the house; that it left stands in the trail."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from audit import exports
from audit.errors import AuditError
from audit.events import Subject
from audit.exports import FORMATS
from audit.exports.errors import NoCheckpoint, Outdated
from audit.models import Export
from audit.search import Filters
from keys import gate
from keys.actions import Action
from keys.callers import Caller
from keys.errors import Conflict, Invalid, LogUnavailable, NotFound
from keys.gate import reads
from keys.trail.asking import resolved, told

__all__ = ["FORMATS", "create_export", "export_audit", "export_content", "export_length",
           "find_export", "list_exports"]  # fmt: skip

T = TypeVar("T")
LIST_LIMIT = 100
# A client that takes one export in many ranges leaves one entry in so many seconds, not thousands.
TOLD_SECONDS = 60
_LOG = Subject("log", "log")
_told: dict[tuple[uuid.UUID, uuid.UUID], float] = {}
_lock = threading.Lock()


def export_audit(
    caller: Caller, filters: Filters | None = None, format: str = "jsonl"
) -> Iterator[bytes]:
    """Return matching entries as one stream in one of FORMATS, which can't be taken up again.

    That they left is recorded, with the filters, before the first byte is given out. Raises Denied,
    Invalid or Conflict at once, not at the first byte.
    """
    wanted = _checked(filters, format)
    _admit(caller, {"format": format, "filters": told(wanted)})
    return _translated(_ours(lambda: exports.streamed(resolved(wanted), format)))


def create_export(caller: Caller, filters: Filters | None = None, format: str = "jsonl") -> Export:
    """Return a new export of the log as it is now, to be fetched with export_content.

    `size` of the row is the number of entries that it looks at; for `evidence` it is what the latest
    checkpoint covers. The entry of this very request comes after them. Raises Denied, Invalid, and
    Conflict where evidence is wanted and nothing was ever signed.
    """
    wanted = _checked(filters, format)
    # Who may not export learns nothing of the log, and makes nobody count: the gate comes first.
    gate.read(caller, Action.READ_AUDIT)
    size = _ours(lambda: exports.size_now(format))
    identity = uuid.uuid4()
    facts = {"export": str(identity), "format": format, "filters": told(wanted), "size": size}
    _admit(caller, facts)
    return _ours(
        lambda: exports.create(identity, caller.principal_id, resolved(wanted), format, size)
    )


def export_content(caller: Caller, export_id: uuid.UUID | str, start: int = 0) -> Iterator[bytes]:
    """Return an export's bytes from `start` on: the same ones each time.

    Each download leaves an entry, and so does one that is taken up again, once a minute. Raises
    Denied, NotFound, Invalid where `start` lies behind the end, and Conflict where its bytes can't be
    made again because personal data was erased or the console was upgraded meanwhile.
    """
    row = _found(caller, export_id)
    if start < 0:
        raise Invalid("start can't be below 0.", field="start")
    _admit_download(caller, row, start)
    if start and not _ours(lambda: exports.reaches(row, start)):
        raise Invalid("The export is not that long.", field="start")
    return _translated(_ours(lambda: exports.content(row, start)))


def export_length(caller: Caller, export_id: uuid.UUID | str) -> int:
    """Return the number of an export's bytes; makes them once where nobody has yet.

    Raises Denied, NotFound, Conflict.
    """
    gate.read(caller, Action.READ_AUDIT)
    row = _found(caller, export_id)
    return _ours(lambda: exports.length(row))


def find_export(caller: Caller, export_id: uuid.UUID | str) -> Export:
    """Return one export. Raises Denied or NotFound."""
    gate.read(caller, Action.READ_AUDIT)
    return _found(caller, export_id)


def list_exports(caller: Caller, limit: int = LIST_LIMIT) -> list[Export]:
    """Return the caller's own exports, newest first. Raises Denied."""
    gate.read(caller, Action.READ_AUDIT)
    own = Export.objects.filter(principal=caller.principal_id)
    return list(own.order_by("-created_at", "id")[: max(1, min(limit, LIST_LIMIT))])


def _checked(filters: Filters | None, format: str) -> Filters:
    if format not in FORMATS:
        raise Invalid(f"format must be one of: {', '.join(sorted(FORMATS))}.", field="format")
    return filters or Filters()


def _admit(caller: Caller, facts: Mapping[str, Any]) -> None:
    gate.read(caller, Action.EXPORT_AUDIT, _LOG, facts=facts)


def _admit_download(caller: Caller, row: Export, start: int) -> None:
    """Record that bytes leave. Ranges that follow each other quickly are told once a minute."""
    which, now = (row.id, caller.principal_id), time.monotonic()
    with _lock:
        again = start > 0 and now - _told.get(which, -TOLD_SECONDS) < TOLD_SECONDS
    if again:
        gate.read(caller, Action.READ_AUDIT)
        return
    _admit(caller, {"export": str(row.id), "format": row.format, "from": start})
    with _lock:
        for old in [one for one, at in _told.items() if now - at >= TOLD_SECONDS]:
            del _told[old]
        _told[which] = now


def _found(caller: Caller, export_id: uuid.UUID | str) -> Export:
    """Return the caller's own export. Another's is as good as none."""
    missing = NotFound("There is no such export.")
    try:
        identity = uuid.UUID(str(export_id))
    except ValueError:
        row = None
    else:
        row = Export.objects.filter(pk=identity, principal=caller.principal_id).first()
    if row is None:
        raise reads.not_found(caller, Action.READ_AUDIT, "export", str(export_id), missing)
    return row


def _ours(work: Callable[[], T]) -> T:
    """Return what the record answers, with its troubles as ours."""
    try:
        return work()
    except (NoCheckpoint, Outdated) as error:
        raise Conflict(f"{error}") from None
    except AuditError as error:
        raise LogUnavailable(f"The export can't be made: {error}.") from None


def _translated(pieces: Iterator[bytes]) -> Iterator[bytes]:
    while True:
        try:
            piece = next(pieces)
        except StopIteration:
            return
        except AuditError as error:
            raise LogUnavailable(f"The export can't go on: {error}.") from None
        yield piece
