"""How much an application may do: so many uses a second and a day, through every door, and no more."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import IntegrityError, connection, connections, transaction
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

from audit import refusals, writer
from keys import administration, clock, limits, operations, queries, snapshot
from keys.errors import Conflict, Denied, Invalid, QuotaUsedUp, RateLimited
from keys.gate.batches import Item
from keys.models import Limit, Principal, QuotaCount
from keys.policy import LimitFacts, Standing
from tests.api.clients import Answer, Loop, Views, application, opened, person
from tests.console.conftest import signed_in_client
from tests.house import House
from tests.processes import eventually, script

AT_NOON = 12 * 3600


class Hands:
    """The clocks of a test: they stand still until it turns them."""

    def __init__(self) -> None:
        self._now = clock.now().replace(hour=0, minute=0, second=0, microsecond=0)
        self.seconds = float(AT_NOON)

    def now(self) -> Any:
        return self._now + timedelta(seconds=self.seconds)

    def pass_(self, seconds: float = 0.0, days: int = 0) -> None:
        self.seconds += seconds + 86400 * days


@pytest.fixture(autouse=True)
def hands(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hands]:
    """Turn the clocks by hand, and begin and end with nothing held."""
    made = Hands()
    monkeypatch.setattr(limits, "monotonic", lambda: made.seconds)
    monkeypatch.setattr(clock, "now", made.now)
    monkeypatch.setattr(clock, "database_now", made.now)
    limits.forget()
    refusals.forget()
    yield made
    limits.forget()
    refusals.forget()


def limited(house: House, **wanted: int) -> None:
    administration.set_limits(house.ada, "billing", **wanted)


def encrypt(house: House, times: int = 1) -> None:
    for _ in range(times):
        operations.encrypt(house.billing, "invoices", b"x")


def ask(house: House, path: str, body: Any, *, loop: bool = True) -> Answer:
    """Ask as billing does, of the event loop or of Django's views."""
    with asyncio.Runner() as runner, opened(Loop(runner) if loop else Views()):
        return application(house, "billing").post(path, body)


def leased(house: House) -> int:
    return sum(QuotaCount.objects.values_list("leased", flat=True))


# --- so many a second


def test_who_uses_keys_too_fast_is_told_to_wait_at_both_doors(house: House, hands: Hands) -> None:
    limited(house, rate=4, burst=2)
    body = {"plaintext": "QQ=="}

    def doors() -> list[Answer]:
        return [ask(house, "keys/invoices/encrypt", body, loop=loop) for loop in (True, False)]

    assert [answer.status for answer in doors()] == [200, 200]
    refused = doors()
    for answer in refused:
        told = answer.problem(429, "rate_limited")
        assert answer.headers["retry-after"] == "1"
        assert "4 times a second" in told["detail"]
    hands.pass_(0.5)
    assert [answer.status for answer in doors()] == [200, 200]
    hands.pass_(1000)
    encrypt(house, 2)
    with pytest.raises(RateLimited, match="a little later") as late:
        encrypt(house)
    assert late.value.retry_after == pytest.approx(0.25)


def test_a_batch_counts_its_items_and_one_that_is_too_large_leaves_a_debt(
    house: House, hands: Hands
) -> None:
    limited(house, rate=10)
    items = [Item((b"x",), {})] * 8
    assert len(operations.encrypt.batch(house.billing, "invoices", items).items) == 8
    with pytest.raises(RateLimited):
        operations.encrypt.batch(house.billing, "invoices", items)
    encrypt(house, 2)
    hands.pass_(1)
    operations.encrypt.batch(house.billing, "invoices", items * 5)
    with pytest.raises(RateLimited) as late:
        encrypt(house)
    assert late.value.retry_after == pytest.approx(3.1)
    hands.pass_(3.1)
    encrypt(house)
    many = {"items": [{"plaintext": "QQ=="}] * 11}
    path = "keys/invoices/encrypt/batch"
    ask(house, path, many).problem(429, "rate_limited")
    hands.pass_(1)
    assert ask(house, path, many).status == 200


def test_random_bytes_count_and_what_is_not_allowed_anyway_does_not(house: House) -> None:
    limited(house, rate=1)
    for _ in range(3):
        with pytest.raises(Denied):
            operations.sign(house.billing, "invoices", b"x")
    operations.random(house.billing, "", count=16)
    with pytest.raises(RateLimited):
        encrypt(house)


