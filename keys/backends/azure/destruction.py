"""The end of a key at Azure: deleted softly, recovered, purged; always as a whole.

So a key that holds a version of somebody else's is not deleted: that would go, too. Of a deleted key
Azure lists no versions; that all of them were looked at before is written on the newest (DESTROY_TAG).
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from datetime import UTC, datetime, timedelta

from azure.keyvault.keys import DeletedKey, KeyProperties

from keys.backends.azure import states
from keys.backends.azure.connection import Connection, eventually
from keys.backends.azure.failures import Forbidden, asked
from keys.backends.azure.naming import DESTROY_TAG, NOW, Handle, handle_of
from keys.backends.base import NoMaterial
from keys.errors import (
    BackendError,
    BackendUnavailable,
    Conflict,
    StillWaiting,
    Unsupported,
)

# When to look again where a purge has begun and not ended.
_PURGING = timedelta(minutes=1)
_ROUNDING = timedelta(hours=1)


def delete(connection: Connection, name: str) -> DeletedKey:
    """Delete a key softly and wait until Azure shows it as deleted. What is deleted already stays so."""
    # The SDK's poller would go on in a thread of its own for ever; we look ourselves.
    with contextlib.suppress(NoMaterial, Conflict):  # gone, or on its way
        asked(lambda: connection.client.begin_delete_key(name))
    found = eventually(lambda: connection.deleted(name))
    if found is None:
        raise BackendUnavailable("Azure has not finished deleting the key yet.")
    return found


def recover(connection: Connection, name: str) -> list[KeyProperties]:
    """Undo delete() and return the versions that are there again. Raises NoMaterial."""
    with contextlib.suppress(Conflict):  # on its way
        asked(lambda: connection.client.begin_recover_deleted_key(name))
    found = eventually(lambda: connection.versions(name))
    if found is None:
        raise BackendUnavailable("Azure has not finished recovering the key yet.")
    return found


def purge(connection: Connection, name: str, deleted: DeletedKey) -> None:
    """Remove a deleted key for good, or raise StillWaiting until Azure itself does.

    A credential that is refused for another reason than a missing permission is an error as ever.
    """
    until = deleted.scheduled_purge_date
    if "purgeable" not in (deleted.properties.recovery_level or "").lower():
        raise _waiting("The vault has purge protection", until)
    try:
        asked(lambda: connection.client.purge_deleted_key(name))
    except NoMaterial:
        return
    except Forbidden as error:
        raise _waiting(f"The console may not purge keys. {error.detail}", until) from None
    except Conflict:
        pass  # a purge is on its way
    if not eventually(lambda: connection.deleted(name) is None):
        raise StillWaiting("Azure has begun to purge the key.", until=datetime.now(UTC) + _PURGING)


def _waiting(why: str, until: datetime | None) -> StillWaiting | BackendError:
    if until is None:
        return BackendError("Azure does not say when it destroys the key.")
    return StillWaiting(
        f"{why}; the vault itself destroys the key on {until:%Y-%m-%d %H:%M} UTC.", until=until
    )


def destroy_key(connection: Connection, name: str, versions: Collection[str]) -> None:
    """Destroy a whole key that holds `versions`. Another key that has taken its name is left alone.

    Raises Unsupported, and disables ours, where the key holds others' versions beside them.
    """
    living = connection.versions(name)
    if living:
        ours = [row for row in living if row.version in versions]
        if not ours:
            return
        if len(ours) < len(living):
            for row in ours:
                _disable(connection, name, row)
            strange = sorted(str(row.version) for row in living if row not in ours)
            raise Unsupported(
                "Azure destroys a key only as a whole, and this one has versions that the console "
                f"doesn't know: {', '.join(strange[:5])}. The console's own were disabled instead: "
                "accept the others into the console, or destroy the key at Azure."
            )
        _mark(connection, name, living[-1])
        purge(connection, name, delete(connection, name))
        return
    deleted = connection.deleted(name)
    if deleted is None:
        return
    _check_looked_at(deleted, versions)
    purge(connection, name, deleted)


def _check_looked_at(deleted: DeletedKey, versions: Collection[str]) -> None:
    """Raise StillWaiting for a deleted key that may hold others' versions."""
    if handle_of(deleted.id).version not in versions:
        # Its newest version is none of ours: rotated by somebody, or another key.
        raise _waiting(
            "The deleted key has a version that the console doesn't know",
            deleted.scheduled_purge_date,
        )
    if DESTROY_TAG not in (deleted.properties.tags or {}):
        raise _waiting(
            "Somebody else deleted the key, and whether it holds others' versions can't be seen",
            deleted.scheduled_purge_date,
        )


