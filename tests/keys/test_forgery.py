"""What somebody forges behind our back: rows in the database, messages in the queue."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db.models import F

from audit import verifier
from keys import administration, clock, jobs, stores, sweep, tasks
from keys.models import Approval, Job, Key, KeyVersion, Principal, Vote
from tests.house import House
from tests.processes import Broker, Process, eventually


def everything() -> Any:
    """Return all that work could change, without what is written by the sweep itself."""
    models = (Key, KeyVersion, Job, Approval, Vote)
    return [list(model.objects.order_by("pk").values()) for model in models]


@pytest.fixture
def request_(house: House) -> Approval:
    """Olga's wish to rotate `records`, for which nobody voted."""
    house.key("patient-health", alias="records")
    return house.pending(administration.rotate_key, house.olga, "records")


def put_vote(approval: Approval, name: str, **columns: Any) -> None:
    values = {"approve": True, "digest": approval.digest, "created_at": clock.now(), **columns}
    Vote.objects.create(approval=approval, officer=Principal.objects.get(name=name), **values)


# --- rows


def _state_only(house: House, a: Approval) -> None:
    pass


def _wrong_digest(house: House, a: Approval) -> None:
    put_vote(a, "Otto", digest="0" * 64)
    put_vote(a, "Oona", digest="0" * 64)


def _by_others(house: House, a: Approval) -> None:
    put_vote(a, "Ada")
    put_vote(a, "Udo")
    put_vote(a, "billing")


def _by_requester(house: House, a: Approval) -> None:
    put_vote(a, "Otto")
    put_vote(a, "Olga")


def _fewer_needed(house: House, a: Approval) -> None:
    put_vote(a, "Otto")
    Approval.objects.update(quorum_m=1)


def _another_list(house: House, a: Approval) -> None:
    put_vote(a, "Otto")
    put_vote(a, "Udo")
    udo = str(Principal.objects.get(name="Udo").id)
    Approval.objects.update(officers=[*a.officers, udo])


def _another_requester(house: House, a: Approval) -> None:
    put_vote(a, "Otto")
    put_vote(a, "Olga")
    Approval.objects.update(requester=Principal.objects.get(name="Oona"))


def _refusal_among_them(house: House, a: Approval) -> None:
    put_vote(a, "Otto")
    put_vote(a, "Oona")
    put_vote(a, "Olga", approve=False)


def _another_action(house: House, a: Approval) -> None:
    _good_votes(a)
    Approval.objects.update(action="schedule_destruction", parameters={"days": None})


def _another_key(house: House, a: Approval) -> None:
    _good_votes(a)
    other = house.key("patient-health")
    Approval.objects.filter(pk=a.pk).update(subject_id=str(other.id), key=other)


def _other_parameters(house: House, a: Approval) -> None:
    _good_votes(a)
    Approval.objects.update(parameters={"activate": False})


def _junk_parameters(house: House, a: Approval) -> None:
    _good_votes(a)
    Approval.objects.update(parameters={"reason": "x", "colour": 5})


def _no_parameters_at_all(house: House, a: Approval) -> None:
    _good_votes(a)
    Approval.objects.update(parameters=[1, 2])


def _junk_action(house: House, a: Approval) -> None:
    _good_votes(a)
    Approval.objects.update(action="make_coffee")


def _action_without_votes(house: House, a: Approval) -> None:
    _good_votes(a)
    Approval.objects.update(action="disable_key", parameters={})


def _longer(house: House, a: Approval) -> None:
    _good_votes(a)
    Approval.objects.update(expires_at=F("expires_at") + timedelta(days=365))


def _another_request(house: House, a: Approval) -> None:
    """A new body with its own right digest, but not the one that was voted on."""
    _good_votes(a)
    body = json.loads(bytes(a.request)) | {"parameters": {"activate": False}}
    text = json.dumps(body).encode()
    Approval.objects.update(
        request=text, digest=hashlib.sha256(text).hexdigest(), parameters={"activate": False}
    )


def _good_votes(approval: Approval) -> None:
    put_vote(approval, "Otto")
    put_vote(approval, "Oona")


FORGERIES = [
    _state_only,
    _wrong_digest,
    _by_others,
    _by_requester,
    _fewer_needed,
    _another_list,
    _another_requester,
    _refusal_among_them,
    _another_action,
    _another_key,
    _other_parameters,
    _junk_parameters,
    _no_parameters_at_all,
    _junk_action,
    _action_without_votes,
    _longer,
    _another_request,
]


@pytest.mark.parametrize("forge", FORGERIES, ids=lambda f: f.__name__.lstrip("_"))
def test_a_forged_approval_is_not_carried_out(
    house: House, request_: Approval, forge: Callable[[House, Approval], None]
) -> None:
    forge(house, request_)
    Approval.objects.filter(pk=request_.pk).update(state="approved", decided_at=clock.now())
    before = [list(model.objects.order_by("pk").values()) for model in (Key, KeyVersion, Job)]
    sweep.tidy()
    tasks.execute_requests([str(request_.id)])
    sweep.tidy()
    after = [list(model.objects.order_by("pk").values()) for model in (Key, KeyVersion, Job)]
    assert after == before
    request_.refresh_from_db()
    assert request_.state not in ("executed", "open")


