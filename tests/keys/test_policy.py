"""The one authorisation rule, as a table: who may do what, and when."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keys import administration, operations, policy
from keys.actions import ACTIONS, GRANTABLE, Action, Kind, Quorum
from keys.callers import Caller, Door, Method, Role
from keys.callers import Kind as CallerKind
from keys.errors import Denied, Unauthenticated
from keys.policy import CredentialFacts, Decision, GrantFacts, QuorumRule, Standing, decide
from tests.house import House

NOW = datetime(2027, 3, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
WHO, KEY, CLASS, CREDENTIAL, GRANT = (uuid.uuid4() for _ in range(5))
O, A, U, S, P = (  # noqa: E741
    Role.OFFICER,
    Role.ADMINISTRATOR,
    Role.AUDITOR,
    Role.SCHEDULER,
    Role.OPERATOR,
)
EVERYBODY = frozenset({O, A, U, S, P})

# Written down again, by hand: a change of the table in keys.actions must be meant.
MAY: dict[Action, frozenset[Role]] = {
    Action.SAVE_FILTER: frozenset({U, O, A}),
    Action.DELETE_FILTER: frozenset({U, O, A}),
    Action.PLACE_HOLD: frozenset({U, O, P}),
    Action.RELEASE_HOLD: frozenset({O}),
    Action.ARCHIVE_AUDIT: frozenset({S, P}),
    Action.RESTORE_AUDIT: frozenset({U, P}),
    Action.DROP_AUDIT: frozenset({S, P}),
    Action.ERASE_PERSON: frozenset({A}),
    Action.ACCEPT_LOG: frozenset({P}),
    **dict.fromkeys(GRANTABLE, frozenset()),
    Action.PUBLIC_KEY: frozenset({O, U}),
    Action.CERTIFICATE_REQUEST: frozenset({O}),
    Action.RANDOM: frozenset({O, P}),
    Action.CREATE_KEY: frozenset({O, P}),
    **dict.fromkeys(
        [
            Action.UPDATE_KEY,
            Action.ENABLE_KEY,
            Action.DISABLE_KEY,
            Action.IMPORT_PARAMETERS,
            Action.IMPORT_KEY,
            Action.DELETE_MATERIAL,
            Action.EXPORT_KEY,
            Action.OPEN_CEREMONY,
            Action.ENTER_COMPONENT,
            Action.CONFIRM_CEREMONY,
            Action.SCHEDULE_DESTRUCTION,
            Action.CANCEL_DESTRUCTION,
            Action.ACTIVATE_VERSION,
            Action.SUSPEND_VERSION,
            Action.DEACTIVATE_VERSION,
            Action.REVOKE_VERSION,
            Action.DESTROY_VERSION,
            Action.CANCEL_VERSION_DESTRUCTION,
            Action.VOTE,
        ],
        frozenset({O}),
    ),
    **dict.fromkeys(
        [Action.ROTATE_KEY, Action.PREPARE_VERSION, Action.CLOSE_CEREMONY], frozenset({O, S})
    ),
    **dict.fromkeys([Action.RUN_JOB, Action.EXPIRE_REQUEST], frozenset({S})),
    **dict.fromkeys(
        [
            Action.CREATE_CLASSIFICATION,
            Action.CREATE_APPLICATION,
            Action.ISSUE_CREDENTIAL,
            Action.CREATE_KEY_STORE,
            Action.UPDATE_KEY_STORE,
        ],
        frozenset({A, P}),
    ),
    **dict.fromkeys(
        [
            Action.UPDATE_CLASSIFICATION,
            Action.DEACTIVATE_PRINCIPAL,
            Action.CREATE_PERSON,
            Action.APPOINT_OFFICER,
            Action.DISMISS_OFFICER,
        ],
        frozenset({A}),
    ),
    **dict.fromkeys(
        [Action.PAUSE_ROTATION, Action.RESUME_ROTATION, Action.REVOKE_GRANT], frozenset({A, O})
    ),
    Action.CREATE_GRANT: frozenset({O, P}),
    **dict.fromkeys([Action.REVOKE_CREDENTIAL, Action.SET_LIMITS], frozenset({A, O, P})),
    Action.WITHDRAW_REQUEST: frozenset({O, A, P, S}),
    **dict.fromkeys(
        [Action.CHANGE_PASSWORD, Action.SIGN_IN, Action.SIGN_OUT], frozenset({O, A, U})
    ),
    Action.CHECK_KEY_STORE: frozenset({A, O, S, P}),
    Action.DISCOVER_KEYS: frozenset({A, O, P}),
    Action.ADOPT_KEY: frozenset({O, P}),
    Action.CHECK_DRIFT: frozenset({A, O, U, S, P}),
    **dict.fromkeys(
        [Action.ACCEPT_DRIFT, Action.REPAIR_DRIFT, Action.REVERT_DRIFT], frozenset({O})
    ),
    Action.ALIGN_KEY: frozenset({S}),
    **dict.fromkeys([Action.HOLD_ROOT_KEY, Action.ROTATE_ROOT_KEY], frozenset({A, P})),
    Action.SET_UP: frozenset({P}),
    **dict.fromkeys(
        [
            Action.READ_KEYS,
            Action.READ_POLICY,
            Action.READ_ACCESS,
            Action.READ_APPROVALS,
            Action.READ_JOBS,
            Action.READ_KEY_STORES,
            Action.READ_DRIFT,
        ],
        EVERYBODY,
    ),
    Action.READ_AUDIT: frozenset({U, O, A, P}),
    **dict.fromkeys([Action.EXPORT_AUDIT, Action.VERIFY_AUDIT], frozenset({U, P})),
    Action.REFUSED_REQUEST: frozenset(),
}


def caller(role: Role = Role.NONE, *, source: str = "10.1.2.3", credential: bool = False) -> Caller:
    kind = CallerKind.APPLICATION if role is Role.NONE else CallerKind.PERSON
    return Caller(
        WHO,
        kind,
        "Somebody",
        role,
        Method.BEARER,
        Door.REST,
        credential_id=CREDENTIAL if credential else None,
        source=source,
    )


def grant(**changes: Any) -> GrantFacts:
    values: dict[str, Any] = {
        "id": GRANT,
        "key_id": KEY,
        "classification_id": None,
        "operations": frozenset({"encrypt"}),
        "context": (),
        "not_before": None,
        "expires_at": None,
        "networks": (),
    }
    return GrantFacts(**(values | changes))


def standing(
    role: Role = Role.NONE,
    *grants: GrantFacts,
    active: bool = True,
    credential: CredentialFacts | None = None,
) -> Standing:
    kind = CallerKind.APPLICATION if role is Role.NONE else CallerKind.PERSON
    return Standing(WHO, kind, "Somebody", role, active, credential, grants)


def about_key(who: Caller, known: Standing | None, action: Action, **more: Any) -> Decision:
    return decide(
        who, known, action, **{"now": NOW, "key_id": KEY, "classification_id": CLASS, **more}
    )


def test_every_action_has_a_row_and_the_row_says_what_it_is() -> None:
    assert set(ACTIONS) == set(Action)
    for action, row in ACTIONS.items():
        if row.kind is Kind.READ:
            assert action.value.startswith(("read_", "export_", "verify_", "refused_"))
        assert (row.direction is not None) <= (row.kind is Kind.USE)
        assert row.label[0].isupper() and not row.label.endswith(".")


def test_the_table_of_roles_is_the_one_that_was_meant() -> None:
    unlisted = set(Action) - set(MAY)
    assert not unlisted, f"say here who may do it: {unlisted}"


@pytest.mark.parametrize("action", list(MAY))
@pytest.mark.parametrize("role", [O, A, U, S, P, Role.NONE], ids=lambda r: r.value or "none")
def test_a_role_allows_what_its_row_says_and_nothing_else(action: Action, role: Role) -> None:
    decision = about_key(caller(role), standing(role), action)
    assert decision.allowed == (role in MAY[action]), decision
    assert bool(decision.detail) == (not decision.allowed)


@pytest.mark.parametrize("action", list(Action))
def test_a_grant_allows_the_uses_it_names_and_no_change(action: Action) -> None:
    everything = grant(operations=frozenset(a.value for a in Action))
    decision = about_key(caller(), standing(Role.NONE, everything), action)
    uses = ACTIONS[action].kind is Kind.USE
    assert decision.allowed == (uses or action is Action.READ_KEYS)


@pytest.mark.parametrize("action", GRANTABLE)
def test_a_grant_for_one_use_allows_no_other(action: Action) -> None:
    one = grant(operations=frozenset({action.value}))
    for other in GRANTABLE:
        assert about_key(caller(), standing(Role.NONE, one), other).allowed == (other is action)


OFFICE = ("10.1.0.0/16", "2001:db8::/32")
CONDITIONS = [
    ("nothing", {}, {}, ""),
    ("its second begins", {"not_before": NOW}, {}, ""),
    ("a second early", {"not_before": NOW + SECOND}, {}, "not_yet"),
    ("a second left", {"expires_at": NOW + SECOND}, {}, ""),
    ("its second is over", {"expires_at": NOW}, {}, "grant_expired"),
    ("the right pair", {"context": (("a", "1"),)}, {"context": {"a": "1", "b": "2"}}, ""),
    ("no context", {"context": (("a", "1"),)}, {}, "context_missing"),
    ("another value", {"context": (("a", "1"),)}, {"context": {"a": "2"}}, "context_missing"),
    ("another name", {"context": (("a", "1"),)}, {"context": {"b": "1"}}, "context_missing"),
    (
        "one of two pairs",
        {"context": (("a", "1"), ("b", "2"))},
        {"context": {"a": "1"}},
        "context_missing",
    ),
    ("the office", {"networks": OFFICE}, {"source": "10.1.255.1"}, ""),
    ("the office on IPv6", {"networks": OFFICE}, {"source": "2001:db8::1"}, ""),
    ("elsewhere", {"networks": OFFICE}, {"source": "10.2.0.1"}, "grant_network"),
    ("no address", {"networks": OFFICE}, {"source": ""}, "grant_network"),
    ("no address at all", {"networks": OFFICE}, {"source": "unix:"}, "grant_network"),
    ("another key", {"key_id": uuid.uuid4()}, {}, "no_grant"),
    ("the classification", {"key_id": None, "classification_id": CLASS}, {}, ""),
    ("another class", {"key_id": None, "classification_id": uuid.uuid4()}, {}, "no_grant"),
    ("nothing named", {"key_id": None, "classification_id": None}, {}, "no_grant"),
]


@pytest.mark.parametrize(
    ("columns", "request_", "reason"),
    [row[1:] for row in CONDITIONS],
    ids=[row[0].replace(" ", "-") for row in CONDITIONS],
)
def test_each_condition_of_a_grant_is_checked(
    columns: dict[str, Any], request_: dict[str, Any], reason: str
) -> None:
    asked = dict(request_)
    who = caller(source=asked.pop("source", "10.1.2.3"))
    decision = about_key(who, standing(Role.NONE, grant(**columns)), Action.ENCRYPT, **asked)
    assert decision.allowed == (reason == "")
    assert decision.reason == (reason or "grant")
    assert decision.visible == (reason != "no_grant")
    assert decision.grant == (None if reason else GRANT)


def test_one_good_grant_among_bad_ones_is_enough() -> None:
    bad = grant(id=uuid.uuid4(), expires_at=NOW - SECOND)
    decision = about_key(caller(), standing(Role.NONE, bad, grant()), Action.ENCRYPT)
    assert decision.allowed and decision.grant == GRANT


def test_the_caller_without_any_grant_may_not_know_of_the_key() -> None:
    for action in (Action.ENCRYPT, Action.READ_KEYS, Action.ROTATE_KEY):
        decision = about_key(caller(), standing(), action)
        assert (decision.allowed, decision.visible) == (False, False)
    with_one = standing(Role.NONE, grant())
    assert about_key(caller(), with_one, Action.ROTATE_KEY).visible
    assert about_key(caller(A), standing(A), Action.ENCRYPT).visible


GOOD = CredentialFacts(CREDENTIAL, None, False, ())


@pytest.mark.parametrize(
    ("known", "reason"),
    [
        (GOOD, ""),
        (None, "credential_revoked"),
        (CredentialFacts(CREDENTIAL, None, True, ()), "credential_revoked"),
        (CredentialFacts(CREDENTIAL, NOW, False, ()), "credential_expired"),
        (CredentialFacts(CREDENTIAL, NOW + SECOND, False, ()), ""),
        (CredentialFacts(CREDENTIAL, None, False, ("192.0.2.0/24",)), "credential_network"),
        (CredentialFacts(CREDENTIAL, None, False, ("10.0.0.0/8",)), ""),
    ],
)
@pytest.mark.parametrize("action", [Action.ENCRYPT, Action.READ_KEYS, Action.RANDOM])
def test_a_credential_that_is_no_longer_good_opens_nothing(
    known: CredentialFacts | None, reason: str, action: Action
) -> None:
    decision = about_key(
        caller(credential=True), standing(Role.NONE, grant(), credential=known), action
    )
    assert decision.allowed == (reason == "")
    if reason:
        assert (decision.reason, decision.visible) == (reason, False)


@pytest.mark.parametrize("role", list(Role), ids=lambda r: r.value or "none")
@pytest.mark.parametrize("known", ["closed", "unknown"])
def test_a_closed_or_unknown_account_may_do_nothing(role: Role, known: str) -> None:
    row = standing(role, grant(), active=False) if known == "closed" else None
    for action in Action:
        decision = about_key(caller(role), row, action)
        assert (decision.allowed, decision.reason, decision.visible) == (
            False,
            "account_inactive",
            False,
        )


def test_the_role_that_counts_is_the_one_the_house_knows_not_the_one_the_caller_brings() -> None:
    assert not about_key(caller(O), standing(A), Action.ROTATE_KEY).allowed
    assert about_key(caller(A), standing(O), Action.ROTATE_KEY).allowed


@pytest.mark.parametrize(
    ("action", "officers", "expected"),
    [
        (Action.ROTATE_KEY, 0, QuorumRule(2, 3)),
        (Action.SUSPEND_VERSION, 5, None),
        (Action.REVOKE_GRANT, 5, None),
        (Action.DISABLE_KEY, 5, None),
        (Action.APPOINT_OFFICER, 2, None),
        (Action.APPOINT_OFFICER, 3, QuorumRule(2, 3)),
        (Action.DISMISS_OFFICER, 4, QuorumRule(2, 3)),
        (Action.ENCRYPT, 5, None),
    ],
)
def test_which_actions_wait_for_votes(
    action: Action, officers: int, expected: QuorumRule | None
) -> None:
    rule = QuorumRule(2, 3)
    assert policy.quorum_for(action, rule, rule, officers) == expected
    assert policy.quorum_for(action, None, None, officers) is None


def test_no_use_and_no_read_waits_for_votes() -> None:
    for row in ACTIONS.values():
        assert row.kind is Kind.CHANGE or row.quorum is Quorum.NONE


texts = st.text(max_size=20)
moments = st.none() | st.datetimes(timezones=st.just(UTC))
ids = st.sampled_from([KEY, CLASS])
ALL = frozenset(action.value for action in Action)
networks = st.lists(
    texts | st.sampled_from(["10.0.0.0/8", "::/0", "10.0.0.1/8", "x/y"]), max_size=3
)
grants = st.builds(
    GrantFacts,
    id=ids,
    key_id=st.none() | ids,
    classification_id=st.none() | ids,
    operations=st.sampled_from([ALL, frozenset(), frozenset({"encrypt", "", "\x00"})]),
    context=st.just(()) | st.lists(st.tuples(texts, texts), max_size=3).map(tuple),
    not_before=moments,
    expires_at=moments,
    networks=networks.map(tuple),
)
credentials = st.none() | st.builds(
    CredentialFacts, id=ids, expires_at=moments, revoked=st.booleans(), networks=networks.map(tuple)
)
standings = st.none() | st.builds(
    Standing,
    principal_id=ids,
    kind=st.sampled_from(list(CallerKind)),
    name=texts,
    role=st.sampled_from(list(Role)),
    active=st.booleans(),
    credential=credentials,
    grants=st.lists(grants, max_size=3).map(tuple),
)


@settings(max_examples=150, deadline=None)
@given(
    known=standings,
    action=st.sampled_from(list(Action)),
    role=st.sampled_from(list(Role)),
    source=texts | st.sampled_from(["10.0.0.1", "2001:db8::1", "fe80::1%eth0"]),
    credential=st.booleans(),
    now=st.datetimes(timezones=st.just(UTC)),
    key=st.none() | ids,
    classification=st.none() | ids,
    context=st.none() | st.dictionaries(texts, texts, max_size=3),
)
def test_decide_never_raises_and_never_allows_without_a_ground(
    known: Standing | None,
    action: Action,
    role: Role,
    source: str,
    credential: bool,
    now: datetime,
    key: uuid.UUID | None,
    classification: uuid.UUID | None,
    context: dict[str, str] | None,
) -> None:
    who = caller(role, source=source, credential=credential)
    decision = decide(
        who, known, action, now=now, key_id=key, classification_id=classification, context=context
    )
    assert decision.reason
    if decision.allowed:
        assert known is not None and known.active
        grounds = (
            known.role in action.row.roles,
            action.row.grantable and decision.reason == "grant",
            action is Action.RANDOM and credential,
        )
        assert any(grounds)


@pytest.mark.parametrize("network", ["", "x/y", "10.0.0.1/8", "10.0.0.0/99", "\x00"])
def test_a_network_that_can_not_be_read_holds_nobody(network: str) -> None:
    known = standing(Role.NONE, grant(networks=(network,)))
    assert about_key(caller(), known, Action.ENCRYPT).reason == "grant_network"
    known = standing(Role.NONE, grant(networks=(network, "10.0.0.0/8")))
    assert about_key(caller(), known, Action.ENCRYPT).allowed


# --- the same, at the gate


@pytest.mark.each_database
def test_a_superuser_flag_opens_nothing(house: House) -> None:
    from django.contrib.auth import get_user_model

    get_user_model().objects.update(is_superuser=True, is_staff=True)
    for who in (house.ada, house.udo):
        for change in (administration.rotate_key, administration.schedule_destruction):
            with pytest.raises(Denied):
                change(who, "invoices")
        with pytest.raises(Denied):
            operations.encrypt(who, "invoices", b"x")
    for who in (house.olga, house.ada, house.udo):
        with pytest.raises(Denied):
            operations.decrypt(who, "invoices", b"x")


def test_closing_an_account_ends_all_it_could_do(house: House) -> None:
    who = house.billing
    operations.encrypt(who, "invoices", b"x")
    administration.deactivate_principal(house.ada, "billing")
    with pytest.raises(Unauthenticated):
        operations.encrypt(who, "invoices", b"x")
    assert house.last_entry()["reason"] == "account_inactive"


def test_a_credential_that_expired_opens_nothing(house: House) -> None:
    ends = (datetime.now(UTC) + timedelta(days=2)).isoformat()
    administration.issue_credential(house.ada, "billing", expires_at=ends)
    from dataclasses import replace

    from keys.models import Credential

    newest = Credential.objects.filter(principal__name="billing").latest("created_at")
    who = replace(house.billing, credential_id=newest.id)
    operations.encrypt(who, "invoices", b"x")
    house.let_days_pass(3)
    with pytest.raises(Unauthenticated):
        operations.encrypt(who, "invoices", b"x")
    assert house.last_entry()["reason"] == "credential_expired"
