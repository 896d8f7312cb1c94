"""Telling an outage of the database, which ends by itself, from a statement that it refuses."""

from __future__ import annotations

import sqlite3

from django.db import Error as DatabaseError
from django.db import InterfaceError
from django.db.backends.base.base import BaseDatabaseWrapper

# SQLSTATE: connection exceptions, insufficient resources, operator intervention, and transactions
# that had to give way (deadlock, serialization, a lock or an idle transaction that took too long).
_SQLSTATES = ("08", "53", "57P", "40001", "40P01", "55P03", "25P03", "25P04")
# Primary result codes: busy, locked, read-only, I/O error, full, can't open, locking protocol.
_RESULTS = frozenset({5, 6, 8, 10, 13, 14, 15})


def is_outage(error: DatabaseError, connection: BaseDatabaseWrapper) -> bool:
    """Tell whether trying the same again on a new connection may help: then nobody's entry is at fault."""
    if isinstance(error, InterfaceError):
        return True
    cause = error.__cause__
    if isinstance(cause, sqlite3.Error):
        return getattr(cause, "sqlite_errorcode", 0) & 0xFF in _RESULTS
    state = getattr(cause, "sqlstate", None)
    if state:
        return str(state).startswith(_SQLSTATES)
    driver = connection.connection
    # psycopg tells of a lost connection without a state of the server's.
    return driver is None or bool(getattr(driver, "closed", False)) or _never_answered(cause)


def _never_answered(cause: BaseException | None) -> bool:
    return type(cause).__name__ in {"OperationalError", "ConnectionTimeout"}
