"""Celery shims. Messages carry ids only; a forged one can do nothing that was not due anyway."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from celery import shared_task

from keys import discovery, jobs, names, queue, sweep
from keys.administration import execute


@shared_task(name=queue.SWEEP)
def sweep_all() -> None:
    """Find what is due and hand it out in chunks."""
    sweep.beat("sweep")
    due = sweep.due()
    for chunk in _chunks(due.requests):
        queue.send(queue.EXECUTE_REQUESTS, chunk)
    for chunk in _chunks(due.rotations):
        queue.send(queue.ROTATE, chunk)
    for chunk in _chunks(due.publications):
        queue.send(queue.PUBLISH, chunk)
    for chunk in _chunks(due.jobs):
        queue.send(queue.RUN_JOBS, chunk)
    for listing in due.listings:  # each is long by itself
        queue.send(queue.LIST_KEYS, [str(listing)])
    for chunk in _chunks(due.looks):
        queue.send(queue.CHECK_DRIFT, chunk)
    sweep.tidy()


@shared_task(name=queue.ROTATE)
def rotate(ids: list[str]) -> None:
    """Rotate those of these keys that are due."""
    wanted = _uuids(ids)[: sweep.CHUNK]
    sweep.rotate(sweep.rotations_due(sweep.CHUNK, among=wanted))


@shared_task(name=queue.PUBLISH)
def publish(ids: list[str]) -> None:
    """Make the next version of those of these keys for which it is time."""
    wanted = _uuids(ids)[: sweep.CHUNK]
    sweep.publish(sweep.publications_due(sweep.CHUNK, among=wanted))


@shared_task(name=queue.RUN_JOBS)
def run_jobs(ids: list[str]) -> None:
    """Carry out those of these jobs that are due."""
    for job in _uuids(ids):
        if jobs.is_due(job):
            jobs.run(job)


@shared_task(name=queue.LIST_KEYS)
def list_keys(ids: list[str]) -> None:
    """Walk on through the key stores of those of these listings that are due."""
    free = discovery.due()
    for listing in _uuids(ids):
        if listing in free:
            discovery.run(listing)


@shared_task(name=queue.CHECK_DRIFT)
def check_drift(ids: list[str]) -> None:
    """Compare those of these keys that are due with their stores."""
    wanted = _uuids(ids)[: sweep.CHUNK]
    sweep.compare(sweep.looks_due(sweep.CHUNK, among=wanted))


@shared_task(name=queue.EXECUTE_REQUESTS)
def execute_requests(ids: list[str]) -> None:
    """Carry out those of these requests that are approved."""
    for approval in _uuids(ids):
        execute(str(approval))


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
