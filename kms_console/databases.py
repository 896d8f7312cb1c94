"""Which database holds what: wrapped key material in one of its own, everything else in the other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import dj_database_url

from kms_console import environment

if TYPE_CHECKING:
    from django.db.models import Model

MATERIAL_APP = "software"
MATERIAL_DATABASE = "material"

SQLITE_OPTIONS = {
    "timeout": 20,
    # BEGIN IMMEDIATE: a transaction that will write takes its lock first, so it can't fail half
    # way with "database is locked".
    "transaction_mode": "IMMEDIATE",
    # NORMAL would lose acknowledged entries at power loss.
    "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON;",
}
# A server behind a network that swallows packets is given up on, not waited for without end. Nor does
# a process that was stopped in the middle of a transaction hold up the others (milliseconds).
POSTGRESQL_OPTIONS = {
    "connect_timeout": 5,
    "tcp_user_timeout": 20_000,
    "options": "-c lock_timeout=10000 -c idle_in_transaction_session_timeout=20000",
}


def configured(variable: str, embedded: Path) -> dict[str, Any]:
    """Return a Django database from the URL in `variable`, else an SQLite file at `embedded`."""
    url = environment.text(variable, "")
    if not url:
        embedded.parent.mkdir(parents=True, exist_ok=True)
        url = f"sqlite:///{embedded}"
    return from_url(url)


def from_url(url: str) -> dict[str, Any]:
    """Return a Django database from its URL, with the options that lose nothing."""
    database: dict[str, Any] = dict(
        dj_database_url.parse(url, conn_max_age=600, conn_health_checks=True)
    )
    sqlite = str(database["ENGINE"]).endswith("sqlite3")
    ours = SQLITE_OPTIONS if sqlite else POSTGRESQL_OPTIONS
    database["OPTIONS"] = {**ours, **database.get("OPTIONS", {})}
    return database


class MaterialRouter:
    """Send the software backend's own table to its own database, and nothing else there."""

    def db_for_read(self, model: type[Model], **hints: Any) -> str | None:
        return MATERIAL_DATABASE if model._meta.app_label == MATERIAL_APP else None

    db_for_write = db_for_read

    def allow_relation(self, one: Model, other: Model, **hints: Any) -> bool | None:
        return one._meta.app_label == other._meta.app_label or None

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool:
        return (app_label == MATERIAL_APP) == (db == MATERIAL_DATABASE)
