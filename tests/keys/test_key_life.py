"""The named key: its states, its rotations, its usage periods, its destruction."""

from __future__ import annotations

import contextlib
import itertools
import threading
from datetime import timedelta
from typing import Any

import pytest
from django.db import connections

from keys import (
    administration,
    clock,
    jobs,
    lifecycle,
    operations,
    queries_ceremonies,
    stores,
    sweep,
)
from keys.errors import (
    AlreadyExists,
    Conflict,
    IllegalTransition,
    Invalid,
    NotFound,
    StateForbids,
    Unsupported,
)
from keys.models import Job, Key, KeyVersion
from keys.secret import Secret
from keys.services import scheduler
from keys.states import KEY_EDGES, Condition, Direction, KeyState, VersionState
from tests.house import House

S = VersionState
MATERIAL = Secret(bytes(range(32)))


def states(key: Key) -> list[tuple[int, str, bool]]:
    rows = key.versions.order_by("number")
    return [(v.number, v.state, v.primary) for v in rows]


def imported(house: House, **more: Any) -> Key:
    key = house.key(origin="imported")
    return administration.import_key(house.olga, str(key.id), material=MATERIAL, **more)


# --- creating


@pytest.mark.each_database
def test_a_new_key_serves_at_once_and_its_two_entries_say_intent_and_result(house: House) -> None:
    key = house.key(labels={"team": "ledger"}, owner="Finance")
    (version,) = key.versions.all()
    assert (key.state, version.state, version.primary, version.condition) == (
        KeyState.ENABLED,
        S.ACTIVE,
        True,
        "",
    )
    assert version.handle and version.check_value
    assert key.rotate_at == version.originated_at + timedelta(days=365)
    assert version.protect_until == version.originated_at + timedelta(days=730)
    assert version.process_until == version.originated_at + timedelta(days=1825)
    intent, result = house.entries(action="create_key", object_id=str(key.id))
    assert (intent["outcome"], intent["actor"]["name"]) == ("started", "Olga")
    assert (result["outcome"], result["actor"]["name"]) == ("success", "scheduler")
    assert intent["facts"]["job"] == result["facts"]["job"] == result["request_id"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"spec": "AES_192"},
        {"spec": None},
        {"key_store": "elsewhere"},
        {"key_store": 5},
        {"alias": "Not An Alias!"},
        {"alias": "invoices"},
        {"labels": {"a": 1}},
        {"labels": []},
        {"rotation_days": 366},
        {"rotation_days": 0},
        {"rotation_days": 1.5},
        {"origin": "stolen"},
        {"name": ""},
        {"name": "x" * 129},
        {"name": None},
        {"name": 7},
        {"description": "x" * 501},
        {"owner": []},
        {"colour": "red"},
    ],
    ids=str,
)
def test_a_key_that_can_not_be_is_refused_recorded_and_leaves_nothing(
    house: House, wrong: dict[str, Any]
) -> None:
    before, counted = len(house.entries()), (Key.objects.count(), Job.objects.count())
    with pytest.raises((Invalid, AlreadyExists)):
        administration.create_key(
            house.olga, "internal", **{"name": "New", "spec": "AES_256", **wrong}
        )
    assert (Key.objects.count(), Job.objects.count()) == counted
    assert len(house.entries()) == before + 1
    assert house.last_entry()["outcome"] == "failed"


# --- rotation


@pytest.mark.each_database
def test_rotation_swaps_the_primary_and_the_old_version_still_decrypts(house: House) -> None:
    old = operations.encrypt(house.billing, "invoices", b"before", context={"n": "1"})
    job = administration.rotate_key(house.olga, "invoices", reason="an engineer left")
    assert job.state == "succeeded"
    assert states(house.invoices) == [(1, S.DEACTIVATED, False), (2, S.ACTIVE, True)]
    new = operations.encrypt(house.billing, "invoices", b"after", context={"n": "1"})
    assert (old.version, new.version) == (1, 2)
    for sealed, text in ((old, b"before"), (new, b"after")):
        opened = operations.decrypt(
            house.billing, "invoices", sealed.ciphertext, context={"n": "1"}
        )
        assert (opened.version, opened.plaintext.reveal()) == (sealed.version, text)
    one, two = (house.version(house.invoices, number) for number in (1, 2))
    assert one.deactivated_at == two.activated_at, "both were written in one transaction"
    assert one.state_reason == "replaced by version 2"
    assert house.invoices.rotate_at == two.originated_at + timedelta(days=365)


