"""What to look for, and what it means: one plan that blocks are searched and entries checked by."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from django.db.models import Q, QuerySet

from audit.entries import moment, searchable
from audit.errors import UnclearSearch
from audit.index import postings
from audit.index.words import WHOLE, Body, decoded, fields, words, words_of
from audit.models import Entry, PersonalValue

# More names or addresses than this that begin so: then it says too little.
PEOPLE_LIMIT = 200
_PLAIN = re.compile("[0-9a-z.:]+")
# Words of a search text. More would not tell more, and each is looked for in every block.
TEXT_WORDS = 32


@dataclass(frozen=True, slots=True)
class Filters:
    """What to look for; None and empty: anything.

    `since` is included, `until` is not. `actor` is an id or a name, exactly. `action`,
    `object_kind`, `object_id`, `classification`, `outcome` and `door` may be several, with commas
    between them: any of these. Every word of `text` must be the beginning of a word in a name, id, reason,
    source, action, outcome, door, classification or in the facts, in either case; ids (UUIDs,
    digests, 32 characters or more) are found whole.
    """

    since: datetime | None = None
    until: datetime | None = None
    actor: str = ""
    action: str = ""
    object_kind: str = ""
    object_id: str = ""
    classification: str = ""
    outcome: str = ""
    door: str = ""
    request_id: str = ""
    text: str = ""

    @property
    def anything(self) -> bool:
        """Whether every entry matches."""
        return self == Filters()


# Filters that are any of several values of a field, with commas between them; the columns of fields.
_ANY_OF = {
    "action": "action",
    "object_kind": "kind",
    "object_id": "object",
    "classification": "class",
    "outcome": "outcome",
    "door": "door",
}
_COLUMNS = {
    "action": ("action",),
    "kind": ("object_kind",),
    "object": ("object_id",),
    "class": ("classification",),
    "outcome": ("outcome",),
    "door": ("door",),
    "request": ("request_id",),
    "actor": ("actor_id", "actor_name"),
}


@dataclass(frozen=True, slots=True)
class Term:
    """One thing that an entry may hold: a field's value or an id (`hashed`), or a word's beginning."""

    bucket: str
    hashed: bytes = b""
    beginning: bytes = b""

    def within(self, row: bytes) -> int:
        """Return which entries of a block hold it, from the block's row of this bucket."""
        if self.hashed:
            return postings.find_term(row, self.hashed)
        if self.beginning:
            return postings.find_words(row, self.beginning)
        return postings.unpack_set(row)


@dataclass(frozen=True, slots=True)
class Plan:
    """Filters, worked out: an entry matches that holds one term of every group, in time.

    `wanted` and `looked_for` say the same for one entry: values of which each field must have one;
    and words, each with the commitments that stand for somebody whose name begins so.
    """

    groups: list[list[Term]] = field(default_factory=list)
    wanted: list[tuple[str, frozenset[str]]] = field(default_factory=list)
    looked_for: list[tuple[str, frozenset[str]]] = field(default_factory=list)
    since: datetime | None = None
    until: datetime | None = None

    @property
    def timed(self) -> bool:
        return self.since is not None or self.until is not None

    @property
    def buckets(self) -> list[str]:
        """Return the names of the rows that are needed of each block."""
        return sorted({term.bucket for group in self.groups for term in group})

    def narrow(self, rows: QuerySet[Entry]) -> QuerySet[Entry]:
        """Return those of `rows` that match as far as columns tell: all but words."""
        if self.since:
            rows = rows.filter(at__gte=self.since)
        if self.until:
            rows = rows.filter(at__lt=self.until)
        for name, values in self.wanted:
            some = Q()
            for column in _COLUMNS[name]:
                some |= Q(**{f"{column}__in": sorted(values)})
            rows = rows.filter(some)
        return rows

    def fits(self, data: bytes) -> bool:
        """Tell whether an entry is what is looked for, by its body as it is kept."""
        if self.looked_for and data.isascii():
            # Most entries hold no such letters at all. Of ASCII, lower case is all there is to fold,
            # and JSON escapes nothing that stands in a word.
            folded = data.lower()
            for word, people in self.looked_for:
                if not any(one.encode() in folded for one in (word, *people)):
                    return False
        body = decoded(data)
        return body is not None and self.matches(body)

    def matches(self, body: Body) -> bool:
        """Tell the same by what it says. This decides, whatever the index says."""
        if self.timed:
            at = moment(body.at)
            if (self.since and at < self.since) or (self.until and at >= self.until):
                return False
        if self.wanted:
            said = fields(body)
            for name, values in self.wanted:
                if not any((name, value) in said for value in values):
                    return False
        if self.looked_for:
            there = words_of(body)
            return all(_found(word, people, there) for word, people in self.looked_for)
        return True


