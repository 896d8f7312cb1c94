"""The named principals of the house's own parts. Their rows come with the first migration."""

from __future__ import annotations

import uuid

from keys.callers import Caller, Door, Kind, Method, Role

SCHEDULER_ID = uuid.UUID("00000000-0000-4000-8000-000000000001")
OPERATOR_ID = uuid.UUID("00000000-0000-4000-8000-000000000002")


def scheduler(request_id: str | None = None) -> Caller:
    """Return the scheduler: it rotates what is due and destroys what has waited long enough."""
    return Caller(
        SCHEDULER_ID,
        Kind.SERVICE,
        "scheduler",
        Role.SCHEDULER,
        Method.SCHEDULE,
        Door.SCHEDULE,
        request_id=request_id or str(uuid.uuid4()),
    )


def operator() -> Caller:
    """Return whoever runs commands on the host: permissions of its own, and no use of keys."""
    return Caller(
        OPERATOR_ID, Kind.SERVICE, "operator", Role.OPERATOR, Method.COMMAND, Door.COMMAND
    )
