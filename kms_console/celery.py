"""The queue: it carries ids and ticks, never work. What there is to do stands in the database."""

from __future__ import annotations

import logging
import os
import threading
from typing import Any

from celery import Celery, signals

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "kms_console.settings")

from django.conf import settings
from django.db import DatabaseError, connections

log = logging.getLogger(__name__)

SWEEP = "keys.sweep"

app = Celery("kms_console")
app.conf.update(
    broker_url=settings.REDIS_URL,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    # Nobody waits for an answer by way of the queue, and nothing but JSON is read from it.
    result_backend=None,
    task_ignore_result=True,
    task_serializer="json",
    accept_content=["json"],
    # A web request doesn't wait for a broker that is gone: the next sweep finds the job anyway.
    task_publish_retry=False,
    broker_transport_options={
        "visibility_timeout": max(600, 2 * settings.JOB_LEASE_SECONDS),
        "socket_connect_timeout": 2,
        "socket_timeout": 15,
        "max_retries": 1,
        "interval_start": 0.1,
    },
    # A message is gone only when its task has ended; a worker takes no more than it works on.
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    worker_hijack_root_logger=False,
    worker_send_task_events=False,
    worker_enable_remote_control=False,
    enable_utc=True,
    timezone="UTC",
    beat_max_loop_interval=min(settings.SWEEP_SECONDS, 30),
    beat_schedule={
        "sweep": {
            "task": SWEEP,
            "schedule": settings.SWEEP_SECONDS,
            # A tick that found no worker until the next one came is of no use any more.
            "options": {"expires": settings.SWEEP_SECONDS},
        }
    },
)
app.autodiscover_tasks()


@signals.setup_logging.connect
def _keep_djangos_logging(**_: Any) -> None:
    """Leave logging as Django's settings have it; a receiver here keeps Celery from its own."""


@signals.beat_init.connect
def _tick_at_once(**_: Any) -> None:
    """Sweep when beat starts: what came due meanwhile doesn't wait for the first interval."""
    app.send_task(SWEEP, expires=settings.SWEEP_SECONDS)


_ending = threading.Event()


@signals.worker_ready.connect
def _show_life(**_: Any) -> None:
    """Let the worker be seen at work from now on, whether or not beat sends it anything."""
    threading.Thread(target=_keep_showing_life, name="heartbeat", daemon=True).start()


@signals.worker_shutting_down.connect
def _stop_showing_life(**_: Any) -> None:
    _ending.set()


def _keep_showing_life() -> None:
    from keys import sweep

    while True:
        try:
            sweep.beat("worker")
        except DatabaseError as error:
            log.warning("The worker's heartbeat can't be written: %s", type(error).__name__)
        finally:
            connections.close_all()
        if _ending.wait(settings.SWEEP_SECONDS):
            return
