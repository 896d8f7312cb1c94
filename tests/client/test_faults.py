"""What a client does where the service is away, slow, busy, or not who it seems to be."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from kms_console_client import (
    AsyncClient,
    BadAnswer,
    Client,
    KmsError,
    Retries,
    ServerFailed,
    Throttled,
    TimedOut,
    Unavailable,
    Unreachable,
    Untrusted,
)
from kms_console_client.http import AnswerReader, BadHttp
from tests.client.conftest import Asker, Service
from tests.peers.faults import Fault, FaultProxy, self_signed

# Waits that a test has time for.
QUICK = Retries(count=2, first=0.001, most=0.002)
ENCRYPT = ("encrypt", ("invoices", b"a"))


def problem(code: str, detail: str = "Later.") -> bytes:
    return b'{"code": "%s", "detail": "%s"}' % (code.encode(), detail.encode())


SERVED = b'{"key_id":"0d5f0c0e-2f6a-4c58-9d3e-5c6f7a1b2c3d","version":1,"algorithm":"X",'
SEALED = SERVED + b'"ciphertext":"QQ=="}'


@pytest.mark.parametrize(
    "fault",
    [
        Fault.reset(),
        Fault.swallow(),
        Fault.throttle(0),
        Fault.throttle(),
        Fault.throttle(0.001, problem("busy"), 503),
    ],
    ids=["cut before", "cut after", "429", "429 without a time", "503"],
)
def test_what_passes_is_tried_again_under_the_same_id(
    proxy: FaultProxy, token: str, ask: Asker, fault: Fault
) -> None:
    proxy.next(fault, times=2)
    sealed = ask(proxy.url, token, ENCRYPT, retries=QUICK)
    assert sealed.version == 1
    assert [one.fault for one in proxy.seen] == [fault, fault, None]


@pytest.mark.parametrize(
    ("fault", "kind", "tries"),
    [
        (Fault.reset(), Unreachable, 3),
        (Fault.throttle(0, problem("throttled")), Throttled, 3),
        (Fault.throttle(0, problem("busy"), 503), Unavailable, 3),
        (Fault.throttle(31, problem("busy"), 503), Unavailable, 1),
        (Fault.status(503, problem("unavailable")), Unavailable, 1),
        (Fault.status(500, b"<html>"), ServerFailed, 1),
        (Fault.status(502, problem("backend_error")), ServerFailed, 1),
        (Fault.status(302, b"", {"Location": "https://example.org/"}), BadAnswer, 1),
        (Fault.status(203, SEALED), BadAnswer, 1),
        (Fault.status(302, SEALED), BadAnswer, 1),
        (Fault.status(204), BadAnswer, 1),
        (Fault.status(418), BadAnswer, 1),
        (Fault.garbage(), BadAnswer, 1),
        (Fault.garbage(b"[]"), BadAnswer, 1),
        (Fault.garbage(b'{"ciphertext": "QQ=="}'), BadAnswer, 1),
        (Fault.garbage(b"[" * 100_000), BadAnswer, 1),
        (Fault.garbage(b" " * 4_200_000), BadAnswer, 1),
        (Fault.alter(lambda body: body.replace(b'"ciphertext":"', b'"ciphertext":"*')), BadAnswer, 1),
        (Fault.alter(lambda body: body.replace(b'"version":1', b'"version":true')), BadAnswer, 1),
    ],
)  # fmt: skip
def test_what_lasts_or_makes_no_sense_ends_the_call(
    proxy: FaultProxy, token: str, ask: Asker, fault: Fault, kind: type[KmsError], tries: int
) -> None:
    proxy.next(fault, times=None)
    with pytest.raises(kind) as caught:
        ask(proxy.url, token, ENCRYPT, retries=QUICK)
    assert type(caught.value) is kind
    assert len(proxy.seen) == tries
    assert caught.value.request_id
    # Nothing of what was answered hangs on the error.
    assert caught.value.__context__ is None


def test_a_service_that_hangs_is_given_up_and_asked_anew(
    proxy: FaultProxy, token: str, ask: Asker
) -> None:
    proxy.next(Fault.hang())
    with pytest.raises(TimedOut):
        ask(proxy.url, token, ENCRYPT, timeout=0.1, retries=0)
    # The one that hung keeps nobody else waiting: it is closed, not kept.
    proxy.next(Fault.hang())
    again = Retries(count=100, first=0.001, most=0.002)
    assert ask(proxy.url, token, ENCRYPT, timeout=0.5, retries=again, connections=1).version == 1


def test_a_server_that_repeats_the_token_does_not_get_it_into_a_log(
    proxy: FaultProxy, token: str, ask: Asker
) -> None:
    said = problem("denied", f"Bearer {token} may not\\r\\nsee this " + "x" * 2000)
    proxy.next(Fault.status(403, said))
    with pytest.raises(KmsError) as caught:
        ask(proxy.url, token, ENCRYPT)
    text = str(caught.value)
    assert token not in text and "\n" not in text and len(text) < 700


def test_where_nobody_listens_the_error_says_where_and_why(token: str, ask: Asker) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(Unreachable) as caught:
            ask(f"http://127.0.0.1:{port}", token, ENCRYPT, retries=QUICK)
    assert f"127.0.0.1:{port}" in str(caught.value)
    assert (caught.value.status, caught.value.code) == (0, "unreachable")


def test_tls_is_verified_and_proxies_of_the_environment_are_not_asked(
    service: Service, token: str, ask: Asker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    pem = self_signed(tmp_path)
    with FaultProxy("127.0.0.1", service.port, certificate=pem, tls=False) as proxy:
        calls = (ENCRYPT, ENCRYPT)
        assert ask(proxy.url, token, *calls, ca_file=str(pem)).version == 1
        assert len(proxy.seen) == 2
        with pytest.raises(Untrusted):
            ask(proxy.url, token, ENCRYPT, retries=QUICK)
        with pytest.raises(Unreachable):  # TLS where there is none
            ask(service.url.replace("http:", "https:"), token, ENCRYPT, retries=0)
        assert len(proxy.seen) == 2
    assert not (tmp_path / "keys").exists()


@contextmanager
def scripted(*scripts: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that takes one connection a script, in order, and does what the script says."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def run() -> None:
            for script in scripts:
                connection, _ = server.accept()
                with connection:
                    connection.settimeout(60)
                    script(connection)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}"
        finally:
            thread.join(60)
            assert not thread.is_alive()


GOOD = SERVED + b'"mac":"QQ=="}'
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(GOOD), GOOD)
MAC = ("mac", ("macs", b""))


def read_request(connection: socket.socket) -> None:
    text = b""
    while b"}" not in text:
        received = connection.recv(4096)
        assert received
        text += received


def test_a_kept_connection_that_ended_is_replaced_without_a_retry(ask: Asker) -> None:
    def once(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(WHOLE)

    def lured(connection: socket.socket) -> None:
        once(connection)
        read_request(connection)

    # Each connection ends behind its answer although it did not say so, one with the next request in it.
    with scripted(once, lured, once, once) as url:
        assert ask(url, "kms_x", MAC, MAC, MAC, MAC, retries=0).mac == b"A"


def test_a_new_connection_that_ends_without_an_answer_is_a_failure(ask: Asker) -> None:
    with scripted(read_request) as url, pytest.raises(Unreachable):
        ask(url, "kms_x", MAC, retries=0)


def poisoned(told: threading.Event) -> Callable[[socket.socket], None]:
    """Answer, and once the client has that answer send another one that nobody asked for."""

    def script(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(WHOLE)
        assert told.wait(60)
        connection.sendall(WHOLE.replace(b"QQ==", b"Wg=="))
        with contextlib.suppress(ConnectionError):
            connection.recv(4096)  # until the client ends it

    return script


def good(connection: socket.socket) -> None:
    read_request(connection)
    connection.sendall(WHOLE)


def test_bytes_that_nobody_asked_for_are_not_taken_for_the_next_answer() -> None:
    reader = AnswerReader(1000)
    assert reader.feed(WHOLE + b"H")
    assert reader.answer is not None and not reader.answer.keep

    told = threading.Event()
    with scripted(poisoned(told), good) as url, Client(url, "kms_x", retries=0) as client:
        client.mac("macs", b"")
        told.set()
        select.select([client._pool._kept[0]._sock], [], [], 60)
        assert client.mac("macs", b"").mac == b"A"

    async def story(url: str, told: threading.Event) -> None:
        async with AsyncClient(url, "kms_x", retries=0) as client:
            await client.mac("macs", b"")
            told.set()
            while client._pool._kept[0].open:
                await asyncio.sleep(0.005)
            assert (await client.mac("macs", b"")).mac == b"A"

    told = threading.Event()
    with scripted(poisoned(told), good) as url:
        asyncio.run(story(url, told))


def test_an_answer_that_trickles_does_not_outlast_the_timeout(ask: Asker) -> None:
    given_up = threading.Event()

    def trickle(connection: socket.socket) -> None:
        read_request(connection)
        try:
            while not given_up.wait(0.01):
                connection.sendall(b"x")
        except OSError:
            pass

    with scripted(trickle) as url:
        try:
            with pytest.raises(TimedOut):
                ask(url, "kms_x", MAC, timeout=0.2, retries=0)
        finally:
            given_up.set()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\n"
        + GOOD[:5]
        + b"\r\n%x\r\n" % (len(GOOD) - 5)
        + GOOD[5:]
        + b"\r\n0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" + WHOLE,
        b"HTTP/1.0 200 OK\r\n\r\n" + GOOD,
        b"HTTP/1.1 200\r\ncontent-length:%d\r\nConnection: close\r\n\r\n" % len(GOOD) + GOOD,
    ],
    ids=["chunks", "continue", "until the end", "spare"],
)
@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_an_answer_may_come_in_every_form_that_http_has(
    ask: Asker, answer: bytes, step: int
) -> None:
    if step != 10_000:  # fed piece by piece, without a socket
        reader = AnswerReader(1000)
        for start in range(0, len(answer), step):
            reader.feed(answer[start : start + step])
        assert reader.answer is not None or reader.end()
        assert reader.answer is not None and reader.answer.body == GOOD
        return

    def tell(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(answer)

    with scripted(tell) as url:
        assert ask(url, "kms_x", MAC, retries=0).mac == b"A"


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\n\r\n" * 9 + WHOLE,
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxy\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"0" * 300,
        b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 1001,
        b"HTTP/1.1 200 OK\r\n folded: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX y: z\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 33_000,
    ],
)
def test_what_could_be_read_in_two_ways_is_no_answer(answer: bytes) -> None:
    with pytest.raises(BadHttp):
        AnswerReader(1000).feed(answer)


def test_an_answer_that_is_cut_off_is_none(ask: Asker) -> None:
    def cut(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(WHOLE[:-1])

    with scripted(cut) as url, pytest.raises(Unreachable):
        ask(url, "kms_x", MAC, retries=0)


def test_waits_grow_are_bounded_and_have_chance_in_them() -> None:
    retries = Retries(count=9, first=0.5, most=3.0, patience=10.0)
    lost, busy = Unreachable(""), Unavailable("", retry_after=4.0)
    assert [retries.wait(lost, done, 1.0) for done in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    assert retries.wait(lost, 3, 0.0) == 0.0
    assert retries.wait(busy, 0, 1.0) == 4.5
    assert retries.wait(Throttled("", retry_after=10.5), 0, 1.0) is None
    assert retries.wait(lost, 9, 1.0) is None
    assert retries.wait(Unavailable(""), 0) is None
    assert retries.wait(Untrusted(""), 0) is None
    chosen = {retries.wait(lost, 2) for _ in range(20)}
    assert len(chosen) > 1 and all(wait is not None and 0 <= wait <= 2 for wait in chosen)
    for wrong in ({"count": -1}, {"first": -0.1}):
        with pytest.raises(ValueError):
            Retries(**wrong)  # type: ignore[arg-type]


def test_a_date_in_retry_after_is_understood(proxy: FaultProxy, token: str, ask: Asker) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    for value, between in ((date, (3000, 3601)), ("soon", None), ("-5", None)):
        proxy.next(Fault.status(429, b"", {"Retry-After": value}))
        with pytest.raises(Throttled) as caught:
            ask(proxy.url, token, ENCRYPT, retries=0)
        found = caught.value.retry_after
        assert found is None if between is None else between[0] < found <= between[1]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_opens_connections_of_its_own(proxy: FaultProxy, token: str) -> None:
    with Client(proxy.url, token, timeout=60) as client:
        client.mac("macs", b"")
        kept = client._pool._kept[0]
        lock = client._pool._lock
        with lock:  # held by another thread, as it may well be
            child = os.fork()
            if not child:
                code = 1
                try:
                    assert not client._pool._kept
                    client.mac("macs", b"")
                    client.close()
                    code = 0
                finally:
                    os._exit(code)
        assert os.waitpid(child, 0)[1] == 0
        client.mac("macs", b"")
        assert client._pool._kept[0] is kept


def test_a_task_that_is_cancelled_leaves_the_client_in_order(proxy: FaultProxy, token: str) -> None:
    async def story() -> Any:
        async with AsyncClient(proxy.url, token, timeout=60, connections=1) as client:
            proxy.next(Fault.hang())
            task = asyncio.create_task(client.mac("macs", b""))
            while not proxy.seen:
                await asyncio.sleep(0.005)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return await client.mac("macs", b"")

    assert asyncio.run(story()).version == 1


def test_an_asyncio_client_belongs_to_one_loop_at_a_time(service: Service, token: str) -> None:
    client = AsyncClient(service.url, token, timeout=60)

    async def use() -> None:
        await client.mac("macs", b"")

    def elsewhere() -> None:
        with pytest.raises(RuntimeError):
            asyncio.run(use())

    async def story() -> None:
        await use()
        await asyncio.to_thread(elsewhere)
        await client.aclose()

    asyncio.run(story())
