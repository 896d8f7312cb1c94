"""Asking a store how a key of the console is there. Nothing is written here; no transaction is open."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from keys import clock
from keys.backends import registry
from keys.backends.base import Backend
from keys.backends.views import KeyView, VersionView
from keys.drift import beliefs
from keys.drift.comparing import Difference, differences
from keys.errors import BackendError, Unsupported
from keys.models import Key, KeyVersion, StoreView
from keys.states import KeyState, VersionState
from keys.stores import backend_of


@dataclass(frozen=True, slots=True)
class Looked:
    """What a store said of a key, and what the console believed at that moment (`digest`)."""

    key: Key
    backend: Backend
    seen: KeyView | None
    digest: str
    differs: tuple[Difference, ...]
    # How much later than believed the store may destroy, within its own window.
    later: timedelta
    at: datetime
    # The store's longest window has begun to cover the key's destruction since the last look.
    window_opened: bool = False

    def on(self, key: Key) -> Looked:
        """Return the same look, at the key as it is read now."""
        return replace(self, key=key)

    def still_holds(self) -> bool:
        """Whether the console still believes what it believed when the store was asked."""
        return beliefs.digest(beliefs.wanted(self.key)) == self.digest

    def again(self) -> Looked:
        """Compare what was seen with what the console believes now."""
        return replace(self, differs=tuple(compare(self.key, self.backend, self.seen, self.later)))


def look(key: Key) -> Looked:
    """Ask a key's store how the key is there, and compare.

    Raises Unsupported where the store keeps no states of its own or nothing of the key can be there,
    and whatever the store fails with: BackendUnavailable, Unavailable (switched off), BackendError.
    """
    check_comparable(key)
    wanted = beliefs.wanted(key)
    if not wanted.versions:
        raise Unsupported(
            f"Nothing of {key.alias} can be at its store: there is nothing to compare."
        )
    backend = backend_of(key)
    seen = backend.observe(wanted)
    if seen is not None and not isinstance(seen, KeyView):
        raise BackendError("The store's answer can't be understood.")
    window = backend.capabilities().window
    later = timedelta(days=window[1] if window else 1)
    found = tuple(compare(key, backend, seen, later))
    now = clock.now()
    opened = window is not None and _covers_now(key, later, now)
    return Looked(key, backend, seen, beliefs.digest(wanted), found, later, now, opened)


def _covers_now(key: Key, longest: timedelta, now: datetime) -> bool:
    """Whether the store can take a destruction over that it could not at the last look: it waits less long."""
    row = StoreView.objects.filter(key=key).first()
    if key.destroy_at is None or row is None or row.seen_at is None:
        return False
    return row.seen_at < key.destroy_at - longest <= now


def check_comparable(key: Key) -> None:
    """Raise Unsupported where a key has no side of its store's own to compare with."""
    if not registry.KINDS[key.key_store.kind].remote:
        raise Unsupported(f"{key.key_store.title} keeps no states of its own: nothing can differ.")
    if key.state == KeyState.DESTROYED:
        raise Unsupported(f"{key.alias} is destroyed: there is nothing to compare.")


def nothing_there(key: Key) -> bool:
    """Whether a key has nothing to compare: look() would raise Unsupported."""
    try:
        check_comparable(key)
    except Unsupported:
        return True
    return not beliefs.wanted(key).versions


def compare(key: Key, backend: Backend, seen: KeyView | None, later: timedelta) -> list[Difference]:
    """Return where `seen` differs from what the console believes of the key now. Asks no store."""
    wanted = beliefs.wanted(key)
    if not wanted.versions:
        return []
    beside = key.versions.exclude(handle="").order_by("number")
    row = StoreView.objects.filter(key=key).first()
    return differences(
        backend.expressed(wanted),
        seen,
        wanted,
        others={version.handle: _view_of(version) for version in beside},
        baseline=row is not None and row.tags is not None,
        later=later,
    )


def _view_of(version: KeyVersion) -> VersionView:
    public_key = bytes(version.public_key) if version.public_key else None
    return VersionView(version.handle, VersionState(version.state), public_key=public_key)
