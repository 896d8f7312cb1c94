"""What can be done to a key or a version, in words: one row a verb.

The same sentences stand on the confirmation page and on the request that officers vote on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from keys import administration as a
from keys.actions import Action
from keys.callers import Caller
from keys.models import Key, KeyVersion
from keys.models.key import Origin
from keys.states import GONE, VERSION_EDGES, Condition, KeyState, VersionState
from kms_console.web.forms import DestroyForm, HouseForm, ReasonForm


@dataclass(frozen=True, slots=True)
class Verb:
    """A button: the action behind it, its words, and the form that asks why."""

    name: str
    action: Action
    label: str
    icon: str
    danger: bool = False
    form: type[HouseForm] = ReasonForm
    done: str = "Done."


@dataclass(frozen=True, slots=True)
class KeyVerb:
    verb: Verb
    states: frozenset[KeyState]
    explanation: str
    do: Callable[..., Any]


@dataclass(frozen=True, slots=True)
class VersionVerb:
    verb: Verb
    to: VersionState | None  # None: it changes no state, and `do` does it
    explanation: str
    do: Callable[..., Any] | None = None


_K, _V = KeyState, VersionState

KEY_VERBS: dict[str, KeyVerb] = {
    row.verb.name: row
    for row in (
        KeyVerb(
            Verb(
                "rotate", Action.ROTATE_KEY, "Rotate now", "rotate-cw", done="The key is rotated."
            ),
            frozenset({_K.ENABLED}),
            "A new version is made and takes over at once. What the present version protected can "
            "still be decrypted and verified until its period ends.",
            a.rotate_key,
        ),
        KeyVerb(
            Verb(
                "prepare",
                Action.PREPARE_VERSION,
                "Make the next version",
                "calendar-plus",
                done="The next version is there. It protects nothing until the key is rotated.",
            ),
            frozenset({_K.ENABLED}),
            "The next version is made now and its public key published, so that peers know it before "
            "it signs anything. The rotation, by hand or when it is due, lets it take over.",
            a.prepare_version,
        ),
        KeyVerb(
            Verb(
                "disable",
                Action.DISABLE_KEY,
                "Disable",
                "ban",
                danger=True,
                done="The key is disabled.",
            ),
            frozenset({_K.ENABLED}),
            "Every use of the key stops at once, for everybody: applications can neither encrypt nor "
            "decrypt with it until it is enabled again. No version changes its state.",
            a.disable_key,
        ),
        KeyVerb(
            Verb("enable", Action.ENABLE_KEY, "Enable", "play", done="The key is enabled."),
            frozenset({_K.DISABLED}),
            "Applications that have a grant can use the key again, from the next request on.",
            a.enable_key,
        ),
        KeyVerb(
            Verb(
                "cancel-destruction",
                Action.CANCEL_DESTRUCTION,
                "Cancel the destruction",
                "undo-2",
                done="The key is kept. It is disabled; enable it where it should be used again.",
            ),
            frozenset({_K.PENDING_DESTRUCTION}),
            "The key is kept and returns as disabled. Enable it afterwards where it should be used again.",
            a.cancel_destruction,
        ),
        KeyVerb(
            Verb(
                "destroy",
                Action.SCHEDULE_DESTRUCTION,
                "Schedule destruction",
                "trash-2",
                danger=True,
                form=DestroyForm,
                done="The key's destruction is scheduled. It can be cancelled until then.",
            ),
            frozenset({_K.ENABLED, _K.DISABLED, _K.PENDING_IMPORT}),
            "The key stops at once. When the waiting time is over, every version's material is destroyed, "
            "and whatever it still protects is lost for ever. Until then this can be cancelled.",
            a.schedule_destruction,
        ),
    )
}

VERSION_VERBS: dict[str, VersionVerb] = {
    row.verb.name: row
    for row in (
        VersionVerb(
            Verb(
                "activate",
                Action.ACTIVATE_VERSION,
                "Activate",
                "play",
                done="The version is active.",
            ),
            _V.ACTIVE,
            "This version takes over: it protects everything new. The version that serves now is "
            "deactivated; it still decrypts and verifies.",
        ),
        VersionVerb(
            Verb(
                "resume",
                Action.ACTIVATE_VERSION,
                "Resume",
                "play",
                done="The version is active again.",
            ),
            _V.ACTIVE,
            "The version can be used again as before it was suspended.",
        ),
        VersionVerb(
            Verb(
                "suspend",
                Action.SUSPEND_VERSION,
                "Suspend",
                "pause",
                danger=True,
                done="The version is suspended.",
            ),
            _V.SUSPENDED,
            "Every use of this version stops until it is resumed. Decrypting and verifying stop too, "
            "unless the classification lets suspended versions go on with that.",
        ),
        VersionVerb(
            Verb(
                "deactivate",
                Action.DEACTIVATE_VERSION,
                "Deactivate",
                "circle-slash",
                danger=True,
                done="The version is deactivated.",
            ),
            _V.DEACTIVATED,
            "This version protects nothing new any more. It still decrypts and verifies. There is no "
            "way back: where it is the primary one, the key can protect nothing until it is rotated.",
        ),
        VersionVerb(
            Verb(
                "revoke",
                Action.REVOKE_VERSION,
                "Mark as compromised",
                "octagon-alert",
                danger=True,
                done="The version is marked as compromised. Protect anew what it protected, then destroy it.",
            ),
            _V.COMPROMISED,
            "The material is no longer trusted. This version stops for every use, decrypting included, "
            "and there is no way back. Rotate the key, and protect the data anew.",
        ),
        VersionVerb(
            Verb(
                "revoke-destroyed",
                Action.DESTROY_VERSION,
                "Mark as compromised",
                "octagon-alert",
                danger=True,
                done="It is noted that the version was compromised.",
            ),
            _V.DESTROYED_COMPROMISED,
            "The material is destroyed already. This notes that somebody knew it before, so that whatever "
            "it protected may be known, too.",
        ),
        VersionVerb(
            Verb(
                "destroy",
                Action.DESTROY_VERSION,
                "Schedule destruction",
                "trash-2",
                danger=True,
                form=DestroyForm,
                done="The version's destruction is scheduled.",
            ),
            _V.DESTROYED,
            "When the waiting time is over this version's material is destroyed, and what only it can "
            "decrypt is lost for ever. Until then this can be cancelled.",
        ),
        VersionVerb(
            Verb(
                "cancel-destruction",
                Action.CANCEL_VERSION_DESTRUCTION,
                "Cancel the destruction",
                "undo-2",
                done="The version is kept.",
            ),
            None,
            "The version is kept, in the state that it has.",
            a.cancel_version_destruction,
        ),
        VersionVerb(
            Verb(
                "delete-material",
                Action.DELETE_MATERIAL,
                "Delete the material",
                "trash-2",
                danger=True,
                done="The material is being deleted. The version keeps its state; importing the same "
                "material again brings it back.",
            ),
            None,
            "The imported material is removed from the key store at once. The version keeps its state, "
            "but nothing can be protected or read with it until the same material is imported again. "
            "Be sure that you still have it.",
            a.delete_material,
        ),
    )
}

_BY_EDGE: dict[tuple[VersionState, VersionState], str] = {
    (_V.PRE_ACTIVE, _V.ACTIVE): "activate",
    (_V.SUSPENDED, _V.ACTIVE): "resume",
    (_V.DESTROYED, _V.DESTROYED_COMPROMISED): "revoke-destroyed",
}
_BY_TARGET = {
    _V.SUSPENDED: "suspend",
    _V.DEACTIVATED: "deactivate",
    _V.COMPROMISED: "revoke",
    _V.DESTROYED: "destroy",
    _V.DESTROYED_COMPROMISED: "destroy",
}
_ORDER = list(VERSION_VERBS)


def for_key(caller: Caller, key: Key) -> list[Verb]:
    """Return what this person can be offered for a key in its state."""
    state = KeyState(key.state)
    fitting = [row for row in KEY_VERBS.values() if state in row.states]
    # An imported key rotates by new material; only what is published is made ahead.
    imported = key.origin == Origin.IMPORTED
    left_out = {"rotate"} if imported else set()
    left_out |= {"prepare"} if imported or key.publish_days is None else set()
    fitting = [row for row in fitting if row.verb.name not in left_out]
    return [row.verb for row in fitting if caller.role in row.verb.action.row.roles]


def for_version(caller: Caller, key: Key, version: KeyVersion) -> list[Verb]:
    """Return what this person can be offered for a version: the legal edges of its state."""
    if version.condition == Condition.CREATING:
        return []
    state = VersionState(version.state)
    names = {edge_verb(state, to) for to in VERSION_EDGES[state]}
    if key.origin == Origin.IMPORTED and state not in GONE and not version.condition:
        names.add("delete-material")
    if version.condition == Condition.PENDING_DESTRUCTION:
        names = (names - {"destroy"}) | {"cancel-destruction"}
    rows = [VERSION_VERBS[name].verb for name in _ORDER if name in names]
    return [verb for verb in rows if caller.role in verb.action.row.roles]


def edge_verb(state: VersionState, to: VersionState) -> str:
    """Return the verb that walks an edge of the version table."""
    return _BY_EDGE.get((state, to)) or _BY_TARGET.get(to, "activate")


def target_state(verb: str, version: KeyVersion) -> VersionState:
    """Return where a verb leads from a version's present state."""
    if verb == "destroy" and version.state == VersionState.COMPROMISED:
        return VersionState.DESTROYED_COMPROMISED
    to = VERSION_VERBS[verb].to
    assert to is not None
    return to
