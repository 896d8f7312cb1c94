"""What is in a key store already is listed, page by page, and adopted as it is."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connections
from django.db.models import F

from keys import administration, clock, discovery, operations, queries_stores, sweep, tasks
from keys.errors import (
    AlreadyExists,
    BackendUnavailable,
    Conflict,
    Denied,
    Invalid,
    NotFound,
    StateForbids,
    Unsupported,
)
from keys.models import FoundKey, Job, Key, KeyStore, Listing, StoreView
from keys.models.drift import Drift
from tests.house import House
from tests.keys import remote
from tests.keys.remote import RemoteBackend, Vendor
from tests.processes import Process, eventually


@pytest.fixture
def vendor(house: House) -> Iterator[Vendor]:
    with remote.furnished(house) as vendor:
        yield vendor


def names(listing: Listing) -> list[str]:
    return list(FoundKey.objects.filter(listing=listing).values_list("name", flat=True))


def many(vendor: Vendor, count: int) -> list[str]:
    vendor.create("key-000")
    with vendor.file.changed() as content:
        first = content["keys"]["key-000"]
        content["keys"] |= {f"key-{number:03}": first for number in range(count)}
    return [f"key-{number:03}" for number in range(count)]


def run_again(listing: Listing) -> Listing:
    """Let a listing go on that waits, or whose process died."""
    Listing.objects.filter(state="running").update(run_after=clock.now(), lease_until=None)
    return discovery.run(listing.id)


# --- listing


@pytest.mark.each_database
def test_a_store_is_listed_page_by_page(house: House, vendor: Vendor) -> None:
    every = many(vendor, 35)
    seen: list[tuple[int, int | None]] = []
    listing = administration.discover_keys(house.olga, "cloud")
    assert (listing.state, listing.requested_by.name) == ("running", "Olga")
    listing = discovery.run(listing.id, lambda row: seen.append((row.found, row.total)))
    assert (listing.state, listing.found, listing.pages) == ("done", 35, 4)
    assert seen == [(10, 35), (20, 35), (30, 35), (35, 35)]
    assert names(listing) == every
    entry = house.last_entry()
    assert (entry["action"], entry["outcome"]) == ("discover_keys", "started")
    assert entry["facts"]["listing"] == str(listing.id)


def test_who_asks_while_a_listing_runs_gets_that_one(house: House, vendor: Vendor) -> None:
    first = administration.discover_keys(house.olga, "cloud")
    assert administration.discover_keys(house.ada, "cloud").id == first.id
    discovery.run(first.id)
    assert administration.discover_keys(house.ada, "cloud").id != first.id


def test_the_sweep_hands_out_listings_that_nobody_holds(house: House, vendor: Vendor) -> None:
    listing = administration.discover_keys(house.olga, "cloud")
    assert sweep.due().listings == [listing.id]
    tasks.list_keys([str(listing.id), "nonsense"])
    listing.refresh_from_db()
    assert listing.state == "done"
    assert sweep.due().listings == []


def test_a_store_that_asks_for_fewer_calls_is_left_alone_and_the_listing_goes_on(
    house: House, vendor: Vendor
) -> None:
    every = many(vendor, 25)
    listing = administration.discover_keys(house.olga, "cloud")

    def throttle(row: Listing) -> None:
        if row.pages == 1:
            vendor.in_trouble("throttled", times=1)

    before = clock.now()
    listing = discovery.run(listing.id, throttle)
    assert (listing.state, listing.found, listing.error) == ("running", 10, "Too many calls.")
    assert listing.run_after >= before + timedelta(seconds=30)
    assert discovery.due() == []
    listing = run_again(listing)
    assert (listing.state, listing.found, listing.error) == ("done", 25, "")
    assert names(listing) == every


def test_a_store_that_is_away_is_tried_again_and_given_up_on_at_last(
    house: House, vendor: Vendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing = administration.discover_keys(house.olga, "cloud")
    vendor.in_trouble("away")
    assert discovery.run(listing.id).state == "running"
    monkeypatch.setattr(discovery, "MOST_ATTEMPTS", 2)
    listing = run_again(listing)
    assert (listing.state, listing.error) == ("failed", "The cable is out.")


def test_a_store_that_answers_nonsense_ends_the_listing(house: House, vendor: Vendor) -> None:
    listing = administration.discover_keys(house.olga, "cloud")
    vendor.in_trouble("nonsense")
    listing = discovery.run(listing.id)
    assert (listing.state, listing.error) == ("failed", "The answer makes no sense.")
    vendor.well_again()
    RemoteBackend.stops["before discover"] = lambda: 1 // 0  # type: ignore[assignment]
    listing = discovery.run(administration.discover_keys(house.olga, "cloud").id)
    assert (listing.state, listing.error) == (
        "failed",
        "Unexpected: ZeroDivisionError; see the log.",
    )


def test_a_store_without_keys_of_others_has_nothing_to_list(house: House, vendor: Vendor) -> None:
    with pytest.raises(Unsupported):
        administration.discover_keys(house.olga, "software")
    administration.update_key_store(house.ada, "cloud", enabled=False)
    with pytest.raises(StateForbids, match="switched off"):
        administration.discover_keys(house.olga, "cloud")
    with pytest.raises(Denied):
        administration.discover_keys(house.billing, "cloud")


@pytest.mark.exhaustive
def test_old_listings_are_let_go(
    house: House, vendor: Vendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discovery, "KEPT", 2)
    vendor.create("one")
    for _ in range(discovery.KEPT + 2):
        listing = discovery.run(administration.discover_keys(house.olga, "cloud").id)
    assert Listing.objects.count() == discovery.KEPT
    assert FoundKey.objects.count() == discovery.KEPT
    assert queries_stores.list_listings(house.udo, "cloud")[0] == listing


@pytest.mark.each_database
def test_of_two_workers_one_walks_and_who_was_too_slow_changes_nothing(
    house: House, vendor: Vendor
) -> None:
    every = many(vendor, 35)
    listing = administration.discover_keys(house.olga, "cloud")

    def lose_the_lease() -> None:
        RemoteBackend.stops.clear()
        assert discovery.run(listing.id).state == "running", "somebody holds it"
        assert run_again(listing).state == "done"

    RemoteBackend.stops["after discover"] = lose_the_lease
    done = discovery.run(listing.id)
    assert (done.state, done.found, done.pages) == ("done", 35, 4)
    assert names(done) == every


def test_a_key_that_moves_while_it_is_listed_is_found_once(house: House, vendor: Vendor) -> None:
    many(vendor, 15)

    def rename(row: Listing) -> None:
        with vendor.file.changed() as content:
            content["keys"]["key-999"] = content["keys"].pop("key-014")

    listing = administration.discover_keys(house.olga, "cloud")
    FoundKey.objects.create(listing=listing, reference="key-999", name="key-999", view={})
    listing = discovery.run(listing.id, rename)
    assert listing.state == "done"
    assert names(listing)[-2:] == ["key-013", "key-999"]


@pytest.mark.exhaustive
@pytest.mark.each_database
@pytest.mark.parametrize("point", ["third page", "after discover"])
def test_a_listing_that_is_killed_anywhere_goes_on_on_each_database(
    house: House, vendor: Vendor, tmp_path: Path, point: str
) -> None:
    _goes_on(house, vendor, tmp_path, point)


def test_a_listing_that_is_killed_goes_on_from_its_last_page(
    house: House, vendor: Vendor, tmp_path: Path
) -> None:
    _goes_on(house, vendor, tmp_path, "third page")


WALK = """
from keys import discovery
pages = []
def told(row):
    pages.append(row)
    if point == "third page" and len(pages) == 3:
        die()