def _disable(connection: Connection, name: str, row: KeyProperties) -> None:
    if row.enabled is not False:
        asked(lambda: connection.client.update_key_properties(name, row.version, enabled=False))


def _mark(connection: Connection, name: str, row: KeyProperties) -> None:
    """Write on a key's newest version that all of it is to go now, before it is deleted.

    It tells a later try that the deletion is the console's own, and no destruction with a window.
    """
    tags = {**(row.tags or {}), DESTROY_TAG: NOW}
    asked(lambda: connection.client.update_key_properties(name, row.version, tags=tags))


def destroy_version(connection: Connection, handle: Handle) -> None:
    """Destroy a version that is its key's only one. Raises Unsupported, and disables it, for others."""
    living = connection.versions(handle.name)
    if living:
        found = next((row for row in living if row.version == handle.version), None)
        if found is None:
            return
        if len(living) > 1:
            _disable(connection, handle.name, found)
            raise Unsupported(
                "Azure can't destroy one version of a key alone. It was disabled instead, and goes "
                "with its key."
            )
        _mark(connection, handle.name, found)
        purge(connection, handle.name, delete(connection, handle.name))
        return
    deleted = connection.deleted(handle.name)
    if deleted is None:
        return
    marked = (deleted.properties.tags or {}).get(DESTROY_TAG) == NOW
    if handle_of(deleted.id) != handle or not marked:
        raise _waiting(
            "The whole key is deleted, and can be recovered", deleted.scheduled_purge_date
        )
    purge(connection, handle.name, deleted)


def schedule(
    connection: Connection, name: str, versions: Collection[str], until: datetime | None
) -> bool:
    """Begin Azure's own wait where it lasts until `until` at least; whether it has begun.

    A vault keeps deleted keys for as many days as it was made with. Where these are fewer than what
    is left, the key would be gone too early: it has to stay until they are enough. The date itself
    is written on the key first, since Azure's own may be later. A key with others' versions stays
    as well: they would be out of use, and gone in the end.
    """
    rows, date = connection.versions(name), dated(until)
    if not rows:
        deleted = connection.deleted(name)
        if deleted is None:
            raise NoMaterial
        if _begun(deleted, until):
            return True
        rows = recover(connection, name)
    ours = [row for row in rows if row.version in versions]
    if not ours:
        raise NoMaterial("Another key has taken the name at Azure.")
    if len(ours) < len(rows):
        return False
    days = rows[-1].recoverable_days or 0
    # Without soft delete a deletion is for good.
    if not days or (until is not None and states.now() + timedelta(days=days) < until):
        return False
    newest = rows[-1]
    if (newest.tags or {}).get(DESTROY_TAG) != date:
        tags = {**(newest.tags or {}), DESTROY_TAG: date}
        asked(lambda: connection.client.update_key_properties(name, newest.version, tags=tags))
    delete(connection, name)
    return True


def _begun(deleted: DeletedKey, until: datetime | None) -> bool:
    """Whether a deletion is the one that ends at `until`, and no earlier. The hour forgives rounding."""
    purged, written = deleted.scheduled_purge_date, marked([deleted.properties])
    if until is None:
        return True
    if purged is not None and purged < until - _ROUNDING:
        return False  # somebody deleted it, and it would go too early
    return written is not None and abs(written - until) <= _ROUNDING


def dated(at: datetime | None) -> str:
    """Return a date as it is written on a key that waits for its destruction."""
    return at.isoformat(timespec="seconds") if at is not None else ""


def marked(rows: list[KeyProperties]) -> datetime | None:
    """Return the date that the console has written on a key, or None."""
    for row in reversed(rows):
        try:
            at = datetime.fromisoformat((row.tags or {}).get(DESTROY_TAG, ""))
        except ValueError:
            continue
        if at.tzinfo is not None:
            return at
    return None
