"""Finding entries, newest first, a page at a time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from django.db.models import Q, QuerySet

from audit.entries import searchable
from audit.models import Entry

PAGE_LIMIT = 1000
_TEXT_COLUMNS = ("actor_name", "object_name", "object_id", "reason", "source", "action")


@dataclass(frozen=True, slots=True)
class Filters:
    """What to look for; None and empty: anything.

    `since` is included, `until` is not. `actor` is an id or a name, exactly; `text` occurs
    somewhere in a name, id, reason, source or action, in either case, and is looked for entry by
    entry.
    """

    since: datetime | None = None
    until: datetime | None = None
    actor: str = ""
    action: str = ""
    object_kind: str = ""
    object_id: str = ""
    outcome: str = ""
    door: str = ""
    request_id: str = ""
    text: str = ""

    def apply(self, rows: QuerySet[Entry]) -> QuerySet[Entry]:
        """Return those of `rows` that match."""
        if self.since:
            rows = rows.filter(at__gte=self.since)
        if self.until:
            rows = rows.filter(at__lt=self.until)
        if self.actor:
            actor = searchable(self.actor)
            rows = rows.filter(Q(actor_id=actor) | Q(actor_name=actor))
        for name in ("action", "object_kind", "object_id", "outcome", "door", "request_id"):
            if value := getattr(self, name):
                rows = rows.filter(**{name: searchable(value)})
        if self.text:
            found = Q()
            for name in _TEXT_COLUMNS:
                found |= Q(**{f"{name}__icontains": searchable(self.text)})
            rows = rows.filter(found)
        return rows


def search(filters: Filters, *, before: int | None = None, limit: int = 50) -> list[Entry]:
    """Return up to `limit` matching entries, newest first, of those with an index below `before`.

    The next page is `before=` the last one's index.
    """
    rows = filters.apply(Entry.objects.order_by("-index"))
    if before is not None:
        rows = rows.filter(index__lt=before)
    return list(rows[: max(1, min(limit, PAGE_LIMIT))])
