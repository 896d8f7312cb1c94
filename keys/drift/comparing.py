"""Two views of a key to the differences between them. Pure: no rows, no clock, no store."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from keys.backends.views import KeyView, VersionView
from keys.drift.plain import written
from keys.models.drift import DriftField
from keys.states import GONE, KeyState

# A store may round a date to its own day.
A_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that differs; `handle` names the version it is about, "" the whole key.

    `believed` and `observed` are plain JSON values: a state, a date in ISO 8601, a handle, a number
    of days, tags by name (None: not there); of an unknown version what told_of() says.
    """

    field: DriftField
    handle: str
    believed: Any
    observed: Any


def differences(
    expected: KeyView,
    seen: KeyView | None,
    wanted: KeyView,
    *,
    others: Mapping[str, VersionView] | None = None,
    baseline: bool = True,
    later: timedelta = A_DAY,
) -> list[Difference]:
    """Return where `seen` is not as the store would be if it were in line.

    `expected` is Backend.expressed(wanted): a store that can't express a state is not said to differ
    where it shows what it shows instead. `others`: versions by handle that the console
    knows beside those of `wanted`: destroyed, or their material removed. `baseline`: whether rotation
    and tags were looked at before, else there is nothing to compare them with. `later`: how much
    later than believed a store may destroy, which has a window of its own; earlier always differs.
    """
    if seen is None:
        return [Difference(DriftField.KEY_MISSING, "", wanted.state.value, None)]
    found = [*_of_the_key(expected, seen, wanted, later)]
    found += _of_versions(expected, seen, wanted, dict(others or {}), later)
    if baseline:
        found += _of_the_baseline(expected, seen)
    return found


def _of_the_key(
    expected: KeyView, seen: KeyView, wanted: KeyView, later: timedelta
) -> Iterator[Difference]:
    # A key that its provider manages is disabled here alone.
    here_alone = wanted.provider_managed and (wanted.state, seen.state) == (
        KeyState.DISABLED,
        KeyState.ENABLED,
    )
    if seen.state != expected.state and not here_alone:
        yield Difference(DriftField.KEY_STATE, "", wanted.state.value, seen.state.value)
    elif expected.destroy_at is not None and not _near(expected.destroy_at, seen.destroy_at, later):
        dates = written(expected.destroy_at), written(seen.destroy_at)
        yield Difference(DriftField.DESTRUCTION, "", *dates)


def _of_versions(
    expected: KeyView,
    seen: KeyView,
    wanted: KeyView,
    others: Mapping[str, VersionView],
    later: timedelta,
) -> list[Difference]:
    found: list[Difference] = []
    if wanted.spec and seen.spec and wanted.spec != seen.spec:
        # Made anew under the same name: every version there is another key's.
        return [
            Difference(DriftField.MATERIAL, version.handle, wanted.spec, seen.spec)
            for version in expected.versions
        ]
    for version in expected.versions:
        there, believed = seen.version(version.handle), wanted.version(version.handle) or version
        if there is None:
            missing = DriftField.VERSION_MISSING
            found.append(Difference(missing, version.handle, believed.state.value, None))
        else:
            found += _of_one_version(version, there, believed, later)
    for there in seen.versions:
        found += _of_the_unexpected(there, wanted, others)
    believed_primary, primary = _primary(expected), _primary(seen)
    if believed_primary != primary:
        found.append(Difference(DriftField.PRIMARY, "", believed_primary, primary))
    return found


def _of_one_version(
    expected: VersionView, seen: VersionView, wanted: VersionView, later: timedelta
) -> Iterator[Difference]:
    handle = expected.handle
    if _other_key(wanted, seen):
        # What else is said of it is said of another key.
        keys = (wanted.public_key or b"").hex(), (seen.public_key or b"").hex()
        yield Difference(DriftField.MATERIAL, handle, *keys)
        return
    if seen.state != expected.state:
        yield Difference(DriftField.VERSION_STATE, handle, wanted.state.value, seen.state.value)
    if seen.state in GONE:
        return
    both = expected.destroy_at, seen.destroy_at
    if (both[0] is None) != (both[1] is None) or not _near(*both, later):
        dates = written(wanted.destroy_at), written(seen.destroy_at)
        yield Difference(DriftField.VERSION_DESTRUCTION, handle, *dates)


def _of_the_unexpected(
    seen: VersionView, wanted: KeyView, others: Mapping[str, VersionView]
) -> Iterator[Difference]:
    if seen.state in GONE or wanted.version(seen.handle) is not None:
        return
    known = others.get(seen.handle)
    if known is None or _other_key(known, seen):
        yield Difference(DriftField.VERSION_UNKNOWN, seen.handle, None, told_of(seen))
    elif known.state in GONE:
        # Destroyed, by all that the console knows, and there all the same.
        believed = known.state.value
        yield Difference(DriftField.VERSION_STATE, seen.handle, believed, seen.state.value)


def told_of(version: VersionView) -> dict[str, Any]:
    """Return all that accepting an unknown version would take over: votes for it are votes for this.

    `public_key` is the SHA-256 of the DER SubjectPublicKeyInfo in hex, None where there is none.
    """
    key = version.public_key
    return {
        "state": version.state.value,
        "primary": version.primary,
        "destroy_at": written(version.destroy_at),
        "public_key": hashlib.sha256(key).hexdigest() if key else None,
    }


def _of_the_baseline(expected: KeyView, seen: KeyView) -> Iterator[Difference]:
    if expected.rotation_days != seen.rotation_days:
        periods = expected.rotation_days, seen.rotation_days
        yield Difference(DriftField.ROTATION, "", *periods)
    every = {*expected.tags, *seen.tags}
    names = sorted(name for name in every if expected.tags.get(name) != seen.tags.get(name))
    if names:
        believed, observed = (
            {name: view.tags.get(name) for name in names} for view in (expected, seen)
        )
        yield Difference(DriftField.TAGS, "", believed, observed)


def _primary(view: KeyView) -> str | None:
    return next((version.handle for version in view.versions if version.primary), None)


def _other_key(ours: VersionView, theirs: VersionView) -> bool:
    """Whether two versions of one handle are different keys, as far as their public keys tell."""
    known = ours.public_key and theirs.public_key
    return bool(known and ours.public_key != theirs.public_key)


def _near(expected: datetime | None, seen: datetime | None, later: timedelta) -> bool:
    if expected is None or seen is None:
        return True
    return -A_DAY <= seen - expected <= max(later, A_DAY)
