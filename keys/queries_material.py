"""Reads about imported material that ends: it has to be brought again in time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from django.db.models import Q

from keys import clock, gate
from keys.actions import Action
from keys.callers import Caller
from keys.models import KeyVersion
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