def test_a_staged_rotation_waits_and_takes_over_when_it_is_activated(house: House) -> None:
    key = house.key()
    administration.rotate_key(house.olga, str(key.id), activate=False)
    assert states(key) == [(1, S.ACTIVE, True), (2, S.PRE_ACTIVE, False)]
    due = Key.objects.get(pk=key.pk).rotate_at
    house.move(key, 2, S.ACTIVE)
    assert states(key) == [(1, S.DEACTIVATED, False), (2, S.ACTIVE, True)]
    assert Key.objects.get(pk=key.pk).rotate_at > due


@pytest.mark.parametrize("state", [S.SUSPENDED, S.COMPROMISED, S.DEACTIVATED])
def test_rotation_puts_a_new_primary_in_the_place_of_one_that_no_longer_serves(
    house: House, state: VersionState
) -> None:
    house.move(house.invoices, 1, state)
    with pytest.raises(StateForbids):
        operations.encrypt(house.billing, "invoices", b"x")
    administration.rotate_key(house.olga, "invoices")
    expected = S.DEACTIVATED if state == S.SUSPENDED else state
    assert states(house.invoices) == [(1, expected, False), (2, S.ACTIVE, True)]
    assert operations.encrypt(house.billing, "invoices", b"x").version == 2


@pytest.mark.each_database
def test_the_sweep_rotates_what_is_due_once(house: House) -> None:
    key, other = house.key(rotation_days=30), house.key()
    assert sweep.due().rotations == []
    house.let_days_pass(31)
    assert sweep.due().rotations == [key.id]
    assert sweep.rotate(sweep.due().rotations) == 1
    assert sweep.due().rotations == []
    assert states(key) == [(1, S.DEACTIVATED, False), (2, S.ACTIVE, True)]
    assert states(other) == [(1, S.ACTIVE, True)]
    intent = house.entries(action="rotate_key", object_id=str(key.id))[0]
    assert (intent["actor"]["name"], intent["door"]) == ("scheduler", "schedule")


@pytest.mark.each_database
def test_workers_who_all_found_a_key_due_rotate_it_once(house: House) -> None:
    key, gate = house.key(rotation_days=30), threading.Barrier(4)
    house.let_days_pass(31)
    found = sweep.due().rotations
    assert found == [key.id]

    def work() -> None:
        try:
            gate.wait()
            with contextlib.suppress(Conflict):
                administration.rotate_key(scheduler(), str(key.id), reason="due")
        finally:
            connections.close_all()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert states(key) == [(1, S.DEACTIVATED, False), (2, S.ACTIVE, True)]
    entries = len(house.entries())
    assert sweep.rotate(found) == 0, "a list that is out of date rotates nothing again"
    assert (len(house.entries()), key.versions.count()) == (entries, 2)
    with pytest.raises(Conflict):
        administration.rotate_key(scheduler(), str(key.id))


def test_a_paused_classification_is_not_rotated_and_can_be_by_hand(house: House) -> None:
    house.let_days_pass(366)
    administration.pause_rotation(house.olga, "internal", reason="the year's end")
    assert sweep.due().rotations == []
    administration.rotate_key(house.olga, "invoices")
    administration.resume_rotation(house.ada, "internal")
    assert sweep.due().rotations == []
    with pytest.raises(Conflict):
        administration.resume_rotation(house.ada, "internal")


