"""A vault's keys as the console shows them: discovered, inspected, observed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from azure.keyvault.keys import DeletedKey, KeyProperties

from keys.algorithms import Usage
from keys.backends.azure import destruction, offers, rotation, states
from keys.backends.azure.connection import PAGE
from keys.backends.azure.failures import asked
from keys.backends.azure.keyring import Keyring, Known
from keys.backends.azure.naming import (
    CHECK_TAG,
    Handle,
    handle_of,
    is_name,
    name_of,
    one_name,
    others_tags,
    parsed,
)
from keys.backends.base import NoMaterial
from keys.backends.views import KeyView, Page, VersionView
from keys.errors import BackendError, Invalid, StateForbids
from keys.states import KeyState, VersionState

# A cursor is what to list, a colon, and Azure's own mark of where the next page begins.
_LIVING, _DELETED = "keys", "deletedkeys"
CURSOR_LIMIT = 4096


def discover(keyring: Keyring, cursor: str, limit: int) -> Page:
    """Return a page of the vault's keys, and after them of those that are deleted and not purged."""
    kind, _, mark = (cursor or f"{_LIVING}:").partition(":")
    if kind not in (_LIVING, _DELETED) or len(cursor) > CURSOR_LIMIT:
        raise Invalid("That is no cursor of this key store.", field="cursor")
    # Never an address: the next page is asked of this vault, whatever the cursor holds.
    path = f"/{kind}?maxresults={max(1, min(limit, PAGE))}"
    if mark:
        path += f"&$skiptoken={quote(mark, safe='')}"
    found, _ = keyring.connection.send("GET", path)
    views = [view for item in _items(found) if (view := _listed(keyring, item, kind)) is not None]
    following = _mark(found.get("nextLink"))
    if following:
        return Page(tuple(views), f"{kind}:{following}")
    return Page(tuple(views), f"{_DELETED}:" if kind == _LIVING else "")


def _items(found: Any) -> list[Any]:
    items = found.get("value")
    if not isinstance(items, list):
        raise BackendError("Azure's list of keys is none.")
    return items


def _mark(link: Any) -> str:
    """Return Azure's mark of the next page out of the address that it gives for it."""
    if not link:
        return ""
    marks = parse_qs(urlsplit(link).query).get("$skiptoken") if isinstance(link, str) else None
    if not marks:
        raise BackendError("Azure's address of the next page makes no sense.")
    return marks[0]


def _listed(keyring: Keyring, item: Any, kind: str) -> KeyView | None:
    """Return one entry of a list; None where the key went away meanwhile."""
    identifier = item.get("kid") if isinstance(item, dict) else None
    name = name_of(str(identifier))
    if kind == _DELETED:
        deleted = keyring.connection.deleted(name)
        return None if deleted is None else _gone(keyring, name, deleted)
    return inspect(keyring, name, whole=False)


def inspect(keyring: Keyring, reference: str, *, whole: bool = True) -> KeyView | None:
    """Return one key by its name. `whole`: with public keys and the period of rotation."""
    if not is_name(reference):
        return None
    connection = keyring.connection
    rows = connection.versions(reference)
    if not rows:
        deleted = connection.deleted(reference)
        return None if deleted is None else _gone(keyring, reference, deleted)
    return _living(keyring, reference, rows, whole=whole)


def observe(keyring: Keyring, wanted: KeyView) -> KeyView | None:
    """Return a key of the console as it is (Backend.observe)."""
    if not wanted.versions:
        return None
    name = one_name(view.handle for view in wanted.versions)
    connection, known = keyring.connection, {parsed(v.handle).version for v in wanted.versions}
    rows = connection.versions(name)
    if not rows:
        deleted = connection.deleted(name)
        return None if deleted is None else _waiting(keyring, name, deleted, wanted)
    ours = [row for row in rows if row.version in known]
    if not ours:
        return None  # another key has the name now
    view = _living(keyring, name, rows, whole=True)
    at = states.now()
    # Versions that the console doesn't know, and so does not write, do not make its key enabled.
    state = states.key_state(states.observed(row, at) for row in ours)
    marked = destruction.marked(ours)
    if marked is not None and state == KeyState.DISABLED:
        return replace(view, state=KeyState.PENDING_DESTRUCTION, destroy_at=marked)
    return replace(view, state=state)


