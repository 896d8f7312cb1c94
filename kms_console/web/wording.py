"""Plain English for codes: states with tone and icon, labels, and what a request would do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keys.actions import Action
from keys.algorithms import ALGORITHMS, SPECS, Usage
from keys.backends import registry
from keys.models.approval import ApprovalState
from keys.models.discovery import ListingState
from keys.models.drift import DriftField, DriftState
from keys.models.imports import CeremonyState
from keys.models.job import JobKind, JobState
from keys.models.key import ManagementModel, Origin
from keys.states import Condition, KeyState, VersionState

# kind -> value -> (tone, icon, word)
_STATES: dict[str, dict[str, tuple[str, str, str]]] = {
    "key": {
        KeyState.PENDING_IMPORT: ("note", "upload", "Waiting for import"),
        KeyState.ENABLED: ("ok", "circle-check", "Enabled"),
        KeyState.DISABLED: ("", "ban", "Disabled"),
        KeyState.PENDING_DESTRUCTION: ("warn", "hourglass", "Pending destruction"),
        KeyState.DESTROYED: ("", "trash-2", "Destroyed"),
    },
    "version": {
        VersionState.PRE_ACTIVE: ("note", "circle-dashed", "Pre-active"),
        VersionState.ACTIVE: ("ok", "circle-check", "Active"),
        VersionState.SUSPENDED: ("warn", "circle-pause", "Suspended"),
        VersionState.DEACTIVATED: ("", "circle-slash", "Deactivated"),
        VersionState.COMPROMISED: ("bad", "octagon-alert", "Compromised"),
        VersionState.DESTROYED: ("", "trash-2", "Destroyed"),
        VersionState.DESTROYED_COMPROMISED: ("bad", "trash-2", "Destroyed, compromised"),
    },
    "condition": {
        Condition.CREATING: ("note", "hourglass", "Being created"),
        Condition.PENDING_DESTRUCTION: ("warn", "hourglass", "Pending destruction"),
        Condition.UNAVAILABLE: ("bad", "circle-alert", "Material unavailable"),
    },
    "approval": {
        ApprovalState.OPEN: ("note", "hourglass", "Waiting for votes"),
        ApprovalState.APPROVED: ("ok", "check", "Approved"),
        ApprovalState.REJECTED: ("bad", "circle-x", "Rejected"),
        ApprovalState.WITHDRAWN: ("", "undo-2", "Withdrawn"),
        ApprovalState.EXPIRED: ("", "clock", "Expired"),
        ApprovalState.VOID: ("warn", "circle-slash", "Void"),
        ApprovalState.EXECUTED: ("ok", "check-check", "Carried out"),
        ApprovalState.FAILED: ("bad", "circle-alert", "Failed"),
    },
    "job": {
        JobState.PENDING: ("note", "clock", "Waiting"),
        JobState.RUNNING: ("note", "rotate-cw", "Running"),
        JobState.SUCCEEDED: ("ok", "circle-check", "Done"),
        JobState.FAILED: ("bad", "circle-x", "Failed"),
        JobState.CANCELLED: ("", "circle-slash", "Cancelled"),
    },
    "outcome": {
        "success": ("ok", "circle-check", "Done"),
        "denied": ("bad", "ban", "Denied"),
        "failed": ("bad", "circle-x", "Failed"),
        "started": ("note", "play", "Started"),
        "pending": ("warn", "hourglass", "Waits for votes"),
    },
    "ceremony": {
        CeremonyState.OPEN: ("note", "users", "Under way"),
        CeremonyState.DONE: ("ok", "circle-check", "Done"),
        CeremonyState.CANCELLED: ("", "circle-slash", "Cancelled"),
    },
    "vote": {
        "True": ("ok", "check", "Approved"),
        "False": ("bad", "circle-x", "Rejected"),
    },
    "account": {
        "True": ("ok", "circle-check", "Active"),
        "False": ("", "ban", "Closed"),
    },
    "store": {
        "True": ("ok", "circle-check", "Working"),
        "False": ("bad", "circle-x", "Not reachable"),
        "None": ("", "clock", "Not checked yet"),
        "off": ("", "power", "Switched off"),
    },
    "listing": {
        ListingState.RUNNING: ("note", "rotate-cw", "Under way"),
        ListingState.DONE: ("ok", "circle-check", "Complete"),
        ListingState.FAILED: ("bad", "circle-x", "Failed"),
    },
    "drift": {
        DriftState.OPEN: ("warn", "git-compare", "Open"),
        DriftState.ACCEPTED: ("ok", "check", "Accepted"),
        DriftState.REPAIRED: ("ok", "wrench", "Repaired"),
        DriftState.REVERTED: ("ok", "undo-2", "Reverted"),
        DriftState.GONE: ("", "circle-slash", "Gone by itself"),
    },
    "protection": {
        "software": ("", "file-text", "Software"),
        "hsm": ("ok", "shield-check", "HSM"),
    },
}

_ROLES = {
    "administrator": "Administrator",
    "officer": "Security officer",
    "auditor": "Auditor",
    "scheduler": "Scheduler",
    "operator": "Operator",
}
_DOORS = {"console": "Console", "rest": "API", "command": "Command line", "schedule": "Scheduler"}
_METHODS = {
    "session": "signed in",
    "bearer": "bearer token",
    "command": "command on the host",
    "schedule": "the scheduler",
    "none": "nothing",
}
_OBJECTS = {
    "key": "Key",
    "classification": "Classification",
    "key_store": "Key store",
    "principal": "Account",
    "credential": "Credential",
    "grant": "Grant",
    "approval": "Request",
    "job": "Job",
    "house": "Console",
    "log": "Audit trail",
    "door": "Door",
    "entry": "Entry",
    "address": "Address",
    "ceremony": "Key ceremony",
    "drift": "Difference",
    "listing": "Listing",
    "root_key": "Root key",
    "saved_filter": "Saved filter",
    "export": "Export",
    "legal_hold": "Legal hold",
    "hold": "Legal hold",
    "archive": "Archive",
}
# Names of parameters and facts, as people read them.
_PARAMETERS = {
    "activate": "New version takes over at once",
    "number": "Version",
    "to": "New state",
    "days": "Waits (days)",
    "check_value": "Check value of the material",
    "originated_at": "Material was made",
    "operations": "Operations",
    "context": "Required context",
    "not_before": "Not before",
    "expires_at": "Until",
    "source_networks": "From networks",
    "quorum": "Who must agree",
    "username": "User name",
    "name": "Name",
    "title": "Title",
    "description": "Description",
    "allowed_specs": "Key types",
    "key_stores": "Key stores",
    "minimum_protection": "Protection at least",
    "rotation_days": "Rotation period (days)",
    "originator_days": "Protects for (days)",
    "recipient_days": "Usable for (days)",
    "destruction_days": "Destruction waits (days)",
    "suspended_decrypts": "Suspended versions decrypt",
    "allows_export": "Keys may be made exportable",
    "quorum_m": "Officers who must agree",
    "quorum_n": "Officers there must be",
    "rotation_paused": "Rotation paused",
    "key": "Key",
    "classification": "Classification",
    "key_store": "Key store",
    "holder": "Where it is held",
    "difference": "Difference",
    "spec": "Key type",
    "usage": "Purpose",
    "algorithm": "Algorithm",
    "alias": "Alias",
    "owner": "Owner",
    "labels": "Labels",
    "origin": "Origin",
    "exportable": "Exportable",
    "publish_days": "Publishes ahead (days)",
    "wrapping_key": "Wrapped under the key",
    "public_key": "Recipient's public key",
    "ceremony": "Key ceremony",
    "custodians": "Custodians",
    "split": "In components",
    "place": "Place",
    "state": "State",
    "subject": "Subject",
    "role": "Role",
    "rate": "Uses a second",
    "burst": "At once",
    "quota": "Uses a day",
    "kind": "Kind",
    "settings": "Settings",
    "credentials": "Where its credential is",
    "enabled": "Switched on",
    "approve": "Agrees",
    "comment": "Comment",
    "digest": "Digest of the request",
    "reference": "Key at the store",
    "shared": "Shared with everybody who reads the trail",
    "since": "From",
    "until": "Before",
}


def state(kind: str, value: str) -> tuple[str, str, str]:
    """Return tone, icon and word of a state; an unknown one is shown as it is."""
    return _STATES[kind].get(value, ("", "circle-dashed", value or "unknown"))


def label(kind: str, value: str) -> str:
    """Return the plain English for a code of a vocabulary, or the code itself."""
    found = _LABELS[kind](value)
    return found or value


def _action(value: str) -> str:
    if value == "authenticate":
        return "Sign-in or token refused"
    return Action(value).label if value in Action._value2member_map_ else ""


_LABELS: dict[str, Any] = {
    "spec": lambda value: SPECS[value].label if value in SPECS else "",
    "algorithm": lambda value: ALGORITHMS[value].label if value in ALGORITHMS else "",
    "usage": lambda value: Usage(value).label if value in Usage._value2member_map_ else "",
    "action": _action,
    "origin": lambda value: Origin(value).label if value in Origin.values else "",
    "model": lambda value: ManagementModel(value).label if value in ManagementModel.values else "",
    "job": lambda value: JobKind(value).label if value in JobKind.values else "",
    "drift_field": lambda value: DriftField(value).label if value in DriftField.values else "",
    "door": _DOORS.get,
    "method": _METHODS.get,
    "object": _OBJECTS.get,
    "parameter": _PARAMETERS.get,
    "kind": lambda value: registry.KINDS[value].label if value in registry.KINDS else "",
    "version_state": lambda value: state("version", value)[2],
    "key_state": lambda value: state("key", value)[2],
    "role": _ROLES.get,
    "outcome": lambda value: state("outcome", value)[2],
}


def consequence(action: str, parameters: Mapping[str, Any], subject: str, present: str = "") -> str:
    """Return in one or two sentences what will happen once a request is approved.

    `present` is the state of the version concerned, where one is.
    """
    from kms_console.web.verbs import KEY_VERBS, VERSION_VERBS

    number = parameters.get("number")
    version_verb = _VERSION_ACTIONS.get(action)
    if present == VersionState.SUSPENDED and version_verb == "activate":
        version_verb = "resume"
    if present == VersionState.DESTROYED and version_verb == "destroy":
        version_verb = "revoke-destroyed"
    if version_verb:
        return f"Version {number} of the key {subject}. {VERSION_VERBS[version_verb].explanation}"
    for row in KEY_VERBS.values():
        if row.verb.action.value == action:
            return row.explanation
    if action == "import_key":
        return _import(parameters, subject)
    return _CONSEQUENCES.get(action, "").format(subject=subject)


def _import(parameters: Mapping[str, Any], subject: str) -> str:
    number = parameters.get("number")
    what = f"Version {number} of the key {subject}" if number else f"The key {subject}"
    again = " again" if number else ""
    taken = f"{what} may take{again} exactly the material that has this check value."
    if parameters.get("ceremony"):
        return f"{taken} Officers brought it together in a ceremony; who asked then imports it."
    return f"{taken} Who asked then brings it once more; it was not kept."


_VERSION_ACTIONS = {
    "activate_version": "activate",
    "suspend_version": "suspend",
    "deactivate_version": "deactivate",
    "revoke_version": "revoke",
    "destroy_version": "destroy",
    "cancel_version_destruction": "cancel-destruction",
    "delete_material": "delete-material",
}
_CONSEQUENCES = {
    "export_key": "The material of the key {subject} leaves its key store, encrypted for the recipient "
    "whose public key has this digest. Whoever holds the private key to it can then do everything "
    "that this key can, and nobody can call that back.",
    "update_classification": "The classification {subject} changes as listed. Its keys keep their "
    "material; rotation follows the new period at once.",
    "pause_rotation": "Scheduled rotation stops for every key of {subject} until somebody resumes it. "
    "Keys stay due, and can be rotated by hand.",
    "create_grant": "{subject} may use what is listed, from the moment this is carried out.",
    "appoint_officer": "A new security officer joins. Who asked then repeats the appointment and hands "
    "over the first password.",
    "accept_drift": "The console follows the key store in one difference about the key {subject}. Nothing "
    "is changed at the store.",
    "revert_drift": "A job brings the key {subject} at its store in line with what the console believes, "
    "the whole key with all its versions. The console changes nothing of its own.",
    "repair_drift": "A new version of the key {subject} is made at its store and takes over, as by a "
    "rotation. What was lost stays lost.",
    "hold_root_key": "The present root key is wrapped by a new key, made in the key store. It stays the "
    "same, so nothing is sealed anew. Each process then opens it there when it starts: without that store, "
    "or the key in it, no software key can be opened. Afterwards the file or the variable can be removed "
    "from every host.",
    "rotate_root_key": "A new root key, held by a new key in the key store, seals at once. What the old "
    "one sealed is sealed anew while keys stay usable. Then the old one is retired, and where a store "
    "held it, its key there is destroyed: older backups of the material open only with a copy of the old "
    "root key. Make new backups of both databases.",
    "dismiss_officer": "{subject} is no longer an officer; the account is closed. Requests that listed "
    "this officer become void.",
}
