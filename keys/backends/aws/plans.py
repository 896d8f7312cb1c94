"""What AWS KMS can say of a key of the console: the one place where its limits are written down.

One key of AWS holds one or more versions: the material of each rotation on demand. AWS enables,
disables and deletes whole keys only, so

- a version is *suspended* there where all versions of its AWS key are; else the console alone refuses;
- material before the last rotation only decrypts (deactivated), the last one is active;
- a deactivated, pre-active or compromised version with an AWS key of its own shows as active, for
  nothing at AWS says otherwise;
- where every AWS key is disabled, the key is disabled and its versions are as they were.

The same function reads a plan (what should be) and what AWS says (what is), so they compare.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from keys.backends.aws import vocabulary
from keys.backends.aws.keyring import handle_of
from keys.backends.views import KeyView, VersionView
from keys.states import KeyState, VersionState

# Waiting dates that differ by less are the same: AWS counts whole days from when it is asked.
SAME_DATE = timedelta(days=1)


class AwsState(StrEnum):
    """What an AWS key can be, as far as it matters here."""

    ENABLED = "Enabled"
    DISABLED = "Disabled"
    GOING = "PendingDeletion"


@dataclass(frozen=True, slots=True)
class Side:
    """One AWS key of a console key, as it is or as it should be; `versions` are numbers and facts."""

    arn: str
    state: AwsState
    versions: tuple[tuple[int, VersionView], ...]
    destroy_at: datetime | None = None


def key_state(sides: Sequence[Side]) -> KeyState:
    states = {side.state for side in sides}
    if states == {AwsState.GOING}:
        return KeyState.PENDING_DESTRUCTION
    return KeyState.ENABLED if AwsState.ENABLED in states else KeyState.DISABLED


def destroy_at(sides: Sequence[Side]) -> datetime | None:
    """Return when the last AWS key goes, where all of them do."""
    if key_state(sides) is not KeyState.PENDING_DESTRUCTION:
        return None
    return max((side.destroy_at for side in sides if side.destroy_at), default=None)


def versions(sides: Sequence[Side], primary_arn: str) -> tuple[VersionView, ...]:
    """Return the versions as AWS shows them, oldest first."""
    whole = key_state(sides)
    shown: list[VersionView] = []
    for side in sides:
        newest = max((number for number, _ in side.versions), default=0)
        for number, facts in side.versions:
            shown.append(
                replace(
                    facts,
                    handle=handle_of(side.arn, number),
                    state=_state(side, number == newest, whole),
                    primary=side.arn == primary_arn and number == newest,
                    destroy_at=None if whole is KeyState.PENDING_DESTRUCTION else side.destroy_at,
                )
            )
    return tuple(shown)


def _state(side: Side, newest: bool, whole: KeyState) -> VersionState:
    if not newest:
        return VersionState.DEACTIVATED
    if whole is KeyState.ENABLED and side.state is AwsState.DISABLED:
        return VersionState.SUSPENDED
    if whole is not KeyState.PENDING_DESTRUCTION and side.state is AwsState.GOING:
        return VersionState.DEACTIVATED
    return VersionState.ACTIVE


# --- what should be


def planned(
    wanted: KeyView, numbers: Mapping[str, Sequence[tuple[int, VersionView]]], now: datetime
) -> list[Side]:
    """Return what each AWS key should be for what the console believes. `numbers`: by ARN."""
    sides = []
    for arn, held in numbers.items():
        state, at = _target(wanted, [view for _, view in held], now)
        sides.append(Side(arn, state, tuple(held), at))
    return sides


def _target(
    wanted: KeyView, held: Sequence[VersionView], now: datetime
) -> tuple[AwsState, datetime | None]:
    if wanted.state is KeyState.PENDING_DESTRUCTION:
        return _waiting(wanted.destroy_at, now)
    # One of them waits, the others must stay: the console waits for that one alone.
    if held and all(view.destroy_at for view in held):
        return _waiting(max(view.destroy_at for view in held if view.destroy_at), now)
    if wanted.state is not KeyState.ENABLED:
        return AwsState.DISABLED, None
    suspended = held and all(view.state is VersionState.SUSPENDED for view in held)
    return (AwsState.DISABLED if suspended else AwsState.ENABLED), None


def _waiting(at: datetime | None, now: datetime) -> tuple[AwsState, datetime | None]:
    """AWS waits 7 to 30 days. What waits longer is disabled there, so that it isn't gone too soon."""
    if at is not None and window_days(at, now) is None:
        return AwsState.DISABLED, None
    return AwsState.GOING, at


def window_days(at: datetime, now: datetime) -> int | None:
    """Return the days to ask AWS for, so that it is not before `at`; None where that is too long.

    A date of 30 days and a moment counts as 30: the moment is what it took to get here.
    """
    least, most = vocabulary.WINDOW
    days = math.ceil((at - now - timedelta(hours=1)) / timedelta(days=1))
    return None if days > most else max(days, least)


def primary_of(wanted: KeyView, arns: Mapping[str, str]) -> str:
    """Return the ARN that the alias should name: the primary version's, else the newest's.

    `arns`: by handle, in the versions' order.
    """
    chosen = [arns[view.handle] for view in wanted.versions if view.primary and view.handle in arns]
    return chosen[-1] if chosen else next(iter(reversed(list(arns.values()))), "")


def rotation_days(wanted: KeyView, state: KeyState) -> int | None:
    """Return the period that AWS can keep for what is wanted; none while the key is going."""
    rotates = wanted.spec == "AES_256" and not wanted.imported
    if wanted.rotation_days is None or not rotates or state is KeyState.PENDING_DESTRUCTION:
        return None
    least, most = vocabulary.ROTATION_DAYS
    return min(max(wanted.rotation_days, least), most)


def utc_now() -> datetime:
    return datetime.now(UTC)
