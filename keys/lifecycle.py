"""The only code that writes a state column, by compare-and-set, along the tables of keys/states.py.

Also what a state allows: check_use(). Sources: NIST SP 800-57 part 1 rev. 5, section 7.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db import models
from django.db.models import Q

from keys import moves
from keys.errors import Conflict, IllegalTransition, StateForbids
from keys.models import Classification, Key, KeyVersion
from keys.states import (
    GONE,
    KEY_EDGES,
    SERVING,
    VERSION_EDGES,
    Condition,
    Direction,
    KeyState,
    VersionState,
)

_V, _K = VersionState, KeyState


def check_version_edge(version: KeyVersion, to: VersionState) -> None:
    """Raise IllegalTransition, naming what would be possible, where the table has no such edge."""
    state = VersionState(version.state)
    if to in VERSION_EDGES[state]:
        return
    possible = ", ".join(sorted(edge.value for edge in VERSION_EDGES[state])) or "nothing"
    raise IllegalTransition(
        f"Version {version.number} is {state.value}; it can't become {to.value}. Possible: {possible}.",
        state=state.value,
        to=to.value,
    )


def move_version(version: KeyVersion, to: VersionState, now: datetime, reason: str = "") -> None:
    """Write a version's next state by compare-and-set, with the stamp that belongs to it.

    Raises IllegalTransition where the table has no such edge, Conflict where somebody was quicker.
    """
    check_version_edge(version, to)
    changes: dict[str, object] = {"state": to, "state_reason": reason[:500]}
    if to not in SERVING:
        changes["primary"] = False
    stamp = {
        _V.ACTIVE: "activated_at" if version.activated_at is None else "",
        _V.DEACTIVATED: "deactivated_at",
        _V.COMPROMISED: "compromised_at",
        _V.DESTROYED: "destroyed_at",
        _V.DESTROYED_COMPROMISED: "compromised_at"
        if version.state == _V.DESTROYED
        else "destroyed_at",
    }.get(to, "")
    if stamp:
        changes[stamp] = now
    if to in GONE:
        changes |= {"condition": "", "destroy_at": None}
    before = version.state
    _compare_and_set(version, changes)
    moves.note(version.key_id, version.number, before, to.value)


def set_condition(version: KeyVersion, condition: Condition | None, **columns: object) -> None:
    """Write a version's operational condition, and what the store said of it, by compare-and-set."""
    _compare_and_set(version, {"condition": condition or "", **columns})


def make_primary(version: KeyVersion, classification: Classification, now: datetime) -> None:
    """Activate `version` and let it take over: the old primary is deactivated in the same transaction.

    Raises IllegalTransition or Conflict.
    """
    serving = KeyVersion.objects.filter(key_id=version.key_id, state__in=SERVING).exclude(
        pk=version.pk
    )
    for old in serving:
        move_version(old, _V.DEACTIVATED, now, f"replaced by version {version.number}")
    move_version(version, _V.ACTIVE, now)
    origin = version.originated_at or now
    _compare_and_set(
        version,
        {
            "primary": True,
            "originated_at": origin,
            "protect_until": origin + timedelta(days=classification.originator_days),
            "process_until": origin + timedelta(days=classification.recipient_days),
        },
    )


def rotation_date(key: Key, version: KeyVersion) -> datetime | None:
    """Return when a key is due: its own period or its classification's, whichever is shorter."""
    if version.originated_at is None:
        return None
    days = min(filter(None, [key.rotation_days, key.classification.rotation_days]))
    return version.originated_at + timedelta(days=days)


def move_key(key: Key, to: KeyState, **columns: object) -> None:
    """Write a key's next state by compare-and-set. Raises IllegalTransition or Conflict."""
    state = KeyState(key.state)
    if to not in KEY_EDGES[state]:
        raise IllegalTransition(
            f"Key {key.alias} is {state.label.lower()}; it can't become {to.label.lower()}.",
            state=state.value,
            to=to.value,
        )
    changes: dict[str, object] = {"state": to, **columns}
    if to != _K.PENDING_DESTRUCTION:
        changes["destroy_at"] = None
    if not Key.objects.filter(pk=key.pk, state=state).update(**changes):
        raise Conflict(f"Key {key.alias} changed meanwhile; look again.")
    _apply(key, changes)
    moves.note(key.id, None, state.value, to.value)


def _compare_and_set(version: KeyVersion, changes: dict[str, object]) -> None:
    unchanged = Q(
        pk=version.pk, state=version.state, condition=version.condition, primary=version.primary
    )
    if not KeyVersion.objects.filter(unchanged).update(**changes):
        raise Conflict(f"Version {version.number} changed meanwhile; look again.")
    _apply(version, changes)


def _apply(row: models.Model, changes: dict[str, object]) -> None:
    for column, value in changes.items():
        setattr(row, column, value)


def check_use(
    *,
    key_state: str,
    version_state: str,
    condition: str,
    direction: Direction,
    primary: bool,
    suspended_processes: bool,
    protect_until: datetime | None,
    process_until: datetime | None,
    material_until: datetime | None,
    now: datetime,
) -> None:
    """Raise StateForbids, saying why, where this use of this version is not allowed now."""
    if key_state != KeyState.ENABLED:
        raise StateForbids(f"The key is {KeyState(key_state).label.lower()}.", state=key_state)
    if condition:
        raise StateForbids(
            f"The version is not ready: {Condition(condition).label.lower()}.", state=condition
        )
    if material_until and now >= material_until:
        raise StateForbids(
            "The imported material has expired; import it again.", state="material_expired"
        )
    state = VersionState(version_state)
    if direction == Direction.PROTECT:
        if state != _V.ACTIVE or not primary:
            raise StateForbids(
                f"Only the active primary version protects new data; this one is {state.label.lower()}."
            )
        if protect_until and now >= protect_until:
            raise StateForbids(
                "The version's originator-usage period is over; rotate the key.",
                state="period_over",
            )
        return
    allowed = state in (_V.ACTIVE, _V.DEACTIVATED) or (
        state == _V.SUSPENDED and suspended_processes
    )
    if not allowed:
        raise StateForbids(f"The version is {state.label.lower()}.", state=state.value)
    if process_until and now >= process_until:
        raise StateForbids("The version's recipient-usage period is over.", state="period_over")
