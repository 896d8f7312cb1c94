"""Budgets of messages: never counted too low, and a rotation long before the end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connection, connections, transaction
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

from keys import administration, clock, counters, due, operations, queries, statistics, sweep
from keys.algorithms import ALGORITHMS
from keys.errors import Conflict, Denied, StateForbids, Unavailable
from keys.models import Approval, Key, KeyVersion, MessageCount
from keys.services import scheduler
from tests.house import House
from tests.processes import Process, eventually, script

GCM = "AES_256_GCM"
LIMITED = [name for name, row in ALGORITHMS.items() if row.message_limit]


@pytest.fixture(autouse=True)
def _nothing_held() -> Iterator[None]:
    counters.forget()
    yield
    counters.forget()


@pytest.fixture
def key(house: House) -> Key:
    """A key with a budget, which billing may use."""
    made = house.key(algorithm=GCM, alias="counted")
    house.grant("billing", made, "encrypt", "decrypt", "generate_data_key")
    return made


def primary(key: Key) -> KeyVersion:
    return key.versions.get(primary=True)


def leased(key: Key) -> int:
    return sum(MessageCount.objects.filter(version__key=key).values_list("leased", flat=True))


def use_up(key: Key, leave: int = 0) -> None:
    """Hand out all but so many messages of the primary version, as other processes would have."""
    limit = counters.limit_of(key.algorithm)
    assert limit is not None
    MessageCount.objects.update_or_create(
        version=primary(key),
        defaults={"limit": limit, "leased": limit - leave, "low": leave * 4 <= limit},
    )


# --- counting


@pytest.mark.each_database
def test_a_block_is_counted_before_its_first_message(house: House, key: Key) -> None:
    with override_settings(COUNTER_BLOCK=5):
        for n in range(1, 12):
            operations.encrypt(house.billing, "counted", b"x")
            assert leased(key) == -(-n // 5) * 5
    row = MessageCount.objects.get()
    assert (row.version_id, row.limit, row.low) == (primary(key).id, 2**32 - 65_536, False)


def test_each_algorithm_with_random_96_bit_nonces_has_a_budget_and_no_other(house: House) -> None:
    assert LIMITED == ["AES_256_GCM", "AES_128_GCM", "AES_256_GCM_SIV"]
    for number, algorithm in enumerate(LIMITED, 1):
        spec = "AES_128" if "128" in algorithm else "AES_256"
        made = house.key(spec=spec, algorithm=algorithm)
        house.grant("billing", made, "encrypt")
        operations.encrypt(house.billing, str(made.id), b"x")
        assert MessageCount.objects.count() == number
    operations.encrypt(house.billing, "invoices", b"x")
    assert house.invoices.algorithm == "XAES_256_GCM"
    assert MessageCount.objects.count() == len(LIMITED)


def test_data_keys_count_and_decrypting_does_not(house: House, key: Key) -> None:
    with override_settings(COUNTER_BLOCK=1):
        sealed = operations.encrypt(house.billing, "counted", b"x").ciphertext
        operations.generate_data_key(house.billing, "counted")
        assert leased(key) == 2
        operations.decrypt(house.billing, "counted", sealed)
        assert leased(key) == 2


def test_proofs_of_the_material_are_held_back_from_the_budget(house: House, key: Key) -> None:
    administration.rotate_key(house.olga, "counted")
    assert MessageCount.objects.count() == 0, "the material of two versions was proved"
    assert counters.limit_of(GCM) == 2**32 - counters.RESERVED
    with override_settings(MESSAGE_LIMIT=1000):
        assert counters.limit_of(GCM) == 1000


@pytest.mark.each_database
def test_a_used_up_budget_says_what_to_do_and_what_is_there_still_decrypts(
    house: House, key: Key
) -> None:
    with override_settings(MESSAGE_LIMIT=2):
        sealed = operations.encrypt(house.billing, "counted", b"x").ciphertext
        operations.encrypt(house.billing, "counted", b"x")
        for _ in range(2):
            with pytest.raises(StateForbids, match="rotate the key") as refused:
                operations.encrypt(house.billing, "counted", b"x")
            assert refused.value.extra["state"] == "budget_used_up"
            entry = house.last_entry()
            assert (entry["outcome"], entry["reason"]) == ("failed", "state_forbids")
        assert operations.decrypt(house.billing, "counted", sealed).plaintext.reveal() == b"x"
        assert leased(key) == 2
        administration.rotate_key(house.olga, "counted")
        assert operations.encrypt(house.billing, "counted", b"x").version == 2
        assert MessageCount.objects.get(version__number=2).leased == 1


def test_a_used_up_budget_is_remembered_and_the_database_is_asked_once(
    house: House, key: Key
) -> None:
    use_up(key)
    version = primary(key).id
    with pytest.raises(StateForbids):
        counters.take(version, GCM)
    with CaptureQueriesContext(connection) as asked:
        for _ in range(10):
            with pytest.raises(StateForbids):
                counters.take(version, GCM, wait=False)
    assert len(asked) == 0


def test_a_limit_that_is_lowered_later_holds_at_once_and_forces_a_rotation(
    house: House, key: Key
) -> None:
    MessageCount.objects.create(version=primary(key), limit=1000, leased=500)
    assert not due.low_budgets().exists()
    with override_settings(MESSAGE_LIMIT=200):
        with pytest.raises(StateForbids):
            operations.encrypt(house.billing, "counted", b"x")
        assert leased(key) == 500
        assert list(sweep.rotations_due(10)) == [key.id]
        budget = counters.budget(primary(key).id, GCM)
        assert budget is not None and (budget.share, budget.left) == (100, 0)


def test_a_small_budget_is_not_low_after_the_first_block(house: House, key: Key) -> None:
    with override_settings(MESSAGE_LIMIT=1000):
        operations.encrypt(house.billing, "counted", b"x")
    row = MessageCount.objects.get()
    assert (row.leased, row.low) == (1000 // counters.LEAST_BLOCKS, False)


# --- threads, transactions, the event loop


@pytest.mark.each_database
def test_many_threads_take_what_there_is_and_not_one_message_more(house: House, key: Key) -> None:
    version = primary(key).id

    taken: list[int] = []

    def count(number: int) -> None:
        for _ in range(50):
            try:
                counters.take(version, GCM)
            except StateForbids:
                break
            taken.append(number)
        connections.close_all()

    with override_settings(MESSAGE_LIMIT=640), ThreadPoolExecutor(16) as pool:
        list(pool.map(count, range(16)))
    assert len(taken) == 640
    row = MessageCount.objects.get()
    assert (row.leased, row.limit, row.low) == (640, 640, True)


@pytest.mark.each_database
def test_threads_that_find_nothing_together_take_one_block(house: House, key: Key) -> None:
    version, start = primary(key).id, threading.Barrier(12)

    def take(_: int) -> None:
        start.wait()
        counters.take(version, GCM)
        connections.close_all()

    with override_settings(COUNTER_BLOCK=20), ThreadPoolExecutor(12) as pool:
        list(pool.map(take, range(12)))
    assert leased(key) == 20


@pytest.mark.each_database
def test_no_lease_is_taken_in_a_transaction_that_could_take_it_back(house: House, key: Key) -> None:
    version = primary(key).id
    with pytest.raises(RuntimeError), transaction.atomic():
        counters.take(version, GCM)
    assert leased(key) == 0
    with override_settings(COUNTER_BLOCK=3):
        counters.take(version, GCM)
        with transaction.atomic():
            counters.take(version, GCM)
            counters.take(version, GCM)
    assert leased(key) == 3


def test_an_event_loop_leases_in_a_thread_and_counts_by_itself(house: House, key: Key) -> None:
    who = house.billing
    operations.decrypt(who, "counted", operations.encrypt(who, "counted", b"warm").ciphertext)
    counters.forget()
    leasing: set[str] = set()
    lease = counters._lease

    def seen(*arguments: Any) -> int:
        leasing.add(threading.current_thread().name)
        return lease(*arguments)

    async def many() -> list[int]:
        jobs = [operations.encrypt.aio(who, "counted", b"x") for _ in range(20)]
        return [done.version for done in await asyncio.gather(*jobs)]

    with override_settings(COUNTER_BLOCK=100), pytest.MonkeyPatch.context() as patched:
        patched.setattr(counters, "_lease", seen)
        before = leased(key)
        assert asyncio.run(many()) == [1] * 20
        assert leased(key) == before + 100
    assert leasing and all(name.startswith("use") for name in leasing)


def test_without_a_database_nothing_is_counted_and_nothing_protected(
    postgresql_only: House,
) -> None:
    house = postgresql_only
    made = house.key(algorithm=GCM)
    version, server = primary(made).id, house.database.server
    assert server is not None
    server.stop()
    try:
        with pytest.raises(Unavailable):
            counters.take(version, GCM)
    finally:
        connections.close_all()
        server.start()
    counters.take(version, GCM)


@pytest.fixture
def postgresql_only(house: House) -> House:
    return house


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "postgresql_only" in metafunc.fixturenames:
        metafunc.parametrize("database", ["postgresql"], indirect=True)


# --- processes

TAKER = """
import os, sys
from uuid import UUID
from keys import counters
version = UUID(sys.argv[1])
while True:
    counters.take(version, "AES_256_GCM")
    os.write(1, b"+")
