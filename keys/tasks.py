"""Celery shims. Messages carry ids only; a forged one can do nothing that was not due anyway."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Sequence
from typing import Any

from celery import shared_task
from kombu.exceptions import OperationalError

from keys import jobs, names, sweep
from keys.administration import execute

logger = logging.getLogger(__name__)


@shared_task(name="keys.sweep")
def sweep_all() -> None:
    """Find what is due and hand it out in chunks."""
    sweep.beat("sweep")
    due = sweep.due()
    for chunk in _chunks(due.requests):
        send(execute_requests, chunk)
    for chunk in _chunks(due.rotations):
        send(rotate, chunk)
    for chunk in _chunks(due.jobs):
        send(run_jobs, chunk)
    sweep.tidy()


@shared_task(name="keys.rotate")
def rotate(ids: list[str]) -> None:
    """Rotate those of these keys that are due."""
    wanted = _uuids(ids)[: sweep.CHUNK]
    sweep.rotate(sweep.rotations_due(sweep.CHUNK, among=wanted))


@shared_task(name="keys.run_jobs")
def run_jobs(ids: list[str]) -> None:
    """Carry out those of these jobs that are due."""
    for job in _uuids(ids):
        if jobs.is_due(job):
            jobs.run(job)


@shared_task(name="keys.execute_requests")
def execute_requests(ids: list[str]) -> None:
    """Carry out those of these requests that are approved."""
    for approval in _uuids(ids):
        execute(str(approval))


def send(task: Any, ids: Sequence[str]) -> bool:
    """Queue a task; where the broker is away say so and go on: the next sweep finds the work again."""
    try:
        task.apply_async(args=[list(ids)], ignore_result=True, retry=False)
    except (OperationalError, OSError) as error:
        logger.warning(
            "The broker can't be reached (%s); the next sweep takes over.", type(error).__name__
        )
        return False
    return True


def _chunks(ids: Sequence[uuid.UUID]) -> list[list[str]]:
    texts = [str(identity) for identity in ids]
    return [texts[start : start + sweep.CHUNK] for start in range(0, len(texts), sweep.CHUNK)]


def _uuids(ids: Any) -> list[uuid.UUID]:
    """Return the UUIDs among what a message carries; whatever else is there is nobody's id."""
    if not isinstance(ids, list):
        return []
    return [
        found for found in (names.as_uuid(item) for item in ids if isinstance(item, str)) if found
    ]
