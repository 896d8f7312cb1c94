"""What a change was asked with: plain values that can be voted on, recorded, and sent again later."""

from __future__ import annotations

from typing import Any

from audit import canonical
from audit.events import TEXT_LIMIT, Personal
from keys import names
from keys.errors import Invalid
from keys.gate import record
from keys.secret import Secret

# Bytes of canonical JSON; what is longer is cut in the entry, never in what is voted on.
LIMIT = 4096


def votable(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments that officers vote on: all but secrets and the reason, which has its own place."""
    return {
        name: value
        for name, value in arguments.items()
        if name != "reason" and not isinstance(value, Secret)
    }


# Parameters that say who somebody is, in a change that takes a user name.
PERSONAL = ("name", "username")


def facts(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments as facts for the log: no secrets, and nothing of a size or type to choke on."""
    told: dict[str, Any] = {}
    about_somebody = "username" in arguments
    saves_filter = isinstance(arguments.get("query"), dict)
    for name, value in votable(arguments).items():
        if value in (None, "", [], {}):
            continue
        if saves_filter and name == "name":
            continue  # what somebody looks for may be a name, and so may what they call it
        if saves_filter and name == "query":
            value = sorted(map(str, value))
        try:
            small = len(canonical.encode(value)) <= LIMIT
        except (TypeError, ValueError):
            small = False
        told[name] = value if small else record.printable(repr(value))
        if about_somebody and name in PERSONAL and isinstance(value, str):
            told[name] = _personal(name, value)
    return {"asked": told} if told else {}


def _personal(name: str, value: str) -> Personal:
    """Return a name as an account has it, so that it is found when it is to be erased.

    What can't be an account's is nobody's to erase, so it isn't kept.
    """
    try:
        kept = names.slug(value, name) if name == "username" else names.display_name(value)
        return Personal(kept)
    except Invalid:
        return Personal(value[:TEXT_LIMIT], kept=False)


def check_plain(arguments: dict[str, Any]) -> None:
    """Raise Invalid where an argument is no plain JSON value: it could not be voted on or recorded."""
    try:
        canonical.encode(votable(arguments))
    except (TypeError, ValueError):
        raise Invalid(
            "Only text, whole numbers, true, false, lists and objects are understood here."
        ) from None


def number(arguments: dict[str, Any]) -> int | None:
    """Return the version's number that was asked for, where it is one that a version can have."""
    found = arguments.get("number")
    if isinstance(found, bool) or not isinstance(found, int):
        return None
    return found if 0 < found < 2**31 else None
