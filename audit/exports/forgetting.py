"""Forgetting a person in what others keep of the trail: saved filters, and exports' filters."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable
from typing import Any

from audit import personal
from audit.index.words import words
from audit.models import Export, SavedFilter

# Members of a filter that hold what somebody typed.
_TYPED = ("actor", "text", "object_id", "request_id")
_BATCH = 500


def forget_person(subject: str, values: Iterable[str], using: str = "default") -> int:
    """Delete a person's own saved filters and exports, and those of others that hold the person's name.

    `subject` is the person's id, `values` are the names. A filter holds a name where the whole of it
    stands there, or where nothing but words of it was looked for. Returns how many rows. Inside the
    caller's transaction.
    """
    person = _Person({value.casefold() for value in values if value})
    own = uuid.UUID(subject)
    filters, exports = SavedFilter.objects.using(using), Export.objects.using(using)
    saved = [
        pk
        for pk, name, query in filters.exclude(owner=own)
        .values_list("pk", "name", "query")
        .iterator()
        if person.in_text(name) or person.in_query(query)
    ]
    held = [
        pk
        for pk, query, marks in exports.exclude(principal=own)
        .values_list("pk", "filters", "marks")
        .iterator(chunk_size=50)
        if person.in_query(query) or person.within(marks)
    ]
    count = filters.filter(owner=own).delete()[0] + exports.filter(principal=own).delete()[0]
    for rows, found in ((filters, saved), (exports, held)):
        for at in range(0, len(found), _BATCH):
            count += rows.filter(pk__in=found[at : at + _BATCH]).delete()[0]
    return count


class _Person:
    """Somebody's names, folded, and the words of them."""

    def __init__(self, names: set[str]) -> None:
        listed = "|".join(re.escape(name) for name in sorted(names))
        self._whole = re.compile(rf"(?<!\w)(?:{listed})(?!\w)") if names else None
        self._words = {word for name in names for word in words(name)}

    def within(self, told: Any) -> bool:
        """Whether a whole name stands in some text of it."""
        whole = self._whole
        return whole is not None and any(
            whole.search(text.casefold()) for text in personal.strings(told)
        )

    def in_text(self, text: str) -> bool:
        """Whether a name stands in a text, or nothing but words of one."""
        found = set(words(text))
        return self.within(text) or (bool(found) and found <= self._words)

    def in_query(self, query: Any) -> bool:
        """Whether a filter looks for the person."""
        if self.within(query):
            return True
        typed = [query.get(name) for name in _TYPED] if isinstance(query, dict) else []
        return any(isinstance(text, str) and self.in_text(text) for text in typed)
