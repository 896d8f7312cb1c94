"""A key at Google in the console's words, and a key of the console in Google's.

Both go through one table: a version is ENABLED, DISABLED or DESTROY_SCHEDULED at a date, and one may
be primary. What Google can't tell apart therefore looks alike from both sides.

- A key whose versions are all disabled is a disabled key, one whose versions are all waiting for
  their destruction waits for its own; its versions are then shown as they would be without that.
- Only keys for symmetric encryption have a primary version at Google. There an enabled version that
  isn't primary is shown as deactivated: Google still decrypts with it. Of other keys every enabled
  version is active, and which of them signs is the console's own business: to an adoption the newest
  one that can is shown as primary.
- Google always keeps a primary version; where the console has none, Google's is not spoken of.
- Google knows no compromised and no pre-active version: both stay enabled there, so that officers
  can still open what was protected; the console refuses the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from keys.backends.gcp import names
from keys.backends.gcp.forms import FORMS, Form, has_primary
from keys.backends.gcp.keyring import GONE, PENDING, PURPOSES, Seen, moment
from keys.backends.views import KeyView, VersionView
from keys.states import GONE as WITHOUT_MATERIAL
from keys.states import KeyState, VersionState

ENABLED, DISABLED, SCHEDULED = "ENABLED", "DISABLED", "DESTROY_SCHEDULED"
DAY_SECONDS = 86400
ROTATION_DAYS = (1, 36500)  # CryptoKey.rotation_period: 24 to 876,000 hours


@dataclass(frozen=True, slots=True)
class Target:
    """What a version is, or should be, at Google."""

    handle: str
    state: str
    primary: bool = False
    destroy_at: datetime | None = None
    created_at: datetime | None = None
    public_key: bytes | None = None


def target_of(wanted: KeyView, version: VersionView) -> Target | None:
    """Return what Google should make of one version of a key; None where it should have none."""
    if version.state in WITHOUT_MATERIAL:
        return None
    at = version.destroy_at
    if at is None and wanted.state == KeyState.PENDING_DESTRUCTION:
        at = wanted.destroy_at
    enabled = wanted.state == KeyState.ENABLED and version.state != VersionState.SUSPENDED
    state = SCHEDULED if at else ENABLED if enabled else DISABLED
    return Target(
        version.handle,
        state,
        version.primary,
        at,
        version.created_at,
        version.public_key,
    )


def targets_of(wanted: KeyView) -> list[Target]:
    return [
        target for version in wanted.versions if (target := target_of(wanted, version)) is not None
    ]


def expressed(wanted: KeyView, reference: str) -> KeyView:
    """Return what observe() says of a key that is in line with `wanted`."""
    targets = targets_of(wanted)
    primaries = has_primary(wanted.spec, wanted.usage)
    state, destroy_at = key_state(targets)
    return KeyView(
        reference=reference,
        name=reference.rpartition("/")[2],
        state=state,
        versions=version_views(targets, primaries, state),
        spec=wanted.spec,
        usage=wanted.usage,
        algorithm=wanted.algorithm,
        imported=wanted.imported,
        rotation_days=rotation_wanted(wanted) if primaries else None,
        destroy_at=destroy_at,
        tags={name: value for name, value in wanted.tags.items() if names.tags({name: value})},
    )


def rotation_wanted(wanted: KeyView) -> int | None:
    least, most = ROTATION_DAYS
    return None if wanted.rotation_days is None else min(max(wanted.rotation_days, least), most)


def key_state(targets: Sequence[Target]) -> tuple[KeyState, datetime | None]:
    """Return a key's state, and its destruction date, from its versions that have material."""
    states = {target.state for target in targets}
    if not states:
        return KeyState.DESTROYED, None
    if states == {SCHEDULED}:
        dates = [target.destroy_at for target in targets if target.destroy_at]
        return KeyState.PENDING_DESTRUCTION, max(dates, default=None)
    if ENABLED in states:
        return KeyState.ENABLED, None
    if DISABLED in states:
        return KeyState.DISABLED, None
    return KeyState.PENDING_IMPORT, None


