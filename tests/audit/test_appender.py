"""Group commit: many uses, few commits, and no entry that rests on what changed meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connection, transaction

from audit import waiting
from audit.appender import Appender
from audit.errors import LogWriteFailed, QueueFull, Superseded
from audit.models import Entry
from audit.verifier import verify
from audit.writer import append, appender, close_appender, epoch, head, on_epoch, prune_changes
from tests.audit.helpers import use, write
from tests.databases import Database

pytestmark = pytest.mark.each_database
NOTHING: frozenset[str] = frozenset()
KEY_1, KEY_2 = frozenset({"key:1", "grant:1"}), frozenset({"key:2", "grant:2"})


@contextmanager
def own_appender(**options: Any) -> Iterator[Appender]:
    made = Appender(**options)
    try:
        yield made
    finally:
        made.close()


@contextmanager
def held_log() -> Iterator[None]:
    """Hold the log's lock, so that whatever is submitted meanwhile waits."""
    with transaction.atomic():
        append([use(action="hold")])
        yield


def test_uses_from_many_threads_become_a_dense_log(database: Database) -> None:
    def many(number: int) -> list[int]:
        futures = [
            appender().submit(use(request_id=f"{number}.{n}"), epoch=0, subjects=KEY_1)
            for n in range(25)
        ]
        return [future.result() for future in futures]

    with ThreadPoolExecutor(32) as pool:
        indices = [index for part in pool.map(many, range(32)) for index in part]
    assert sorted(indices) == list(range(800))
    assert len(set(Entry.objects.values_list("request_id", flat=True))) == 800
    assert verify().ok


def test_a_batch_larger_than_any_buffer_is_one_commit(database: Database) -> None:
    large = {"context": ["x" * 900] * 10}
    with own_appender() as mine, held_log():
        futures = [mine.submit(use(facts=large), epoch=0, subjects=NOTHING) for _ in range(1500)]
    assert [future.result() for future in futures] == list(range(1, 1501))
    assert verify().ok


def test_an_event_loop_does_not_wait_for_ever(database: Database) -> None:
    """Neither for the first nor for who came later, and what it gave up is not written after all."""

    async def main(mine: Appender) -> list[object]:
        waiting.running(limit=0.2)
        first = mine.submit_aio(use(), epoch=0, subjects=NOTHING)
        while mine._queue:  # the first is being written, the second stays behind it
            await asyncio.sleep(0.01)
        second = mine.submit_aio(use(), epoch=0, subjects=NOTHING)
        return await asyncio.gather(first, second, return_exceptions=True)

    with own_appender() as mine:
        with held_log():
            told = asyncio.run(main(mine))
        assert [str(one) for one in told] == [waiting.TOO_SLOW] * 2
        # Behind that of held_log() and the first one's.
        assert mine.submit(use(), epoch=0, subjects=NOTHING).result() == 2


def test_what_waits_for_one_commit_shares_the_next(database: Database) -> None:
    batches: list[int] = []

    class Counting(Appender):
        def _attempt(self, batch: Any, unsure: bool) -> Any:
            batches.append(len(batch))
            return super()._attempt(batch, unsure)

    mine = Counting()
    try:
        with held_log():
            futures = [mine.submit(use(), epoch=0, subjects=KEY_1) for _ in range(500)]
        assert sorted(future.result() for future in futures) == list(range(1, 501))
    finally:
        mine.close()
    # One batch had been taken when the lock was met, the other gathered behind it.
    assert sum(batches) == 500
    assert 1 <= len(batches) <= 2


def test_each_waiter_gets_the_index_of_its_own_entry(database: Database) -> None:
    events = [use() for _ in range(50)]
    futures = [appender().submit(event, epoch=0, subjects=KEY_1) for event in events]
    for event, future in zip(events, futures, strict=True):
        assert str(Entry.objects.get(index=future.result()).uuid) == event.uuid


def test_a_change_supersedes_only_those_that_rest_on_what_changed(database: Database) -> None:
    with transaction.atomic():
        append([use(action="revoke")], subjects=["grant:1"])
        # They wait for the log, which the change holds.
        revoked = [appender().submit(use(), epoch=0, subjects=KEY_1) for _ in range(20)]
        others = [appender().submit(use(), epoch=0, subjects=KEY_2) for _ in range(20)]
        nobody = appender().submit(use(), epoch=0, subjects=NOTHING)
    for future in revoked:
        with pytest.raises(Superseded) as caught:
            future.result()
        assert caught.value.epoch == 1
    assert sorted(future.result() for future in [*others, nobody]) == list(range(1, 22))
    assert head().size == 22
    assert verify().ok


