"""The console's states as Azure's attributes: enabled, nbf and exp of each version.

| console | Azure |
|---|---|
| pre-active | nbf in the future: Azure decrypts, unwraps and verifies only |
| active | enabled, inside nbf and exp |
| suspended | enabled=false: Azure refuses every use |
| deactivated, compromised | exp has passed: Azure decrypts, unwraps and verifies only |

A compromised version is not disabled, since officers may still have to read what it protected; the
console itself refuses everybody else. A key has no state of its own at Azure: it is disabled where
all its versions are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from azure.keyvault.keys import KeyProperties

from keys.backends.azure.naming import one_name, others_tags
from keys.backends.views import KeyView, VersionView
from keys.states import GONE, KeyState, VersionState

_V, _K = VersionState, KeyState
# What Azure can show of each state, in a key that is enabled.
_SHOWN = {
    _V.PRE_ACTIVE: _V.PRE_ACTIVE,
    _V.ACTIVE: _V.ACTIVE,
    _V.SUSPENDED: _V.SUSPENDED,
    _V.DEACTIVATED: _V.DEACTIVATED,
    _V.COMPROMISED: _V.DEACTIVATED,
}
_OFF = (_K.DISABLED, _K.PENDING_DESTRUCTION)
# A date that does not come: what nbf and exp are moved to where they must not hold. They can't be
# taken back through the SDK.
FAR = datetime(2999, 1, 1, tzinfo=UTC)
_SECOND = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Change:
    """What to change of a version; None: nothing."""

    enabled: bool | None = None
    not_before: datetime | None = None
    expires_on: datetime | None = None

    @property
    def needed(self) -> bool:
        return self != Change()


def now() -> datetime:
    """Return the time in whole seconds, as Azure keeps it."""
    return datetime.now(UTC).replace(microsecond=0)


def observed(row: KeyProperties, at: datetime) -> VersionState:
    """Return the state that a version shows."""
    if row.enabled is False:
        return _V.SUSPENDED
    if row.expires_on is not None and row.expires_on <= at:
        return _V.DEACTIVATED
    if row.not_before is not None and row.not_before > at:
        return _V.PRE_ACTIVE
    return _V.ACTIVE


def key_state(versions: Iterable[VersionState]) -> KeyState:
    """Return the state of a key with versions in these states."""
    states = set(versions)
    return _K.DISABLED if states == {_V.SUSPENDED} else _K.ENABLED


def expressed(wanted: KeyView) -> KeyView:
    """Return what Azure would show of a key that is as the console wants it (Backend.expressed)."""
    living = [view for view in wanted.versions if view.state not in GONE]
    off = wanted.state in _OFF
    shown = tuple(
        replace(
            view,
            state=_V.SUSPENDED if off else _SHOWN[_V(view.state)],
            primary=view is living[-1],
            destroy_at=None,
        )
        for view in living
    )
    pending = wanted.state == _K.PENDING_DESTRUCTION
    return replace(
        wanted,
        reference=one_name(view.handle for view in living) if living else "",
        state=_K.PENDING_DESTRUCTION if pending else key_state(view.state for view in shown),
        versions=shown,
        destroy_at=wanted.destroy_at if pending else None,
        # A key that waits for its destruction makes no new versions.
        rotation_days=None if pending else wanted.rotation_days,
        tags=others_tags(wanted.tags),
    )


def change(row: KeyProperties, state: VersionState, at: datetime) -> Change:
    """Return what makes a version show `state`, and nothing where it does already."""
    if observed(row, at) is state:
        return Change()
    if state is _V.SUSPENDED:
        return Change(enabled=False)
    begins, ends = row.not_before, row.expires_on
    if state is _V.DEACTIVATED:
        ends = at if ends is None or ends > at else ends
        if begins is not None and begins >= ends:
            begins = ends - _SECOND
    else:
        if ends is not None and ends <= at:
            ends = FAR
        if state is _V.PRE_ACTIVE:
            if begins is None or begins <= at:
                begins = FAR - _SECOND if ends is None or ends >= FAR else ends - _SECOND
        elif begins is not None and begins > at:
            begins = at
    return Change(
        enabled=True if row.enabled is False else None,
        not_before=begins if begins != row.not_before else None,
        expires_on=ends if ends != row.expires_on else None,
    )


def arguments(wanted: Change) -> Mapping[str, Any]:
    """Return a change as update_key_properties() takes it."""
    return {
        "enabled": wanted.enabled,
        "not_before": wanted.not_before,
        "expires_on": wanted.expires_on,
    }


def version_view(
    handle: str, row: KeyProperties, at: datetime, public_key: bytes | None, primary: bool
) -> VersionView:
    return VersionView(
        handle=handle,
        state=observed(row, at),
        primary=primary,
        public_key=public_key,
        created_at=row.created_on,
    )