def test_however_it_is_asked_no_bucket_gives_more_than_it_holds_and_gets(hands: Hands) -> None:
    dice = random.Random(6)
    for case in range(30):
        limits.forget()
        rate, burst = dice.randint(1, 50), dice.choice([None, dice.randint(1, 80)])
        standing = made_up(LimitFacts(rate, burst, None))
        began, taken, largest = hands.seconds, 0, 0
        for _ in range(200):
            hands.pass_(dice.choice([0, 0, 0.001, 0.1, 1, 7]))
            count = dice.choice([1, 1, 1, 5, 40])
            try:
                limits._take(account_of(standing), standing.principal_id, *asked(standing, count))
            except RateLimited as late:
                assert late.retry_after > 0
                continue
            taken, largest = taken + count, max(largest, count)
        capacity = max(burst or rate, 1)
        assert taken <= capacity + rate * (hands.seconds - began) + largest, case


def made_up(facts: LimitFacts) -> Standing:
    from keys.callers import Kind, Role
    from keys.services import OPERATOR_ID

    return Standing(OPERATOR_ID, Kind.APPLICATION, "x", Role.NONE, True, None, (), facts)


def account_of(standing: Standing) -> Any:
    return limits._accounts.setdefault(standing.principal_id, limits._Account())


def asked(standing: Standing, count: int) -> Any:
    return standing.limits, count, limits.Paid(), True


def test_each_process_has_its_share_and_together_they_have_the_whole(house: House) -> None:
    limited(house, rate=100, burst=12)
    served = 0
    with override_settings(WEB_PROCESSES=2, WEB_HOSTS=3):
        for _ in range(6):
            limits.forget()  # what one process holds, the next one does not know of
            with pytest.raises(RateLimited):
                for _ in range(100):
                    encrypt(house)
                    served += 1
    assert served == 12


def test_the_houses_own_limit_holds_for_applications_that_have_none(
    house: House, hands: Hands
) -> None:
    with override_settings(RATE_LIMIT=2):
        snapshot.cache.forget()
        encrypt(house, 2)
        with pytest.raises(RateLimited, match="2 times a second"):
            encrypt(house)
        for _ in range(5):
            operations.random(house.olga, "", count=8)  # people are not limited
        limited(house, rate=50)
        hands.pass_(1)
        encrypt(house)
        hands.pass_(1)
        encrypt(house, 40)
        limited(house, quota=10)
        hands.pass_(1)
        encrypt(house, 2)
        with pytest.raises(RateLimited, match="2 times a second"):
            encrypt(house)
    snapshot.cache.forget()


# --- so many a day


@pytest.mark.each_database
def test_a_quota_ends_at_midnight_and_begins_anew(house: House, hands: Hands) -> None:
    limited(house, quota=5)
    encrypt(house, 5)
    for _ in range(2):
        with pytest.raises(QuotaUsedUp, match="5 times a day") as used_up:
            encrypt(house)
        assert used_up.value.retry_after == pytest.approx(AT_NOON)
    hands.pass_(AT_NOON - 1)
    with pytest.raises(QuotaUsedUp):
        encrypt(house)
    hands.pass_(1)
    encrypt(house, 5)
    with pytest.raises(QuotaUsedUp):
        encrypt(house)
    row = QuotaCount.objects.get()
    assert (row.leased, row.day) == (5, hands.now().date())
    hands.pass_(days=3)
    encrypt(house)
    assert limits.handed_out(house.billing.principal_id) == 1


def test_of_a_quota_a_batch_takes_its_items_or_nothing(house: House) -> None:
    limited(house, quota=10)
    items = [Item((b"x",), {})]
    operations.encrypt.batch(house.billing, "invoices", items * 7)
    for _ in range(2):
        with pytest.raises(QuotaUsedUp, match="only 3 are left here, not 4"):
            operations.encrypt.batch(house.billing, "invoices", items * 4)
    operations.encrypt.batch(house.billing, "invoices", items * 3)
    answer = ask(house, "random", {"count": 8})
    answer.problem(429, "quota_used_up")
    assert answer.headers["retry-after"] == str(AT_NOON)


