"""Too much at once: who can't be served soon is told so at once, and the rest goes on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from django.test import override_settings
from uvicorn import Config
from uvicorn.server import ServerState

from audit import refusals
from audit.writer import close_appender
from kms_console import asgi, connections, outbox
from kms_console.api.rest import asgi as rest
from kms_console.connections import Connection
from kms_console.outbox import Outbox
from tests.house import House
from tests.ops.asking import Answer, Billing, ask, soon

Tasks = list[asyncio.Task[Answer]]


@contextlib.contextmanager
def log_held(house: House) -> Iterator[sqlite3.Connection]:
    """Keep everybody from writing to the database, until it is rolled back."""
    other = sqlite3.connect(house.database.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield other
    finally:
        with contextlib.suppress(sqlite3.OperationalError):
            other.execute("ROLLBACK")
        other.close()


def turned_away(answer: Answer) -> bool:
    return (answer.status, answer.headers["retry-after"]) == (503, "1")


def away_entries(house: House) -> list[tuple[str, str, int]]:
    refusals.flush()
    found = house.entries(action="authenticate")
    return [(entry["door"], entry["reason"], entry["facts"]["count"]) for entry in found]


# --- so many at once, and no more


def test_more_uses_than_a_process_takes_on_are_turned_away_unread(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusals.forget()
    monkeypatch.setattr(asgi.USES, "limit", 2)
    billing = Billing(house)

    async def story() -> list[Answer]:
        assert (await billing.use("invoices")).status == 200
        waiting = [asyncio.create_task(billing.use("invoices", None)) for _ in range(2)]
        await soon(lambda: asgi.USES.full)
        # Not even a body that never comes is waited for, nor is a token looked at.
        unread = await billing.use("invoices", None)
        unknown = await ask(
            "POST", "/api/v1/random", None, authorization="Bearer kms_unknown", x_request_id="r-1"
        )
        assert unknown.headers["x-request-id"] == "r-1"
        # Everything else is there.
        assert (await ask("GET", "/healthz")).status == 200
        assert (await ask("GET", "/readyz")).headers["content-type"] == "application/json"
        assert (await billing.use_by_page("invoices")).status == 200
        for task in waiting:
            task.cancel()
        stopped = await asyncio.gather(*waiting)
        assert asgi.USES.inside == 0
        assert (await billing.use("invoices")).status == 200
        return [unread, unknown, *stopped]

    unread, unknown, *stopped = asyncio.run(story())
    assert turned_away(unread) and turned_away(unknown)
    assert (unread.code, unknown.code) == ("busy", "busy")
    assert {(answer.status, answer.code) for answer in stopped} == {(503, "unavailable")}
    assert away_entries(house) == [("rest", "busy", 2)]


def test_pages_have_a_limit_of_their_own_and_probes_none_of_it(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusals.forget()
    monkeypatch.setattr(asgi.PAGES, "limit", 3)
    billing = Billing(house)

    async def story() -> list[Answer]:
        assert (await billing.use("invoices")).status == 200
        waiting = [asyncio.create_task(ask("POST", "/sign-in", None)) for _ in range(3)]
        await soon(lambda: asgi.PAGES.full)
        refused = [
            await ask("GET", "/", accept="text/html,*/*"),
            await ask("GET", "/api/v1/keys", authorization="Bearer x"),
            await ask("POST", "/api/v1/keys", None, content_length="100"),
            await ask("POST", "/api/v1/keys", None, content_length="99999999"),
            await ask("POST", "/api/v1/keys", None, transfer_encoding="chunked"),
        ]
        assert (await ask("GET", "/healthz")).status == 200
        assert (await ask("GET", "/readyz")).status == 200
        assert (await billing.use("invoices")).status == 200
        for task in waiting:
            task.cancel()
        for task in waiting:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        assert (await ask("GET", "/sign-in")).status == 200
        return refused

    page, *others = asyncio.run(story())
    assert turned_away(page) and page.headers["content-type"].startswith("text/plain")
    assert b"try again" in page.body
    assert all(turned_away(answer) and answer.code == "busy" for answer in others)
    # Where much of the request is still to come, or nobody knows how much, the connection ends.
    assert ["connection" in answer.headers for answer in (page, *others)] == [
        *(False, False, False),
        *(True, True),
    ]
    assert away_entries(house) == [("console", "busy", 5)]


def test_probes_are_answered_while_all_of_djangos_threads_wait(house: House) -> None:
    """The log can't be written to, so each of Django's eight threads waits with a use of a key."""
    billing = Billing(house)

    async def story(lock: sqlite3.Connection) -> list[Answer]:
        pages = [asyncio.create_task(billing.use_by_page("invoices")) for _ in range(12)]
        await soon(lambda: asgi.PAGES.inside == 12)
        assert (await ask("GET", "/healthz")).status == 200
        assert json.loads((await ask("GET", "/readyz")).body)["parts"]["database"]["status"] == "ok"
        assert not any(page.done() for page in pages)
        lock.execute("ROLLBACK")
        return await asyncio.gather(*pages)

    asyncio.run(_warm(billing))
    with log_held(house) as lock:
        answers = asyncio.run(story(lock))
    assert [answer.status for answer in answers] == [200] * 12


async def _warm(billing: Billing) -> None:
    assert (await billing.use("invoices")).status == 200
    assert (await billing.use_by_page("invoices")).status == 200


def test_few_large_batches_are_held_in_memory_at_once_and_small_ones_go_on(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rest._large, "limit", 2)
    billing = Billing(house)
    item = {"plaintext": "QUFB" * 16_000}
    large = json.dumps({"items": [item] * 20}).encode()
    small = json.dumps({"items": [{"plaintext": "QUFB"}] * 2}).encode()

    async def story() -> Answer:
        assert (await billing.use("invoices", large, "encrypt/batch")).status == 200
        assert rest._large.inside == 0
        # Of these nobody knows how long they will be.
        waiting = [
            asyncio.create_task(billing.use("invoices", None, "encrypt/batch")) for _ in range(2)
        ]
        await soon(lambda: rest._large.inside == 2)
        refused = await billing.use("invoices", large, "encrypt/batch")
        assert (await billing.use("invoices", small, "encrypt/batch")).status == 200
        assert (await billing.use("invoices")).status == 200
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting)
        assert (await billing.use("invoices", large, "encrypt/batch")).status == 200
        return refused

    refused = asyncio.run(story())
    assert turned_away(refused) and refused.code == "busy"
    assert refused.headers["connection"] == "close"
    told = [(e["action"], e["reason"]) for e in house.entries(outcome="failed")]
    assert ("refused_request", "busy") in told


# --- the log's queue


def test_a_full_queue_before_the_log_refuses_and_every_answer_that_left_is_in_the_log(
    house: House,
) -> None:
    billing = Billing(house)

    async def story(lock: sqlite3.Connection) -> list[Answer]:
        first = asyncio.create_task(billing.use("invoices"))
        await asyncio.sleep(0.05)
        more = [asyncio.create_task(billing.use("invoices")) for _ in range(20)]
        await soon(lambda: sum(task.done() for task in more) >= 15)
        lock.execute("ROLLBACK")
        return await asyncio.gather(first, *more)

    asyncio.run(_warm(billing))
    before = len(house.entries(action="encrypt"))
    close_appender()
    with override_settings(AUDIT_QUEUE_LIMIT=4), log_held(house) as lock:
        answers = asyncio.run(story(lock))
    close_appender()
    told = Counter(answer.status for answer in answers)
    assert told[200] + told[503] == 21 and told[503] >= 15
    refused = [answer for answer in answers if answer.status == 503]
    assert all(turned_away(answer) and answer.code == "busy" for answer in refused)
    assert len(house.entries(action="encrypt")) - before == told[200]


# --- clients that are slow, and requests that have no end


@contextlib.asynccontextmanager
async def listening() -> Any:
    """A server of our connections on a port of its own; it answers with what it read."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        body = (await receive())["body"]
        rows = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": rows})
        await send({"type": "http.response.body", "body": body})

    config, state = Config(application, log_config=None), ServerState()
    config.load()
    make = partial(Connection, config=config, server_state=state, app_state={})
    server = await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], state
    finally:
        server.close()
        for connection in list(state.connections):
            connection.transport.abort()
        await server.wait_closed()


