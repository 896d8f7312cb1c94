"""Quorum: what waits for votes, who votes, what makes votes void, and that they count once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import time_machine
from django.conf import settings
from django.db import IntegrityError, connections, transaction
from django.test import override_settings

from keys import administration, approvals, clock, queries, sweep
from keys.errors import (
    Conflict,
    Denied,
    Invalid,
    KeyServiceError,
    NotFound,
    PendingApproval,
    StateForbids,
)
from keys.models import (
    Approval,
    Classification,
    Grant,
    Job,
    Key,
    KeyVersion,
    Principal,
    Vote,
)
from keys.secret import Secret
from keys.states import VersionState
from tests.house import House

S = VersionState


def everything() -> Any:
    """Return every row that a change could change."""
    models = (Key, KeyVersion, Classification, Grant, Principal, Job)
    return [list(model.objects.order_by("pk").values()) for model in models]


def vote(house: House, who: Any, approval: Approval, **more: Any) -> Approval:
    asked = {"approve": True, "digest": approval.digest, **more}
    return administration.vote(who, str(approval.id), **asked)


# --- each action that waits for votes


def _key(house: House) -> Key:
    return house.key("patient-health", alias="records")


def _scheduled(house: House) -> None:
    _key(house)
    request = house.pending(administration.schedule_destruction, house.olga, "records")
    house.approve(str(request.id))


def _rotated(house: House, **more: Any) -> None:
    _key(house)
    request = house.pending(administration.rotate_key, house.olga, "records", **more)
    house.approve(str(request.id))


def _doomed_version(house: House) -> None:
    _rotated(house)
    request = house.pending(
        administration.transition_version, house.olga, "records", number=1, to="destroyed"
    )
    house.approve(str(request.id))


def _disabled(house: House) -> None:
    administration.disable_key(house.olga, str(_key(house).id))


def _staged(house: House) -> None:
    _rotated(house, activate=False)


CASES: dict[str, tuple[Callable[[House], Any], Any, str, str, dict[str, Any]]] = {
    "rotation": (_key, administration.rotate_key, "olga", "records", {}),
    "enabling": (_disabled, administration.enable_key, "olga", "records", {}),
    "destruction": (_key, administration.schedule_destruction, "olga", "records", {"days": 40}),
    "cancellation": (_scheduled, administration.cancel_destruction, "olga", "records", {}),
    "revocation": (
        _key,
        administration.transition_version,
        "olga",
        "records",
        {"number": 1, "to": "compromised"},
    ),
    "activation": (
        _staged,
        administration.transition_version,
        "olga",
        "records",
        {"number": 2, "to": "active"},
    ),
    "deactivation": (
        _key,
        administration.transition_version,
        "olga",
        "records",
        {"number": 1, "to": "deactivated"},
    ),
    "version-destruction": (
        _rotated,
        administration.transition_version,
        "olga",
        "records",
        {"number": 1, "to": "destroyed"},
    ),
    "version-cancellation": (
        _doomed_version,
        administration.cancel_version_destruction,
        "olga",
        "records",
        {"number": 1},
    ),
    "grant": (
        _key,
        administration.create_grant,
        "olga",
        "billing",
        {"key": "records", "operations": ["encrypt"]},
    ),
    "grant-on-a-classification": (
        _key,
        administration.create_grant,
        "olga",
        "billing",
        {"classification": "patient-health", "operations": ["encrypt"]},
    ),
    "policy": (
        _key,
        administration.update_classification,
        "ada",
        "patient-health",
        {"rotation_days": 30},
    ),
    "policy-without-quorum": (
        _key,
        administration.update_classification,
        "ada",
        "patient-health",
        {"quorum": {}},
    ),
    "pause": (
        _key,
        administration.pause_rotation,
        "ada",
        "patient-health",
        {"reason": "a migration"},
    ),
    "dismissal": (_key, administration.dismiss_officer, "ada", "Oona", {}),
}


@pytest.mark.parametrize("case", list(CASES))
def test_a_change_waits_for_two_officers_and_is_then_made_once(house: House, case: str) -> None:
    _waits_and_is_made_once(house, case)


@pytest.mark.each_database
@pytest.mark.parametrize("case", ["rotation", "grant", "policy", "dismissal"])
def test_it_is_the_same_on_each_database(house: House, case: str) -> None:
    _waits_and_is_made_once(house, case)


def _waits_and_is_made_once(house: House, case: str) -> None:
    prepare, change, who, reference, arguments = CASES[case]
    prepare(house)
    before, requester = everything(), house.person(who)
    request = house.pending(change, requester, reference, **arguments)
    assert everything() == before, "asking changes nothing"
    asked = house.last_entry()
    assert (asked["outcome"], asked["approvals"]) == ("pending", [str(request.id)])
    assert asked["facts"]["request_sha256"] == request.digest

    administration.execute(str(request.id))
    vote(house, house.otto, request)
    administration.execute(str(request.id))
    assert everything() == before, "one vote is not enough"
    vote(house, house.oona, request)
    request.refresh_from_db()
    assert request.state == "approved"

    administration.execute(str(request.id))
    request.refresh_from_db()
    assert request.state == "executed"
    done = [e for e in house.entries(action=request.action) if str(request.id) in e["approvals"]]
    assert {e["outcome"] for e in done} <= {"pending", "started", "success"}
    assert done[-1]["outcome"] in ("started", "success")
    changed, entries = everything(), len(house.entries())
    assert changed != before
    administration.execute(str(request.id))
    assert (everything(), len(house.entries())) == (changed, entries), "votes count once"


@pytest.mark.each_database(fast="sqlite")
def test_an_import_waits_for_votes_on_this_very_material(house: House) -> None:
    key = house.key("patient-health", origin="imported", alias="records")
    material, other = Secret(bytes(range(32))), Secret(bytes(range(1, 33)))
    request = house.pending(administration.import_key, house.olga, "records", material=material)
    assert material.reveal().hex() not in bytes(request.request).decode()
    house.approve(str(request.id))
    request.refresh_from_db()
    assert request.state == "approved", "only the requester has the material"
    with pytest.raises(PendingApproval):
        administration.import_key(house.olga, "records", material=other)
    with pytest.raises(KeyServiceError):
        administration.import_key(house.otto, "records", material=material)
    key.refresh_from_db()
    assert key.state == "pending_import"
    administration.import_key(house.olga, "records", material=material)
    key.refresh_from_db()
    request.refresh_from_db()
    assert (key.state, request.state) == ("enabled", "executed")


def test_an_officer_is_appointed_by_the_others(house: House) -> None:
    request = house.pending(
        administration.appoint_officer, house.ada, "", name="Orla", username="orla"
    )
    house.approve(str(request.id))
    assert not Principal.objects.filter(name="Orla").exists()
    appointed = administration.appoint_officer(house.ada, "", name="Orla", username="orla")
    assert appointed.password is not None
    assert (appointed.principal.name, appointed.principal.role) == ("Orla", "officer")


def test_stopping_use_never_waits_for_votes(house: House) -> None:
    key = _key(house)
    house.grant("billing", key, "encrypt")
    house.move(key, 1, S.SUSPENDED)
    administration.disable_key(house.olga, "records")
    grant = Grant.objects.get(key=key)
    administration.revoke_grant(house.ada, str(grant.id))


# --- who votes, and how often


@pytest.fixture
def request_(house: House) -> Approval:
    """Olga's wish to rotate a key for patient data."""
    _key(house)
    return house.pending(administration.rotate_key, house.olga, "records", reason="it is time")


