"""Azure's own rotation of keys, by its rotation policy, as a number of days."""

from __future__ import annotations

import re

from azure.keyvault.keys import (
    KeyRotationLifetimeAction,
    KeyRotationPolicy,
    KeyRotationPolicyAction,
)

from keys.backends.azure import forms
from keys.backends.azure.connection import Connection
from keys.backends.azure.failures import BadRequest, asked
from keys.backends.base import NoMaterial

# ISO 8601 durations as Azure takes them: years, months and days. A year has 365 days, a month 30.
_DURATION = re.compile(
    r"P(?:(\d{1,4})Y)?(?:(\d{1,4})M)?(?:(\d{1,5})W)?(?:(\d{1,5})D)?(?:T.*)?", re.I
)


def days_of(duration: str | None) -> int | None:
    """Return a duration in days; None for none, or one that is shorter than a day."""
    found = _DURATION.fullmatch(duration or "")
    if found is None:
        return None
    years, months, weeks, days = (int(part or 0) for part in found.groups())
    return 365 * years + 30 * months + 7 * weeks + days or None


def _rotates(action: KeyRotationLifetimeAction) -> bool:
    return forms.text(action.action).lower() == "rotate"


def period(policy: KeyRotationPolicy) -> int | None:
    """Return after how many days Azure makes a new version; None where it does not."""
    for action in policy.lifetime_actions:
        if _rotates(action):
            after = days_of(action.time_after_create)
            lifetime, before = days_of(policy.expires_in), days_of(action.time_before_expiry)
            if after is None and lifetime is not None and before is not None:
                after = lifetime - before
            return after
    return None


def rotation_days(connection: Connection, name: str) -> int | None:
    """Return a key's period now; None where it has none switched on.

    A certificate's key has no policy of its own: Azure knows none there.
    """
    found = _policy(connection, name)
    return None if found is None else period(found)


def set_rotation(connection: Connection, name: str, days: int | None) -> None:
    """Switch a key's rotation on, every `days` days, or off. What the policy says beside it stays."""
    policy = _policy(connection, name)
    if (None if policy is None else period(policy)) == days:
        return
    policy = policy or KeyRotationPolicy(lifetime_actions=[])
    kept = [action for action in policy.lifetime_actions if not _rotates(action)]
    if days is not None:
        kept.append(
            KeyRotationLifetimeAction(KeyRotationPolicyAction.rotate, time_after_create=f"P{days}D")
        )
    wanted = KeyRotationPolicy(lifetime_actions=kept, expires_in=policy.expires_in)
    asked(lambda: connection.client.update_key_rotation_policy(name, wanted))


def _policy(connection: Connection, name: str) -> KeyRotationPolicy | None:
    try:
        return asked(lambda: connection.client.get_key_rotation_policy(name))
    except (NoMaterial, BadRequest):
        return None