@pytest.mark.each_database(fast="sqlite")
def test_a_shorter_period_of_the_classification_makes_its_keys_due(house: House) -> None:
    own, follows = house.key(rotation_days=10), house.key()
    house.let_days_pass(20)
    assert sweep.due().rotations == [own.id]
    administration.update_classification(house.ada, "internal", rotation_days=15)
    assert set(sweep.due().rotations) == {own.id, follows.id, house.invoices.id}
    for key, days in ((own, 10), (follows, 15)):
        key.refresh_from_db()
        assert key.rotate_at == house.version(key, 1).originated_at + timedelta(days=days)


def test_a_key_whose_primary_was_revoked_stays_on_the_schedule(house: House) -> None:
    key = house.key()
    house.move(key, 1, S.COMPROMISED)
    administration.update_classification(house.ada, "internal", rotation_days=30)
    key.refresh_from_db()
    assert key.rotate_at is not None


@pytest.mark.parametrize("state", [KeyState.DISABLED, KeyState.PENDING_DESTRUCTION])
def test_only_an_enabled_key_is_rotated(house: House, state: KeyState) -> None:
    key = house.key()
    change = {
        KeyState.DISABLED: administration.disable_key,
        KeyState.PENDING_DESTRUCTION: administration.schedule_destruction,
    }[state]
    change(house.olga, str(key.id))
    house.let_days_pass(400)
    assert key.id not in sweep.due().rotations
    with pytest.raises(StateForbids):
        administration.rotate_key(house.olga, str(key.id))


# --- usage periods


def test_the_originator_period_ends_protection_and_the_recipient_period_ends_reading(
    house: House,
) -> None:
    sealed = operations.encrypt(house.billing, "invoices", b"x").ciphertext
    house.let_days_pass(729)
    operations.encrypt(house.billing, "invoices", b"x")
    house.let_days_pass(2)
    with pytest.raises(StateForbids, match="originator-usage"):
        operations.encrypt(house.billing, "invoices", b"x")
    assert operations.decrypt(house.billing, "invoices", sealed).version == 1
    administration.rotate_key(house.olga, "invoices")
    assert operations.encrypt(house.billing, "invoices", b"x").version == 2
    house.let_days_pass(1825 - 731 - 1)
    assert operations.decrypt(house.billing, "invoices", sealed).version == 1
    house.let_days_pass(2)
    with pytest.raises(StateForbids, match="recipient-usage"):
        operations.decrypt(house.billing, "invoices", sealed)


def test_an_import_counts_its_periods_from_its_recorded_origin(house: House) -> None:
    origin = clock.now() - timedelta(days=400)
    key = imported(house, originated_at=origin.isoformat())
    version = house.version(key, 1)
    assert (key.state, version.state, version.originated_at) == ("enabled", S.ACTIVE, origin)
    assert version.process_until == origin + timedelta(days=1825)
    key.refresh_from_db()
    assert queries_ceremonies.awaits_material(key), "it is overdue"
    assert sweep.due().rotations == [], "no scheduler has the next material"


ALLOWED = {
    S.PRE_ACTIVE: (False, False),
    S.ACTIVE: (True, True),
    S.SUSPENDED: (False, False),
    S.DEACTIVATED: (False, True),
    S.COMPROMISED: (False, False),
    S.DESTROYED: (False, False),
    S.DESTROYED_COMPROMISED: (False, False),
}


@pytest.mark.parametrize("state", list(VersionState))
@pytest.mark.parametrize("key_state", list(KeyState))
@pytest.mark.parametrize("condition", ["", *Condition])
@pytest.mark.parametrize("resting", [False, True], ids=["", "suspended-reads"])
def test_a_use_needs_the_state_of_key_and_version(
    state: VersionState, key_state: KeyState, condition: str, resting: bool
) -> None:
    now = clock.now()
    for direction in Direction:
        facts = {
            "key_state": key_state,
            "version_state": state,
            "condition": condition,
            "direction": direction,
            "primary": state in (S.ACTIVE, S.SUSPENDED),
            "suspended_processes": resting,
            "protect_until": now + timedelta(seconds=1),
            "process_until": now + timedelta(seconds=1),
            "material_until": now + timedelta(seconds=1),
            "now": now,
        }
        protect = direction == Direction.PROTECT
        expected = ALLOWED[state][0 if protect else 1]
        expected = expected or (state == S.SUSPENDED and resting and not protect)
        expected = expected and key_state == KeyState.ENABLED
        expected = expected and condition == ""
        if expected:
            lifecycle.check_use(**facts)
            own_period = "protect_until" if protect else "process_until"
            for over in (own_period, "material_until"):
                with pytest.raises(StateForbids):
                    lifecycle.check_use(**{**facts, over: now})
        else:
            with pytest.raises(StateForbids):
                lifecycle.check_use(**facts)