def test_what_was_decided_again_is_appended(database: Database) -> None:
    write(use(), subjects=("grant:1",))
    with pytest.raises(Superseded) as caught:
        appender().submit(use(), epoch=0, subjects=KEY_1).result()
    again = appender().submit(use(), epoch=caught.value.epoch, subjects=KEY_1)
    assert again.result() == 1


def test_each_decision_is_compared_with_the_changes_after_its_own_epoch(
    database: Database,
) -> None:
    write(use(), subjects=("grant:1",))
    write(use(), subjects=("grant:2",))
    futures = {
        (epoch, name): appender().submit(use(), epoch=epoch, subjects=subjects)
        for epoch in (0, 1, 2)
        for name, subjects in (("one", KEY_1), ("two", KEY_2))
    }
    refused = {place for place, future in futures.items() if future.exception()}
    assert refused == {(0, "one"), (0, "two"), (1, "two")}


def test_where_changes_were_pruned_everything_older_is_decided_again(database: Database) -> None:
    for name in ("grant:8", "grant:9", "grant:10"):
        write(use(), subjects=(name,))
    prune_changes(keep=1)
    old = appender().submit(use(), epoch=1, subjects=KEY_1)
    fresh = appender().submit(use(), epoch=2, subjects=KEY_1)
    nobody = appender().submit(use(), epoch=0, subjects=NOTHING)
    assert isinstance(old.exception(), Superseded)
    assert sorted([fresh.result(), nobody.result()]) == [3, 4]


def test_a_decision_from_an_epoch_that_never_was_is_made_again(database: Database) -> None:
    # As after an older database was put back under a running process.
    future = appender().submit(use(), epoch=5, subjects=KEY_1)
    assert isinstance(future.exception(), Superseded)


def test_subscribers_hear_of_an_epoch_before_any_waiter(database: Database) -> None:
    heard: list[Any] = []
    with own_appender() as mine:
        mine.on_epoch(lambda *news: heard.append(news))
        mine.submit(use(), epoch=0, subjects=KEY_1).result()
        assert heard == []
        write(use(), subjects=("grant:1", "key:9"))
        write(use(), subjects=("key:2",))
        for subjects in (KEY_1, frozenset({"key:3"})):
            future = mine.submit(use(), epoch=0, subjects=subjects)
            future.add_done_callback(lambda _: heard.append("released"))
            future.exception()
    assert heard == [(2, frozenset({"grant:1", "key:9", "key:2"})), "released", "released"]


def test_a_subscriber_hears_nothing_definite_where_changes_were_pruned(database: Database) -> None:
    heard: list[Any] = []
    with own_appender() as mine:
        mine.on_epoch(lambda *news: heard.append(news))
        mine.submit(use(), epoch=0, subjects=KEY_1).result()
        write(use(), subjects=("key:9",))
        prune_changes(keep=0)
        mine.submit(use(), epoch=1, subjects=KEY_1).result()
    assert heard == [(1, None)]


def test_a_subscriber_that_fails_is_told_again(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[int] = []

    def stumble(epoch: int, subjects: frozenset[str] | None) -> None:
        heard.append(epoch)
        if len(heard) == 1:
            raise LookupError("stumbled")

    with own_appender() as mine:
        mine.on_epoch(stumble)
        mine.submit(use(), epoch=0, subjects=KEY_1).result()
        write(use(), subjects=("key:9",))
        for _ in range(3):
            mine.submit(use(), epoch=1, subjects=KEY_1).result()
    assert heard == [1, 1]
    assert "stumbled" in caplog.text


def test_a_subscription_of_the_process_outlives_its_appender(database: Database) -> None:
    from audit import appender as module

    heard: list[int] = []
    told = lambda epoch, subjects: heard.append(epoch)  # noqa: E731 - needed twice
    on_epoch(told)
    on_epoch(told)
    try:
        close_appender()
        write(use(), subjects=("key:9",))
        appender().submit(use(), epoch=0, subjects=KEY_1).result()
    finally:
        module._subscribers.remove(told)
    assert heard == [1]


def test_a_full_queue_refuses_and_what_was_queued_still_commits(database: Database) -> None:
    with own_appender(limit=3) as mine:
        futures: list[Future[int]] = []

        def submit_many() -> None:
            # One batch may have left the queue already; it waits for the log.
            while len(futures) < 100:
                futures.append(mine.submit(use(), epoch=0, subjects=NOTHING))

        with held_log():
            with pytest.raises(QueueFull):
                submit_many()
            assert len(futures) < 10
        assert sorted(future.result() for future in futures) == list(range(1, len(futures) + 1))
        mine.submit(use(), epoch=0, subjects=NOTHING).result()
    assert verify().ok


def test_events_that_belong_together_stand_one_after_the_other(database: Database) -> None:
    def many(number: int) -> None:
        for n in range(10):
            pair = [use(request_id=f"{number}.{n}", action=action) for action in ("from", "to")]
            index = appender().submit(*pair, epoch=0, subjects=KEY_1).result()
            rows = Entry.objects.filter(index__in=[index, index + 1]).order_by("index")
            assert [str(row.uuid) for row in rows] == [event.uuid for event in pair]

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(many, range(8)))
    assert head().size == 160
    assert verify().ok


