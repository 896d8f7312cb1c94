"""What an entry says: who did what to what, through which door, and how it ended."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Union

from audit.canonical import INTEGER_LIMIT, JsonValue

# A fact's value, with personal data not yet committed to.
Fact = Union[JsonValue, "Personal", Sequence["Fact"], Mapping[str, "Fact"]]

# Names and reasons may come from outside; a longer one is cut, so that nobody fills the log by it.
TEXT_LIMIT = 1000


class Outcome(StrEnum):
    SUCCESS = "success"
    DENIED = "denied"
    FAILED = "failed"
    STARTED = "started"  # an intent: what became of it is a later entry
    PENDING = "pending"  # waits for approval


_random: list[bytes] = []  # 8 bytes each, from the kernel, for so many uuids at a time
_RANDOM_BLOCK = 256
os.register_at_fork(after_in_child=_random.clear)  # a child must not use its parent's


def uuid7() -> str:
    """Return a new UUIDv7 (RFC 9562 §5.7; §6.2 method 3: 12 bits of the millisecond's fraction)."""
    try:
        random = _random.pop()  # one step, so no two threads get the same
    except IndexError:
        block = os.urandom(8 * _RANDOM_BLOCK)
        _random.extend(block[at : at + 8] for at in range(8, len(block), 8))
        random = block[:8]
    milliseconds, rest = divmod(time.time_ns(), 1_000_000)
    text = f"{milliseconds:012x}7{(rest << 12) // 1_000_000:03x}{random.hex()}"
    variant = "89ab"[random[0] & 3]
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{variant}{text[17:20]}-{text[20:]}"


def now() -> int:
    """Return microseconds since the epoch, UTC."""
    return time.time_ns() // 1000


@dataclass(frozen=True, slots=True)
class Personal:
    """A person's datum. The entry gets its commitment; value and salt stay in a table beside the log.

    `subject` says whose it is (a principal's id, "" of nobody known), so that it can be erased.
    """

    value: str
    subject: str = ""

    def __post_init__(self) -> None:
        _clean(self, ("value", "subject"))


# What may stand where an entry has text about somebody.
Told = str | Personal


def _text(value: str) -> str:
    """Return `value` as text that can be recorded, whatever a request put into it.

    A bad request must leave an entry too: a lone surrogate becomes U+FFFD, the overlong is cut.
    Raises TypeError for what is not text: that is our own mistake, not the request's.
    """
    if type(value) is str and len(value) <= TEXT_LIMIT and value.isascii():
        return value  # nearly always
    if not isinstance(value, str):
        raise TypeError(f"text is wanted, not {type(value).__name__}")
    text = _whole(value)
    return text if len(text) <= TEXT_LIMIT else text[: TEXT_LIMIT - 1] + "…"


def _plain(*values: object) -> bool:
    """Tell whether all of it is text that can be recorded as it is: nearly always."""
    if {*map(type, values)} != _JUST_TEXT:
        return False
    text = "".join(values)  # type: ignore[arg-type]
    return text.isascii() and len(text) <= TEXT_LIMIT


_JUST_TEXT = {str}


def _clean(self: object, attributes: tuple[str, ...]) -> None:
    """Replace those text attributes of a frozen dataclass that can't be recorded as they are."""
    for attribute in attributes:
        value = getattr(self, attribute)
        if type(value) is Personal:
            continue
        text = _text(value)
        if text is not value:
            object.__setattr__(self, attribute, text)


def _whole(value: str) -> str:
    """Return a plain str (not a subclass) that UTF-8 can carry."""
    if value.isascii():
        return str.__str__(value)
    return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _fact(value: Fact) -> Fact:
    """Return a copy of `value` that nobody else holds. Raises TypeError, ValueError (canonical)."""
    if type(value) is str and value.isascii():
        return value  # nearly always
    if value is None or isinstance(value, bool | Personal):
        return value
    if isinstance(value, str):
        return _whole(value)
    if isinstance(value, int):
        if not -INTEGER_LIMIT <= value <= INTEGER_LIMIT:
            raise ValueError(f"a fact can't be the number {value}: it is beyond 2^53-1")
        return int(value)
    if isinstance(value, dict):
        return {_name(name): _fact(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [_fact(member) for member in value]
    raise TypeError(f"a fact can't be a {type(value).__name__}")


def _name(name: object) -> str:
    if type(name) is str and name.isascii():
        return name
    if not isinstance(name, str):
        raise TypeError(f"a fact's name must be text, not {type(name).__name__}")
    if not name.isascii():
        raise ValueError(f"a fact's name must be ASCII, not {name!a}")
    return str.__str__(name)


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acted. `kind` is a word such as person, application, service or unknown."""

    kind: str
    id: str
    name: Told

    def __post_init__(self) -> None:
        if not _plain(self.kind, self.id, self.name):
            _clean(self, ("kind", "id", "name"))


@dataclass(frozen=True, slots=True)
class Subject:
    """What was acted upon. `version` is a key's version number, where there is one.

    `classification` is the name of the data classification that it stands under, "" of none.
    """

    kind: str
    id: str
    name: Told = ""
    version: int | None = None
    classification: str = ""

    def __post_init__(self) -> None:
        if not _plain(self.kind, self.id, self.name, self.classification):
            _clean(self, ("kind", "id", "name", "classification"))
        version = self.version
        if version is None:
            return
        if isinstance(version, bool) or not isinstance(version, int):
            raise TypeError(f"a version is a number, not {type(version).__name__}")
        if not 0 <= version <= INTEGER_LIMIT:
            raise ValueError(f"a version can't be {version}")


_TEXTS = ("method", "door", "action", "reason", "source", "request_id")
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Event:
    """One entry before it has its index.

    `facts` hold text, whole numbers, booleans, None, and lists and dicts of those with ASCII
    names; never key material, plaintext or tokens; personal data as `Personal`. `at` is UTC microseconds since
    the epoch, `uuid` a UUIDv7. Raises TypeError or ValueError where a value can't be recorded.
    """

    actor: Actor
    method: str
    door: str
    action: str
    object: Subject
    outcome: Outcome
    reason: str = ""
    source: Told = ""
    request_id: str = ""
    approvals: tuple[str, ...] = ()
    facts: Mapping[str, Fact] = field(default_factory=dict)
    at: int = field(default_factory=now)
    uuid: str = field(default_factory=uuid7)

    def __post_init__(self) -> None:
        put = object.__setattr__
        if not _plain(
            self.method, self.door, self.action, self.reason, self.source, self.request_id
        ):
            _clean(self, _TEXTS)
        if type(self.outcome) is not Outcome:
            put(self, "outcome", Outcome(self.outcome))
        if self.approvals:
            put(self, "approvals", tuple(_text(approval) for approval in self.approvals))
        if self.facts:
            put(self, "facts", {_name(name): _fact(fact) for name, fact in self.facts.items()})
        if not _UUID.fullmatch(self.uuid):
            raise ValueError("a uuid is 32 small hexadecimal digits with four hyphens")
        if not 0 <= self.at <= INTEGER_LIMIT:
            raise ValueError(f"a time can't be {self.at} microseconds")