def test_who_asks_does_not_vote(house: House, request_: Approval) -> None:
    with pytest.raises(Denied):
        vote(house, house.olga, request_)
    assert house.last_entry()["outcome"] == "denied"
    assert not Vote.objects.exists()


@pytest.mark.parametrize("who", ["ada", "udo"])
def test_only_officers_vote(house: House, request_: Approval, who: str) -> None:
    with pytest.raises(Denied):
        vote(house, house.person(who), request_)
    for application in (house.billing, house.stranger):
        with pytest.raises((Denied, NotFound)):
            vote(house, application, request_)
    assert not Vote.objects.exists()


@pytest.mark.each_database
def test_an_officer_votes_once(house: House, request_: Approval) -> None:
    vote(house, house.otto, request_)
    for approve in (True, False):
        with pytest.raises(Conflict):
            vote(house, house.otto, request_, approve=approve)
    with pytest.raises(IntegrityError), transaction.atomic():
        Vote.objects.create(
            approval=request_,
            officer_id=house.otto.principal_id,
            approve=True,
            digest=request_.digest,
            created_at=clock.now(),
        )
    request_.refresh_from_db()
    assert (request_.state, request_.votes.count()) == ("open", 1)


def test_a_refusal_is_final(house: House, request_: Approval) -> None:
    vote(house, house.otto, request_)
    vote(house, house.oona, request_, approve=False, comment="not in December")
    request_.refresh_from_db()
    assert (request_.state, request_.state_reason) == ("rejected", "not in December")
    administration.execute(str(request_.id))
    with pytest.raises(Conflict):
        administration.withdraw_request(house.olga, str(request_.id))
    assert house.version(Key.objects.get(alias="records"), 1).primary
    again = house.pending(administration.rotate_key, house.olga, "records")
    assert again.id != request_.id