def _living(keyring: Keyring, name: str, rows: list[KeyProperties], *, whole: bool) -> KeyView:
    at, newest = states.now(), rows[-1]
    views = []
    for row in rows:
        # Of the others the public keys are asked for only where somebody looks at the key.
        known = _known(keyring, Handle(name, str(row.version))) if whole or row is newest else None
        views.append(
            states.version_view(
                str(handle_of(row.id)), row, at, known.public_key if known else None, row is newest
            )
        )
    known = _known(keyring, Handle(name, str(newest.version)))
    days = (
        rotation.rotation_days(keyring.connection, name) if whole and not newest.managed else None
    )
    view = KeyView(
        reference=name,
        name=name,
        state=states.key_state(view.state for view in views),
        versions=tuple(views),
        rotation_days=days,
    )
    return _dressed(view, newest, known, keyring.managed, len(rows))


def _known(keyring: Keyring, handle: Handle) -> Known | None:
    """Return what a version is, or None where a vault shows nothing of one that is disabled."""
    try:
        return keyring.known(handle)
    except (StateForbids, NoMaterial):
        return None


def _gone(keyring: Keyring, name: str, deleted: DeletedKey) -> KeyView:
    """Return a deleted key: Azure shows its newest version only."""
    row, at = deleted.properties, states.now()
    handle = handle_of(deleted.id)
    known = asked(lambda: keyring.remember(deleted))
    version = replace(
        states.version_view(str(handle), row, at, known.public_key, True),
        state=VersionState.SUSPENDED,
    )
    view = KeyView(
        reference=name,
        name=name,
        state=KeyState.PENDING_DESTRUCTION,
        versions=(version,),
        destroy_at=deleted.scheduled_purge_date,
        problem="The key is deleted; recover it first.",
    )
    dressed = _dressed(view, row, known, keyring.managed, 1)
    return replace(dressed, problem=view.problem)


def _waiting(keyring: Keyring, name: str, deleted: DeletedKey, wanted: KeyView) -> KeyView | None:
    """Return a deleted key of the console.

    Azure lists no versions of it. It deletes and recovers them together, so those that the console
    knows are there, refused to everybody, as long as the newest is.
    """
    gone = _gone(keyring, name, deleted)
    newest = gone.versions[0]
    known = {view.handle for view in wanted.versions}
    versions: list[VersionView] = [
        replace(
            view,
            state=VersionState.SUSPENDED,
            primary=view.handle == newest.handle,
            destroy_at=None,
        )
        for view in states.expressed(wanted).versions
    ]
    if newest.handle not in known:
        versions.append(newest)
    at = gone.destroy_at
    if "purgeable" in (deleted.properties.recovery_level or "").lower():
        # The console purges it on the date that it wrote there, before Azure would.
        at = destruction.marked([deleted.properties]) or at
    return replace(gone, versions=tuple(versions), destroy_at=at, problem="")


def _dressed(
    view: KeyView, row: KeyProperties, known: Known | None, managed: bool, count: int
) -> KeyView:
    """Return a view with what its newest version tells of the key."""
    facts = {"versions": str(count), "recovery": row.recovery_level or "unknown"}
    if row.expires_on is not None:
        facts["expires"] = f"{row.expires_on:%Y-%m-%d}"
    if managed:
        facts["rotations_used"] = str(count - 1)
        facts["rotations_limit"] = str(offers.HSM_VERSIONS - 1)
    view = replace(
        view,
        imported=CHECK_TAG in (row.tags or {}),
        provider_managed=bool(row.managed),
        tags=others_tags(row.tags),
        facts=facts,
    )
    if known is None:
        return replace(view, problem="The key is disabled, and the vault does not show what it is.")
    facts["key type"] = known.kind
    facts["operations"] = ", ".join(sorted(known.operations)) or "none"
    spec = known.spec
    if spec is None:
        why = (
            "Azure does not tell how long this symmetric key is."
            if known.kind.startswith("oct")
            else f"The console knows no such {known.kind or 'unnamed'} keys."
        )
        return replace(view, problem=why)
    usage: Usage | None = offers.purpose_of(spec, known.operations, managed)
    if usage is None:
        return replace(
            view, spec=spec.name, problem="What the key may do is no purpose of the console's."
        )
    able = spec.algorithms_for(usage, offers.algorithms(managed)[spec.name])
    return replace(view, spec=spec.name, usage=usage.value, algorithm=able[0])
