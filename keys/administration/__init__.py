"""Managing: every change that a person, an application or the scheduler can ask for.

One verb, one function, every door. Each takes a caller, a reference to what it is about, and plain
JSON values; each raises PendingApproval where officers must agree first.
"""

from keys.administration.access import (
    create_application,
    create_grant,
    deactivate_principal,
    issue_credential,
    revoke_credential,
    revoke_grant,
)
from keys.administration.ceremonies import (
    close_ceremony,
    confirm_ceremony,
    enter_component,
    open_ceremony,
)
from keys.administration.discovery import adopt_key, discover_keys
from keys.administration.drift import (
    accept_drift,
    check_drift,
    repair_drift,
    revert_drift,
    ways,
)
from keys.administration.exports import Exported, export_key
from keys.administration.filters import delete_filter, save_filter
from keys.administration.house import (
    check_key_store,
    create_key_store,
    set_up,
    update_key_store,
)
from keys.administration.imports import (
    ImportParameters,
    delete_material,
    import_key,
    import_parameters,
)
from keys.administration.keys import (
    cancel_destruction,
    create_key,
    disable_key,
    enable_key,
    schedule_destruction,
    update_key,
)
from keys.administration.limits import set_limits
from keys.administration.log import accept_log
from keys.administration.people import (
    appoint_officer,
    change_password,
    create_person,
    dismiss_officer,
)
from keys.administration.personal import erase_person
from keys.administration.policies import (
    create_classification,
    pause_rotation,
    resume_rotation,
    update_classification,
)
from keys.administration.retention import (
    archive_audit,
    drop_audit,
    place_hold,
    release_hold,
    restore_audit,
)
from keys.administration.root_key import hold_root_key, rotate_root_key
from keys.administration.rotation import prepare_version, rotate_key
from keys.administration.versions import cancel_version_destruction, transition_version
from keys.administration.votes import execute, expire_request, vote, withdraw_request

__all__ = [
    "Exported",
    "ImportParameters",
    "accept_drift",
    "accept_log",
    "adopt_key",
    "appoint_officer",
    "archive_audit",
    "cancel_destruction",
    "cancel_version_destruction",
    "change_password",
    "check_drift",
    "check_key_store",
    "close_ceremony",
    "confirm_ceremony",
    "create_application",
    "create_classification",
    "create_grant",
    "create_key",
    "create_key_store",
    "create_person",
    "deactivate_principal",
    "delete_filter",
    "delete_material",
    "disable_key",
    "discover_keys",
    "dismiss_officer",
    "drop_audit",
    "enable_key",
    "enter_component",
    "erase_person",
    "execute",
    "expire_request",
    "export_key",
    "hold_root_key",
    "import_key",
    "import_parameters",
    "issue_credential",
    "open_ceremony",
    "pause_rotation",
    "place_hold",
    "prepare_version",
    "release_hold",
    "repair_drift",
    "restore_audit",
    "resume_rotation",
    "revert_drift",
    "revoke_credential",
    "revoke_grant",
    "rotate_key",
    "rotate_root_key",
    "save_filter",
    "schedule_destruction",
    "set_limits",
    "set_up",
    "transition_version",
    "update_classification",
    "update_key",
    "update_key_store",
    "vote",
    "ways",
    "withdraw_request",
]
