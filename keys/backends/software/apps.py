"""The software key store is a Django app of its own: its table has a database of its own."""

from __future__ import annotations

from django.apps import AppConfig


class SoftwareConfig(AppConfig):
    name = "keys.backends.software"
    label = "software"
    verbose_name = "Software key store"
    default_auto_field = "django.db.models.BigAutoField"
