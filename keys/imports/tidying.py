"""The scheduler's part in imports: what is used up or over is cleared, what has expired is removed.

Everything here can run twice, late, or in two processes at once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

from keys import clock, gate, jobs, targets
from keys.actions import Action
from keys.administration.ceremonies import close_ceremony
from keys.administration.imports import check_has_material, check_imported
from keys.administration.intents import intend_removal, locked, raised
from keys.administration.versions import find_version
from keys.errors import Conflict, KeyServiceError
from keys.gate.changes import Change
from keys.imports import ceremonies, tickets
from keys.models import Ceremony, Key, KeyVersion
from keys.services import scheduler
from keys.states import GONE, KeyState

logger = logging.getLogger(__name__)
# How many of each a sweep looks at.
LOOK_AT = 200


def tidy() -> None:
    """Clear used and expired tickets, end ceremonies whose time is over, remove expired material."""
    _each(tickets.to_clear(LOOK_AT), tickets.clear)
    _each(ceremonies.over(LOOK_AT), _close)
    _each(ceremonies.to_complete(LOOK_AT), lambda row: ceremonies.complete(scheduler(), row))
    _each(ceremonies.leftover(LOOK_AT), ceremonies.remove_component)
    _each(expired(LOOK_AT), _expire)


def expired(limit: int) -> list[KeyVersion]:
    """Return versions whose imported material is over and still at its store."""
    rows = KeyVersion.objects.filter(
        material_expires_at__isnull=False, material_expires_at__lte=clock.now(), condition=""
    )
    # A key that waits for its destruction loses everything anyway.
    rows = rows.exclude(state__in=GONE).filter(key__state__in=[KeyState.ENABLED, KeyState.DISABLED])
    return list(rows.select_related("key").order_by("material_expires_at")[:limit])


def _close(ceremony: Ceremony) -> None:
    close_ceremony(scheduler(), str(ceremony.id), reason="its time is over")


def _expire(version: KeyVersion) -> None:
    expire_material(scheduler(), str(version.key_id), number=version.number)


@gate.change(Action.RUN_JOB, on=targets.key)
def expire_material(change: Change[Key], *, number: int) -> KeyVersion:
    """Remove a version's imported material at the time that was set when it was imported.

    Officers agreed to that time with the import, so there is no vote. Raises Conflict before it.
    """
    key = locked(change)
    check_imported(key)
    version = find_version(key, number)
    change.record_as, change.about = Action.DELETE_MATERIAL, change.target.subject(number)
    until = version.material_expires_at
    if until is None or clock.database_now() < until:
        raise Conflict("The material has not expired.")
    check_has_material(version)
    change.facts["expired_at"] = until.isoformat()
    job = intend_removal(change, key, version)

    def remove() -> KeyVersion:
        raised(jobs.run(job.id))
        return KeyVersion.objects.get(pk=version.pk)

    change.after(remove)
    return version


def _each(rows: Iterable[Any], step: Callable[[Any], object]) -> None:
    for row in rows:
        try:
            step(row)
        except KeyServiceError as error:
            logger.warning("What an import left could not be tidied: %s", error.code)
