"""The time: this process's for stamps, the database's for what must not depend on a process's clock."""

from __future__ import annotations

from datetime import UTC, datetime

from django.db import connection


def now() -> datetime:
    """Return the present time, aware, in UTC."""
    return datetime.now(UTC)


def database_now() -> datetime:
    """Return the database's idea of the present time, aware, in UTC."""
    postgresql = connection.vendor == "postgresql"
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT clock_timestamp()"
            if postgresql
            else "SELECT strftime('%Y-%m-%dT%H:%M:%f', 'now')"
        )
        (value,) = cursor.fetchone()
    if isinstance(value, str):
        return datetime.fromisoformat(value).replace(tzinfo=UTC)
    return value.astimezone(UTC)  # type: ignore[no-any-return]
