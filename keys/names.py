"""Names that people give: normalised once, when written, so that look-alikes can't stand side by side."""

from __future__ import annotations

import re
import unicodedata
import uuid
from functools import lru_cache

from keys.errors import Invalid

NAME_LENGTH = 128
_SLUG = re.compile(r"[a-z0-9][a-z0-9._-]{0,127}")


def display_name(text: str, what: str = "name") -> str:
    """Return `text` in NFKC without surrounding blanks.

    Raises Invalid where it is empty, longer than 128 characters, or has control or invisible characters.
    """
    if not isinstance(text, str):
        raise Invalid(f"The {what} must be text.", field=what)
    name = unicodedata.normalize("NFKC", text).strip()
    if not name or len(name) > NAME_LENGTH:
        raise Invalid(f"The {what} must have 1 to {NAME_LENGTH} characters.", field=what)
    if any(unicodedata.category(character)[0] == "C" for character in name):
        raise Invalid(f"The {what} must not have control or invisible characters.", field=what)
    return name


def folded(name: str) -> str:
    """Return the form under which a name is unique and looked for: NFKC, case-folded."""
    name = storable(name)
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


def storable(text: str) -> str:
    """Return `text` with U+FFFD for what no database keeps (NUL, lone surrogates), so that it can be looked for."""
    if text.isascii() and "\0" not in text:
        return text
    return "".join("\ufffd" if c == "\0" or "\ud800" <= c <= "\udfff" else c for c in text)


def slug(text: str, what: str = "alias") -> str:
    """Return an identifier for addresses: lower-case letters, digits, dot, dash, underscore.

    Raises Invalid for anything else, and for what could be taken for a UUID.
    """
    if not isinstance(text, str):
        raise Invalid(f"The {what} must be text.", field=what)
    name = folded(text.strip())
    if not _SLUG.fullmatch(name):
        raise Invalid(
            f"The {what} must have 1 to 128 lower-case letters, digits, dots, dashes or underscores, "
            "and begin with a letter or digit.",
            field=what,
        )
    if as_uuid(name):
        raise Invalid(f"The {what} must not look like a UUID.", field=what)
    return name


@lru_cache(maxsize=50_000)
def text_of(identity: uuid.UUID) -> str:
    """Return a UUID's usual spelling. The same few are told in every entry."""
    return str(identity)


@lru_cache(maxsize=10_000)
def reference(text: str) -> str:
    """Return the one spelling of the many that an id and an alias have."""
    return str(as_uuid(text) or folded(text))


def as_uuid(text: str) -> uuid.UUID | None:
    """Return the UUID that `text` spells, or None."""
    try:
        return uuid.UUID(text)
    except (ValueError, AttributeError):
        return None


def prose(text: str, what: str, limit: int = 500, required: bool = False) -> str:
    """Return a sentence or two fit to be kept: no control characters but line breaks.

    Raises Invalid where it is longer than `limit` characters, or missing and required.
    """
    if not isinstance(text, str):
        raise Invalid(f"The {what} must be text.", field=what)
    kept = "".join(
        character for character in text.strip() if character == "\n" or character.isprintable()
    )
    if required and not kept:
        raise Invalid(f"The {what} is missing: say why.", field=what)
    if len(kept) > limit:
        raise Invalid(f"The {what} is limited to {limit} characters.", field=what)
    return kept
