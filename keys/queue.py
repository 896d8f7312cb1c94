"""Handing work to the workers, by a task's name and ids only. The work itself stands in the database."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from celery import current_app
from django.conf import settings
from kombu.exceptions import OperationalError

logger = logging.getLogger(__name__)

SWEEP = "keys.sweep"
ROTATE = "keys.rotate"
PUBLISH = "keys.publish"
RUN_JOBS = "keys.run_jobs"
EXECUTE_REQUESTS = "keys.execute_requests"
LIST_KEYS = "keys.list_keys"
CHECK_DRIFT = "keys.check_drift"


def send(task: str, ids: Sequence[str]) -> bool:
    """Queue a task. Where the broker is away say so and go on: the next sweep finds the work again."""
    try:
        current_app.send_task(
            task,
            args=[list(ids)],
            ignore_result=True,
            retry=False,
            # By then later sweeps have sent the same ids again.
            expires=2 * settings.SWEEP_SECONDS + 60,
        )
    except (OperationalError, OSError) as error:
        logger.warning(
            "The broker can't be reached (%s); the next sweep takes over.", type(error).__name__
        )
        return False
    return True
