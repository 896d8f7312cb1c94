"""The ways to settle a difference, in words: their buttons, and exactly what each will do."""

from __future__ import annotations

from typing import Any

from keys.actions import Action
from keys.models import Drift
from keys.models.drift import DriftField
from keys.models.key import ManagementModel, Origin
from keys.states import GONE, SERVING, KeyState
from kms_console.web.differences import words
from kms_console.web.verbs import Verb

WAYS: dict[str, Verb] = {
    verb.name: verb
    for verb in (
        Verb(
            "accept", Action.ACCEPT_DRIFT, "Accept", "check",
            done="The console now says what the store says.",
        ),
        Verb(
            "revert", Action.REVERT_DRIFT, "Revert", "undo-2",
            done="A job puts the store back. The difference closes once the store agrees.",
        ),
        Verb(
            "repair", Action.REPAIR_DRIFT, "Repair", "wrench",
            done="A job makes a new version, which takes over.",
        ),
    )
}  # fmt: skip


_NO_CHANGE = "Nothing is changed at {store}."
_TAKES_OVER = (
    "The version that serves here until now is deactivated: it still decrypts and verifies. A job tells "
    "{store} so."
)
# What accepting does, as keys.administration.following has it; what depends on more stands below.
_ACCEPT = {
    DriftField.KEY_MISSING: "The console marks every version of the key as destroyed, and the key with "
    "them. Nothing can be protected or read with it any more, and there is no way back. "
    + _NO_CHANGE,
    DriftField.KEY_STATE: "The key, {believed} here, becomes {observed}. " + _NO_CHANGE,
    DriftField.DESTRUCTION: "The console takes over the store's date: the key is destroyed on {observed}, "
    "not on {believed}. " + _NO_CHANGE,
    DriftField.PRIMARY: "New data is protected with {observed} here, too. " + _TAKES_OVER,
    DriftField.MATERIAL: "The console takes over the public key that the store shows for {version}.",
    DriftField.ROTATION: "From now on the console expects the store's own rotation to be {observed}; it "
    "expected {believed}. " + _NO_CHANGE,
    DriftField.TAGS: "From now on the console expects the tags that are there: {observed}. "
    + _NO_CHANGE,
}
_PENDING = (
    "The key, {believed} here, becomes pending destruction, with the store's date. Nothing can use it "
    "until the destruction is cancelled. The store destroys it, not the console: whoever cancels that at "
    "{store} in time saves the key. " + _NO_CHANGE
)
_REIMPORT = (
    "The material of every version counts as unavailable until the same is imported again. "
    + _NO_CHANGE
)
_REVERT = {
    DriftField.KEY_STATE: "the key becomes {believed} there again",
    DriftField.DESTRUCTION: "it is destroyed on {believed} there",
    DriftField.VERSION_STATE: "{version} becomes {believed} there again",
    DriftField.VERSION_DESTRUCTION: "the date of destruction of {version} becomes {believed} there again",
    DriftField.PRIMARY: "new data is protected with {believed} there again",
    DriftField.ROTATION: "its own rotation there is {believed} again",
    DriftField.TAGS: "it has {believed} there again",
}


def explanation(row: Drift, way: str) -> str:
    """Return in a few sentences exactly what a way to settle a difference will do."""
    version = f"version {row.number}" if row.number else "the version"
    told = {
        "believed": words(row, row.believed),
        "observed": words(row, row.observed),
        "version": version,
        "Version": version.capitalize(),
        "store": row.key.key_store.title,
    }
    if way == "accept":
        return _accepting(row).format(**told)
    if way == "revert":
        what = _REVERT.get(DriftField(row.field), "the key becomes there what it is here")
        return (
            "The console stays as it is. A job brings the key at {store} in line with it: "
            f"{what}. Its other open differences stay as they are until they are decided on. This one "
            "closes once the store agrees."
        ).format(**told)
    lost = "every version of the key" if row.field == DriftField.KEY_MISSING else version
    return (
        f"A new version is made in {told['store']} and takes over, as by a rotation. The console marks "
        f"{lost} as destroyed: what only that material can decrypt stays lost."
    )


def dangerous(row: Drift, way: str) -> bool:
    """Whether a way can't be undone by another."""
    lost = (DriftField.KEY_MISSING, DriftField.VERSION_MISSING)
    ends = row.observed in (*GONE, KeyState.DESTROYED, KeyState.PENDING_DESTRUCTION)
    return way == "accept" and (row.field in lost or ends)


def _accepting(row: Drift) -> str:
    field, observed = DriftField(row.field), row.observed
    if field == DriftField.KEY_STATE and observed == KeyState.DESTROYED:
        return _ACCEPT[DriftField.KEY_MISSING]
    if field == DriftField.KEY_STATE and observed == KeyState.PENDING_DESTRUCTION:
        return _PENDING
    if field == DriftField.KEY_STATE and observed == KeyState.PENDING_IMPORT:
        return _REIMPORT
    if field == DriftField.VERSION_MISSING or (
        field == DriftField.VERSION_STATE and observed in GONE
    ):
        return _losing(row)
    if field == DriftField.VERSION_UNKNOWN:
        return _taking_in(row)
    if field == DriftField.VERSION_STATE:
        return _following(row)
    if field == DriftField.VERSION_DESTRUCTION:
        return _scheduling(row)
    return _ACCEPT[field]


def _losing(row: Drift) -> str:
    kept = row.key.origin == Origin.IMPORTED
    what = "as unavailable until the same material is imported again" if kept else "as destroyed"
    return (
        f"The console marks {{version}} {what}. What only this version can decrypt can't be read. "
        f"{'' if kept else _rotated(row)}{_NO_CHANGE}"
    )


def _taking_in(row: Drift) -> str:
    told: Any = row.observed
    if told["primary"] and told["state"] in SERVING:
        return (
            "The console takes the version in as the key's next version. {store} protects new data with "
            f"it, so it takes over here, too. {_TAKES_OVER}"
        )
    return (
        "The console takes the version in as one more version of the key, as {store} shows it: "
        f"{{observed}}. The version that serves stays. {_NO_CHANGE}"
    )


def _following(row: Drift) -> str:
    rotated = _rotated(row) if row.observed not in SERVING else ""
    return f"{{Version}}, {{believed}} here, becomes {{observed}}. {rotated}{_NO_CHANGE}"


def _scheduling(row: Drift) -> str:
    if row.observed is None:
        return f"The console cancels the destruction of {{version}} and keeps it. {_NO_CHANGE}"
    return (
        "The console takes over the store's date: {store} destroys {version} on {observed}, if nobody "
        "cancels that there. Until then it "
        f"protects nothing new. {_rotated(row)}{_NO_CHANGE}"
    )


def _rotated(row: Drift) -> str:
    """Return what follows where a version that serves is lost to new data; nothing for others."""
    ours = row.key.model != ManagementModel.PROVIDER_MANAGED
    if not ours or not row.key.versions.filter(number=row.number, primary=True).exists():
        return ""
    return "It is the primary version, so the next sweep rotates the key, or asks for votes. "