@pytest.mark.parametrize("digest", ["", "0" * 64, "é" * 64, None, 5, [], "\ud800"])
def test_a_vote_for_another_digest_does_not_count(
    house: House, request_: Approval, digest: Any
) -> None:
    before = len(house.entries())
    with pytest.raises((Conflict, Invalid)):
        vote(house, house.otto, request_, digest=digest)
    assert not Vote.objects.exists()
    assert len(house.entries()) == before + 1


@pytest.mark.parametrize("approve", ["yes", 1, None, []])
def test_a_vote_is_yes_or_no(house: House, request_: Approval, approve: Any) -> None:
    with pytest.raises(Invalid):
        vote(house, house.otto, request_, approve=approve)
    assert not Vote.objects.exists()


@pytest.mark.each_database
def test_of_two_last_votes_at_once_one_makes_it_enough(house: House, request_: Approval) -> None:
    voters, gate, failed = [house.otto, house.oona], threading.Barrier(2), []

    def cast(who: Any) -> None:
        try:
            gate.wait()
            vote(house, who, request_)
        except Exception as error:
            failed.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=cast, args=(who,)) for who in voters]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    request_.refresh_from_db()
    assert failed == []
    assert (request_.state, request_.votes.count()) == ("approved", 2)
    administration.execute(str(request_.id))
    assert Key.objects.get(alias="records").versions.count() == 2


@pytest.mark.each_database
def test_two_workers_carry_out_one_request_once(house: House, request_: Approval) -> None:
    house.approve(str(request_.id), execute=False)
    gate = threading.Barrier(3)

    def work() -> None:
        try:
            gate.wait()
            administration.execute(str(request_.id))
        finally:
            connections.close_all()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    request_.refresh_from_db()
    assert request_.state == "executed"
    assert Key.objects.get(alias="records").versions.count() == 2


# --- what makes votes void


def _suspend(house: House) -> None:
    house.move(Key.objects.get(alias="records"), 1, S.SUSPENDED)


def _policy(house: House) -> None:
    Classification.objects.filter(name="patient-health").update(rotation_days=30)


def _no_quorum(house: House) -> None:
    Classification.objects.filter(name="patient-health").update(quorum_m=None, quorum_n=None)


def _lower_quorum(house: House) -> None:
    Classification.objects.filter(name="patient-health").update(quorum_m=3, quorum_n=4)


def _dismiss(house: House) -> None:
    Principal.objects.filter(name="Oona").update(active=False)


def _another_officer(house: House) -> None:
    Principal.objects.create(
        name="Orla", name_folded="orla", kind="person", role="officer", created_at=clock.now()
    )


CHANGES = [_suspend, _policy, _no_quorum, _lower_quorum, _dismiss, _another_officer]


@pytest.mark.parametrize("change", CHANGES, ids=lambda c: c.__name__)
def test_a_change_of_target_policy_or_officers_voids_a_request_that_waits(
    house: House, request_: Approval, change: Callable[[House], None]
) -> None:
    change(house)
    with pytest.raises(Conflict, match="no longer holds"):
        vote(house, house.otto, request_)
    sweep.tidy()
    request_.refresh_from_db()
    assert (request_.state, request_.votes.count()) == ("void", 0)
    entry = house.last_entry(action="expire_request")
    assert (entry["outcome"], entry["approvals"]) == ("success", [str(request_.id)])


