"""What an entry says: who did what to what, through which door, and how it ended."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any, Union

from msgspec import Struct, field
from msgspec.structs import force_setattr as _put

from audit.canonical import INTEGER_LIMIT, JsonValue

# A fact's value, with personal data not yet committed to.
Fact = Union[JsonValue, "Personal", Sequence["Fact"], Mapping[str, "Fact"]]

# Names and reasons may come from outside; a longer one is cut, so that nobody fills the log by it.
TEXT_LIMIT = 1000
PERSONAL_LIMIT = 300  # characters; of four bytes at most


class Outcome(StrEnum):
    SUCCESS = "success"
    DENIED = "denied"
    FAILED = "failed"
    STARTED = "started"  # an intent: what became of it is a later entry
    PENDING = "pending"  # waits for approval


# The second half of as many uuids, made of the kernel's random bytes.
_random: list[str] = []
_RANDOM_BLOCK = 256
os.register_at_fork(after_in_child=_random.clear)  # a child must not use its parent's
# The millisecond of the last uuid, and how uuids of it begin.
_millisecond: tuple[int, str] = (-1, "")


def uuid7() -> str:
    """Return a new UUIDv7 (RFC 9562 §5.7; §6.2 method 3: 12 bits of the millisecond's fraction)."""
    global _millisecond
    milliseconds, rest = divmod(time.time_ns(), 1_000_000)
    last, begin = _millisecond
    if milliseconds != last:
        begin = f"{milliseconds >> 16:08x}-{milliseconds & 0xFFFF:04x}-7"
        _millisecond = (milliseconds, begin)
    try:
        end = _random.pop()  # one step, so no two threads get the same
    except IndexError:
        end, *more = _ends()
        _random.extend(more)
    return f"{begin}{(rest << 12) // 1_000_000:03x}{end}"


def _ends() -> list[str]:
    digits = os.urandom(8 * _RANDOM_BLOCK).hex()
    return [
        f"-{'89ab'[int(digits[at], 16) & 3]}{digits[at + 1 : at + 4]}-{digits[at + 4 : at + 16]}"
        for at in range(0, len(digits), 16)
    ]


def now() -> int:
    """Return microseconds since the epoch, UTC."""
    return time.time_ns() // 1000


class Personal(Struct, frozen=True):
    """A person's datum. The entry gets its commitment; value and salt stay in a table beside the log.

    `subject` says whose it is (a principal's id, "" of nobody known), so that it can be erased.
    Not `kept`: value and salt are dropped at once, and nobody can ever tell what was committed to.
    """

    value: str
    subject: str = ""
    kept: bool = True

    def __post_init__(self) -> None:
        # Kept in a column with an index: PostgreSQL takes no NUL there, and 2,704 bytes at most.
        value = _text(self.value).replace("\0", "\ufffd")
        if len(value) > PERSONAL_LIMIT:
            value = value[: PERSONAL_LIMIT - 1] + "…"
        _put(self, "value", value)
        _put(self, "subject", _text(self.subject))


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


def _plain(text: str) -> bool:
    """Tell whether what this joins can be recorded as it is: nearly always."""
    return text.isascii() and len(text) <= TEXT_LIMIT


def _clean(self: Struct, attributes: tuple[str, ...]) -> None:
    """Replace those text attributes of a frozen struct that can't be recorded as they are."""
    for attribute in attributes:
        value = getattr(self, attribute)
        if type(value) is not Personal:
            _put(self, attribute, _text(value))


def _whole(value: str) -> str:
    """Return a plain str (not a subclass) that UTF-8 can carry."""
    if value.isascii():
        return str.__str__(value)
    return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _fact(value: Fact) -> Fact:
    """Return a copy of `value` that nobody else holds. Raises TypeError, ValueError (canonical)."""
    kind = type(value)
    if kind is str and value.isascii():  # type: ignore[union-attr]
        return value  # nearly always
    if kind is list:
        return [_fact(member) for member in value]  # type: ignore[union-attr]
    if value is None or kind is bool or kind is Personal:
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


def _facts(facts: Mapping[str, Fact]) -> tuple[dict[str, Fact], bool]:
    """Return a copy of the facts that nobody else holds, and whether there is personal data in it.

    Raises TypeError, ValueError.
    """
    copy, odd = {}, []
    for name, fact in facts.items():
        if not (type(name) is str and name.isascii()):
            name = _name(name)
        if not (type(fact) is str and fact.isascii()):
            fact = _fact(fact)
            odd.append(fact)
        copy[name] = fact
    return copy, bool(odd) and _holds_personal(odd)


def _holds_personal(facts: Iterable[Any]) -> bool:
    """Tell whether somewhere in copied facts there is personal data."""
    for fact in facts:
        kind = type(fact)
        if kind is str:
            continue
        if kind is Personal or (kind is list and _holds_personal(fact)):
            return True
        if kind is dict and _holds_personal(fact.values()):
            return True
    return False


# Events are made for every use of a key: a Struct is made in a fifth of a dataclass's time.
class Actor(Struct, frozen=True):
    """Who acted. `kind` is a word such as person, application, service or unknown."""

    kind: str
    id: str
    name: Told

    def __post_init__(self) -> None:
        kind, identity, name = self.kind, self.id, self.name
        if not (
            type(kind) is type(identity) is type(name) is str and _plain(kind + identity + name)
        ):
            _clean(self, ("kind", "id", "name"))


class Subject(Struct, frozen=True):
    """What was acted upon. `version` is a key's version number, where there is one.

    `classification` is the name of the data classification that it stands under, "" of none.
    """

    kind: str
    id: str
    name: Told = ""
    version: int | None = None
    classification: str = ""

    def __post_init__(self) -> None:
        kind, identity, name, label = self.kind, self.id, self.name, self.classification
        if not (
            type(kind) is type(identity) is type(name) is type(label) is str
            and _plain(kind + identity + name + label)
        ):
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


class Event(Struct, frozen=True):
    """One entry before it has its index.

    `facts` hold text, whole numbers, booleans, None, and lists and dicts of those with ASCII
    names; never key material, plaintext or tokens; personal data as `Personal`. `at` is UTC
    microseconds since the epoch, `uuid` a UUIDv7, "" for a new one. `personal` is found out:
    whether any of it is Personal. Raises TypeError or ValueError where a value can't be recorded.
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
    uuid: str = ""
    personal: bool = False

    def __post_init__(self) -> None:
        method, door, action, source = self.method, self.door, self.action, self.source
        reason, request_id = self.reason, self.request_id
        if not (
            type(method) is type(door) is type(action) is type(reason) is str
            and type(source) is type(request_id) is str
            and _plain(method + door + action + reason + source + request_id)
        ):
            _clean(self, _TEXTS)
        if type(self.outcome) is not Outcome:
            _put(self, "outcome", Outcome(self.outcome))
        if self.approvals:
            _put(self, "approvals", tuple(map(_text, self.approvals)))
        personal = Personal in (type(self.actor.name), type(self.object.name), type(source))
        if self.facts:
            told, theirs = _facts(self.facts)
            _put(self, "facts", told)
            personal = personal or theirs
        if not self.uuid:
            _put(self, "uuid", uuid7())
        elif not _UUID.fullmatch(self.uuid):
            raise ValueError("a uuid is 32 small hexadecimal digits with four hyphens")
        if not 0 <= self.at <= INTEGER_LIMIT:
            raise ValueError(f"a time can't be {self.at} microseconds")
        _put(self, "personal", personal)