def test_of_events_that_belong_together_all_are_superseded_or_none(database: Database) -> None:
    write(use(), subjects=("key:2",))
    both = appender().submit(use(), use(), epoch=0, subjects=KEY_1 | KEY_2)
    other = appender().submit(use(), use(), epoch=0, subjects=KEY_1)
    assert isinstance(both.exception(), Superseded)
    assert other.result() == 1
    assert head().size == 3


def test_of_events_that_belong_together_one_that_is_refused_takes_its_own_with_it(
    database: Database,
) -> None:
    twice = use()
    write(twice)
    with held_log():
        futures = [
            appender().submit(*events, epoch=0, subjects=NOTHING)
            for events in ((use(), use()), (use(), twice, use()), (use(), use()))
        ]
    assert [type(future.exception()) for future in futures] == [
        type(None),
        LogWriteFailed,
        type(None),
    ]
    assert head().size == 6
    assert verify().ok


async def refused_on_a_loop(mine: Appender) -> None:
    try:
        await mine.submit_aio(use(), epoch=0, subjects=NOTHING)
    finally:
        assert not waiting.running()._waiting, "who was refused is watched over"


def test_a_full_queue_is_full_of_events_and_nothing_is_no_event(database: Database) -> None:
    with own_appender(limit=8) as mine:
        with held_log():
            first = mine.submit(use(), epoch=0, subjects=NOTHING)
            while not first.running():
                threading.Event().wait(0.001)
            many = mine.submit(*[use() for _ in range(8)], epoch=0, subjects=NOTHING)
            with pytest.raises(QueueFull):
                mine.submit(use(), epoch=0, subjects=NOTHING)
            with pytest.raises(QueueFull):
                asyncio.run(refused_on_a_loop(mine))
        assert (first.result(), many.result()) == (1, 2)
        assert mine.submit(use(), epoch=0, subjects=NOTHING).result() == 10
        with pytest.raises(ValueError):
            mine.submit(epoch=0, subjects=NOTHING)


def test_a_waiter_that_gave_up_before_its_turn_is_not_recorded(database: Database) -> None:
    with held_log():
        first = appender().submit(use(), epoch=0, subjects=NOTHING)
        while not first.running():
            threading.Event().wait(0.001)
        gone, kept = (appender().submit(use(), epoch=0, subjects=NOTHING) for _ in range(2))
        assert gone.cancel()
        assert not first.cancel()
    assert (first.result(), kept.result()) == (1, 2)
    assert head().size == 3


