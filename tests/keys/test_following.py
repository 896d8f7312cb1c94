"""A key's store follows: what is decided here is brought to a store that keeps states of its own."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db.models import F

from keys import administration, clock, jobs, operations
from keys.models import Job, Key
from tests.house import House
from tests.keys import remote
from tests.keys.remote import RemoteBackend, Vendor


@pytest.fixture
def vendor(house: House) -> Iterator[Vendor]:
    with remote.furnished(house) as vendor:
        yield vendor


@pytest.fixture
def payroll(house: House, vendor: Vendor) -> Key:
    return house.key("cloud", name="Payroll")


def there(vendor: Vendor, key: Key) -> dict[str, Any]:
    found: dict[str, Any] = vendor.keys[vendor.of(key)]
    return found


def versions_there(vendor: Vendor, key: Key) -> list[tuple[int, str, bool]]:
    rows = there(vendor, key)["versions"]
    return [(row["number"], row["state"], row["primary"]) for row in rows]


def align_jobs(key: Key) -> list[Job]:
    return list(Job.objects.filter(key=key, kind="align").order_by("created_at"))


def run_again(house: House) -> list[Job]:
    """Let what waits for its next try have it now."""
    Job.objects.filter(state="pending").update(run_after=F("created_at"))
    return house.run_due_jobs()


def test_a_new_key_serves_at_its_store_too(house: House, vendor: Vendor, payroll: Key) -> None:
    assert versions_there(vendor, payroll) == [(1, "active", True)]
    assert [job.state for job in align_jobs(payroll)] == ["succeeded"]
    assert jobs.due() == []


def test_a_key_that_is_disabled_here_is_disabled_there(
    house: House, vendor: Vendor, payroll: Key
) -> None:
    administration.disable_key(house.olga, "payroll")
    assert there(vendor, payroll)["state"] == "disabled"
    administration.enable_key(house.olga, "payroll")
    assert there(vendor, payroll)["state"] == "enabled"
    told = [(e["action"], e["outcome"]) for e in house.entries(object_id=str(payroll.id))]
    assert told[-4:] == [
        ("disable_key", "success"),
        ("align_key", "success"),
        ("enable_key", "success"),
        ("align_key", "success"),
    ]


def test_a_version_that_comes_from_a_rotation_is_made_primary_there(
    house: House, vendor: Vendor, payroll: Key
) -> None:
    administration.rotate_key(house.olga, "payroll")
    assert versions_there(vendor, payroll) == [(1, "deactivated", False), (2, "active", True)]


@pytest.mark.exhaustive
def test_a_version_made_ahead_serves_there_only_once_it_takes_over(
    house: House, vendor: Vendor, payroll: Key
) -> None:
    administration.rotate_key(house.olga, "payroll", activate=False)
    assert versions_there(vendor, payroll) == [(1, "active", True), (2, "pre_active", False)]
    administration.rotate_key(house.olga, "payroll")
    assert versions_there(vendor, payroll) == [(1, "deactivated", False), (2, "active", True)]


@pytest.mark.exhaustive
def test_a_suspended_and_a_compromised_version_are_refused_by_the_store_itself(
    house: House, vendor: Vendor, payroll: Key
) -> None:
    house.move(payroll, 1, "suspended")
    assert versions_there(vendor, payroll) == [(1, "suspended", True)]
    house.move(payroll, 1, "active")
    assert versions_there(vendor, payroll) == [(1, "active", True)]
    house.move(payroll, 1, "compromised", reason="a laptop was stolen")
    # The store has no word for it, and refuses the version all the same.
    assert versions_there(vendor, payroll) == [(1, "suspended", False)]


def test_a_store_that_is_away_follows_later(house: House, vendor: Vendor, payroll: Key) -> None:
    vendor.in_trouble("away")
    key = administration.disable_key(house.olga, "payroll")
    assert key.state == "disabled", "the console refuses at once, whatever the store does"
    job = align_jobs(payroll)[-1]
    assert (job.state, job.error) == ("pending", "The cable is out.")
    assert there(vendor, payroll)["state"] == "enabled"
    vendor.well_again()
    assert house.run_due_jobs() == [], "it waits"
    (job,) = run_again(house)
    assert (job.state, job.attempts) == ("succeeded", 2)
    assert there(vendor, payroll)["state"] == "disabled"


def test_a_store_that_asks_for_fewer_calls_is_left_alone_as_long_as_it_asked(
    house: House, vendor: Vendor, payroll: Key
) -> None:
    vendor.in_trouble("throttled", what="conform")
    before = clock.now()
    administration.disable_key(house.olga, "payroll")
    assert align_jobs(payroll)[-1].run_after >= before + timedelta(seconds=30)


@pytest.mark.exhaustive
def test_whoever_changes_a_key_twice_while_its_store_is_away_has_one_job(
    house: House, vendor: Vendor, payroll: Key
) -> None:
    vendor.in_trouble("away")
    administration.disable_key(house.olga, "payroll")
    administration.enable_key(house.olga, "payroll")
    administration.disable_key(house.olga, "payroll")
    assert [job.state for job in align_jobs(payroll)] == ["succeeded", "pending"]
    vendor.well_again()
    run_again(house)
    assert there(vendor, payroll)["state"] == "disabled"


@pytest.mark.each_database
def test_a_change_while_the_store_is_brought_in_line_is_not_missed(
    house: House, vendor: Vendor, payroll: Key
) -> None:
    def meanwhile() -> None:
        RemoteBackend.stops.clear()
        administration.enable_key(house.olga, "payroll")

    RemoteBackend.stops["after conform"] = meanwhile
    administration.disable_key(house.olga, "payroll")
    job = align_jobs(payroll)[-1]
    assert (job.state, job.error[:26]) == ("pending", "The key changed meanwhile;")
    assert there(vendor, payroll)["state"] == "disabled"
    run_again(house)
    assert there(vendor, payroll)["state"] == "enabled"
    assert not Job.objects.filter(state__in=["pending", "running"]).exists()


def test_a_destruction_waits_there_as_it_does_here_and_can_be_cancelled(
    house: House, vendor: Vendor, payroll: Key
) -> None:
    key = administration.schedule_destruction(house.olga, "payroll")
    row = there(vendor, payroll)
    assert row["state"] == "pending_destruction"
    assert datetime.fromisoformat(row["destroy_at"]) == key.destroy_at
    administration.cancel_destruction(house.olga, "payroll")
    assert there(vendor, payroll)["state"] == "disabled"
    administration.enable_key(house.olga, "payroll")
    assert there(vendor, payroll)["state"] == "enabled"
    house.grant("billing", payroll, "encrypt")
    assert operations.encrypt(house.billing, "payroll", b"x").version == 1


def test_a_key_is_destroyed_here_once_it_is_gone_there(
    house: House, vendor: Vendor, payroll: Key
) -> None:
    name = vendor.of(payroll)
    administration.schedule_destruction(house.olga, "payroll")
    house.let_days_pass(31)
    (job,) = [job for job in house.run_due_jobs() if job.kind == "destroy"]
    assert (job.state, job.error) == ("pending", "The store waits by itself.")
    payroll.refresh_from_db()
    assert payroll.state == "pending_destruction"
    vendor.let_days_pass(31)
    run_again(house)
    payroll.refresh_from_db()
    assert payroll.state == "destroyed"
    assert name not in vendor.keys


@pytest.mark.exhaustive
def test_a_single_version_is_scheduled_and_destroyed_there(
    house: House, vendor: Vendor, payroll: Key
) -> None:
    administration.rotate_key(house.olga, "payroll")
    version = house.move(payroll, 1, "destroyed")
    first = there(vendor, payroll)["versions"][0]
    assert datetime.fromisoformat(first["destroy_at"]) == version.destroy_at
    administration.cancel_version_destruction(house.olga, "payroll", number=1)
    assert there(vendor, payroll)["versions"][0]["destroy_at"] is None
    house.move(payroll, 1, "destroyed")
    house.let_days_pass(31)
    house.run_due_jobs()
    assert versions_there(vendor, payroll)[0] == (1, "destroyed", False)


@pytest.mark.exhaustive
def test_a_store_that_refuses_the_console_is_told_in_the_job(
    house: House, vendor: Vendor, payroll: Key
) -> None:
    vendor.in_trouble("refused", what="conform")
    administration.disable_key(house.olga, "payroll")
    job = align_jobs(payroll)[-1]
    assert (job.state, job.error) == ("pending", "The credential has expired.")
    assert house.last_entry()["reason"] == "backend_refused"


RUN = """
from keys import jobs
for job in jobs.due():
    jobs.run(job)
"""


@pytest.mark.exhaustive
@pytest.mark.each_database
@pytest.mark.parametrize("point", ["before conform", "after conform"])
def test_a_process_that_is_killed_on_the_way_leaves_a_job_that_is_finished_later(
    house: House, vendor: Vendor, payroll: Key, tmp_path: Path, point: str
) -> None:
    vendor.in_trouble("away", times=1)
    administration.disable_key(house.olga, "payroll")
    Job.objects.filter(state="pending").update(run_after=F("created_at"))
    remote.killed(house, tmp_path, RUN, "", point)
    assert (
        there(vendor, payroll)["state"]
        == {
            "before conform": "enabled",
            "after conform": "disabled",
        }[point]
    )
    assert jobs.due() == [], "the lease still holds"
    Job.objects.filter(state="running").update(lease_until=clock.now() - timedelta(seconds=1))
    (job,) = house.run_due_jobs()
    assert (job.state, job.attempts) == ("succeeded", 3)
    assert there(vendor, payroll)["state"] == "disabled"