def test_a_block_is_counted_before_its_first_use_and_a_small_quota_has_small_ones(
    house: House,
) -> None:
    limited(house, quota=640)
    for n in range(1, 22):
        encrypt(house)
        assert leased(house) == -(-n // 10) * 10
    with CaptureQueriesContext(connection) as seen:
        standing, _ = snapshot.load_standing(house.billing.principal_id, None)
        assert standing is not None
        before = len(seen)
        limits.take(standing, 1, limits.Paid(), wait=False)
        assert len(seen) == before


def test_a_quota_that_is_lowered_counts_what_was_used_and_not_what_was_only_handed_out(
    house: House,
) -> None:
    limited(house, quota=64_000)
    encrypt(house, 3)
    assert leased(house) == 1000
    limited(house, quota=5)
    encrypt(house, 2)
    with pytest.raises(QuotaUsedUp):
        encrypt(house)
    assert leased(house) == 5
    limited(house, quota=6)
    encrypt(house)
    with pytest.raises(QuotaUsedUp):
        encrypt(house)


def test_taking_the_limit_off_and_setting_it_again_gives_no_second_quota(house: House) -> None:
    limited(house, quota=2)
    encrypt(house, 2)
    limited(house)
    encrypt(house, 4)
    limited(house, quota=2)
    with pytest.raises(QuotaUsedUp):
        encrypt(house)


@pytest.mark.each_database
def test_many_threads_take_what_there_is_and_not_one_use_more(house: House) -> None:
    limited(house, quota=200)
    standing, _ = snapshot.load_standing(house.billing.principal_id, None)
    assert standing is not None
    taken: list[int] = []

    def take(number: int) -> None:
        for _ in range(50):
            try:
                limits.take(standing, 1, limits.Paid())
            except QuotaUsedUp:
                break
            taken.append(number)
        connections.close_all()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(take, range(8)))
    assert len(taken) == 200
    assert leased(house) == 200


def test_an_event_loop_never_leases_by_itself(house: House) -> None:
    limited(house, quota=6_400)
    encrypt(house)
    limits.forget()
    leasing: set[str] = set()
    lease = limits._lease

    def seen(*arguments: Any) -> Any:
        leasing.add(threading.current_thread().name)
        return lease(*arguments)

    who = house.billing

    async def many() -> None:
        jobs = [operations.encrypt.aio(who, "invoices", b"x") for _ in range(20)]
        await asyncio.gather(*jobs)

    before = leased(house)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(limits, "_lease", seen)
        asyncio.run(many())
    assert leased(house) == before + 100, "one block for all"
    assert leasing and threading.main_thread().name not in leasing


def test_no_lease_is_taken_in_a_transaction_that_could_take_it_back(house: House) -> None:
    limited(house, quota=10)
    standing, _ = snapshot.load_standing(house.billing.principal_id, None)
    assert standing is not None
    with pytest.raises(RuntimeError), transaction.atomic():
        limits.take(standing, 1, limits.Paid())
    assert leased(house) == 0


TAKER = """
import os, sys
from uuid import UUID
from keys import limits, snapshot
standing, _ = snapshot.load_standing(UUID(sys.argv[1]), None)
while True:
    limits.take(standing, 1, limits.Paid())
    os.write(1, b"+")
"""


