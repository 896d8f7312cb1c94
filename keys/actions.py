"""Everything that can be done here: a closed vocabulary, one row an action.

A row says who may do it by role, whether a grant can allow it, and whether officers must agree.
`keys.policy.decide` reads these rows and nothing else decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from keys.algorithms import Usage
from keys.callers import Role
from keys.states import Direction


class Kind(StrEnum):
    USE = "use"
    CHANGE = "change"
    READ = "read"


class Quorum(StrEnum):
    """Whose agreement an action needs."""

    NONE = "none"
    CLASSIFICATION = "classification"  # as the key's or the policy's own classification asks
    HOUSE = "house"  # the strictest of all classifications: who the officers are concerns them all


@dataclass(frozen=True, slots=True)
class Row:
    kind: Kind
    label: str
    roles: frozenset[Role] = frozenset()
    grantable: bool = False
    quorum: Quorum = Quorum.NONE
    usage: Usage | None = None
    direction: Direction | None = None
    # Allowed reads leave no entry, except those that take the record itself out of the house.
    recorded: bool = True
    # The approved action is carried out by the requester's own second call, since it carries
    # something that must not be kept or queued.
    by_requester: bool = False


_O, _A, _U, _S, _P = Role.OFFICER, Role.ADMINISTRATOR, Role.AUDITOR, Role.SCHEDULER, Role.OPERATOR
_EVERYBODY = frozenset({_O, _A, _U, _S, _P})


def _use(label: str, usage: Usage | None, direction: Direction | None) -> Row:
    return Row(Kind.USE, label, grantable=True, usage=usage, direction=direction)


def _change(
    label: str, *roles: Role, quorum: Quorum = Quorum.NONE, by_requester: bool = False
) -> Row:
    return Row(Kind.CHANGE, label, frozenset(roles), quorum=quorum, by_requester=by_requester)


def _read(label: str, *roles: Role, recorded: bool = False, grantable: bool = False) -> Row:
    return Row(Kind.READ, label, frozenset(roles), recorded=recorded, grantable=grantable)


class Action(StrEnum):
    # Using a key
    ENCRYPT = "encrypt"
    DECRYPT = "decrypt"
    RE_ENCRYPT_FROM = "re_encrypt_from"
    RE_ENCRYPT_TO = "re_encrypt_to"
    GENERATE_DATA_KEY = "generate_data_key"
    GENERATE_DATA_KEY_WITHOUT_PLAINTEXT = "generate_data_key_without_plaintext"
    GENERATE_DATA_KEY_PAIR = "generate_data_key_pair"
    GENERATE_DATA_KEY_PAIR_WITHOUT_PLAINTEXT = "generate_data_key_pair_without_plaintext"
    SIGN = "sign"
    VERIFY = "verify"
    MAC = "mac"
    VERIFY_MAC = "verify_mac"
    WRAP_KEY = "wrap_key"
    UNWRAP_KEY = "unwrap_key"
    ENCAPSULATE = "encapsulate"
    DECAPSULATE = "decapsulate"
    DERIVE_SHARED_SECRET = "derive_shared_secret"  # noqa: S105  (an action's name)
    DERIVE_KEY = "derive_key"
    PUBLIC_KEY = "public_key"
    CERTIFICATE_REQUEST = "certificate_request"
    RANDOM = "random"
    # A key's life
    CREATE_KEY = "create_key"
    UPDATE_KEY = "update_key"
    ENABLE_KEY = "enable_key"
    DISABLE_KEY = "disable_key"
    ROTATE_KEY = "rotate_key"
    PREPARE_VERSION = "prepare_version"
    IMPORT_PARAMETERS = "import_parameters"
    IMPORT_KEY = "import_key"
    DELETE_MATERIAL = "delete_material"
    EXPORT_KEY = "export_key"
    OPEN_CEREMONY = "open_ceremony"
    ENTER_COMPONENT = "enter_component"
    CONFIRM_CEREMONY = "confirm_ceremony"
    CLOSE_CEREMONY = "close_ceremony"
    SCHEDULE_DESTRUCTION = "schedule_destruction"
    CANCEL_DESTRUCTION = "cancel_destruction"
    # A version's life
    ACTIVATE_VERSION = "activate_version"
    SUSPEND_VERSION = "suspend_version"
    DEACTIVATE_VERSION = "deactivate_version"
    REVOKE_VERSION = "revoke_version"
    DESTROY_VERSION = "destroy_version"
    CANCEL_VERSION_DESTRUCTION = "cancel_version_destruction"
    # What a job does at the store, once it may
    RUN_JOB = "run_job"
    ALIGN_KEY = "align_key"
    # Policy
    CREATE_CLASSIFICATION = "create_classification"
    UPDATE_CLASSIFICATION = "update_classification"
    PAUSE_ROTATION = "pause_rotation"
    RESUME_ROTATION = "resume_rotation"
    # Access
    CREATE_GRANT = "create_grant"
    REVOKE_GRANT = "revoke_grant"
    CREATE_APPLICATION = "create_application"
    ISSUE_CREDENTIAL = "issue_credential"
    REVOKE_CREDENTIAL = "revoke_credential"
    SET_LIMITS = "set_limits"
    DEACTIVATE_PRINCIPAL = "deactivate_principal"
    CREATE_PERSON = "create_person"
    APPOINT_OFFICER = "appoint_officer"
    DISMISS_OFFICER = "dismiss_officer"
    CHANGE_PASSWORD = "change_password"  # noqa: S105  (an action's name)
    # Approvals
    VOTE = "vote"
    WITHDRAW_REQUEST = "withdraw_request"
    EXPIRE_REQUEST = "expire_request"
    # Key stores and the house
    CREATE_KEY_STORE = "create_key_store"
    UPDATE_KEY_STORE = "update_key_store"
    CHECK_KEY_STORE = "check_key_store"
    DISCOVER_KEYS = "discover_keys"
    ADOPT_KEY = "adopt_key"
    CHECK_DRIFT = "check_drift"
    ACCEPT_DRIFT = "accept_drift"
    REPAIR_DRIFT = "repair_drift"
    REVERT_DRIFT = "revert_drift"
    HOLD_ROOT_KEY = "hold_root_key"
    ROTATE_ROOT_KEY = "rotate_root_key"
    # The record
    SAVE_FILTER = "save_filter"
    DELETE_FILTER = "delete_filter"
    PLACE_HOLD = "place_hold"
    RELEASE_HOLD = "release_hold"
    ARCHIVE_AUDIT = "archive_audit"
    RESTORE_AUDIT = "restore_audit"
    DROP_AUDIT = "drop_audit"
    ERASE_PERSON = "erase_person"
    ACCEPT_LOG = "accept_log"
    SET_UP = "set_up"
    REFUSED_REQUEST = "refused_request"
    SIGN_IN = "sign_in"
    SIGN_OUT = "sign_out"
    # Reading
    READ_KEYS = "read_keys"
    READ_POLICY = "read_policy"
    READ_ACCESS = "read_access"
    READ_APPROVALS = "read_approvals"
    READ_JOBS = "read_jobs"
    READ_KEY_STORES = "read_key_stores"
    READ_DRIFT = "read_drift"
    READ_AUDIT = "read_audit"
    EXPORT_AUDIT = "export_audit"
    VERIFY_AUDIT = "verify_audit"

    @property
    def row(self) -> Row:
        return ACTIONS[self]

    @property
    def label(self) -> str:
        return ACTIONS[self].label


_CRYPT, _SIGN, _MAC = Usage.ENCRYPT_DECRYPT, Usage.SIGN_VERIFY, Usage.GENERATE_VERIFY_MAC
_WRAP, _KEM = Usage.WRAP_UNWRAP, Usage.KEY_ENCAPSULATION
_PROTECT, _PROCESS = Direction.PROTECT, Direction.PROCESS
_BY_CLASS = Quorum.CLASSIFICATION

ACTIONS: dict[Action, Row] = {
    Action.ENCRYPT: _use("Encrypt", _CRYPT, _PROTECT),
    Action.DECRYPT: _use("Decrypt", _CRYPT, _PROCESS),
    Action.RE_ENCRYPT_FROM: _use("Re-encrypt from this key", _CRYPT, _PROCESS),
    Action.RE_ENCRYPT_TO: _use("Re-encrypt to this key", _CRYPT, _PROTECT),
    Action.GENERATE_DATA_KEY: _use("Generate a data key", _CRYPT, _PROTECT),
    Action.GENERATE_DATA_KEY_WITHOUT_PLAINTEXT: _use(
        "Generate a data key, encrypted only", _CRYPT, _PROTECT
    ),
    Action.GENERATE_DATA_KEY_PAIR: _use("Generate a data key pair", _CRYPT, _PROTECT),
    Action.GENERATE_DATA_KEY_PAIR_WITHOUT_PLAINTEXT: _use(
        "Generate a data key pair, encrypted only", _CRYPT, _PROTECT
    ),
    Action.SIGN: _use("Sign", _SIGN, _PROTECT),
    Action.VERIFY: _use("Verify a signature", _SIGN, _PROCESS),
    Action.MAC: _use("Compute a MAC", _MAC, _PROTECT),
    Action.VERIFY_MAC: _use("Verify a MAC", _MAC, _PROCESS),
    Action.WRAP_KEY: _use("Wrap a key", _WRAP, _PROTECT),
    Action.UNWRAP_KEY: _use("Unwrap a key", _WRAP, _PROCESS),
    Action.ENCAPSULATE: _use("Encapsulate a shared secret", _KEM, _PROTECT),
    Action.DECAPSULATE: _use("Decapsulate a shared secret", _KEM, _PROCESS),
    # Both ways in one: protecting with the primary, processing with a version that is named.
    Action.DERIVE_SHARED_SECRET: _use("Derive a shared secret", Usage.KEY_AGREEMENT, _PROTECT),
    Action.DERIVE_KEY: _use("Derive a key", Usage.DERIVE_KEY, _PROTECT),
    Action.PUBLIC_KEY: Row(
        Kind.USE,
        "Read the public key",
        frozenset({_O, _U}),
        grantable=True,
        direction=_PROCESS,
    ),
    Action.CERTIFICATE_REQUEST: Row(
        Kind.USE,
        "Make a certificate signing request",
        frozenset({_O}),
        grantable=True,
        usage=_SIGN,
        direction=_PROTECT,
    ),
    # No key is involved: whoever has a credential of its own may ask.
    Action.RANDOM: Row(Kind.USE, "Get random bytes", frozenset({_O, _P}), grantable=True),
    Action.CREATE_KEY: _change("Create a key", _O, _P),
    Action.UPDATE_KEY: _change("Change a key's description", _O),
    Action.ENABLE_KEY: _change("Enable a key", _O, quorum=_BY_CLASS),
    # Stopping use is never delayed by a vote.
    Action.DISABLE_KEY: _change("Disable a key", _O),
    Action.ROTATE_KEY: _change("Rotate a key", _O, _S, quorum=_BY_CLASS),
    # It is published, and protects nothing until a rotation lets it take over.
    Action.PREPARE_VERSION: _change("Make the next version ahead of its rotation", _O, _S),
    Action.IMPORT_PARAMETERS: _change("Get import parameters", _O),
    Action.IMPORT_KEY: _change("Import key material", _O, quorum=_BY_CLASS, by_requester=True),
    Action.DELETE_MATERIAL: _change("Delete imported material", _O, quorum=_BY_CLASS),
    Action.EXPORT_KEY: _change("Export key material", _O, quorum=_BY_CLASS, by_requester=True),
    Action.OPEN_CEREMONY: _change("Open a key ceremony", _O),
    Action.ENTER_COMPONENT: _change("Enter a key component", _O),
    Action.CONFIRM_CEREMONY: _change("Confirm a ceremony's check value", _O),
    Action.CLOSE_CEREMONY: _change("Close a key ceremony", _O, _S),
    Action.SCHEDULE_DESTRUCTION: _change("Schedule a key's destruction", _O, quorum=_BY_CLASS),
    Action.CANCEL_DESTRUCTION: _change("Cancel a key's destruction", _O, quorum=_BY_CLASS),
    Action.ACTIVATE_VERSION: _change("Activate or resume a version", _O, quorum=_BY_CLASS),
    Action.SUSPEND_VERSION: _change("Suspend a version", _O),
    Action.DEACTIVATE_VERSION: _change("Deactivate a version", _O, quorum=_BY_CLASS),
    Action.REVOKE_VERSION: _change("Revoke a version as compromised", _O, quorum=_BY_CLASS),
    Action.DESTROY_VERSION: _change("Schedule a version's destruction", _O, quorum=_BY_CLASS),
    Action.CANCEL_VERSION_DESTRUCTION: _change(
        "Cancel a version's destruction", _O, quorum=_BY_CLASS
    ),
    Action.RUN_JOB: _change("Carry out a job", _S),
    Action.ALIGN_KEY: _change("Bring the key store in line", _S),
    Action.CREATE_CLASSIFICATION: _change("Create a classification", _A, _P),
    Action.UPDATE_CLASSIFICATION: _change("Change a classification", _A, quorum=_BY_CLASS),
    Action.PAUSE_ROTATION: _change("Pause a classification's rotation", _A, _O, quorum=_BY_CLASS),
    Action.RESUME_ROTATION: _change("Resume a classification's rotation", _A, _O),
    Action.CREATE_GRANT: _change("Grant access", _O, _P, quorum=_BY_CLASS),
    # Taking access away is never delayed by a vote.
    Action.REVOKE_GRANT: _change("Revoke a grant", _O, _A),
    Action.CREATE_APPLICATION: _change("Register an application", _A, _P),
    Action.ISSUE_CREDENTIAL: _change("Issue a credential", _A, _P),
    Action.REVOKE_CREDENTIAL: _change("Revoke a credential", _A, _O, _P),
    # How much is a matter of running the house; officers may stop a flood at once.
    Action.SET_LIMITS: _change("Set an application's limits", _A, _O, _P),
    Action.DEACTIVATE_PRINCIPAL: _change("Deactivate an account", _A),
    Action.CREATE_PERSON: _change("Add a person", _A),
    # By the requester, since the first password is shown once, to who hands it over.
    Action.APPOINT_OFFICER: _change(
        "Appoint an officer", _A, quorum=Quorum.HOUSE, by_requester=True
    ),
    Action.DISMISS_OFFICER: _change("Dismiss an officer", _A, quorum=Quorum.HOUSE),
    Action.CHANGE_PASSWORD: _change("Change one's own password", _O, _A, _U),
    Action.VOTE: _change("Vote on a request", _O),
    Action.WITHDRAW_REQUEST: _change("Withdraw a request", _O, _A, _P, _S),
    Action.EXPIRE_REQUEST: _change("Close a request that is no longer valid", _S),
    Action.CREATE_KEY_STORE: _change("Add a key store", _A, _P),
    Action.UPDATE_KEY_STORE: _change("Change a key store", _A, _P),
    Action.CHECK_KEY_STORE: _change("Check a key store", _A, _O, _S, _P),
    Action.DISCOVER_KEYS: _change("List what is in a key store", _A, _O, _P),
    Action.ADOPT_KEY: _change("Adopt a key", _O, _P),
    Action.CHECK_DRIFT: _change("Compare a key with its store", _A, _O, _U, _S, _P),
    Action.ACCEPT_DRIFT: _change("Accept what the store says", _O, quorum=_BY_CLASS),
    Action.REPAIR_DRIFT: _change("Repair a key with a new version", _O, quorum=_BY_CLASS),
    Action.REVERT_DRIFT: _change("Put the store back", _O, quorum=_BY_CLASS),
    # Whoever holds the root key opens everything: who the officers are is asked, as for an officer.
    Action.HOLD_ROOT_KEY: _change("Let a key store hold the root key", _A, _P, quorum=Quorum.HOUSE),
    Action.ROTATE_ROOT_KEY: _change("Rotate the root key", _A, _P, quorum=Quorum.HOUSE),
    Action.SAVE_FILTER: _change("Save a filter of the trail", _U, _O, _A),
    Action.DELETE_FILTER: _change("Delete a saved filter", _U, _O, _A),
    # Keeping is never delayed by a vote; letting go is.
    Action.PLACE_HOLD: _change("Place a legal hold", _U, _O, _P),
    Action.RELEASE_HOLD: _change("Release a legal hold", _O, quorum=Quorum.HOUSE),
    Action.ARCHIVE_AUDIT: _change("Write entries to the archive", _S, _P),
    Action.RESTORE_AUDIT: _change("Bring entries back from the archive", _U, _P),
    Action.DROP_AUDIT: _change("Drop archived entries from the database", _S, _P),
    Action.ERASE_PERSON: _change("Erase a person's data", _A, quorum=Quorum.HOUSE),
    Action.ACCEPT_LOG: _change("Go on with a restored log", _P),
    Action.SET_UP: _change("Set up the console", _P),
    # Never decided on: the name under which what a door refused stands in the trail.
    Action.REFUSED_REQUEST: _read("Send a request that is refused", recorded=True),
    Action.SIGN_IN: _change("Sign in", _O, _A, _U),
    Action.SIGN_OUT: _change("Sign out", _O, _A, _U),
    Action.READ_KEYS: _read("See keys", *_EVERYBODY, grantable=True),
    Action.READ_POLICY: _read("See classifications", *_EVERYBODY),
    Action.READ_ACCESS: _read("See applications and grants", *_EVERYBODY),
    Action.READ_APPROVALS: _read("See requests", *_EVERYBODY),
    Action.READ_JOBS: _read("See jobs", *_EVERYBODY),
    Action.READ_KEY_STORES: _read("See key stores", *_EVERYBODY),
    Action.READ_DRIFT: _read("See where key stores differ", *_EVERYBODY),
    Action.READ_AUDIT: _read("Read the audit trail", _U, _O, _A, _P),
    Action.EXPORT_AUDIT: _read("Export the audit trail", _U, _P, recorded=True),
    Action.VERIFY_AUDIT: _read("Verify the audit trail", _U, _P, recorded=True),
}

GRANTABLE: tuple[Action, ...] = tuple(
    action
    for action, row in ACTIONS.items()
    if row.grantable and row.kind is Kind.USE and action is not Action.RANDOM
)
