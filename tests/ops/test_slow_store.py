"""A key store that hangs: its own users wait or are refused, and nobody else notices."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from django.test import override_settings

from keys import administration, operations, snapshot
from keys.errors import Busy
from keys.gate import pools
from keys.gate.pools import Room
from keys.services import operator
from tests.house import House
from tests.ops.asking import ENCRYPT, Answer, Billing, soon
from tests.peers.faults import Fault, FaultProxy
from tests.peers.openbao import Admin
from tests.peers.peer import Peer

Tasks = list[asyncio.Task[Answer]]
HOURS = 3600


@pytest.fixture
def cable(house: House, openbao: Peer, openbao_admin: Admin) -> Iterator[FaultProxy]:
    """A store `cloud` behind a proxy, with the key `payroll` in it; nothing there ever times out."""
    with FaultProxy("127.0.0.1", openbao_admin.port) as proxy:
        secret = house.folder / "credential"
        secret.write_bytes(openbao.credential or b"")
        settings = {**openbao.fresh(), "address": proxy.url}
        administration.create_key_store(
            operator(), name="cloud", kind="vault", settings=settings, credentials=f"file:{secret}"
        )
        administration.create_classification(
            operator(), name="cloud", title="Cloud", allowed_specs=["AES_256"], key_stores=["cloud"]
        )
        with override_settings(BACKEND_TIMEOUT_SECONDS=HOURS):
            key = house.key("cloud", alias="payroll")
            house.grant("billing", key, "encrypt", "re_encrypt_to")
            other = house.key(alias="letters")
            house.grant("billing", other, "encrypt", "re_encrypt_from", "generate_data_key_pair")
            yield proxy


def hang(cable: FaultProxy) -> None:
    cable.clear()
    cable.next(Fault.hang(), when="/encrypt/", times=None)


def reached(cable: FaultProxy) -> int:
    return sum(seen.fault is not None for seen in cable.seen)


def begun(count: int, make: Any) -> Tasks:
    return [asyncio.create_task(make()) for _ in range(count)]


async def ended(cable: FaultProxy, tasks: Tasks) -> list[Answer]:
    """Break the cable, and return what those get that still wait."""
    cable.next(Fault.reset(), times=None)
    await asyncio.get_running_loop().run_in_executor(None, cable.close)
    return await asyncio.gather(*tasks)


def pending(tasks: Tasks) -> int:
    return sum(not task.done() for task in tasks)


def test_sixty_four_requests_hang_and_software_keys_answer_at_both_doors(
    house: House, cable: FaultProxy
) -> None:
    billing = Billing(house)

    async def story() -> tuple[list[Answer], list[Answer]]:
        assert (await billing.use("payroll")).status == 200
        hang(cable)
        waiting = begun(64, lambda: billing.use("payroll"))
        await soon(lambda: reached(cable) == 16)
        pages = begun(12, lambda: billing.use_by_page("payroll"))
        await soon(lambda: pending(pages) == pools.GUESTS)
        # Half of Django's threads are free. What is asked now was never in memory before.
        snapshot.cache.forget()
        for _ in range(10):
            assert (await billing.use("letters")).status == 200
            assert (await billing.use_by_page("letters")).status == 200
        many = json.dumps({"items": [json.loads(ENCRYPT)] * 40}).encode()
        assert (await billing.use("letters", many, "encrypt/batch")).status == 200
        assert (pending(waiting), pending(pages)) == (64, pools.GUESTS)
        return await ended(cable, waiting), await asyncio.gather(*pages)

    waited, pages = asyncio.run(story())
    assert {answer.status for answer in waited + pages} == {503}
    assert all("retry-after" in answer.headers for answer in waited + pages)
    told = Counter(e["reason"] for e in house.entries(action="encrypt", outcome="failed"))
    # Each is told. The circuit opens meanwhile, so not everybody reached the store in the end.
    assert told == {"busy": 12 - pools.GUESTS, "backend_unavailable": 64 + pools.GUESTS}


def test_who_finds_no_place_is_refused_at_once_with_an_entry(
    house: House, cable: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools, "QUEUE_PER_THREAD", 1)
    billing = Billing(house)
    sealed = operations.encrypt(house.billing, "letters", b"x").ciphertext
    moved = json.dumps({"ciphertext": base64.b64encode(sealed).decode(), "to": "payroll"}).encode()

    async def story() -> list[Answer]:
        hang(cable)
        waiting = begun(40, lambda: billing.use("payroll"))
        await soon(lambda: pending(waiting) == 32)
        refused = [task.result() for task in waiting if task.done()]
        # A batch is refused whole.
        many = json.dumps({"items": [json.loads(ENCRYPT)] * 40}).encode()
        few = json.dumps({"items": [json.loads(ENCRYPT)] * 2}).encode()
        refused += [await billing.use("payroll", body, "encrypt/batch") for body in (few, many)]
        # Re-encryption needs a place with each of the two stores.
        refused.append(await billing.use("letters", moved, "re-encrypt"))
        await ended(cable, waiting)
        return refused

    refused = asyncio.run(story())
    assert [(a.status, a.code, a.headers["retry-after"]) for a in refused] == [
        (503, "busy", "1")
    ] * 11
    assert len(house.entries(outcome="failed", reason="busy")) == 11


def test_work_that_takes_seconds_has_few_places_and_takes_none_of_the_others(house: House) -> None:
    """Pairs of RSA keys, in the software store."""
    key = house.key(alias="letters")
    house.grant("billing", key, "encrypt", "generate_data_key_pair")
    billing, go_on = Billing(house), threading.Event()
    pair = json.dumps({"spec": "ECC_NIST_P256"}).encode()

    async def story() -> None:
        assert (await billing.use("letters", pair, "generate-data-key-pair")).status == 200
        places = pools.LEISURE_THREADS + pools.LEISURE_QUEUE
        running = [pools._leisure.submit(lambda: go_on.wait(60)) for _ in range(places)]
        refused = await billing.use("letters", pair, "generate-data-key-pair")
        assert (refused.status, refused.code) == (503, "busy")
        assert (await billing.use("letters")).status == 200
        go_on.set()
        await asyncio.gather(*map(asyncio.wrap_future, running))
        assert (await billing.use("letters", pair, "generate-data-key-pair")).status == 200

    try:
        asyncio.run(story())
    finally:
        go_on.set()


def test_who_waited_too_long_in_the_queue_is_not_begun() -> None:
    room, done = Room("test", 1, 4, patience=0.0), []
    with pytest.raises(Busy, match="waited too long"):
        room.submit(lambda: done.append(1)).result(60)
    room.close()
    assert not done


def test_a_place_is_given_back_however_the_use_ends() -> None:
    room = Room("test", 1, 1)
    for _ in range(5):
        with pytest.raises(ZeroDivisionError):
            room.submit(lambda: 1 // 0).result(60)
    held, go_on = threading.Event(), threading.Event()

    def wait() -> bool:
        held.set()
        return go_on.wait(60)

    first = room.submit(wait)
    assert held.wait(60)
    second = room.submit(lambda: 2)
    with pytest.raises(Busy):
        room.submit(lambda: 3)
    assert second.cancel(), "a client that goes away gives its place back"
    third = room.submit(lambda: 3)
    go_on.set()
    assert (first.result(60), third.result(60)) == (True, 3)
    room.close()


def test_guests_of_all_slow_stores_together_leave_some_threads_free(
    house: House, cable: FaultProxy
) -> None:
    """Who waits by itself: a place with each store, and a few with all."""
    store = house.key("cloud").key_store
    facts = snapshot.StoreFacts(store.id, store.name, store.kind, {}, "", True)
    others = [snapshot.StoreFacts(house.key().id, "another", "aws", {}, "", True) for _ in range(2)]
    inside = [pools.Place() for _ in range(pools.GUESTS)]
    for place in inside:
        place.ask(facts)
        place.ask(facts)  # a batch asks for each item, and stands there once
    one_more = pools.Place()
    with pytest.raises(Busy):
        one_more.ask(facts)
    for other in others:
        inside.append(pools.Place())
        inside[-1].ask(other)
    with pytest.raises(Busy):
        one_more.ask(others[0])
    for place in inside:
        place.leave()
    one_more.ask(facts)
    one_more.leave()
    assert not pools._guests._inside
