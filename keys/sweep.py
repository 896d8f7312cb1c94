"""The sweep: what is due is found in the database and handed out. Celery beat only ticks it.

Everything here can run twice, late, or in two processes at once: jobs are claimed by
compare-and-set, and the database allows one open job per key, kind and target version.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from django.db import DatabaseError
from django.db.models import Exists, OuterRef

from audit import writer
from keys import approvals, clock, discovery, jobs, queries, root_keys
from keys import due as dates
from keys.actions import Action
from keys.administration import drift, expire_request, prepare_version, rotate_key
from keys.administration.retention import keep_trail
from keys.administration.votes import staleness
from keys.drift import noting
from keys.errors import (
    BackendError,
    BackendRefused,
    BackendUnavailable,
    KeyServiceError,
    PendingApproval,
)
from keys.imports import tidying as importing
from keys.models import Approval, Heartbeat, Key, StoreView
from keys.models.approval import ApprovalState
from keys.models.key import Origin
from keys.services import scheduler
from keys.states import KeyState

logger = logging.getLogger(__name__)
CHUNK = 100
# Enough that no process still decides on values this old; what is older forces a fresh look.
KEEP_CHANGES = 10_000
# How many live requests a sweep looks at, of those over and of the others.
LOOK_AT = 200


@dataclass(frozen=True, slots=True)
class Due:
    """Ids of what is to be done now."""

    rotations: list[uuid.UUID]
    publications: list[uuid.UUID]
    jobs: list[uuid.UUID]
    requests: list[uuid.UUID]
    listings: list[uuid.UUID]
    looks: list[uuid.UUID]


def due(limit: int = 10_000) -> Due:
    """Return what is due: keys to rotate, next versions to publish, jobs to run, approved requests,
    key stores to walk through, keys to compare with their stores."""
    by_requester = [action for action in Action if action.row.by_requester]
    approved = Approval.objects.filter(state=ApprovalState.APPROVED).exclude(
        action__in=by_requester
    )
    return Due(
        rotations_due(limit),
        publications_due(limit),
        jobs.due(limit),
        list(approved.values_list("id", flat=True)[:limit]),
        discovery.due(limit),
        looks_due(limit),
    )


def rotations_due(limit: int, among: Collection[uuid.UUID] | None = None) -> list[uuid.UUID]:
    """Return keys (of those named) whose rotation is due and neither paused, under way, nor waiting for votes.

    Not those whose material somebody brings: the next one is brought, too.
    """
    making = dates.open_makings().filter(key=OuterRef("pk"))
    asked = Approval.objects.filter(
        key=OuterRef("pk"), action=Action.ROTATE_KEY, state__in=approvals.LIVE
    )
    keys = dates.keys_to_rotate(clock.now()).filter(
        ~Exists(making), ~Exists(asked), origin=Origin.GENERATED
    )
    if among is not None:
        keys = keys.filter(pk__in=among)
    return list(keys.order_by("rotate_at").values_list("id", flat=True)[:limit])


def publications_due(limit: int, among: Collection[uuid.UUID] | None = None) -> list[uuid.UUID]:
    """Return keys (of those named) whose next version is to be made now, ahead of its rotation."""
    making = dates.open_makings().filter(key=OuterRef("pk"))
    keys = dates.keys_to_publish(clock.now()).filter(~Exists(making))
    if among is not None:
        keys = keys.filter(pk__in=among)
    return list(keys.order_by("rotate_at").values_list("id", flat=True)[:limit])


def looks_due(limit: int, among: Collection[uuid.UUID] | None = None) -> list[uuid.UUID]:
    """Return keys (of those named) that are to be compared with their stores now; stores in use only."""
    views = StoreView.objects.filter(look_at__lte=clock.now(), key__key_store__enabled=True)
    views = views.exclude(key__state=KeyState.DESTROYED)
    if among is not None:
        views = views.filter(pk__in=among)
    return list(views.order_by("look_at").values_list("key_id", flat=True)[:limit])


def rotate(keys: Iterable[uuid.UUID]) -> int:
    """Rotate keys that are due; return how many. One that fails is told in its entry and doesn't stop the rest."""
    return _each(keys, rotations_due, lambda key: rotate_key(scheduler(), key, reason="due"))


def publish(keys: Iterable[uuid.UUID]) -> int:
    """Make the next version of keys for which it is time; return how many. Failures as in rotate()."""
    return _each(
        keys, publications_due, lambda key: prepare_version(scheduler(), key, reason="due")
    )


def compare(keys: Iterable[uuid.UUID]) -> int:
    """Compare keys with their stores; return how many. A store that is away is asked once, not for each."""
    rows = Key.objects.filter(pk__in=list(keys)).select_related("classification", "key_store")
    by_store: dict[uuid.UUID, list[Key]] = {}
    for key in rows.order_by("key_store", "id"):
        by_store.setdefault(key.key_store_id, []).append(key)
    return sum(_compare_in_one_store(together) for together in by_store.values())


def _compare_in_one_store(keys: list[Key]) -> int:
    done = 0
    for index, key in enumerate(keys):
        if not looks_due(1, [key.id]):
            continue  # another worker was quicker
        try:
            drift.keep_watch(key)
            done += 1
        except BackendRefused as error:
            # It may be this key's own policy that keeps the console out.
            logger.warning("A key store refuses to show a key: %s", error.code)
        except BackendUnavailable as error:
            noting.note_trouble(keys[index:], error)
            logger.warning("A key store can't be compared with now: %s", error.code)
            break
        except KeyServiceError as error:
            logger.warning("A key could not be compared with its store: %s", error.code)
        except DatabaseError:
            raise
        except Exception as error:
            # Whatever it is, it is this key's: the others are compared, and it is tried again later.
            logger.exception("A key's comparison met an error of its own.")
            why = f"Unexpected: {type(error).__name__}; see the log."
            noting.note_trouble([key], BackendError(why))
    return done


def _each(
    keys: Iterable[uuid.UUID],
    still_due: Callable[[int, Collection[uuid.UUID]], list[uuid.UUID]],
    step: Callable[[str], object],
) -> int:
    done = 0
    for key in keys:
        if not still_due(1, [key]):
            continue  # another worker was quicker
        try:
            step(str(key))
            done += 1
        except PendingApproval:
            continue
        except KeyServiceError as error:
            logger.warning("What was due for a key did not succeed: %s", error.code)
    return done


def tidy() -> None:
    """Close requests that no longer hold, check the key stores, let go of what nobody needs."""
    live = Approval.objects.filter(state__in=approvals.LIVE).select_related("key")
    over = list(live.filter(expires_at__lte=clock.now())[:LOOK_AT])
    # Whether one still holds is checked again at each vote and before it is carried out. Here a
    # sample is enough, so that ten thousand requests don't cost a sweep as many looks.
    sample = live.filter(expires_at__gt=clock.now()).order_by("?")[:LOOK_AT]
    for approval in [*over, *sample]:
        end, _ = staleness(approval)
        if end is not None:
            try:
                expire_request(scheduler(), str(approval.id))
            except KeyServiceError as error:
                logger.warning("A request could not be closed: %s", error.code)
    queries.check_key_stores()
    importing.tidy()
    drift.tidy()
    root_keys.tidy()
    keep_trail()
    writer.prune_changes(KEEP_CHANGES)


def beat(name: str) -> None:
    """Note that a part of the house is at work."""
    Heartbeat.objects.update_or_create(name=name, defaults={"at": clock.now()})
