"""Which database holds what: wrapped key material in one of its own, everything else in the other."""

from __future__ import annotations

from typing import Any

from django.db.models import Model

MATERIAL_APP = "software"
MATERIAL_DATABASE = "material"


class MaterialRouter:
    """Send the software backend's own table to its own database, and nothing else there."""

    def db_for_read(self, model: type[Model], **hints: Any) -> str | None:
        return MATERIAL_DATABASE if model._meta.app_label == MATERIAL_APP else None

    db_for_write = db_for_read

    def allow_relation(self, one: Model, other: Model, **hints: Any) -> bool | None:
        return one._meta.app_label == other._meta.app_label or None

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool:
        return (app_label == MATERIAL_APP) == (db == MATERIAL_DATABASE)
