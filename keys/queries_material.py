"""Reads about imported material that needs somebody: what ends, and ceremonies under way."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from django.db.models import Q

from keys import clock, gate
from keys.actions import Action
from keys.callers import Caller
from keys.models import Ceremony, KeyVersion
from keys.models.imports import CeremonyState
from keys.states import GONE, Condition, KeyState

SOON = timedelta(days=30)
LIVING = [KeyState.ENABLED, KeyState.DISABLED]


@dataclass(frozen=True, slots=True)
class Ending:
    """Versions of living keys whose imported material ends soon, or is gone; ten of each at most."""

    soon: list[KeyVersion]
    gone: list[KeyVersion]


def material_ending(caller: Caller) -> Ending:
    """Return whose material ends within 30 days, the next first, and whose is not there any more."""
    gate.read(caller, Action.READ_KEYS)
    now = clock.now()
    versions = (
        KeyVersion.objects.filter(key__state__in=LIVING)
        .exclude(state__in=GONE)
        .select_related("key__classification")
    )
    soon = versions.filter(
        material_expires_at__gt=now, material_expires_at__lte=now + SOON, condition=""
    )
    gone = versions.filter(
        Q(condition=Condition.UNAVAILABLE) | Q(material_expires_at__lte=now, condition="")
    )
    return Ending(
        soon=list(soon.order_by("material_expires_at")[:10]),
        gone=list(gone.order_by("key__alias", "number")[:10]),
    )


def ceremonies_under_way(caller: Caller) -> list[Ceremony]:
    """Return open ceremonies with their custodians (`.custodians`), the one that ends next first."""
    gate.read(caller, Action.READ_APPROVALS)
    rows = Ceremony.objects.filter(state=CeremonyState.OPEN, expires_at__gt=clock.now())
    rows = rows.select_related("key", "opened_by").prefetch_related("custodians__officer")
    return list(rows.order_by("expires_at")[:50])
