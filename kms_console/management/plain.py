"""Commands as a door: what they raise, in one plain line; exit code 1 comes with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.core.checks import Tags
from django.core.management.base import CommandError
from django.db import DatabaseError

from keys.errors import KeyServiceError

# Where the root key lies and who can read it. Addresses and templates are no business of commands:
# checking them takes longer than most commands, and an auditor must not wait for a page to be mended.
CHECKS = [Tags.security]


@contextmanager
def errors() -> Iterator[None]:
    """Translate the domain's errors, and a database that isn't there, into CommandError."""
    try:
        yield
    except KeyServiceError as error:
        raise CommandError(" ".join(error.detail.split())) from None
    except DatabaseError as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CommandError(
            f"The database can't be used ({first}). Run `python manage.py prepare` first."
        ) from None