discovery.run(about, told)
"""


def _goes_on(house: House, vendor: Vendor, tmp_path: Path, point: str) -> None:
    every = many(vendor, 35)
    listing = administration.discover_keys(house.olga, "cloud")
    remote.killed(house, tmp_path, WALK, str(listing.id), point)
    listing.refresh_from_db()
    assert (listing.state, listing.found) == ("running", 30 if point == "third page" else 0)
    assert discovery.due() == [], "the lease still holds"
    Listing.objects.update(lease_until=clock.now() - timedelta(seconds=1))
    assert discovery.due() == [listing.id]
    before = vendor.calls
    listing = discovery.run(listing.id)
    assert (listing.state, listing.found) == ("done", 35)
    assert vendor.calls - before == (1 if point == "third page" else 4)
    assert names(listing) == every


# --- what was found


def test_what_was_found_is_shown_with_what_is_ours(house: House, vendor: Vendor) -> None:
    ours = house.key("cloud", name="Payroll")
    vendor.create("theirs")
    vendor.create("odd", problem="The console knows no such type.")
    listing = discovery.run(administration.discover_keys(house.olga, "cloud").id)

    def shown(**wanted: Any) -> list[tuple[str, Key | None]]:
        page = queries_stores.found_keys(house.udo, listing, **wanted)
        return [(found.name, key) for found, key in page.rows]

    assert shown() == [(vendor.of(ours), ours), ("odd", None), ("theirs", None)]
    assert shown(only="ours") == [(vendor.of(ours), ours)]
    assert shown(only="new") == [("theirs", None)]
    assert shown(only="problem") == [("odd", None)]
    assert shown(text="THEI") == [("theirs", None)]
    first = queries_stores.found_keys(house.udo, str(listing.id), limit=2)
    rest = queries_stores.found_keys(house.udo, listing, limit=2, cursor=first.next)
    assert ([found.name for found, _ in rest.rows], rest.next) == (["theirs"], "")
    for bad in ({"only": "all"}, {"cursor": "x"}, {"cursor": "9" * 18}):
        with pytest.raises(Invalid):
            shown(**bad)
    with pytest.raises(Denied):
        queries_stores.found_keys(house.billing, listing)
    with pytest.raises(NotFound):
        queries_stores.find_listing(house.udo, "nonsense")


# --- adopting


def adopt(house: House, reference: str, classification: str = "cloud", **more: Any) -> Key:
    return administration.adopt_key(
        house.olga, classification, key_store="cloud", reference=reference, **more
    )


def test_a_key_is_adopted_as_it_is_and_used(house: House, vendor: Vendor) -> None:
    vendor.create("billing-2019", versions=2, tags={"team": "billing"}, rotation_days=365)
    before = vendor.keys
    key = adopt(house, "billing-2019", name="Billing", description="From before.")
    assert vendor.keys == before, "nothing is changed at the store"
    assert not Job.objects.filter(key=key).exists()
    assert (key.adopted, key.alias, key.model, key.state) == (
        True,
        "billing",
        "customer-managed",
        "enabled",
    )
    assert (key.spec, key.usage, key.algorithm) == ("AES_256", "ENCRYPT_DECRYPT", "AES_256_GCM")
    rows = [(v.number, v.handle, v.state, v.primary) for v in key.versions.order_by("number")]
    assert rows == [
        (1, "billing-2019/1", "deactivated", False),
        (2, "billing-2019/2", "active", True),
    ]
    view = StoreView.objects.get(key=key)
    assert (view.tags, view.rotation_days) == ({"team": "billing"}, 365)
    entry = house.last_entry()
    assert (entry["action"], entry["facts"]["reference"]) == ("adopt_key", "billing-2019")
    administration.check_drift(house.olga, "billing")
    assert not Drift.objects.exists()
    house.grant("billing", key, "encrypt", "decrypt")
    sealed = operations.encrypt(house.billing, "billing", b"x")
    assert (
        operations.decrypt(house.billing, "billing", sealed.ciphertext).plaintext.reveal() == b"x"
    )


@pytest.mark.exhaustive
def test_an_adopted_key_lives_on_like_any_other(house: House, vendor: Vendor) -> None:
    vendor.create("old", "ECC_NIST_P256", tags={"team": "billing"})
    key = adopt(house, "old")
    administration.rotate_key(house.olga, "old")
    rows = vendor.keys["old"]["versions"]
    assert [(row["state"], row["primary"]) for row in rows] == [
        ("deactivated", False),
        ("active", True),
    ]
    assert vendor.keys["old"]["tags"] == {"team": "billing"}
    administration.schedule_destruction(house.olga, "old")
    assert vendor.keys["old"]["state"] == "pending_destruction"
    house.let_days_pass(31)
    vendor.let_days_pass(31)
    house.run_due_jobs()
    key.refresh_from_db()
    assert key.state == "destroyed"
    assert "old" not in vendor.keys


def test_an_old_key_is_not_rotated_at_once_and_can_still_be_used(
    house: House, vendor: Vendor
) -> None:
    vendor.create("old")
    vendor.set_version("old", 1, created_at=(datetime.now(UTC) - timedelta(days=3000)).isoformat())
    key = adopt(house, "old")
    assert key.rotate_at is not None
    assert timedelta(days=6.9) < key.rotate_at - clock.now() <= timedelta(days=7)
    version = key.versions.get()
    assert version.protect_until is not None
    assert version.protect_until > clock.now() + timedelta(days=29)
    house.grant("billing", key, "encrypt")
    assert operations.encrypt(house.billing, "old", b"x").version == 1
    assert sweep.rotations_due(10) == []
    fresh = vendor.create("fresh")
    assert (adopt(house, fresh).rotate_at or clock.now()) > clock.now() + timedelta(days=300)


@pytest.mark.exhaustive
def test_a_key_is_adopted_once(house: House, vendor: Vendor) -> None:
    vendor.create("theirs")
    ours = house.key("cloud", name="Payroll")
    adopt(house, "theirs", alias="first")
    for reference in ("theirs", vendor.of(ours)):
        with pytest.raises(AlreadyExists, match="has this key already"):
            adopt(house, reference, alias="second")


@pytest.mark.each_database
def test_of_two_who_adopt_a_key_at_once_one_does(house: House, vendor: Vendor) -> None:
    vendor.create("theirs")
    gate, refused = threading.Barrier(2), []

    def work(alias: str) -> None:
        try:
            gate.wait()
            adopt(house, "theirs", alias=alias)
        except Conflict as error:
            refused.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=work, args=[alias]) for alias in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Key.objects.filter(adopted=True).count() == 1
    assert len(refused) == 1


@pytest.mark.parametrize(
    ("change", "error", "why"),
    [
        ({"problem": "It is of an unknown type."}, Unsupported, "It is of an unknown type"),
        ({"state": "pending_destruction"}, StateForbids, "waiting for destruction"),
        ({"versions": []}, Unsupported, "no version with material"),
        ({"usage": "SIGN_VERIFY"}, Unsupported, "SIGN_VERIFY"),
        ({"algorithm": "AES_KWP"}, Invalid, "algorithm"),
        ({"spec": "RSA_2048", "usage": "SIGN_VERIFY"}, Invalid, "allows these specs"),
    ],
)
def test_what_can_not_be_adopted_is_refused_with_the_reason(
    house: House, vendor: Vendor, change: dict[str, Any], error: type[Exception], why: str
) -> None:
    vendor.create("theirs")
    with vendor.editing("theirs") as key:
        key |= change
    with pytest.raises(error, match=why):
        adopt(house, "theirs")
    assert not Key.objects.filter(adopted=True).exists()
    assert house.last_entry()["outcome"] in ("failed", "denied")


def test_a_key_is_adopted_where_the_classification_and_the_store_allow_it(
    house: House, vendor: Vendor
) -> None:
    vendor.create("theirs")
    with pytest.raises(NotFound):
        adopt(house, "nobodys")
    with pytest.raises(Invalid, match="allows these key stores"):
        adopt(house, "theirs", "internal")
    with pytest.raises(Unsupported, match="nothing to list or adopt"):
        administration.adopt_key(house.olga, "internal", key_store="software", reference="x")
    with pytest.raises(AlreadyExists, match="invoices"):
        adopt(house, "theirs", alias="invoices")
    for nobody in (house.ada, house.udo, house.billing):
        with pytest.raises(Denied):
            administration.adopt_key(nobody, "cloud", key_store="cloud", reference="theirs")
    vendor.in_trouble("away")
    with pytest.raises(BackendUnavailable):
        adopt(house, "theirs")


def test_a_key_that_its_provider_manages_is_used_and_disabled_here_and_never_changed(
    house: House, vendor: Vendor
) -> None:
    vendor.create("aws/s3", provider_managed=True)
    key = adopt(house, "aws/s3", alias="s3")
    assert (key.model, key.rotate_at) == ("provider-managed", None)
    for change in (administration.rotate_key, administration.schedule_destruction):
        with pytest.raises(StateForbids, match="managed by its provider"):
            change(house.olga, "s3")
    administration.disable_key(house.olga, "s3")
    assert vendor.keys["aws/s3"]["state"] == "enabled"
    administration.check_drift(house.olga, "s3")
    assert not Drift.objects.exists(), "disabled here alone is what was wanted"
    vendor.rotate("aws/s3")
    administration.check_drift(house.olga, "s3")
    fields = {row.field for row in Drift.objects.filter(state="open")}
    assert "version_unknown" in fields
    for row in Drift.objects.filter(state="open"):
        assert administration.ways(row)["revert"]


def test_a_disabled_key_and_one_with_a_version_about_to_go_are_adopted_so(
    house: House, vendor: Vendor
) -> None:
    vendor.create("off", versions=3)
    at = datetime.now(UTC) + timedelta(days=3)
    vendor.disable("off")
    vendor.set_version("off", 1, state="destroyed")
    vendor.set_version("off", 2, destroy_at=at.isoformat())
    key = adopt(house, "off")
    assert key.state == "disabled"
    rows = [(v.number, v.handle, v.condition) for v in key.versions.order_by("number")]
    assert rows == [(1, "off/2", "pending_destruction"), (2, "off/3", "")]
    administration.check_drift(house.olga, "off")
    assert not Drift.objects.exists()
    house.let_days_pass(4)
    vendor.let_days_pass(4)
    assert [job.state for job in house.run_due_jobs()] == ["succeeded"]
    assert key.versions.get(number=1).state == "destroyed"


def test_an_imported_key_is_adopted_and_comes_back_from_a_cancelled_destruction(
    house: House, vendor: Vendor
) -> None:
    vendor.create("brought", imported=True)
    key = adopt(house, "brought")
    assert (key.origin, key.model) == ("imported", "customer-provided")
    administration.schedule_destruction(house.olga, "brought")
    assert administration.cancel_destruction(house.olga, "brought").state == "disabled"
    assert vendor.keys["brought"]["state"] == "disabled"


def test_a_name_that_is_no_name_here_is_to_be_given_one(house: House, vendor: Vendor) -> None:
    vendor.create("ключ")
    with pytest.raises(Invalid, match="alias"):
        adopt(house, "ключ")
    assert adopt(house, "ключ", alias="klyuch").name == "ключ"


@pytest.mark.exhaustive
@pytest.mark.each_database
def test_the_worker_lists_and_compares_by_itself(
    house: House, vendor: Vendor, broker: Any, tmp_path: Path
) -> None:
    """As messages: what is asked for in one process is done in another."""
    key = house.key("cloud", name="Payroll")
    vendor.disable(vendor.of(key))
    listing = administration.discover_keys(house.olga, "cloud")
    StoreView.objects.update(look_at=F("look_at") - timedelta(days=1))
    connections.close_all()
    code = (
        "import django; django.setup()\n"
        "from tests.keys import remote; remote.register()\n"
        "from kms_console.celery import app\n"
        "app.worker_main(['worker', '--pool=solo', '--loglevel=warning'])"
    )
    worker = Process([sys.executable, "-c", code], house.environment, tmp_path / "worker")
    try:
        tasks.sweep_all()
        eventually(lambda: Listing.objects.get(pk=listing.pk).state == "done")
        eventually(lambda: Drift.objects.filter(key=key, state="open").exists())
    finally:
        worker.stop()


def test_a_store_with_keys_does_not_lead_elsewhere(house: House, vendor: Vendor) -> None:
    """Else a due destruction would find nothing there, and call the key destroyed."""
    store = KeyStore.objects.get(name="cloud")
    elsewhere = store.settings | {"file": store.settings["file"] + ".elsewhere"}
    house.key("cloud", name="Payroll")
    with pytest.raises(Conflict, match="add another key store"):
        administration.update_key_store(house.ada, "cloud", settings=elsewhere)
    assert administration.update_key_store(house.ada, "cloud", settings=dict(store.settings))