"""
FORKER = """
import os, sys
from uuid import UUID
from django.db import connections
from keys import counters
version = UUID(sys.argv[1])
def take(count):
    for _ in range(count):
        counters.take(version, "AES_256_GCM")
take(3)
connections.close_all()
child = os.fork()
take(6 if child else 9)
if child:
    assert os.waitpid(child, 0)[1] == 0
    print("done", flush=True)
else:
    os._exit(0)
"""


@pytest.mark.each_database(fast="postgresql")
def test_killed_processes_leave_a_count_that_is_never_too_low(
    house: House, key: Key, tmp_path: Path
) -> None:
    block, version = 40, str(primary(key).id)
    house.environment["KMS_COUNTER_BLOCK"] = str(block)
    taken, started = 0, 0
    for part in range(2):
        takers = [script(house, TAKER, tmp_path / f"{part}.{n}", version) for n in range(2)]
        try:
            for process in takers:
                eventually(lambda process=process: _done(process) > 2 * block)
        finally:
            for process in takers:
                process.kill()
        started += len(takers)
        taken += sum(_done(process) for process in takers)
    # A process may die between counting a message and telling us of it.
    assert taken <= leased(key) <= taken + started * block
    assert leased(key) % block == 0


def _done(process: Process) -> int:
    return process.text.count("+")


def test_a_forked_child_takes_a_block_of_its_own(house: House, key: Key, tmp_path: Path) -> None:
    house.environment["KMS_COUNTER_BLOCK"] = "10"
    process = script(house, FORKER, tmp_path / "forker", str(primary(key).id))
    process.wait_for("done")
    assert process.wait() == 0
    assert leased(key) == 20, "3 + 6 of one block, 9 of another"


# --- how it stands


def test_budgets_of_many_versions_are_one_query(house: House, key: Key) -> None:
    keys = [key, house.key(algorithm="AES_256_GCM_SIV"), house.invoices]
    MessageCount.objects.create(version=primary(key), limit=1000, leased=751, low=True)
    wanted = [(primary(one).id, one.algorithm) for one in keys]
    with CaptureQueriesContext(connection) as asked:
        found = counters.budgets(wanted)
    assert len(asked) == 1
    assert set(found) == {primary(keys[0]).id, primary(keys[1]).id}
    mine, fresh = found[primary(key).id], found[primary(keys[1]).id]
    assert (mine.used, mine.limit, mine.left, mine.share, mine.low) == (751, 1000, 249, 76, True)
    assert (fresh.used, fresh.share, fresh.low) == (0, 0, False)
    assert counters.budget(primary(key).id, GCM) == mine
    assert counters.budget(primary(house.invoices).id, "XAES_256_GCM") is None
    with CaptureQueriesContext(connection) as asked:
        assert counters.budgets(wanted[2:]) == {}
    assert len(asked) == 0


def test_keys_with_low_budgets_are_counted_listed_and_shown(house: House, key: Key) -> None:
    assert statistics.low_budgets(house.olga) == 0
    use_up(key, leave=100)
    assert statistics.low_budgets(house.udo) == 1
    with pytest.raises(Denied):
        statistics.low_budgets(house.billing)
    listed = queries.list_keys(house.olga, queries.KeyFilters(condition="low_budget"))
    assert listed.rows == [key]
    (version,) = queries.overview(house.olga).low_budgets
    assert (version.key, version.messages.low) == (key, True)


# --- forcing the rotation


@pytest.mark.each_database(fast="sqlite")
def test_at_three_quarters_the_key_is_due_and_the_sweep_rotates_it(house: House, key: Key) -> None:
    with override_settings(MESSAGE_LIMIT=64):
        for _ in range(47):
            operations.encrypt(house.billing, "counted", b"x")
        assert sweep.rotations_due(10) == []
        operations.encrypt(house.billing, "counted", b"x")
        assert sweep.rotations_due(10) == [key.id]
        assert sweep.rotate([key.id, key.id]) == 1
        assert primary(key).number == 2
        assert sweep.rotations_due(10) == [], "the new version has all of its budget"
        assert operations.encrypt(house.billing, "counted", b"x").version == 2
        assert MessageCount.objects.get(version=primary(key)).leased == 1
        entry = house.last_entry(action="rotate_key")
        assert (entry["outcome"], entry["object"]["version"]) == ("success", 2)


@pytest.mark.each_database(fast="sqlite")
def test_the_scheduler_rotates_nothing_that_is_not_due_any_more(house: House, key: Key) -> None:
    with pytest.raises(Conflict, match="not due"):
        administration.rotate_key(scheduler(), "counted", reason="due")
    use_up(key, leave=5)
    administration.pause_rotation(house.ada, "internal", reason="a migration")
    assert sweep.rotations_due(10) == []
    with pytest.raises(Conflict, match="not due"):
        administration.rotate_key(scheduler(), "counted", reason="due")
    administration.resume_rotation(house.ada, "internal")
    administration.disable_key(house.olga, "counted")
    assert sweep.rotations_due(10) == []
    administration.enable_key(house.olga, "counted")
    assert sweep.rotations_due(10) == [key.id]
    administration.rotate_key(house.olga, "counted")
    with pytest.raises(Conflict, match="not due"):
        administration.rotate_key(scheduler(), "counted", reason="due")
    assert key.versions.count() == 2


def test_a_low_budget_asks_for_votes_where_the_policy_does(house: House) -> None:
    made = house.key("patient-health", algorithm=GCM)
    use_up(made, leave=5)
    assert sweep.rotate(sweep.rotations_due(10)) == 0
    request = Approval.objects.get(key=made)
    assert (request.action, request.state) == ("rotate_key", "open")
    assert sweep.rotations_due(10) == [], "it is asked for once"
    house.approve(str(request.id))
    assert primary(made).number == 2
    assert sweep.rotations_due(10) == []


def test_brought_material_is_not_replaced_by_the_sweep(house: House, key: Key) -> None:
    use_up(key, leave=5)
    past = clock.now() - timedelta(days=1)
    Key.objects.filter(pk=key.pk).update(origin="imported", rotate_at=past)
    assert sweep.rotations_due(10) == []


def test_what_is_due_is_found_by_indexes(house: House) -> None:
    """Asked of SQLite, whose planner does not look at how small a table is."""
    sql, values = due.keys_to_rotate(clock.now()).order_by("rotate_at").query.sql_with_params()
    with connection.cursor() as cursor:
        cursor.execute("EXPLAIN QUERY PLAN " + sql, values)
        plan = [row[3] for row in cursor.fetchall()]
    assert [step for step in plan if "key_rotation_due" in step]
    assert [step for step in plan if "budget_low" in step]
    scans = [step for step in plan if step.startswith("SCAN") and "budget_low" not in step]
    assert scans == []


@pytest.mark.each_database(fast="postgresql")
def test_a_busy_key_is_rotated_by_the_worker_and_no_message_is_lost(
    house: House, key: Key, worker: Process, beat: Process
) -> None:
    with override_settings(MESSAGE_LIMIT=64):
        who = house.billing
        versions: set[int] = set()
        done = 0

        def encrypt_until_it_is_used_up() -> bool:
            nonlocal done
            try:
                while len(versions) < 3:
                    versions.add(operations.encrypt(who, "counted", b"x").version)
                    done += 1
            except StateForbids:
                return False
            return True

        eventually(encrypt_until_it_is_used_up)
        assert versions == {1, 2, 3}
        assert done <= leased(key)
    assert worker.popen.poll() is None and beat.popen.poll() is None