async def say(port: int, *parts: bytes) -> bytes:
    """Send these parts, and return all that comes until the server closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.02)
        return await asyncio.wait_for(reader.read(), 60)
    except ConnectionError:
        return b"(reset)"
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n"
CLOSE = b"Connection: close\r\n\r\n"


def test_a_head_without_end_is_refused() -> None:
    many = b"".join(b"X-%d: 1\r\n" % number for number in range(connections.HEADERS))
    long = b"X-Long: " + b"a" * (connections.HEAD_BYTES + 1) + b"\r\n"
    drip = [b"X-%d: %s\r\n" % (number, b"a" * 8000) for number in range(20)]
    cases: dict[str, tuple[list[bytes], bytes]] = {
        "many headers": ([GET + many + CLOSE], b"431"),
        "one long header": ([GET + long + CLOSE], b"431"),
        "headers without end": ([GET, *drip], b"431"),
        "a long address": ([b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x\r\n" + CLOSE], b"414"),
        "as much as is allowed": ([GET + many.partition(b"X-2:")[0] + CLOSE], b"200"),
        "in pieces": ([GET[:7], GET[7:], CLOSE[:3], CLOSE[3:]], b"200"),
        "two at once": ([GET + b"\r\n" + GET + CLOSE], b"200"),
    }

    async def story() -> dict[str, bytes]:
        async with listening() as (port, _):
            return {what: await say(port, *parts) for what, (parts, _) in cases.items()}

    answers = asyncio.run(story())
    for what, (_, status) in cases.items():
        # What is still sent after the answer may reset the connection before the answer is read.
        assert answers[what].startswith(b"HTTP/1.1 " + status) or (
            what == "headers without end" and answers[what] == b"(reset)"
        ), (what, answers[what][:200])
    assert answers["two at once"].count(b"HTTP/1.1 200") == 2


def test_a_head_that_takes_too_long_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.5)

    async def story() -> list[bytes]:
        async with listening() as (port, _):
            return [
                await say(port, GET[:10]),
                await say(port),  # nothing at all
                await say(port, *[b"\r\n"] * 40),  # nothing, again and again
                await say(port, GET + b"Content-Length: 2\r\n\r\n", b"ok", GET[:9]),
            ]

    slow, silent, empty, second = asyncio.run(story())
    assert slow.startswith(b"HTTP/1.1 408")
    assert silent == b"" and empty in (b"", b"(reset)")
    # A body has a time of its own; then the next head is what takes too long.
    assert second.startswith(b"HTTP/1.1 200") and b"HTTP/1.1 408" in second


def test_more_connections_than_there_is_room_for_are_told_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Connection, "limit", 3)

    async def story() -> bytes:
        async with listening() as (port, state):
            held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
            await soon(lambda: len(state.connections) == 3)
            answer = await say(port)
            for _, writer in held:
                writer.close()
            await soon(lambda: not state.connections)
            assert (await say(port, GET + CLOSE)).startswith(b"HTTP/1.1 200")
            return answer

    answer = asyncio.run(story())
    assert answer.startswith(b"HTTP/1.1 503") and b"retry-after: 1" in answer


def test_the_end_answers_what_comes_yet_and_closes_what_rests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connections, "LINGER_SECONDS", 0.5)

    async def story() -> tuple[bytes, bytes]:
        async with listening() as (port, state):
            idle, busy = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
            await soon(lambda: len(state.connections) == 2)
            for connection in list(state.connections):
                connection.shutdown()
            busy[1].write(GET + b"\r\n")
            answers = await busy[0].read(), await idle[0].read()
            for _, writer in (idle, busy):
                writer.close()
            return answers

    answered, closed = asyncio.run(story())
    assert answered.startswith(b"HTTP/1.1 200") and b"connection: close" in answered
    assert closed == b""


def test_a_client_that_reads_slowly_holds_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "ROOM", 100)

    async def story() -> list[bytes]:
        reads, got = asyncio.Event(), list[bytes]()

        async def send(message: Any) -> None:
            await reads.wait()
            got.append(message["body"])

        box = Outbox(send)
        for number in range(10):  # 90 bytes find room although nobody reads
            await asyncio.wait_for(box.put({"body": b"%09d" % number}), 60)
        large = asyncio.create_task(box.put({"body": b"x" * 50}))
        waits = asyncio.create_task(box.put({"body": b"last"}))
        await asyncio.sleep(0.05)
        assert large.done() and not waits.done(), "what is larger waits"
        reads.set()
        await waits
        await box.delivered()
        return got

    got = asyncio.run(story())
    assert len(got) == 12 and got[-1] == b"last"
    assert Outbox._held == 0


def test_a_client_that_does_not_read_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "STALL_SECONDS", 0.05)
    monkeypatch.setattr(outbox, "ROOM", 10)

    async def story() -> None:
        async def send(message: Any) -> None:
            await asyncio.sleep(3600)

        box = Outbox(send)
        for _ in range(5):
            await box.put({"body": b"x" * 100})
        await box.delivered()

    asyncio.run(story())
    assert Outbox._held == 0


def test_limits_hold_for_the_large_bodies_of_strangers_too(house: House) -> None:
    """Nothing of a body is read for an address that isn't there, beyond the ordinary limit."""
    body = b'{"plaintext": "' + b"A" * (1024 * 1024) + b'"}'
    use = "/api/v1/keys/invoices/encrypt"
    answers = [
        asyncio.run(ask("POST", use, body, authorization="Bearer kms_x")),
        asyncio.run(ask("POST", use, body)),
        asyncio.run(ask("POST", "/nowhere", body)),
    ]
    assert [answer.status for answer in answers] == [401, 413, 413]
