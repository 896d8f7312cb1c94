"""System checks: where the root key lies, and who can read it.

A key beside the material it wraps protects against nobody who copies the folder. In everyday use that
is a warning; `check --deploy` refuses.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from django.apps.config import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.db import DatabaseError

from keys import sealing
from keys.errors import Unavailable

_BESIDE = "The root key lies in the same folder as the database of the material it wraps."
_BESIDE_HINT = (
    "Keep them apart: name another place in KMS_ROOT_KEY_PATH, or give the key in KMS_ROOT_KEY, "
    "so that no one copy or backup holds both."
)


@register(Tags.security)
def root_key_apart(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Warn where the root key's file lies beside the material database (keys.W001)."""
    return [Warning(_BESIDE, hint=_BESIDE_HINT, id="keys.W001")] if _beside() else []


@register(Tags.security, deploy=True)
def root_key_apart_in_deployment(
    app_configs: Sequence[AppConfig] | None, **kwargs: Any
) -> list[CheckMessage]:
    """The same, as an error under `check --deploy` (keys.E001)."""
    return [Error(_BESIDE, hint=_BESIDE_HINT, id="keys.E001")] if _beside() else []


@register(Tags.security)
def root_key_private(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Warn where others can read the root key's file (keys.W002); its use is refused then anyway."""
    path = sealing.root_key_file()
    if sealing.VARIABLE in os.environ:
        return []
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return []  # none yet, or none to be seen: using it tells
    if not mode & 0o077:
        return []
    return [
        Warning(
            f"The root key at {path} has mode {mode:04o}: others can read it.",
            hint=f"Run: chmod 600 {path}",
            id="keys.W002",
        )
    ]


@register(Tags.database)
def root_key_left_behind(
    app_configs: Sequence[AppConfig] | None, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Warn where a key store holds the root key, and it still lies here too (keys.W003).

    Only where that database is looked at: `manage.py check --database material`.
    """
    from keys.root_keys import rows, standing  # here: most commands never need them

    if rows.alias() not in (databases or ()):
        return []
    try:
        left = standing().file_to_remove
    except (Unavailable, DatabaseError):
        return []  # not migrated yet, or away: using it tells
    if not left:
        return []
    where = sealing.where()
    return [
        Warning(
            f"A key store holds the root key, and {where} still has one that nothing needs.",
            hint=f"Keep a copy where you keep recovery keys, then remove {where} from every host.",
            id="keys.W003",
        )
    ]


def _beside() -> bool:
    if sealing.VARIABLE in os.environ:
        return False
    database = settings.DATABASES.get("material", {})
    name = str(database.get("NAME") or "")
    if not str(database.get("ENGINE", "")).endswith("sqlite3") or name in ("", ":memory:"):
        return False
    return Path(name).resolve().parent == sealing.root_key_file().resolve().parent