@pytest.mark.parametrize("change", CHANGES, ids=lambda c: c.__name__)
def test_a_change_after_the_last_vote_voids_it_too(
    house: House, request_: Approval, change: Callable[[House], None]
) -> None:
    house.approve(str(request_.id), execute=False)
    change(house)
    before = everything()
    administration.execute(str(request_.id))
    request_.refresh_from_db()
    assert request_.state in ("void", "failed")
    assert everything() == before


def test_a_request_of_someone_who_left_is_not_carried_out(house: House, request_: Approval) -> None:
    house.approve(str(request_.id), execute=False)
    Principal.objects.filter(name="Olga").update(active=False)
    administration.execute(str(request_.id))
    request_.refresh_from_db()
    assert request_.state in ("void", "failed")
    assert Key.objects.get(alias="records").versions.count() == 1


# --- time


@pytest.mark.each_database(fast="sqlite")
def test_a_request_whose_time_is_over_is_closed(house: House) -> None:
    _key(house)
    with override_settings(APPROVAL_DAYS=0):
        request = house.pending(administration.rotate_key, house.olga, "records")
    with pytest.raises(Conflict, match="time is over"):
        vote(house, house.otto, request)
    sweep.tidy()
    request.refresh_from_db()
    assert request.state == "expired"
    assert house.pending(administration.rotate_key, house.olga, "records").id != request.id


@pytest.mark.each_database
def test_approved_too_late_is_not_carried_out(house: House) -> None:
    _key(house)
    with override_settings(APPROVAL_DAYS=0):
        request = house.pending(administration.rotate_key, house.olga, "records")
    for officer in (house.otto, house.oona):
        Vote.objects.create(
            approval=request,
            officer_id=officer.principal_id,
            approve=True,
            digest=request.digest,
            created_at=clock.now(),
        )
    Approval.objects.update(state="approved")
    administration.execute(str(request.id))
    request.refresh_from_db()
    assert request.state == "expired"
    assert Key.objects.get(alias="records").versions.count() == 1


def test_the_databases_clock_decides_and_not_the_process(house: House) -> None:
    _key(house)
    request = house.pending(administration.rotate_key, house.olga, "records")
    later = clock.now().timestamp() + (settings.APPROVAL_DAYS + 1) * 86400
    with time_machine.travel(later, tick=True):
        assert not approvals.expired(request)
        vote(house, house.otto, request)
    with override_settings(APPROVAL_DAYS=0):
        over = house.pending(administration.schedule_destruction, house.olga, "records")
    with time_machine.travel(clock.now().timestamp() - 86400, tick=True):
        assert approvals.expired(over)
        with pytest.raises(Conflict):
            vote(house, house.otto, over)


# --- asking


def test_the_same_wish_is_asked_for_once_at_a_time(house: House, request_: Approval) -> None:
    again = house.pending(administration.rotate_key, house.olga, "records")
    assert again.id == request_.id
    with pytest.raises(Conflict) as refused:
        administration.rotate_key(house.otto, "records")
    assert refused.value.extra == {"approval": str(request_.id)}
    other = house.pending(administration.rotate_key, house.otto, "records", activate=False)
    assert other.id != request_.id


def test_only_who_asked_takes_a_request_back(house: House, request_: Approval) -> None:
    with pytest.raises(Denied):
        administration.withdraw_request(house.otto, str(request_.id))
    house.approve(str(request_.id), execute=False)
    administration.withdraw_request(house.olga, str(request_.id), reason="never mind")
    administration.execute(str(request_.id))
    request_.refresh_from_db()
    assert request_.state == "withdrawn"
    assert Key.objects.get(alias="records").versions.count() == 1


def test_the_scheduler_asks_for_what_is_due_and_asks_once(house: House) -> None:
    key = _key(house)
    house.let_days_pass(91)
    assert sweep.rotate(sweep.rotations_due(10)) == 0
    assert sweep.rotations_due(10) == []
    request = Approval.objects.get()
    assert (request.requester.name, request.reason) == ("scheduler", "due")
    house.approve(str(request.id), by=(house.olga, house.otto))
    assert key.versions.count() == 2


