"""Who is asking. There is no anonymous caller: a door makes a Caller or refuses."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field, replace
from enum import StrEnum


class Kind(StrEnum):
    PERSON = "person"
    APPLICATION = "application"
    SERVICE = "service"  # the scheduler and the operator's commands


class Role(StrEnum):
    """Disjoint: one principal has one role or none."""

    NONE = ""
    ADMINISTRATOR = "administrator"
    OFFICER = "officer"
    AUDITOR = "auditor"
    SCHEDULER = "scheduler"
    OPERATOR = "operator"


class Method(StrEnum):
    """How the caller proved who it is."""

    SESSION = "session"
    BEARER = "bearer"
    COMMAND = "command"  # who can run a command on the host
    SCHEDULE = "schedule"


class Door(StrEnum):
    CONSOLE = "console"
    REST = "rest"
    COMMAND = "command"
    SCHEDULE = "schedule"


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated principal at a door. `source` is its network address, empty where there is none."""

    principal_id: uuid.UUID
    kind: Kind
    name: str
    role: Role
    method: Method
    door: Door
    credential_id: uuid.UUID | None = None
    source: str = ""
    request_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    # The approved request that this call carries out, where the worker acts for its requester.
    approval_id: uuid.UUID | None = None
    # True for callers that the worked example acts as; entries and votes say so.
    demo: bool = False

    def through(self, door: Door) -> Caller:
        """Return the same caller at another door."""
        return replace(self, door=door)
