"""What of an entry can be found: its words, and its fields.

The same functions read an entry when its block is indexed and when a hit is checked, so that both
agree. A word is a run of letters and digits after NFKC and casefolding; a UUID, an address and a
commitment to personal data are one word each, with their punctuation.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import msgspec

from audit.entries import searchable

# Longer texts among the facts (a whole request, for one) are not searched, nor is what lies beyond
# so many words of a text or of an entry's facts: nobody fills the index by one entry.
TEXT_LIMIT = 1000
WORDS_LIMIT = 256
# Words of this length or more are ids and digests: they are found whole, not by their beginning.
WHOLE = 32

_HEX = "[0-9a-f]"
_WORD = re.compile(
    rf"hmac-sha256:{_HEX}{{64}}"
    rf"|(?<![^\W_]){_HEX}{{8}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{12}}(?![^\W_])"
    r"|(?<![^\W_])[0-9]+(?:\.[0-9]+)+(?![^\W_])"  # IPv4, and any number with points
    rf"|(?<![^\W_]){_HEX}{{0,4}}:[0-9a-f:.]*{_HEX}(?![^\W_])"  # IPv6, or the beginning of one
    r"|[^\W_]+"
)


class Actor(msgspec.Struct, gc=False):
    """Who acted."""

    kind: str
    id: str
    name: str


class Object(msgspec.Struct, gc=False):
    """What was acted upon; None where the entry is of version 1."""

    kind: str
    id: str
    name: str
    classification: str | None = None


class Body(msgspec.Struct, gc=False):
    """An entry's body, as far as it can be searched. `at` is microseconds since the epoch."""

    at: int
    actor: Actor
    method: str
    door: str
    action: str
    object: Object
    outcome: str
    reason: str
    source: str
    request_id: str
    approvals: tuple[str, ...]
    facts: msgspec.Raw


_decode = msgspec.json.Decoder(Body).decode
_any = msgspec.json.Decoder().decode
# Times beyond the year 9999 are none.
_LATEST = 253_402_300_800 * 1_000_000


def decoded(data: bytes) -> Body | None:
    """Return what an entry says; None where it is damaged: audit.verifier finds that, a search doesn't."""
    try:
        body = _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return body if 0 <= body.at < _LATEST else None


@lru_cache(maxsize=1 << 16)
def words(text: str) -> tuple[str, ...]:
    """Return the words of a text, each once, as they are indexed and looked for."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return tuple(dict.fromkeys(_WORD.findall(folded)))[:WORDS_LIMIT]


# What `values` gives, in this order: the field that a value is looked for by, and whether its words
# can be found too.
VALUES: tuple[tuple[str, bool], ...] = (
    ("action", True),
    ("outcome", True),
    ("door", True),
    ("actor", True),  # by its id
    ("actor", True),  # by its name
    ("object", True),
    ("class", True),
    ("kind", False),
    ("request", False),
    ("", True),  # the object's name
    ("", True),  # reason
    ("", True),  # source
    ("", True),  # method
)


def values(body: Body) -> tuple[str, ...]:
    """Return the texts of an entry that it can be found by, besides approvals and facts: see VALUES."""
    actor, about = body.actor, body.object
    return (
        body.action,
        body.outcome,
        body.door,
        actor.id,
        actor.name,
        about.id,
        about.classification or "",
        about.kind,
        body.request_id,
        about.name,
        body.reason,
        body.source,
        body.method,
    )


@lru_cache(maxsize=1 << 14)
def words_of_facts(facts: bytes) -> tuple[str, ...]:
    """Return the words of an entry's facts, each once."""
    found: dict[str, None] = {}
    for text in _told(_any(facts)):
        found.update(dict.fromkeys(words(text)))
        if len(found) >= WORDS_LIMIT:
            break
    return tuple(found)[:WORDS_LIMIT]


def words_of(body: Body) -> set[str]:
    """Return the words that an entry is found by."""
    worded = (
        value for value, (_, has_words) in zip(values(body), VALUES, strict=True) if has_words
    )
    found = {word for text in (*worded, *body.approvals) for word in words(text)}
    return found.union(words_of_facts(bytes(body.facts)))


def fields(body: Body) -> set[tuple[str, str]]:
    """Return each field and a value of it that an entry is found by, as its columns have it."""
    named = zip(VALUES, values(body), strict=True)
    return {(field, searchable(value)) for (field, _), value in named if field and value}


def _told(fact: Any) -> Iterator[str]:
    if type(fact) is str:
        if len(fact) <= TEXT_LIMIT:
            yield fact
    elif type(fact) is dict:
        for member in fact.values():
            yield from _told(member)
    elif type(fact) is list:
        for member in fact:
            yield from _told(member)