def test_with_too_few_officers_nothing_can_be_approved_and_the_console_says_so(
    house: House,
) -> None:
    assert approvals.shortage() == ""
    administration.create_classification(
        house.ada,
        name="strict",
        title="Strict",
        allowed_specs=["AES_256"],
        key_stores=["software"],
        quorum_m=2,
        quorum_n=4,
    )
    assert "3 of the 4 officers" in queries.overview(house.olga).shortage
    house.key("strict", alias="crown")
    with pytest.raises(PendingApproval, match="3 of the 4 officers") as pending:
        administration.rotate_key(house.olga, "crown")
    request = Approval.objects.get(pk=pending.value.extra["approval"])
    vote(house, house.otto, request)
    vote(house, house.oona, request)
    request.refresh_from_db()
    assert request.state == "open"
    administration.execute(str(request.id))
    assert Key.objects.get(alias="crown").versions.count() == 1


def test_a_quorum_of_nobody_is_refused_by_the_database(house: House, request_: Approval) -> None:
    for columns in ({"quorum_m": 0},):
        with pytest.raises(IntegrityError), transaction.atomic():
            Approval.objects.filter(pk=request_.pk).update(**columns)
    for wrong in ({"quorum_m": 1, "quorum_n": 2}, {"quorum_m": 2, "quorum_n": 2}):
        with pytest.raises(IntegrityError), transaction.atomic():
            Classification.objects.filter(name="internal").update(**wrong)


def test_what_is_not_possible_is_not_put_to_a_vote(house: House) -> None:
    _key(house)
    with pytest.raises(StateForbids):
        administration.cancel_destruction(house.olga, "records")
    assert not Approval.objects.exists()


def test_the_inbox_holds_what_one_can_still_vote_on(house: House, request_: Approval) -> None:
    def inbox(who: Any) -> list[Approval]:
        return queries.list_approvals(who, for_me=True).rows

    assert inbox(house.olga) == []
    assert inbox(house.otto) == [request_]
    assert queries.waiting_for(house.otto) == 1
    vote(house, house.otto, request_)
    assert (inbox(house.otto), queries.waiting_for(house.otto)) == ([], 0)
    assert inbox(house.oona) == [request_]


# --- who the officers are


@pytest.mark.each_database(fast="sqlite")
@pytest.mark.parametrize(("m", "n"), [(15, 16), (3, 4)])
def test_a_rule_that_nobody_can_meet_lifts_no_votes_on_who_the_officers_are(
    house: House, m: int, n: int
) -> None:
    """Else an administrator writes such a rule, and then appoints and dismisses officers alone."""
    administration.create_classification(
        house.ada,
        name="impossible",
        title="Impossible",
        allowed_specs=["AES_256"],
        key_stores=["software"],
        quorum_m=m,
        quorum_n=n,
    )
    otto = str(house.otto.principal_id)
    house.pending(administration.dismiss_officer, house.ada, otto)
    house.pending(administration.appoint_officer, house.ada, "", name="Puppet", username="puppet")
    assert Principal.objects.filter(role="officer", active=True).count() == 3


def test_a_rule_that_asks_for_more_officers_than_there_are_does_not_keep_them_out_for_ever(
    house: House,
) -> None:
    administration.create_classification(
        house.ada,
        name="wide",
        title="Wide",
        allowed_specs=["AES_256"],
        key_stores=["software"],
        quorum_m=2,
        quorum_n=9,
    )
    asked = {"name": "Odo", "username": "odo"}
    request = house.pending(administration.appoint_officer, house.ada, "", **asked)
    assert house.approve(str(request.id), execute=False).state == "approved"
    administration.appoint_officer(house.ada, **asked)
    assert Principal.objects.filter(name="Odo", role="officer", active=True).exists()


def test_a_request_that_somebody_else_closes_meanwhile_is_refused_with_an_entry(
    house: House,
) -> None:
    _key(house)
    request = house.pending(administration.rotate_key, house.olga, "records")
    house.approve(str(request.id), execute=False)
    # Closed by somebody just now, and altered: the compare-and-set of whoever comes next must miss.
    Approval.objects.update(executed_at=clock.now(), quorum_m=1)
    entries = len(house.entries())
    with pytest.raises(Conflict):
        administration.rotate_key(
            replace(house.olga, approval_id=request.id), "records", activate=True
        )
    assert len(house.entries()) == entries + 1
    assert house.last_entry()["reason"] == "conflict"
