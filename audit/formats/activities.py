"""What each action is to OCSF: its class, its activity there, and how much it deserves attention.

The record knows no actions but by the text that entries have; a test compares this table with the
product's whole vocabulary and with docs/audit/ocsf.md. An action that is not here is an API activity
of no named kind, so that no entry is ever left out.
"""

from __future__ import annotations

from dataclasses import dataclass

AUTHENTICATION, ENTITY, USER, API = 3002, 3004, 3007, 6003

CLASSES = {
    AUTHENTICATION: "Authentication",
    ENTITY: "Entity Management",
    USER: "User Management",
    API: "API Activity",
}
CATEGORIES = {3: "Identity & Access Management", 6: "Application Activity"}
OTHER = 99

_NAMES = {
    AUTHENTICATION: {"Logon": 1, "Logoff": 2},
    ENTITY: {
        "Create": 1,
        "Read": 2,
        "Update": 3,
        "Delete": 4,
        "Enroll": 6,
        "Enable": 8,
        "Disable": 9,
        "Activate": 10,
        "Deactivate": 11,
        "Suspend": 12,
        "Resume": 13,
    },
    USER: {
        "Create": 1,
        "Disable": 5,
        "Password Change": 8,
        "Assign Privileges": 14,
        "Remove Privileges": 15,
        "Assign Roles": 16,
        "Remove Roles": 17,
        "Add Programmatic Credentials": 18,
        "Remove Programmatic Credentials": 19,
    },
    API: {"Create": 1, "Read": 2, "Update": 3, "Delete": 4},
}
# OCSF's severity_id: 1 informational, 2 low, 3 medium, 4 high, 5 critical.
INFORMATIONAL, LOW, MEDIUM, HIGH = 1, 2, 3, 4


@dataclass(frozen=True, slots=True)
class Activity:
    """One action's place in OCSF. `severity` is that of a success; see `severity` below."""

    class_uid: int
    activity_id: int
    name: str
    severity: int = INFORMATIONAL

    @property
    def type_uid(self) -> int:
        return self.class_uid * 100 + self.activity_id


def _in(class_uid: int, **named: str) -> dict[str, Activity]:
    """Return activities: each keyword is an action, its value the activity's name in the class."""
    return {
        action: Activity(class_uid, _NAMES[class_uid][name], name) for action, name in named.items()
    }


def _other(*actions: str) -> dict[str, Activity]:
    """Return API activities that OCSF has no name for: its name is the action's own."""
    return {action: Activity(API, OTHER, action) for action in actions}


_PLAIN: dict[str, Activity] = {
    **_other("encrypt", "decrypt", "re_encrypt_from", "re_encrypt_to", "sign", "verify"),
    **_other("mac", "verify_mac", "wrap_key", "unwrap_key", "encapsulate", "decapsulate"),
    **_other("derive_shared_secret", "derive_key", "random", "run_job", "refused_request"),
    **_in(
        API,
        generate_data_key="Create",
        generate_data_key_without_plaintext="Create",
        generate_data_key_pair="Create",
        generate_data_key_pair_without_plaintext="Create",
        certificate_request="Create",
        import_parameters="Create",
        public_key="Read",
        read_keys="Read",
        read_policy="Read",
        read_access="Read",
        read_approvals="Read",
        read_jobs="Read",
        read_key_stores="Read",
        read_drift="Read",
        read_audit="Read",
        export_audit="Read",
        verify_audit="Read",
        archive_audit="Create",
        restore_audit="Create",
        drop_audit="Delete",
    ),
    **_in(
        ENTITY,
        # Keys and their versions
        create_key="Create",
        update_key="Update",
        enable_key="Enable",
        disable_key="Disable",
        rotate_key="Update",
        prepare_version="Update",
        import_key="Update",
        delete_material="Update",
        export_key="Read",
        align_key="Update",
        schedule_destruction="Delete",
        cancel_destruction="Update",
        activate_version="Activate",
        suspend_version="Suspend",
        deactivate_version="Deactivate",
        revoke_version="Disable",
        destroy_version="Delete",
        cancel_version_destruction="Update",
        open_ceremony="Create",
        enter_component="Update",
        confirm_ceremony="Update",
        close_ceremony="Update",
        # Policy, requests, key stores, the house
        create_classification="Create",
        update_classification="Update",
        pause_rotation="Suspend",
        resume_rotation="Resume",
        vote="Update",
        withdraw_request="Update",
        expire_request="Update",
        create_key_store="Create",
        update_key_store="Update",
        check_key_store="Read",
        discover_keys="Read",
        adopt_key="Enroll",
        check_drift="Read",
        accept_drift="Update",
        repair_drift="Update",
        revert_drift="Update",
        hold_root_key="Update",
        rotate_root_key="Update",
        set_up="Create",
        # The record
        save_filter="Create",
        delete_filter="Delete",
        place_hold="Create",
        release_hold="Delete",
        erase_person="Delete",
        accept_log="Update",
    ),
    **_in(
        USER,
        create_person="Create",
        create_application="Create",
        deactivate_principal="Disable",
        change_password="Password Change",  # noqa: S106 - an activity's name
        appoint_officer="Assign Roles",
        dismiss_officer="Remove Roles",
        create_grant="Assign Privileges",
        revoke_grant="Remove Privileges",
        issue_credential="Add Programmatic Credentials",
        revoke_credential="Remove Programmatic Credentials",
    ),
    # OCSF has no activity for it that is true of what goes up as well as of what goes down.
    "set_limits": Activity(USER, OTHER, "set_limits"),
    # `authenticate`: what the doors refused before anybody was known, counted by the minute.
    **_in(AUTHENTICATION, sign_in="Logon", sign_out="Logoff", authenticate="Logon"),
}
_SEVERITIES = {
    **dict.fromkeys(("revoke_version", "accept_log", "drop_audit", "erase_person"), HIGH),
    **dict.fromkeys(("export_key", "schedule_destruction", "destroy_version"), MEDIUM),
    **dict.fromkeys(("delete_material", "appoint_officer", "dismiss_officer"), MEDIUM),
    **dict.fromkeys(("hold_root_key", "rotate_root_key", "release_hold", "export_audit"), MEDIUM),
    **dict.fromkeys(("create_person", "create_grant", "issue_credential", "import_key"), LOW),
    **dict.fromkeys(("update_classification", "pause_rotation", "update_key_store"), LOW),
}
ACTIVITIES: dict[str, Activity] = {
    action: Activity(one.class_uid, one.activity_id, one.name, _SEVERITIES.get(action, 1))
    for action, one in _PLAIN.items()
}
# What an outcome adds: a refusal is somebody trying the door.
_LEAST = {"denied": MEDIUM, "failed": LOW}


def activity(action: str) -> Activity:
    """Return an action's activity."""
    return ACTIVITIES.get(action) or Activity(API, OTHER, action)


def severity(action: str, outcome: str) -> int:
    """Return the severity_id of an entry: that of its action, and at least that of its outcome."""
    return max(activity(action).severity, _LEAST.get(outcome, INFORMATIONAL))