def test_the_same_with_nothing_forged_is_carried_out(house: House, request_: Approval) -> None:
    _good_votes(request_)
    Approval.objects.update(state="approved", decided_at=clock.now())
    tasks.execute_requests([str(request_.id)])
    request_.refresh_from_db()
    assert request_.state == "executed"
    # Votes that no officer's entry tells of are found by who verifies the trail.
    report = verifier.verify()
    assert "0 of 2 votes" in report.problem
    house.honest = False


def test_one_forged_request_does_not_hold_up_the_others(house: House, request_: Approval) -> None:
    house.key("patient-health", alias="others")
    good = house.pending(administration.rotate_key, house.olga, "others")
    house.approve(str(good.id), execute=False)
    _junk_action(house, Approval.objects.get(pk=request_.pk))
    Approval.objects.filter(pk=good.pk).update(action="rotate_key")
    Approval.objects.filter(pk=request_.pk).update(state="approved")
    tasks.execute_requests([str(request_.id), str(good.id)])
    good.refresh_from_db()
    assert good.state == "executed"


def test_votes_that_are_gone_when_the_job_runs_stop_it(house: House, request_: Approval) -> None:
    administration.update_key_store(house.ada, "software", enabled=False)
    house.approve(str(request_.id))
    (job,) = Job.objects.filter(kind="rotate")
    assert (job.state, job.approval_id) == ("pending", request_.id)
    administration.update_key_store(house.ada, "software", enabled=True)
    Vote.objects.filter(officer__name="Oona").delete()
    house.let_days_pass(1)
    (job,) = house.run_due_jobs()
    assert (job.state, "1 of 2 votes" in job.error) == ("failed", True)
    assert Key.objects.get(alias="records").versions.get(primary=True).number == 1


def _job(house: House, **columns: Any) -> Job:
    key = Key.objects.get(alias="records")
    values = {
        "kind": "destroy",
        "key": key,
        "requested_by_id": house.olga.principal_id,
        "created_at": clock.now(),
        "run_after": clock.now(),
        **columns,
    }
    return Job.objects.create(**values)


def test_a_forged_job_destroys_nothing(house: House, request_: Approval) -> None:
    forged = [_job(house)]
    assert jobs.run(forged[0].id).state == "failed"
    # Its key marked as due as well, but no votes; then with votes for something else.
    past = clock.now() - timedelta(days=1)
    Key.objects.filter(alias="records").update(state="pending_destruction", destroy_at=past)
    assert jobs.run(_job(house).id).state == "failed"
    _good_votes(request_)
    Approval.objects.update(state="executed")
    assert jobs.run(_job(house, approval=request_).id).state == "failed"
    version = Key.objects.get(alias="records").versions.get()
    assert version.state == "active"
    assert stores.backend_of(version.key).find(version.id) is not None


# --- messages


JUNK: list[Any] = [
    [],
    None,
    "text",
    5,
    {},
    {"id": "x"},
    [None],
    [5],
    [[]],
    ["not-a-uuid"],
    [str(uuid.uuid4())],
    ["' OR 1=1 --"],
    ["\x00", "\ud800"],
    ["x" * 100_000],
    [str(uuid.uuid4())] * 1000,
]


@pytest.mark.parametrize("junk", JUNK, ids=range(len(JUNK)))
def test_a_message_of_junk_does_nothing(house: House, request_: Approval, junk: Any) -> None:
    before, entries = everything(), len(house.entries())
    for task in (tasks.rotate, tasks.run_jobs, tasks.execute_requests):
        task(junk)
    assert (everything(), len(house.entries())) == (before, entries)


def test_a_message_about_what_is_not_due_or_not_approved_does_nothing(
    house: House, request_: Approval
) -> None:
    house.key(alias="doomed")
    administration.schedule_destruction(house.olga, "doomed")
    ids = [
        str(row.pk)
        for model in (Key, KeyVersion, Job, Approval, Principal)
        for row in model.objects.all()
    ]
    before, entries = everything(), len(house.entries())
    for task in (tasks.rotate, tasks.run_jobs, tasks.execute_requests):
        task(ids)
    assert (everything(), len(house.entries())) == (before, entries)


def test_a_real_worker_survives_forged_messages_and_does_only_what_is_due(
    house: House, request_: Approval, broker: Broker, worker: Process
) -> None:
    from kms_console.celery import app

    due = house.key(rotation_days=5)
    Key.objects.filter(pk=due.pk).update(rotate_at=clock.now() - timedelta(days=1))
    before = everything()
    ids = [str(request_.id), str(house.invoices.id), str(uuid.uuid4())]
    names = ("keys.rotate", "keys.run_jobs", "keys.execute_requests", "os.system", "keys.sweep2")
    for name in names:
        app.send_task(name, args=[ids])
        app.send_task(name, args=[{"ids": ids}, 5])
        app.send_task(name, kwargs={"ids": "rm -rf /", "skip_checks": True})
    app.send_task("keys.rotate", args=[[str(due.id)]])
    eventually(lambda: due.versions.count() == 2 or worker.popen.poll() is not None)
    assert worker.popen.poll() is None, worker.text
    eventually(lambda: due.versions.filter(number=2, primary=True).exists())
    changed = everything()
    for then, now in zip(before, changed, strict=True):
        for row in then:
            if row.get("key_id") != due.id and row["id"] != due.id:
                assert row in now
    assert house.invoices.versions.count() == 1