def test_an_active_version_that_is_not_primary_protects_nothing() -> None:
    now = clock.now()
    with pytest.raises(StateForbids, match="primary"):
        lifecycle.check_use(
            key_state="enabled",
            version_state="active",
            condition="",
            direction=Direction.PROTECT,
            primary=False,
            suspended_processes=False,
            protect_until=None,
            process_until=None,
            material_until=None,
            now=now,
        )


@pytest.mark.each_database(fast="sqlite")
@pytest.mark.parametrize("reads", [False, True])
def test_a_suspended_version_reads_only_where_its_classification_says_so(
    house: House, reads: bool
) -> None:
    sealed = operations.encrypt(house.billing, "invoices", b"x").ciphertext
    administration.update_classification(house.ada, "internal", suspended_decrypts=reads)
    house.move(house.invoices, 1, S.SUSPENDED)
    if reads:
        assert operations.decrypt(house.billing, "invoices", sealed).version == 1
    else:
        with pytest.raises(StateForbids):
            operations.decrypt(house.billing, "invoices", sealed)


# --- the key's own states


@pytest.mark.parametrize(
    ("before", "after"), list(itertools.permutations(KeyState, 2)), ids=lambda s: s.value
)
def test_a_keys_state_moves_along_its_table_only(
    house: House, before: KeyState, after: KeyState
) -> None:
    Key.objects.filter(pk=house.invoices.pk).update(state=before, destroy_at=clock.now())
    key = house.invoices
    if after in KEY_EDGES[before]:
        lifecycle.move_key(key, after, **(_date if after == "pending_destruction" else {}))
        key.refresh_from_db()
        assert key.state == after
        assert (key.destroy_at is not None) == (after == KeyState.PENDING_DESTRUCTION)
    else:
        with pytest.raises(IllegalTransition):
            lifecycle.move_key(key, after)
        assert house.invoices.state == before


_date = {"destroy_at": clock.now()}


@pytest.mark.each_database(fast="sqlite")
def test_disabling_a_key_stops_every_use_and_changes_no_version(house: House) -> None:
    sealed = operations.encrypt(house.billing, "invoices", b"x").ciphertext
    administration.disable_key(house.olga, "invoices")
    with pytest.raises(StateForbids):
        operations.encrypt(house.billing, "invoices", b"x")
    with pytest.raises(StateForbids):
        operations.decrypt(house.billing, "invoices", sealed)
    assert states(house.invoices) == [(1, S.ACTIVE, True)]
    with pytest.raises(IllegalTransition):
        administration.disable_key(house.olga, "invoices")
    administration.enable_key(house.olga, "invoices")
    assert operations.decrypt(house.billing, "invoices", sealed).plaintext.reveal() == b"x"


@pytest.mark.each_database
def test_a_key_is_destroyed_when_its_window_is_over_and_not_before(house: House) -> None:
    administration.rotate_key(house.olga, "invoices")
    administration.rotate_key(house.olga, "invoices", activate=False)
    house.move(house.invoices, 1, S.COMPROMISED)
    key = administration.schedule_destruction(house.olga, "invoices", reason="it served its time")
    with pytest.raises(StateForbids):
        operations.encrypt(house.billing, "invoices", b"x")
    assert states(key) == [
        (1, S.COMPROMISED, False),
        (2, S.ACTIVE, True),
        (3, S.PRE_ACTIVE, False),
    ]
    house.let_days_pass(29)
    assert house.run_due_jobs() == []
    house.let_days_pass(2)
    (job,) = house.run_due_jobs()
    assert job.state == "succeeded", job.error
    key.refresh_from_db()
    assert (key.state, key.rotate_at, key.destroy_at) == ("destroyed", None, None)
    assert states(key) == [
        (1, S.DESTROYED_COMPROMISED, False),
        (2, S.DESTROYED, False),
        (3, S.DESTROYED, False),
    ]
    backend = stores.backend_of(key)
    assert all(backend.find(version.id) is None for version in key.versions.all())
    two = house.version(key, 2)
    assert two.deactivated_at is not None, "an active version is deactivated on its way"
    house.move(key, 2, S.DESTROYED_COMPROMISED, reason="it turned up on a laptop")
    for change in (administration.enable_key, administration.schedule_destruction):
        with pytest.raises(IllegalTransition):
            change(house.olga, str(key.id))