def _found(word: str, people: frozenset[str], there: set[str]) -> bool:
    if word in there or not people.isdisjoint(there):
        return True
    if len(word) >= WHOLE:
        return False
    return any(one.startswith(word) for one in there if len(one) < WHOLE)


def plan(filters: Filters, using: str = "default") -> Plan:
    """Work out filters. Raises UnclearSearch where a text has no word, too many, or says too little."""
    made = Plan(since=_time(filters.since), until=_time(filters.until))
    for name, field_name in _ANY_OF.items():
        value = getattr(filters, name)
        # The whole as well: an id that somebody made up may have a comma in it.
        _want(made, field_name, filter(None, [value, *map(str.strip, value.split(","))]))
    _want(made, "request", filter(None, [filters.request_id]))
    if filters.actor:
        actor = _storable(filters.actor)
        same = PersonalValue.objects.using(using).filter(value=actor)
        _want(made, "actor", [actor, *_few(same.values_list("commitment", flat=True), actor)])
    if filters.text:
        _look_for(made, filters.text, using)
    return made


def _time(at: datetime | None) -> datetime | None:
    return at.replace(tzinfo=UTC) if at is not None and at.tzinfo is None else at


def _storable(text: str) -> str:
    """Return what a database takes for a text: without NUL and halves of characters."""
    return searchable(text.encode("utf-8", "replace").decode())


def _want(made: Plan, name: str, values: Iterable[str]) -> None:
    wanted = frozenset(map(_storable, values))
    if wanted:
        made.wanted.append((name, wanted))
        made.groups.append([_whole(f"{name}={value}") for value in sorted(wanted)])


def _look_for(made: Plan, text: str, using: str) -> None:
    found = words(_storable(text))
    if not found:
        raise UnclearSearch("A search text needs a letter or a digit.")
    if len(found) > TEXT_WORDS:
        raise UnclearSearch(f"A search text can have {TEXT_WORDS} words.")
    for word in found:
        people = frozenset(_people(word, using))
        group = [_word(word), *(_whole("=" + commitment) for commitment in sorted(people))]
        made.looked_for.append((word, people))
        made.groups.append(group)


def _people(word: str, using: str) -> list[str]:
    """Return the commitments to values in which some word begins so."""
    rows = PersonalValue.objects.using(using).filter(value__isnull=False)
    # SQLite folds no other letters than these; what it finds may be the middle of a word.
    if plain := max(_PLAIN.findall(word), key=len, default=""):
        rows = rows.filter(value__icontains=plain)
    found: list[str] = []
    for commitment, value in rows.values_list("commitment", "value").iterator():
        if any(one.startswith(word) for one in words(value or "")):
            found.append(commitment)
            if len(found) > PEOPLE_LIMIT:
                break
    return _few(found, word)


def _few(commitments: Iterable[str], said: str) -> list[str]:
    found = list(commitments)
    if len(found) > PEOPLE_LIMIT:
        raise UnclearSearch(f"“{said}” stands for too many names and addresses: give more of it.")
    return found


def _whole(term: str) -> Term:
    hashed = postings.term_hash(term)
    return Term(postings.bucket_of_term(term, hashed), hashed=hashed)


def _word(word: str) -> Term:
    if len(word) >= WHOLE:
        return _whole("=" + word)
    return Term(word[:2], beginning=word.encode() if len(word) > 1 else b"")
