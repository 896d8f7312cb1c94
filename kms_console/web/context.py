"""What every page of the console knows: who is signed in, where one can go, what the role may."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.db import DatabaseError
from django.http import HttpRequest
from django.urls import reverse

from keys import queries
from keys.actions import Action
from keys.callers import Caller, Role
from keys.errors import KeyServiceError
from kms_console import identity


@dataclass(frozen=True, slots=True)
class Place:
    """One entry of the side bar."""

    name: str
    label: str
    icon: str
    address: str
    here: bool
    count: int = 0


_PLACES = {
    "": [
        ("overview", "Overview", "layout-dashboard"),
        ("keys", "Keys", "key-round"),
        ("approvals", "Approvals", "inbox"),
        ("jobs", "Jobs", "list-checks"),
        ("drift", "Differences", "git-compare"),
        ("audit", "Audit trail", "scroll-text"),
        ("proofs", "Proofs", "badge-check"),
    ],
    "Policy and access": [
        ("classifications", "Classifications", "shield-check"),
        ("applications", "Applications", "app-window"),
        ("people", "People", "users"),
        ("key-stores", "Key stores", "database"),
    ],
}


# Addresses that belong to a place without lying below it.
_BESIDE = {"key-stores": "/listings/"}


class May:
    """`may.rotate_key` in a template: whether the role is offered this action."""

    def __init__(self, role: Role) -> None:
        self._role = role

    def __getitem__(self, name: str) -> bool:
        return self._role in Action(name).row.roles


def console(request: HttpRequest) -> dict[str, Any]:
    """Return the context that templates/base.html needs; nothing where nobody is signed in."""
    try:
        caller = getattr(request, "caller", None) or identity.person(request)
        if caller is None:
            return {"me": None}
        waiting = queries.waiting_for(caller) if caller.role is Role.OFFICER else 0
    except (DatabaseError, KeyServiceError):
        return {"me": None}
    return {
        "me": caller,
        "may": May(caller.role),
        "places": _places(request, caller, waiting),
        "waiting": waiting,
        "idle_minutes": settings.SESSION_IDLE_SECONDS // 60,
    }


def _places(request: HttpRequest, caller: Caller, waiting: int) -> list[tuple[str, list[Place]]]:
    found = []
    for title, rows in _PLACES.items():
        places = []
        for name, label, icon in rows:
            address = reverse(f"web:{name}")
            below = (address, _BESIDE.get(name, address))
            here = request.path == address or (address != "/" and request.path.startswith(below))
            places.append(
                Place(name, label, icon, address, here, waiting if name == "approvals" else 0)
            )
        found.append((title, places))
    return found
