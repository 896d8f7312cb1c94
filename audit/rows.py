"""An entry as a row of `audit_entry`, in the form that each database takes fastest.

PostgreSQL gets lines of COPY's text format, SQLite tuples for executemany().
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from audit import entries
from audit.events import Event

COLUMNS = (*entries.COLUMNS, "leaf_hash", "body")
NAMES = ", ".join(f'"{name}"' for name in COLUMNS)
COPY = f"COPY audit_entry ({NAMES}) FROM STDIN"
INSERT = f"INSERT INTO audit_entry ({NAMES}) VALUES ({', '.join('?' * len(COLUMNS))})"  # noqa: S608 - constants

# Index, event, leaf hash and body of an entry.
Made = tuple[int, Event, bytes, bytes]

# What COPY's text format gives a meaning to, and what it reads instead.
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})

_second: tuple[int, str] = (-1, "")  # the last entry's, and how databases read it


def copy_lines(made: Iterable[Made]) -> bytes:
    """Return what `COPY` reads."""
    lines = []
    for index, event, leaf, body in made:
        texts, plain = _texts(event)
        if not plain:
            texts = [text.translate(_ESCAPES) for text in texts]
        version = event.object.version
        lines.append(
            f"{index}\t{event.uuid}\t{_moment(event.at)}+00\t"
            + "\t".join(texts[:9])
            + ("\t\\N\t" if version is None else f"\t{version}\t")
            + "\t".join(texts[9:])
            + f"\t\\\\x{leaf.hex()}\t\\\\x{body.hex()}\n"
        )
    return "".join(lines).encode()


def tuples(made: Iterable[Made]) -> list[tuple[Any, ...]]:
    """Return what `INSERT` takes on SQLite: uuid and time as Django's fields read them there."""
    rows = []
    for index, event, leaf, body in made:
        texts, _ = _texts(event)
        uuid = event.uuid.replace("-", "")
        version = event.object.version
        rows.append((index, uuid, _moment(event.at), *texts[:9], version, *texts[9:], leaf, body))
    return rows


def _texts(event: Event) -> tuple[Sequence[str], bool]:
    """Return what entries.columns makes of the body between `at` and `leaf_hash`, but the version.

    And whether none of it means anything to COPY.
    """
    actor, subject = event.actor, event.object
    texts: Sequence[str] = (
        actor.kind,
        actor.id,
        actor.name,
        event.method,
        event.door,
        event.action,
        subject.kind,
        subject.id,
        subject.name,
        subject.classification,
        event.outcome._value_,
        event.reason,
        event.request_id,
        event.source,
    )  # type: ignore[assignment]
    whole = "".join(texts)
    plain = whole.isprintable() and "\\" not in whole
    limit = entries.COLUMN_LIMIT
    if (not plain and "\0" in whole) or (len(whole) > limit and max(map(len, texts)) > limit):
        texts = [entries.searchable(text) for text in texts]
    return texts, plain


def _moment(at: int) -> str:
    """Return a time in microseconds since the epoch as both databases read it, in UTC."""
    global _second
    second, rest = divmod(at, 1_000_000)
    last, text = _second
    if second != last:
        text = entries.moment(second * 1_000_000).isoformat(" ").removesuffix("+00:00")
        _second = (second, text)
    return f"{text}.{rest:06d}" if rest else text
