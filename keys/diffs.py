"""Field diffs of configuration objects, by django-auditlog; the log keeps each diff's digest.

django-auditlog is for people to read; the evidence is the Merkle log. Its signals don't see bulk
writes, so configuration objects are always saved one by one (keys.administration).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from auditlog.models import LogEntry
from auditlog.registry import auditlog
from auditlog.signals import post_log

from audit import canonical
from keys.models import Classification, Credential, Grant, KeyStore, Limit, Principal

_collected: ContextVar[list[dict[str, Any]] | None] = ContextVar("diffs", default=None)

auditlog.register(Classification, m2m_fields={"key_stores"})
auditlog.register(KeyStore, exclude_fields=["checked_at", "healthy", "health_detail"])
# A name's digest could be guessed, and would outlive its erasure.
auditlog.register(Principal, exclude_fields=["name", "name_folded"])
auditlog.register(Credential, exclude_fields=["digest"])
auditlog.register(Grant)
auditlog.register(Limit)


@contextmanager
def collected() -> Iterator[list[dict[str, Any]]]:
    """Collect the digests of the diffs that the block writes: object, id, SHA-256 in hex."""
    diffs: list[dict[str, Any]] = []
    token = _collected.set(diffs)
    try:
        yield diffs
    finally:
        _collected.reset(token)


def _collect(sender: object, log_entry: LogEntry | None = None, **kwargs: Any) -> None:
    diffs = _collected.get()
    if diffs is None or log_entry is None:
        return
    digest = hashlib.sha256(canonical.encode(log_entry.changes_dict)).hexdigest()
    diffs.append(
        {"object": log_entry.content_type.model, "id": str(log_entry.object_pk), "sha256": digest}
    )


post_log.connect(_collect, dispatch_uid="keys.diffs")