def version_views(
    targets: Iterable[Target], primaries: bool, key: KeyState
) -> tuple[VersionView, ...]:
    """Return versions in the console's words; `primaries`: whether Google keeps a primary of the key."""
    whole = {KeyState.DISABLED: DISABLED, KeyState.PENDING_DESTRUCTION: SCHEDULED}.get(key)
    return tuple(
        VersionView(
            target.handle,
            _version_state(target, primaries, ENABLED if target.state == whole else target.state),
            target.primary,
            target.destroy_at,
            target.public_key,
            target.created_at,
        )
        for target in targets
    )


def _version_state(target: Target, primaries: bool, state: str) -> VersionState:
    if state == ENABLED:
        serves = target.primary or not primaries
        return VersionState.ACTIVE if serves else VersionState.DEACTIVATED
    if state == DISABLED:
        return VersionState.SUSPENDED
    return VersionState.DEACTIVATED if state == SCHEDULED else VersionState.PRE_ACTIVE


def serving(versions: Sequence[Seen]) -> str:
    """Return the version that a key without a primary would be used with: the newest that can be."""
    for state in (ENABLED, DISABLED, SCHEDULED):
        names_of_it = [version.name for version in versions if version.state == state]
        if names_of_it:
            return names_of_it[-1]
    return ""


def targets_seen(versions: Iterable[Seen], primary: str, publics: dict[str, bytes]) -> list[Target]:
    """Return the versions that have material, or soon will, as they are."""
    return [
        Target(
            version.name,
            version.state,
            version.name == primary,
            version.destroy_at,
            version.created_at,
            publics.get(version.name),
        )
        for version in versions
        if version.state not in GONE
    ]


def form_of(key: Any, versions: Sequence[Seen], level: str) -> tuple[Form | None, str]:
    """Return a key's form, and why a store of this protection level can't take it over, or ""."""
    living = [version for version in versions if version.state not in GONE]
    purpose = PURPOSES.get(key.purpose, "unknown")
    kinds = {version.algorithm for version in living}
    levels = {version.level for version in living}
    form = FORMS.get(next(iter(kinds))) if len(kinds) == 1 else None
    if not versions:
        return form, "It has no version yet."
    if not living:
        return form, "All its versions are destroyed."
    if len(kinds) > 1:
        return None, f"Its versions have different algorithms: {', '.join(sorted(kinds))}."
    if levels & {"EXTERNAL", "EXTERNAL_VPC"}:
        return None, "Its material is in an external key manager, which the console can't see."
    if level == "hsm" and "SOFTWARE" in levels:
        return form, "Its material is kept in software, and this key store is for hardware keys."
    if form is None or form.purpose != purpose:
        return None, f"The console has no use for {next(iter(kinds))} keys."
    if all(version.state in PENDING for version in living):
        return form, "Google is still making or importing it."
    return form, ""


def facts_of(key: Any, versions: Sequence[Seen]) -> dict[str, str]:
    """Return what a person may want to know beside the rest."""
    living = [version for version in versions if version.state not in GONE]
    facts = {
        "purpose": PURPOSES.get(key.purpose, "unknown"),
        "algorithm": ", ".join(sorted({version.algorithm for version in living})) or "none",
        "protection level": ", ".join(sorted({version.level for version in living})) or "none",
        "destruction window": f"{window_seconds(key) / DAY_SECONDS:g} days",
        "versions": f"{len(living)} of {len(versions)} have material",
    }
    created, rotates = moment(key, "create_time"), moment(key, "next_rotation_time")
    if created is not None:
        facts["created"] = f"{created:%Y-%m-%d %H:%M} UTC"
    if rotates is not None:
        facts["next rotation"] = f"{rotates:%Y-%m-%d %H:%M} UTC"
    return facts


def window_seconds(key: Any) -> int:
    """Return how long Google waits with the destruction of a version of this key."""
    seconds = int(key.destroy_scheduled_duration.seconds)
    return seconds if seconds > 0 else 30 * DAY_SECONDS


def rotation_days(key: Any) -> int | None:
    seconds = int(key.rotation_period.seconds)
    return max(1, round(seconds / DAY_SECONDS)) if seconds > 0 else None
