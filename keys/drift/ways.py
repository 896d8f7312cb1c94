"""What can be done about a difference: accept, revert, repair. Each is possible, or says why not.

Accept: the store is right, and the console follows along the edges of keys.states. Revert: the
console is right, and the store is brought in line. Repair: what was lost can't be brought back; a
new version makes the key whole. Reads rows; asks no store.
"""

from __future__ import annotations

from keys.drift.comparing import Difference
from keys.models import Drift, Key, KeyVersion
from keys.models.drift import DriftField, DriftState
from keys.models.key import ManagementModel, Origin
from keys.states import GONE, KEY_EDGES, VERSION_EDGES, KeyState, VersionState

_F, _K, _V = DriftField, KeyState, VersionState
LOST = (_F.KEY_MISSING, _F.VERSION_MISSING, _F.MATERIAL)


def ways(drift: Drift) -> dict[str, str]:
    """Return "" for each of accept, revert and repair that is possible, else why it is not."""
    if drift.state != DriftState.OPEN:
        return dict.fromkeys(("accept", "revert", "repair"), "It is not open any more.")
    difference = as_found(drift)
    return {
        "accept": accept_fault(drift.key, difference),
        "revert": revert_fault(drift.key, difference),
        "repair": repair_fault(drift.key, difference),
    }


def as_found(drift: Drift) -> Difference:
    """Return a row's difference as a value."""
    return Difference(DriftField(drift.field), drift.handle, drift.believed, drift.observed)


# --- accepting


def accept_fault(key: Key, d: Difference) -> str:
    """Return why the console can't follow its store, or "" where it can."""
    if key.state == _K.DESTROYED:
        return "The key is destroyed."
    if d.field == _F.KEY_STATE:
        return _state_fault(key, KeyState(d.observed))
    if d.field == _F.MATERIAL:
        return "It is another key: ciphertexts and signatures of the version would not fit it."
    if d.field == _F.PRIMARY:
        return _primary_fault(key, d)
    if d.field == _F.VERSION_STATE:
        return _version_fault(version_of(key, d.handle), VersionState(d.observed))
    if d.field == _F.VERSION_DESTRUCTION:
        return _schedule_fault(version_of(key, d.handle), d)
    return ""


def steps_of_key(now: KeyState, to: KeyState) -> list[KeyState]:
    """Return the legal steps from one key state to another, [] where there are none."""
    if to in KEY_EDGES[now]:
        return [to]
    between = {_K.ENABLED: _K.DISABLED, _K.DESTROYED: _K.PENDING_DESTRUCTION}.get(to)
    if between and between in KEY_EDGES[now] and to in KEY_EDGES[between]:
        return [between, to]
    return []


def steps_of_version(now: VersionState, to: VersionState) -> list[VersionState]:
    """Return the legal steps from one version state to another, [] where there are none.

    A compromised version that is destroyed stays known as compromised.
    """
    if to in GONE and now == _V.COMPROMISED:
        return [_V.DESTROYED_COMPROMISED]
    if to in VERSION_EDGES[now]:
        return [to]
    if to == _V.DESTROYED and _V.DEACTIVATED in VERSION_EDGES[now]:
        return [_V.DEACTIVATED, to]
    return []


def version_of(key: Key, handle: str) -> KeyVersion | None:
    """Return the newest version of a key that has this handle."""
    return key.versions.filter(handle=handle).order_by("-number").first() if handle else None


def _state_fault(key: Key, to: KeyState) -> str:
    if to == _K.PENDING_IMPORT:
        imported = key.origin == Origin.IMPORTED
        return "" if imported else "Its material was made in the store, not imported."
    if not steps_of_key(KeyState(key.state), to):
        return f"A key that is {_label(key.state)} can't become {to.label.lower()}."
    return ""


def _primary_fault(key: Key, d: Difference) -> str:
    if not d.observed:
        return "The store names no version that protects new data."
    version = version_of(key, d.observed)
    if version is None:
        return "The console doesn't know that version: accept the version itself."
    state = VersionState(version.state)
    if state != _V.ACTIVE and _V.ACTIVE not in VERSION_EDGES[state]:
        return f"Version {version.number} is {state.label.lower()}; it can't take over again."
    return ""


def _version_fault(version: KeyVersion | None, to: VersionState) -> str:
    if version is None:
        return "The console doesn't know that version any more."
    state = VersionState(version.state)
    if state in GONE:
        return (
            f"Version {version.number} is {state.label.lower()} here, and that is never taken back."
        )
    if not steps_of_version(state, to):
        return f"A version that is {state.label.lower()} can't become {to.label.lower()}."
    return ""


def _schedule_fault(version: KeyVersion | None, d: Difference) -> str:
    if version is None or version.state in GONE:
        return "The console doesn't know that version any more."
    if d.observed is None:
        return ""
    return (
        ""
        if steps_of_version(VersionState(version.state), _V.DESTROYED)
        else "It can't be destroyed."
    )


# --- reverting


def revert_fault(key: Key, d: Difference) -> str:
    """Return why the store can't be put back, or "" where it may be tried."""
    if key.model == ManagementModel.PROVIDER_MANAGED:
        return "Its provider manages the key: nothing of it is changed from here."
    if d.field in LOST:
        return "What is gone, or another key now, can't be brought back from here."
    if d.field == _F.VERSION_UNKNOWN:
        return "The console doesn't know the version: accept it, or destroy it at the store."
    if d.field == _F.TAGS and any(value is None for value in (d.believed or {}).values()):
        return "The console takes no tags away: accept them, or remove them at the store."
    if d.field == _F.KEY_STATE and d.observed in (_K.DESTROYED, _K.PENDING_IMPORT):
        return "The material is gone there, and can't be brought back by a change of state."
    if d.field == _F.VERSION_STATE and (d.observed in GONE or d.believed in GONE):
        return "What is destroyed is not brought back, nor destroyed a second time from here."
    return ""


# --- repairing


def repair_fault(key: Key, d: Difference) -> str:
    """Return why a new version would not make the key whole, or "" where it would."""
    if not _is_lost(d):
        return "Nothing is lost: accept what the store says, or put the store back."
    if key.model == ManagementModel.PROVIDER_MANAGED:
        return "Its provider manages the key."
    if key.origin == Origin.IMPORTED:
        return "The key's material is brought from outside: accept, then import it again."
    if key.state != _K.ENABLED:
        return f"Only an enabled key is given a new version; this one is {_label(key.state)}."
    return ""


def _is_lost(d: Difference) -> bool:
    return d.field in LOST or (
        d.field == _F.VERSION_STATE and d.observed in GONE and d.believed not in GONE
    )


def _label(state: str) -> str:
    return str(KeyState(state).label).lower()
