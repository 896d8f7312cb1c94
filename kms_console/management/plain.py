"""Commands as a door: what they raise, in one plain line; exit code 1 comes with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.core.management.base import CommandError
from django.db import DatabaseError

from keys.errors import KeyServiceError


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
