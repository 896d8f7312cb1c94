"""What is due: keys to rotate, keys whose next version is to be published. One expression for each.

The sweep finds by them what it hands out, and the change itself asks them again in its transaction.
Each is found by partial indexes, among a million keys without a scan.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db.models import Exists, OuterRef, Q, QuerySet

from keys import approvals
from keys.models import Approval, Job, Key, KeyVersion, MessageCount
from keys.models.job import OPEN_STATES, JobKind
from keys.models.key import Origin
from keys.states import Condition, KeyState, VersionState


def keys_to_rotate(now: datetime) -> QuerySet[Key]:
    """Return enabled keys whose rotation is due and not paused.

    Due is a key whose date has come, and one whose primary version has little of its message budget
    left. Each half has a partial index of its own; joined by OR, neither would be used.
    """
    by_date = Key.objects.filter(state=KeyState.ENABLED, rotate_at__lte=now).order_by()
    either = by_date.values("pk").union(low_budgets().values("key"), all=True)
    return Key.objects.filter(
        pk__in=either, state=KeyState.ENABLED, classification__rotation_paused=False
    )


def low_budgets() -> QuerySet[KeyVersion]:
    """Return the primary versions, of keys in any state, that have little of their message budget left."""
    low = MessageCount.objects.filter(low=True).values("version")
    return KeyVersion.objects.filter(pk__in=low, primary=True).order_by()


def keys_to_publish(now: datetime) -> QuerySet[Key]:
    """Return enabled keys whose next version is to be made and published now, ahead of their rotation.

    Not those that have one waiting, whose rotation is paused, or about which officers are voting:
    what they see of the key would change under their votes.
    """
    keys = Key.objects.filter(state=KeyState.ENABLED, publish_days__isnull=False)
    # Both databases add days to a date in ways of their own; the different numbers of days are few.
    soon = Q(rotate_at__lte=now)
    for days in keys.order_by().values_list("publish_days", flat=True).distinct():
        soon |= Q(publish_days=days, rotate_at__lte=now + timedelta(days=days or 0))
    asked = Approval.objects.filter(key=OuterRef("pk"), state__in=approvals.LIVE)
    return keys.filter(
        soon,
        ~Exists(waiting_versions().filter(key=OuterRef("pk"))),
        ~Exists(asked),
        origin=Origin.GENERATED,
        classification__rotation_paused=False,
    )


def waiting_versions() -> QuerySet[KeyVersion]:
    """Return the versions that wait to take over, or are being made: newer than all that ever served."""
    served = KeyVersion.objects.filter(
        key=OuterRef("key"), number__gt=OuterRef("number"), activated_at__isnull=False
    )
    waiting = KeyVersion.objects.filter(
        state=VersionState.PRE_ACTIVE, condition__in=["", Condition.CREATING]
    )
    return waiting.filter(~Exists(served)).order_by("number")


def open_makings() -> QuerySet[Job]:
    """Return the jobs under way that make a key's next version; there is one at a time."""
    kinds = [JobKind.CREATE, JobKind.ROTATE, JobKind.PREPARE]
    return Job.objects.filter(kind__in=kinds, state__in=OPEN_STATES)
