"""A KeyView as plain JSON values, and back: how listings and store views are kept."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from keys import names
from keys.backends.views import KeyView, VersionView
from keys.states import KeyState, VersionState


def to_plain(view: KeyView) -> dict[str, Any]:
    """Return a view as plain values; times in ISO 8601, public keys in hex."""
    return {
        "reference": names.storable(view.reference),
        "name": names.storable(view.name),
        "state": view.state.value,
        "spec": view.spec,
        "usage": view.usage,
        "algorithm": view.algorithm,
        "imported": view.imported,
        "provider_managed": view.provider_managed,
        "rotation_days": view.rotation_days,
        "destroy_at": written(view.destroy_at),
        "tags": _pairs(view.tags),
        "facts": _pairs(view.facts),
        "problem": names.storable(view.problem),
        "versions": [_version(version) for version in view.versions],
    }


def from_plain(given: Mapping[str, Any]) -> KeyView:
    """Undo to_plain(). Raises KeyError or ValueError for what isn't its output."""
    return KeyView(
        reference=given["reference"],
        name=given["name"],
        state=KeyState(given["state"]),
        versions=tuple(_version_from(version) for version in given["versions"]),
        spec=given["spec"],
        usage=given["usage"],
        algorithm=given["algorithm"],
        imported=given["imported"],
        provider_managed=given["provider_managed"],
        rotation_days=given["rotation_days"],
        destroy_at=moment(given["destroy_at"]),
        tags=given["tags"],
        facts=given["facts"],
        problem=given["problem"],
    )


def written(at: datetime | None) -> str | None:
    """Return a time as ISO 8601 text, None for none."""
    return at.isoformat() if at is not None else None


def moment(text: str | None) -> datetime | None:
    """Undo written()."""
    return datetime.fromisoformat(text) if text else None


def _version(view: VersionView) -> dict[str, Any]:
    return {
        "handle": names.storable(view.handle),
        "state": view.state.value,
        "primary": view.primary,
        "destroy_at": written(view.destroy_at),
        "public_key": view.public_key.hex() if view.public_key else None,
        "created_at": written(view.created_at),
    }


def _version_from(given: Mapping[str, Any]) -> VersionView:
    return VersionView(
        handle=given["handle"],
        state=VersionState(given["state"]),
        primary=given["primary"],
        destroy_at=moment(given["destroy_at"]),
        public_key=bytes.fromhex(given["public_key"]) if given["public_key"] else None,
        created_at=moment(given["created_at"]),
    )


def _pairs(pairs: Mapping[str, str]) -> dict[str, str]:
    # A store's tags and facts are other people's text: what no database keeps is replaced.
    return {
        names.storable(str(name)): names.storable(str(value))
        for name, value in sorted(pairs.items())
    }
