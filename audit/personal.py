"""Commitments to personal data: entries say that a value was there, a table beside them says which.

A commitment is HMAC-SHA256 with a random salt of 32 bytes as its key, over the value in UTF-8. In an
entry it is the text "hmac-sha256:" and 64 hexadecimal digits. One salt for each value of a person,
so that the same name reads the same in all entries; erasing value and salt (GDPR, article 17) leaves
every entry and every proof as it was.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from msgspec.structs import replace

from audit.events import Event, Personal
from audit.models import Entry, PersonalValue

PREFIX = "hmac-sha256:"
SALT_SIZE = 32
CHUNK = 500
# The columns of an entry that may hold a commitment, and the column that says whose.
COLUMNS = {"actor_name": "actor_id", "object_name": "object_id", "source": "actor_id"}
_ROW = ("commitment", "subject", "value")


def commit(salt: bytes, value: str) -> str:
    """Return the commitment to `value` under a salt, as entries have it."""
    return PREFIX + hmac.digest(salt, value.encode(), hashlib.sha256).hex()


def committed(connection: BaseDatabaseWrapper, events: Sequence[Event]) -> Sequence[Event]:
    """Return `events` with commitments in the place of personal data; write those that are new.

    Inside the caller's transaction, so that an entry and what it commits to are there together.
    """
    theirs = [event for event in events if event.personal]
    if not theirs:
        return events
    texts = _commitments(connection, {one for event in theirs for one in _personal(event)})
    return [_told(event, texts) if event.personal else event for event in events]


def opened(texts: Iterable[str], using: str = "default") -> dict[str, str | None]:
    """Return the value behind each commitment among `texts`; None where it was erased."""
    wanted = {text for text in texts if text.startswith(PREFIX)}
    if not wanted:
        return {}
    rows = PersonalValue.objects.using(using).filter(commitment__in=wanted)
    return dict(rows.values_list("commitment", "value"))


ERASED = "(erased)"


def reveal(entries: Sequence[Entry], using: str = "default") -> None:
    """Put what commitments stand for into the columns of rows in memory, for people to read.

    Only where the value is of the very account that the column is about: who calls itself like
    somebody else's commitment isn't shown under that name.
    """
    wanted = {
        text
        for entry in entries
        for text in (getattr(entry, column) for column in COLUMNS)
        if text.startswith(PREFIX)
    }
    if not wanted:
        return
    rows = PersonalValue.objects.using(using).filter(commitment__in=wanted)
    known = {text: (subject, value) for text, subject, value in rows.values_list(*_ROW)}
    for entry in entries:
        for column, owner in COLUMNS.items():
            subject, value = known.get(getattr(entry, column), (None, None))
            if subject in ("", getattr(entry, owner)):
                setattr(entry, column, ERASED if value is None else value)


def erase(subject: str, values: Iterable[str] = (), using: str = "default") -> int:
    """Forget what entries say of a person: all of `subject`'s values, and these of nobody known.

    The latter in whatever way they were typed, so it takes time in proportion to the values of nobody
    known. Returns how many. Inside the caller's transaction. There is no way back.
    """
    kept = PersonalValue.objects.using(using).filter(erased_at=None)
    wanted = {_folded(value) for value in values}
    of_nobody = kept.filter(subject="").values_list("commitment", "value").iterator(CHUNK)
    typed = [text for text, value in of_nobody if value and _folded(value) in wanted]
    gone = {"value": None, "salt": None, "erased_at": datetime.now(UTC)}
    erased = kept.filter(subject=subject).update(**gone)
    for start in range(0, len(typed), CHUNK):
        erased += kept.filter(commitment__in=typed[start : start + CHUNK]).update(**gone)
    return erased


def _folded(value: str) -> str:
    """Return a value without what may differ where the same name is typed twice."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", value).casefold()).strip()


def _commitments(connection: BaseDatabaseWrapper, wanted: set[Personal]) -> dict[Personal, str]:
    table = PersonalValue.objects.using(connection.alias)
    subjects, values = {one.subject for one in wanted}, {one.value for one in wanted}
    rows = table.filter(subject__in=subjects, value__in=values)
    known = {
        Personal(value, subject): text
        for subject, value, text in rows.values_list("subject", "value", "commitment")
        if value is not None
    }
    fresh = []
    for one in wanted - known.keys():
        salt = os.urandom(SALT_SIZE)
        known[one] = commit(salt, one.value)
        if not one.kept:
            continue
        fresh.append(
            PersonalValue(
                commitment=known[one],
                subject=one.subject,
                value=one.value,
                salt=salt,
                created_at=datetime.now(UTC),
            )
        )
    table.bulk_create(fresh)
    return known


def _personal(event: Event) -> Iterable[Personal]:
    places: tuple[Any, ...] = (event.actor.name, event.object.name, event.source)
    yield from (one for one in places if type(one) is Personal)
    if event.facts:
        yield from _within(event.facts)


def _within(fact: Any) -> Iterable[Personal]:
    if type(fact) is Personal:
        yield fact
    elif isinstance(fact, Mapping):
        for member in fact.values():
            yield from _within(member)
    elif isinstance(fact, list):
        for member in fact:
            yield from _within(member)


def _told(event: Event, texts: Mapping[Personal, str]) -> Event:
    """Return the event with each personal value's commitment in its place."""

    def told(value: Any) -> Any:
        if type(value) is Personal:
            return texts[value]
        if isinstance(value, Mapping):
            return {name: told(member) for name, member in value.items()}
        return [told(member) for member in value] if isinstance(value, list) else value

    return replace(
        event,
        actor=replace(event.actor, name=told(event.actor.name)),
        object=replace(event.object, name=told(event.object.name)),
        source=told(event.source),
        facts=told(event.facts),
    )


def strings(told: Any) -> Iterator[str]:
    """Yield every text within plain values, names of members left out."""
    if isinstance(told, str):
        yield told
    elif isinstance(told, Mapping):
        for member in told.values():
            yield from strings(member)
    elif isinstance(told, list):
        for member in told:
            yield from strings(member)


def texts(told: Any) -> Iterator[str]:
    """Yield the commitments within what an entry says."""
    return (text for text in strings(told) if text.startswith(PREFIX))


def revealed(told: Any, values: Mapping[str, str | None]) -> Any:
    """Return what an entry says with the values of its commitments, for people to read."""
    if isinstance(told, str):
        if told not in values:
            return told
        value = values[told]
        return ERASED if value is None else value
    if isinstance(told, Mapping):
        return {name: revealed(member, values) for name, member in told.items()}
    return [revealed(member, values) for member in told] if isinstance(told, list) else told
