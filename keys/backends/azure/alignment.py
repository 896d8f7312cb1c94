"""Bringing a key at Azure in line with what the console believes of it (Backend.conform)."""

from __future__ import annotations

from azure.keyvault.keys import KeyProperties

from keys.backends.azure import destruction, rotation, states
from keys.backends.azure.connection import Connection
from keys.backends.azure.failures import asked
from keys.backends.azure.naming import DESTROY_TAG, one_name, others_tags, parsed
from keys.backends.base import NoMaterial
from keys.backends.views import KeyView
from keys.states import KeyState


def conform(connection: Connection, wanted: KeyView) -> None:
    """Raises NoMaterial where nothing of the key is there, Conflict for handles of several keys."""
    if wanted.provider_managed:
        return  # a certificate's key: Azure takes no changes of it
    target = states.expressed(wanted)
    name = one_name(view.handle for view in target.versions)
    known = {parsed(view.handle).version: view.state for view in target.versions}
    pending = target.state == KeyState.PENDING_DESTRUCTION
    if pending and destruction.schedule(connection, name, known, target.destroy_at):
        return
    rows = connection.versions(name) or destruction.recover(connection, name)
    ours = [row for row in rows if row.version in known]
    if not ours:
        raise NoMaterial("Another key has taken the name at Azure.")
    at = states.now()
    for row in ours:
        change = states.change(row, known[str(row.version)], at)
        tags = _tags(row, target, newest=row is rows[-1], marked=row is ours[-1])
        if change.needed or tags is not None:
            _update(connection, name, row, change, tags)
    strange = dict(rows[-1].tags or {}) if rows[-1] not in ours else {}
    if strange.pop(DESTROY_TAG, None) is not None:
        # The date of a destruction that was called off; of others' versions nothing else is touched.
        _update(connection, name, rows[-1], states.Change(), strange)
    rotation.set_rotation(connection, name, target.rotation_days)


def _update(
    connection: Connection,
    name: str,
    row: KeyProperties,
    change: states.Change,
    tags: dict[str, str] | None,
) -> None:
    arguments = {**states.arguments(change), "tags": tags}
    asked(lambda: connection.client.update_key_properties(name, row.version, **arguments))


def _tags(
    row: KeyProperties, target: KeyView, *, newest: bool, marked: bool
) -> dict[str, str] | None:
    """Return a version's tags where they have to change, or None.

    Azure takes a key's tags from its newest version. `marked`: the version that carries the date of
    a destruction for which the console waits alone.
    """
    before = dict(row.tags or {})
    after = dict(before)
    if newest:
        after |= others_tags(target.tags)
    after.pop(DESTROY_TAG, None)
    if marked and target.state == KeyState.PENDING_DESTRUCTION:
        after[DESTROY_TAG] = destruction.dated(target.destroy_at)
    return after if after != before else None
