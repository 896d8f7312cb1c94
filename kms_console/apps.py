from __future__ import annotations

from django.apps import AppConfig


class KmsConsoleConfig(AppConfig):
    name = "kms_console"
    verbose_name = "KMS Console"

    def ready(self) -> None:
        # Makes the Celery application the one that shared tasks belong to, in every process.
        from kms_console import celery  # noqa: F401
