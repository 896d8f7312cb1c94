"""Personal data opened for reading: the values behind the commitments of some entries."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from audit import personal
from audit.models import PersonalValue

COMMITMENT = re.compile(rb'"(hmac-sha256:[0-9a-f]{64})"')
# What one statement asks for; SQLite has a limit.
BATCH = 5000

# By commitment: whose it is, its value and its salt, both None where they were erased.
Known = dict[str, tuple[str, str | None, bytes | None]]


def commitments(lines: bytes) -> set[str]:
    """Return what looks like a commitment in some entries' bodies."""
    return {text.decode() for text in COMMITMENT.findall(lines)}


def look_up(texts: Iterable[str], using: str = "default") -> Known:
    """Return what is kept of these commitments."""
    wanted, found = sorted(texts), Known()
    for at in range(0, len(wanted), BATCH):
        rows = PersonalValue.objects.using(using).filter(commitment__in=wanted[at : at + BATCH])
        for text, subject, value, salt in rows.values_list(
            "commitment", "subject", "value", "salt"
        ):
            found[text] = (subject, value, None if salt is None else bytes(salt))
    return found


def names(body: Mapping[str, Any], known: Known) -> dict[str, str | None]:
    """Return the values of the commitments in one entry; None where erased.

    Where an entry says who did it or what it was about, only that account's own value counts: who
    calls itself like somebody else's commitment isn't shown under that name.
    """
    found = {text: known[text][1] for text in personal.texts(body) if text in known}
    actor, subject = body["actor"], body["object"]
    owners = ((actor["name"], actor["id"]), (subject["name"], subject["id"]))
    for text, owner in (*owners, (body["source"], actor["id"])):
        if text in found and known[text][0] not in ("", owner):
            del found[text]
    return found