@pytest.mark.each_database(fast="postgresql")
def test_processes_that_are_killed_never_make_more_of_a_quota(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # the other process's clock is a real one
    quota, done = 3_200, 0
    limited(house, quota=quota)
    standing, _ = snapshot.load_standing(house.billing.principal_id, None)
    assert standing is not None
    killed = script(house, TAKER, tmp_path / "killed", str(standing.principal_id))
    try:
        eventually(lambda: killed.text.count("+") > 120)
    finally:
        killed.kill()
    with pytest.raises(QuotaUsedUp):
        for _ in range(10 * quota):
            limits.take(standing, 1, limits.Paid())
            done += 1
    done += killed.text.count("+")
    # The one that was killed lost a block at most. A day may have turned meanwhile.
    turned = QuotaCount.objects.filter(leased__lt=quota).exists()
    assert turned or quota - quota // limits.LEAST_BLOCKS <= done <= quota


# --- changing limits


def test_new_limits_are_in_force_from_the_next_use_and_so_is_lifting_them(
    house: House, hands: Hands
) -> None:
    encrypt(house, 20)
    limited(house, rate=1)
    encrypt(house)
    with pytest.raises(RateLimited):
        encrypt(house)
    limited(house, rate=1, quota=3)
    hands.pass_(1)
    encrypt(house)
    limited(house)
    assert not Limit.objects.exists()
    encrypt(house, 5)
    assert ask(house, "keys/invoices/encrypt", {"plaintext": "QQ=="}).status == 200


def test_a_limit_that_another_process_raised_is_seen_within_a_second(
    house: House, hands: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited(house, quota=1)
    encrypt(house)
    for _ in range(3):
        with pytest.raises(QuotaUsedUp):
            encrypt(house)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr("keys.administration.limits.look_again", lambda _: None)
        limited(house, quota=2)
    hands.pass_(limits.LOOK_SECONDS)
    encrypt(house)
    with pytest.raises(QuotaUsedUp):
        encrypt(house)


def test_limits_that_were_lowered_hold_for_the_very_use_that_finds_them_out(house: House) -> None:
    limited(house, quota=100)
    encrypt(house, 2)
    limited(house, quota=2)
    with pytest.raises(QuotaUsedUp):
        encrypt(house)


def test_a_use_that_is_decided_again_is_counted_once(house: House) -> None:
    limited(house, rate=5, quota=5)
    encrypt(house)
    for version in range(2, 4):
        administration.rotate_key(house.olga, "invoices")
        assert operations.encrypt(house.billing, "invoices", b"x").version == version
    encrypt(house, 2)
    assert leased(house) == 5
    with pytest.raises(RateLimited):
        encrypt(house)


def test_who_may_set_limits_and_for_whom(house: House) -> None:
    for who in (house.ada, house.olga):
        row = administration.set_limits(who, "billing", rate=9, burst=99, reason="a flood")
        assert (row.limit.rate, row.limit.burst, row.limit.quota) == (9, 99, None)
        entry = house.last_entry(action="set_limits")
        assert entry["facts"]["asked"] == {"rate": 9, "burst": 99}
        assert entry["facts"]["reason"] == "a flood"
        assert entry["object"]["name"] == "billing"
    administration.set_limits(house.ada, "billing")
    assert house.last_entry(action="set_limits")["facts"]["limits"] == "none"
    for who in (house.udo, house.billing):
        with pytest.raises(Denied):
            administration.set_limits(who, "billing", rate=9)
    with pytest.raises(Conflict):
        administration.set_limits(house.ada, "Udo", rate=9)
    administration.deactivate_principal(house.ada, "billing")
    with pytest.raises(Conflict):
        administration.set_limits(house.ada, "billing", rate=9)


def test_odd_limits_are_refused_with_the_name_of_the_field(house: House) -> None:
    ada = person("ada")
    for value in (0, -1, 10**13, 2**52, True, "5", 1.5, [1], {}):
        for field in ("rate", "burst", "quota"):
            wanted = {"rate": 5, "quota": 5, field: value}
            with pytest.raises(Invalid) as wrong:
                administration.set_limits(house.ada, "billing", **wanted)
            assert wrong.value.extra.get("field") == field or value == 1.5
            answer = ada.call("PUT", "applications/billing/limits", wanted)
            assert answer.problem(400, "invalid")["field"] == field
    assert not Limit.objects.exists()


def test_the_database_holds_no_limit_that_limits_nothing(house: House) -> None:
    owner = Principal.objects.get(name="billing")
    for wrong in ({}, {"burst": 5}, {"burst": 5, "quota": 5}, {"rate": 0}, {"quota": 0}):
        with pytest.raises(IntegrityError), transaction.atomic():
            Limit.objects.create(principal=owner, **wrong)


# --- what is told


def test_a_flood_of_refusals_is_one_entry_a_minute_and_a_count_that_names_the_application(
    house: House,
) -> None:
    limited(house, rate=1)
    encrypt(house)
    size = writer.head().size
    for n in range(60):
        with pytest.raises(RateLimited):
            who = house.application("billing", source=f"10.0.0.{n}")
            operations.encrypt(who, "invoices", b"x")
    # A minute may have turned meanwhile; each has one entry of its own.
    told = [e for e in house.entries(action="encrypt") if e["index"] >= size]
    assert 1 <= len(told) <= 2
    assert {(e["outcome"], e["reason"]) for e in told} == {("denied", "rate_limited")}
    assert told[0]["object"]["name"] == "invoices"
    refusals.flush()
    counted = [e for e in house.entries(action="refused_request") if e["index"] >= size]
    assert 1 <= len(counted) <= 2
    assert sum(e["facts"]["count"] for e in counted) == 60 - len(told)
    for entry in counted:
        assert entry["actor"]["name"] == "billing"
        assert entry["actor"]["id"] == str(house.billing.principal_id)
        assert (entry["method"], entry["reason"]) == ("bearer", "rate_limited")


def test_both_reasons_have_an_entry_of_their_own(house: House, hands: Hands) -> None:
    limited(house, rate=1, quota=2)
    encrypt(house)
    with pytest.raises(RateLimited):
        encrypt(house)
    hands.pass_(1)
    encrypt(house)
    hands.pass_(1)
    with pytest.raises(QuotaUsedUp):
        encrypt(house)
    reasons = [e["reason"] for e in house.entries(action="encrypt", outcome="denied")]
    assert reasons == ["rate_limited", "quota_used_up"]


def test_the_api_shows_the_limits_and_sets_all_of_them_anew(house: House) -> None:
    ada, path = person("ada"), "applications/billing/limits"
    nothing = {"rate": None, "burst": None, "quota": None, "house_rate": None, "handed_out": 0}
    named = {"application": {"id": str(house.billing.principal_id), "name": "billing"}}
    assert ada.get(path).json == named | nothing
    wanted = {"rate": 10, "burst": 20, "quota": 64}
    assert ada.call("PUT", path, wanted).json == named | nothing | wanted
    encrypt(house, 3)
    assert ada.get(path).json == named | nothing | wanted | {"handed_out": 3}
    answer = ada.call("PUT", path, {"rate": 10, "quota": None})
    assert answer.json == named | nothing | {"rate": 10, "handed_out": 3}
    for incomplete in ({}, {"rate": 5}, {"quota": 5}, {"rate": 5, "quota": 5, "more": 1}):
        ada.call("PUT", path, incomplete).problem(400, "invalid")
    ada.call("PUT", path, {"rate": None, "quota": None, "burst": 5}).problem(400, "invalid")
    assert ada.get(path).json["rate"] == 10
    person("udo").call("PUT", path, wanted).problem(403, "denied")
    assert person("udo").get(path).json["rate"] == 10
    application(house, "billing").get(path).problem(403, "denied")
    ada.get("applications/Olga/limits").problem(404, "not_found")


def test_the_console_shows_the_limits_and_has_a_form_for_them(house: House) -> None:
    ada = signed_in_client("ada")
    page = f"/applications/{house.billing.principal_id}"
    assert "no limit" in ada.get(page).content.decode()
    sent = {"rate": "7", "burst": "9", "quota": "640", "reason": "a flood"}
    answer = ada.post(f"{page}/limits", sent, follow=True)
    assert answer.redirect_chain == [(page, 302)]
    encrypt(house)
    body = ada.get(page).content.decode()
    assert "7, 9 at once" in body and "640, of which 10 today" in body
    form = ada.get(f"{page}/limits").content.decode()
    assert all(f'value="{value}"' in form for value in ("7", "9", "640"))
    for wrong in ({"rate": "0"}, {"rate": "many"}, {"quota": "-5"}, {"burst": "5"}):
        refused = ada.post(f"{page}/limits", wrong)
        assert refused.status_code == 400
    assert Limit.objects.get().rate == 7
    assert ada.post(f"{page}/limits", {"reason": ""}).status_code == 302
    assert not Limit.objects.exists()
    assert "Set limits" not in signed_in_client("udo").get(page).content.decode()


def test_the_account_page_of_an_application_without_uses_is_read_without_leasing(
    house: House,
) -> None:
    limited(house, quota=10)
    queries.find_principal(house.ada, "billing")
    assert limits.handed_out(house.billing.principal_id) == 0
    assert leased(house) == 0