def test_an_entry_that_the_database_refuses_does_not_take_others_with_it(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    twice = use()
    write(twice)
    with held_log():
        futures = [
            appender().submit(event, epoch=0, subjects=NOTHING)
            for event in (use(), use(), twice, use())
        ]
    outcomes = [future.exception() for future in futures]
    assert [type(outcome) for outcome in outcomes] == [
        type(None),
        type(None),
        LogWriteFailed,
        type(None),
    ]
    assert head().size == 5
    assert verify().ok
    assert "can't be written" in caplog.text


def test_closing_writes_what_is_queued_and_then_refuses(database: Database) -> None:
    mine = Appender()
    futures = [mine.submit(use(), epoch=0, subjects=NOTHING) for _ in range(200)]
    mine.close()
    assert all(future.done() for future in futures)
    assert head().size == 200
    with pytest.raises(LogWriteFailed):
        mine.submit(use(), epoch=0, subjects=NOTHING)


def test_a_closed_appender_is_replaced_by_the_next(database: Database) -> None:
    first = appender()
    assert appender() is first
    close_appender()
    close_appender()
    assert appender() is not first
    assert appender().submit(use(), epoch=epoch(), subjects=KEY_1).result() == 0


def test_an_event_loop_can_wait_for_its_entries(database: Database) -> None:
    async def many() -> list[int]:
        futures = [
            asyncio.wrap_future(appender().submit(use(), epoch=0, subjects=KEY_1))
            for _ in range(100)
        ]
        return await asyncio.gather(*futures)

    assert sorted(asyncio.run(many())) == list(range(100))
    connection.close()


def test_an_event_loop_is_woken_once_for_what_a_commit_ends(database: Database) -> None:
    woken: list[int] = []

    async def many() -> list[int]:
        loop = asyncio.get_running_loop()
        wake = loop.call_soon_threadsafe

        def count(callback: Any, *arguments: Any) -> Any:
            woken.append(len(arguments[0]))
            return wake(callback, *arguments)

        loop.call_soon_threadsafe = count  # type: ignore[assignment]
        futures = [appender().submit_aio(use(), epoch=0, subjects=KEY_1) for _ in range(300)]
        return await asyncio.gather(*futures)

    assert sorted(asyncio.run(many())) == list(range(300))
    assert sum(woken) == 300
    assert len(woken) <= 150
    connection.close()


def test_who_comes_back_at_once_shares_the_next_commit(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[int] = []

    class Counting(Appender):
        def _attempt(self, batch: Any, unsure: bool) -> Any:
            batches.append(len(batch))
            return super()._attempt(batch, unsure)

    monkeypatch.setattr("audit.appender.HEAR_SECONDS", 60.0)  # as long as this machine needs
    with contextlib.closing(Counting()) as mine:

        async def write_on() -> None:
            for _ in range(10):
                await mine.submit_aio(use(), epoch=0, subjects=KEY_1)

        async def many() -> None:
            await asyncio.gather(*[write_on() for _ in range(20)])

        asyncio.run(many())
    assert sum(batches) == 200
    # The first may have been taken before all twenty were there; they are together from then on.
    assert len(batches) <= 11
    connection.close()


def test_an_event_loop_that_is_busy_does_not_hold_the_others(database: Database) -> None:
    async def block() -> int:
        await appender().submit_aio(use(), epoch=0, subjects=NOTHING)
        # The loop can't say that it has let everybody hear, since it waits for this one.
        return appender().submit(use(), epoch=0, subjects=NOTHING).result(60)

    assert asyncio.run(block()) == 1
    connection.close()


def test_an_event_loop_hears_of_changes_and_of_what_is_refused(database: Database) -> None:
    twice = use()
    write(twice, subjects=("grant:1",))

    async def three() -> list[Any]:
        futures = [
            appender().submit_aio(event, epoch=epoch, subjects=KEY_1)
            for event, epoch in ((use(), 0), (twice, 1), (use(), 1))
        ]
        return await asyncio.gather(*futures, return_exceptions=True)

    superseded, refused, index = asyncio.run(three())
    assert isinstance(superseded, Superseded)
    assert isinstance(refused, LogWriteFailed)
    assert index == 1
    connection.close()


def test_who_gave_up_on_an_event_loop_before_its_turn_is_not_recorded(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def two() -> int:
        with held_log():
            first = appender().submit(use(), epoch=0, subjects=NOTHING)
            while not first.running():
                threading.Event().wait(0.001)
            gone = appender().submit_aio(use(), epoch=0, subjects=NOTHING)
            kept = appender().submit_aio(use(), epoch=0, subjects=NOTHING)
            gone.cancel()
        return await kept

    # For holding the log, which the loop's own thread does here.
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
    assert asyncio.run(two()) == 2
    assert head().size == 3


def test_who_gave_up_on_an_event_loop_while_it_was_written_disturbs_nobody(
    database: Database,
) -> None:
    async def leave() -> int:
        gone = appender().submit_aio(use(), epoch=0, subjects=NOTHING)
        kept = appender().submit_aio(use(), epoch=0, subjects=NOTHING)
        gone.cancel()
        return await kept

    assert asyncio.run(leave()) in (0, 1)
    assert appender().submit(use(), epoch=0, subjects=NOTHING).result() == head().size - 1
    assert verify().ok
    connection.close()