@pytest.mark.each_database(fast="sqlite")
def test_a_cancelled_destruction_returns_the_key_disabled(house: House) -> None:
    administration.schedule_destruction(house.olga, "invoices")
    key = administration.cancel_destruction(house.otto, "invoices")
    key.refresh_from_db()
    assert (key.state, key.destroy_at) == (KeyState.DISABLED, None)
    assert [job.state for job in Job.objects.filter(kind="destroy")] == ["cancelled"]
    house.let_days_pass(60)
    assert house.run_due_jobs() == []
    administration.enable_key(house.olga, "invoices")
    operations.encrypt(house.billing, "invoices", b"x")
    with pytest.raises(StateForbids):
        administration.cancel_destruction(house.olga, "invoices")


def test_a_key_that_never_got_its_material_waits_for_it_again_after_a_cancellation(
    house: House,
) -> None:
    key = house.key(origin="imported", alias="brought")
    administration.schedule_destruction(house.olga, "brought")
    assert administration.cancel_destruction(house.olga, "brought").state == KeyState.PENDING_IMPORT
    administration.import_key(house.olga, str(key.id), material=Secret(b"k" * 32))
    key.refresh_from_db()
    assert key.state == KeyState.ENABLED


@pytest.mark.each_database
def test_a_cancellation_wins_only_until_the_job_is_claimed(house: House) -> None:
    administration.schedule_destruction(house.olga, "invoices")
    house.let_days_pass(31)
    job = Job.objects.get(kind="destroy")
    assert jobs.claim(job.id) is not None
    with pytest.raises(Conflict, match="too late"):
        administration.cancel_destruction(house.olga, "invoices")
    assert house.invoices.state == KeyState.PENDING_DESTRUCTION


def test_a_destruction_that_was_begun_and_put_off_can_not_be_cancelled(house: House) -> None:
    administration.schedule_destruction(house.olga, "invoices")
    house.let_days_pass(31)
    administration.update_key_store(house.ada, "software", enabled=False)
    (job,) = house.run_due_jobs()
    assert (job.state, job.attempts) == ("pending", 1)
    with pytest.raises(Conflict, match="too late"):
        administration.cancel_destruction(house.olga, "invoices")


def test_a_destruction_window_is_never_shorter_than_its_classifications(house: House) -> None:
    for days in (29, 0, -5, 121, True, 30.0, "30"):
        with pytest.raises(Invalid):
            administration.schedule_destruction(house.olga, "invoices", days=days)
    key = administration.schedule_destruction(house.olga, "invoices", days=45)
    assert key.destroy_at is not None
    assert key.destroy_at - clock.now() > timedelta(days=44, hours=23)


def test_a_version_that_never_came_to_be_does_not_hold_up_a_cancelled_key(house: House) -> None:
    administration.update_key_store(house.ada, "software", enabled=False)
    job = administration.rotate_key(house.olga, "invoices")
    assert job.state == "pending"
    administration.schedule_destruction(house.olga, "invoices")
    administration.cancel_destruction(house.olga, "invoices")
    administration.update_key_store(house.ada, "software", enabled=True)
    house.let_days_pass(1)
    house.run_due_jobs()
    assert not KeyVersion.objects.filter(condition=Condition.CREATING).exists()
    administration.enable_key(house.olga, "invoices")
    assert operations.encrypt(house.billing, "invoices", b"x").version == 2


