"""What the console believes of a key, in the shape in which its store tells its side."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime

from django.db.models import Q, QuerySet

from keys.backends.base import Parent
from keys.backends.views import KeyView, VersionView
from keys.models import Drift, Key, KeyVersion, StoreView
from keys.models.drift import DriftField, DriftState
from keys.models.key import ManagementModel, Origin
from keys.states import GONE, Condition, KeyState, VersionState


def wanted(key: Key) -> KeyView:
    """Return a key as the console believes it to be: every version whose material it knows of.

    `reference` is empty: the store's own name follows from the handles.
    """
    baseline = StoreView.objects.filter(key=key).first()
    versions = tuple(
        VersionView(
            handle=version.handle,
            state=VersionState(version.state),
            primary=version.primary,
            destroy_at=version.destroy_at
            if version.condition == Condition.PENDING_DESTRUCTION
            else None,
            public_key=bytes(version.public_key) if version.public_key else None,
            created_at=version.originated_at or version.created_at,
        )
        for version in key.versions.exclude(state__in=GONE).exclude(handle="").order_by("number")
        if version.condition in ("", Condition.PENDING_DESTRUCTION)
    )
    return KeyView(
        reference="",
        name=key.alias,
        state=KeyState(key.state),
        versions=versions,
        spec=key.spec,
        usage=key.usage,
        algorithm=key.algorithm,
        imported=key.origin == Origin.IMPORTED,
        provider_managed=key.model == ManagementModel.PROVIDER_MANAGED,
        rotation_days=baseline.rotation_days if baseline else None,
        destroy_at=key.destroy_at,
        tags=(baseline.tags or {}) if baseline else {},
    )


def parent(key: Key) -> Parent:
    """Return what a store needs to know of the key that new material is for."""
    handles = standing(key).order_by("-number").values_list("handle", flat=True)
    return Parent(key.id, key.alias, key.algorithm, handles.first() or "")


def standing(key: Key) -> QuerySet[KeyVersion]:
    """Return the versions whose handles lead to the key that is at the store now.

    Not those of a key that was lost there, and made anew: their handles are kept so that a
    compromised one is known should it come back, and nothing new is made under them.
    """
    lost = Drift.objects.filter(key=key, field=DriftField.KEY_MISSING, state=DriftState.REPAIRED)
    since = lost.order_by("-decided_at").values_list("decided_at", flat=True).first()
    away = Q(condition=Condition.UNAVAILABLE, state=VersionState.COMPROMISED)
    rows = key.versions.exclude(handle="").exclude(away)
    return rows.filter(created_at__gte=since) if since else rows


def digest(view: KeyView) -> str:
    """Return a fingerprint of what a store is to be brought in line with."""
    told = [
        view.state,
        _at(view.destroy_at),
        view.rotation_days,
        sorted(view.tags.items()),
        [[v.handle, v.state, v.primary, _at(v.destroy_at)] for v in view.versions],
    ]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def _at(moment: datetime | None) -> str:
    return moment.isoformat() if moment else ""