def test_a_rotation_that_comes_after_the_destruction_leaves_no_material(house: House) -> None:
    administration.update_key_store(house.ada, "software", enabled=False)
    late = administration.rotate_key(house.olga, "invoices")
    administration.schedule_destruction(house.olga, "invoices")
    administration.update_key_store(house.ada, "software", enabled=True)
    house.let_days_pass(31)
    destruction = Job.objects.get(kind="destroy")
    assert jobs.run(destruction.id).state == "succeeded"
    if late := Job.objects.filter(pk=late.pk, state="pending").first():
        assert jobs.run(late.id).state == "failed"
    backend = stores.backend_of(house.invoices)
    assert all(backend.find(version.id) is None for version in house.invoices.versions.all())
    assert house.invoices.state == KeyState.DESTROYED


# --- imports


def test_a_key_that_waits_for_its_import_has_nothing_to_use_or_rotate(house: House) -> None:
    key = house.key(origin="imported")
    assert (key.state, key.model, key.versions.count()) == (
        "pending_import",
        "customer-provided",
        0,
    )
    house.grant("billing", key, "encrypt")
    with pytest.raises(StateForbids):
        operations.encrypt(house.billing, str(key.id), b"x")
    for change in (administration.rotate_key, administration.enable_key):
        with pytest.raises(StateForbids):
            change(house.olga, str(key.id))


def test_imported_material_is_the_material_that_serves(house: House) -> None:
    key = house.key(origin="imported", spec="HMAC_256")
    administration.import_key(house.olga, str(key.id), material=MATERIAL)
    house.grant("billing", key, "mac")
    import hashlib
    import hmac

    tag = operations.mac(house.billing, str(key.id), b"message").mac
    assert tag == hmac.new(MATERIAL.reveal(), b"message", hashlib.sha256).digest()
    with pytest.raises(Conflict, match="material of version 1"):
        administration.import_key(house.olga, str(key.id), material=MATERIAL)


@pytest.mark.parametrize(
    "wrong",
    [
        {"material": Secret(b"short")},
        {"material": Secret(bytes(32))},
        {"material": b"x" * 32},
        {"material": None},
        {"check_value": "00"},
        {"originated_at": "2999-01-01T00:00:00Z"},
        {"originated_at": "yesterday"},
        {"originated_at": "2020-01-01T00:00:00"},
        {"originated_at": 5},
    ],
    ids=str,
)
def test_a_wrong_import_is_refused_and_the_key_still_waits(
    house: House, wrong: dict[str, Any]
) -> None:
    key = house.key(origin="imported")
    before = len(house.entries())
    with pytest.raises(Invalid):
        administration.import_key(house.olga, str(key.id), **{"material": MATERIAL, **wrong})
    key.refresh_from_db()
    assert (key.state, key.versions.count()) == ("pending_import", 0)
    assert len(house.entries()) == before + 1
    administration.import_key(house.olga, str(key.id), material=MATERIAL)


def test_a_key_that_is_not_there_is_not_found_and_recorded(house: House) -> None:
    for change in (
        administration.rotate_key,
        administration.disable_key,
        administration.schedule_destruction,
    ):
        with pytest.raises(NotFound):
            change(house.olga, "no-such-key")
        assert house.last_entry()["reason"] == "not_found"
        assert house.last_entry()["object"] == {
            "kind": "key",
            "id": "no-such-key",
            "name": "",
            "version": None,
            "classification": "",
        }


def test_a_key_does_only_what_its_usage_says(house: House) -> None:
    key = house.key(spec="HMAC_256")
    with pytest.raises(Invalid):
        house.grant("billing", key, "encrypt")
    administration.create_grant(
        house.olga, "billing", operations=["encrypt", "sign"], classification="internal"
    )
    for use in (
        lambda: operations.encrypt(house.billing, str(key.id), b"x"),
        lambda: operations.sign(house.billing, str(key.id), b"x"),
    ):
        with pytest.raises(Unsupported):
            use()
        assert house.last_entry()["reason"] == "unsupported"
