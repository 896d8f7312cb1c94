"""Envelope encryption against the real service: one format, two kinds of clients, nothing wrong comes out."""

from __future__ import annotations

import array
import asyncio
import io
import os
import re
import stat
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from keys import administration
from kms_console_client import (
    AsyncClient,
    AsyncEnvelope,
    BadAnswer,
    CannotDecrypt,
    Client,
    DataKeyCache,
    Envelope,
    InvalidRequest,
    KmsError,
    Unauthenticated,
)
from kms_console_client.cache import CachedKey
from kms_console_client.layout import read_head
from tests.client.conftest import Service
from tests.peers.faults import Fault, FaultProxy

CHUNK, TAG = 4096, 16
STEP = CHUNK + TAG
NORTH = {"tenant": "north", "Ä": "ü"}


@pytest.fixture
def through(proxy: FaultProxy, token: str) -> Iterator[Client]:
    """A client whose requests the proxy sees."""
    with Client(proxy.url, token, timeout=60) as one:
        yield one


@pytest.fixture
def envelope(client: Client) -> Envelope:
    return Envelope(client, "invoices", chunk=CHUNK)


def with_tasks(service: Service, token: str, work: Callable[[AsyncEnvelope], Any]) -> Any:
    """Run `work` with an envelope of the asyncio kind."""

    async def story() -> Any:
        async with AsyncClient(service.url, token, timeout=60) as client:
            return await work(AsyncEnvelope(client, "invoices", chunk=CHUNK))

    return asyncio.run(story())


SIZES = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK + 5, 300_000]


def test_both_kinds_and_all_ways_write_one_format(
    service: Service, token: str, envelope: Envelope
) -> None:
    async def all_of_them(task: AsyncEnvelope) -> None:
        for size in SIZES:
            content = os.urandom(size)
            written = [envelope.encrypt(content, NORTH), await task.encrypt(content, NORTH)]
            for one in (io.BytesIO(), io.BytesIO()):
                assert envelope.encrypt_stream(io.BytesIO(content), one, NORTH) == size
                written.append(one.getvalue())
            out = io.BytesIO()
            assert await task.encrypt_stream(io.BytesIO(content), out, NORTH) == size
            written.append(out.getvalue())
            chunks = max(1, -(-size // CHUNK))
            lengths = {len(one) - read_head(one).length for one in written}
            assert lengths == {size + chunks * TAG}
            assert len(set(written)) == len(written)
            for one in written:
                assert envelope.decrypt(one, NORTH) == content
                assert await task.decrypt(memoryview(bytearray(one)), NORTH) == content
                for read in (envelope.decrypt_stream, None):
                    out = io.BytesIO()
                    source = io.BytesIO(one)
                    if read is not None:
                        assert read(source, out, NORTH) == size
                    else:
                        assert await task.decrypt_stream(source, out, NORTH) == size
                    assert out.getvalue() == content

    with_tasks(service, token, all_of_them)


def test_an_array_is_encrypted_as_its_bytes(envelope: Envelope) -> None:
    numbers = array.array("I", range(3000))
    assert envelope.decrypt(envelope.encrypt(memoryview(numbers))) == numbers.tobytes()


def refused(envelope: Envelope, message: bytes, context: dict[str, str] | None = None) -> None:
    with pytest.raises(CannotDecrypt):
        envelope.decrypt(message, context)
    with pytest.raises(CannotDecrypt):
        envelope.decrypt_stream(io.BytesIO(message), io.BytesIO(), context)


def test_no_bit_of_a_head_can_be_changed(service: Service, token: str) -> None:
    # No retries: what is refused is refused at once.
    with Client(service.url, token, timeout=60, retries=0) as client:
        envelope = Envelope(client, "invoices", chunk=CHUNK)
        message = envelope.encrypt(b"content", NORTH)
        length = read_head(message).length
        for position in range(length):
            changed = bytearray(message)
            changed[position] ^= 1 << position % 8
            with pytest.raises(CannotDecrypt):
                envelope.decrypt(changed, NORTH)
        for cut in (0, 3, 8, 9, 100, length - 1, length, length + TAG - 1):
            refused(envelope, message[:cut], NORTH)
        assert envelope.decrypt(message, NORTH) == b"content"


def test_a_chunk_can_not_be_changed_left_out_moved_repeated_or_cut_off(envelope: Envelope) -> None:
    content = os.urandom(3 * CHUNK + 5)
    message, other = envelope.encrypt(content), envelope.encrypt(content)
    # Both are under one data key, which is what makes splicing worth trying.
    assert read_head(message).encrypted == read_head(other).encrypted
    length = read_head(message).length
    head, body, others = message[:length], message[length:], other[length:]
    parts = [body[at : at + STEP] for at in range(0, len(body), STEP)]
    strange = [others[at : at + STEP] for at in range(0, len(others), STEP)]
    wrong = {
        "first left out": parts[1:],
        "one left out": [parts[0], *parts[2:]],
        "last left out": parts[:-1],
        "all left out": [],
        "two exchanged": [parts[1], parts[0], *parts[2:]],
        "one repeated": [parts[0], parts[0], *parts[1:]],
        "last repeated": [*parts, parts[-1]],
        "a byte cut off": [*parts[:-1], parts[-1][:-1]],
        "cut to a tag": [*parts[:-1], parts[-1][-TAG:]],
        "a byte behind it": [*parts, b"\0"],
        "a chunk of another message": [parts[0], strange[1], *parts[2:]],
        "all of another message": strange,
    }
    for what, chunks in wrong.items():
        with pytest.raises(CannotDecrypt):
            pytest.fail(what + repr(envelope.decrypt(head + b"".join(chunks))))
        refused(envelope, head + b"".join(chunks))
    for position in (0, CHUNK, STEP, 2 * STEP + 7, len(body) - 1):
        changed = bytearray(message)
        changed[length + position] ^= 1
        refused(envelope, bytes(changed))
    # The commitment of one message before the chunks of another.
    refused(envelope, message[: length - 32] + other[length - 32 : length] + body)
    assert envelope.decrypt(head + b"".join(parts)) == content


def test_a_message_belongs_to_its_context_and_its_key(
    service: Service, client: Client, envelope: Envelope
) -> None:
    message = envelope.encrypt(b"content", NORTH)
    assert envelope.decrypt(message, dict(reversed(NORTH.items()))) == b"content"
    for context in (
        None,
        {},
        {"tenant": "north"},
        {**NORTH, "x": ""},
        {"tenant": "North", "Ä": "ü"},
    ):
        with pytest.raises(CannotDecrypt):
            envelope.decrypt(message, context)
    with service.inside() as house:
        house.grant("billing", house.key(name="Other", alias="other"), "decrypt")
    with pytest.raises(CannotDecrypt):
        Envelope(client, "other", cache=envelope._cache).decrypt(message, NORTH)
    for wrong in ({"a": 1}, {1: "a"}, {"a": "\ud800"}, ["a"]):
        with pytest.raises(InvalidRequest):
            envelope.encrypt(b"", wrong)  # type: ignore[arg-type]


def test_after_a_rotation_old_messages_open_and_new_ones_use_the_new_version(
    service: Service, client: Client, token: str
) -> None:
    with service.inside() as house:
        house.grant(
            "billing", house.key(name="Turning", alias="turning"), "generate_data_key", "decrypt"
        )
    cache = DataKeyCache()
    envelope = Envelope(client, "turning", cache=cache)
    old = envelope.encrypt(b"old")
    with service.inside() as house:
        administration.rotate_key(house.olga, "turning")
    cache.clear()
    new = envelope.encrypt(b"new")
    # The encrypted data key is a ciphertext of the service, which names its version (docs/ciphertext.md).
    versions = [int.from_bytes(read_head(one).encrypted[19:23], "big") for one in (old, new)]
    assert versions == [1, 2]
    assert (envelope.decrypt(old), envelope.decrypt(new)) == (b"old", b"new")


def test_many_threads_make_one_request(through: Client, proxy: FaultProxy) -> None:
    envelope = Envelope(through, "invoices")
    start = threading.Barrier(12)

    def work(number: int) -> tuple[bytes, bytes]:
        start.wait(60)
        message = envelope.encrypt(b"%d" % number, NORTH)
        return message, envelope.decrypt(message, NORTH)

    with ThreadPoolExecutor(12) as pool:
        done = list(pool.map(work, range(12)))
    assert [content for _, content in done] == [b"%d" % number for number in range(12)]
    assert len({read_head(message).encrypted for message, _ in done}) == 1
    assert sorted(one.asked for one in proxy.seen) == [
        "POST /api/v1/keys/invoices/decrypt",
        "POST /api/v1/keys/invoices/generate-data-key",
    ]


def test_many_tasks_make_one_request_also_where_the_first_is_cancelled(
    proxy: FaultProxy, token: str
) -> None:
    async def story() -> None:
        async with AsyncClient(proxy.url, token, timeout=60) as client:
            envelope = AsyncEnvelope(client, "invoices")
            messages = await asyncio.gather(*(envelope.encrypt(b"%d" % n) for n in range(12)))
            opened = await asyncio.gather(*map(envelope.decrypt, messages))
            assert opened == [b"%d" % n for n in range(12)]
            assert len(proxy.seen) == 2
            proxy.clear()

            proxy.next(Fault.hang())
            tasks = [asyncio.create_task(envelope.encrypt(b"x", NORTH)) for _ in range(5)]
            while not proxy.seen:
                await asyncio.sleep(0.005)
            tasks[3].cancel()
            tasks[0].cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            assert [isinstance(end, bytes) for end in ends] == [False, True, True, False, True]
            assert len(proxy.seen) == 2

    asyncio.run(story())


def test_who_waited_is_told_what_went_wrong_and_the_next_one_asks_again(
    through: Client, proxy: FaultProxy
) -> None:
    envelope = Envelope(through, "invoices")
    proxy.next(Fault.status(403, b'{"code": "denied", "detail": "Not you."}'), times=1)
    with pytest.raises(KmsError):
        envelope.encrypt(b"x")
    assert envelope.decrypt(envelope.encrypt(b"x")) == b"x"


def test_a_data_key_ends_with_its_messages_bytes_and_age(
    through: Client, proxy: FaultProxy
) -> None:
    moment = 1000.0

    def asked(cache: DataKeyCache, *sizes: int) -> int:
        proxy.clear()
        envelope = Envelope(through, "invoices", cache=cache)
        for size in sizes:
            envelope.encrypt(bytes(size))
        return len(proxy.seen)

    assert asked(DataKeyCache(max_messages=3), *[1] * 7) == 3
    assert asked(DataKeyCache(max_messages=1), *[1] * 3) == 3
    assert asked(DataKeyCache(max_bytes=100), 60, 40, 60, 41, 0) == 3
    # What is over the limit by itself has a key of its own, and the kept one stays.
    assert asked(DataKeyCache(max_bytes=100), 60, 101, 40) == 2
    assert asked(DataKeyCache(max_age=0), 1, 1, 1) == 3
    cache = DataKeyCache(max_age=300, clock=lambda: moment)
    assert asked(cache, 1, 1) == 1
    moment += 299.9
    assert asked(cache, 1) == 0
    moment += 0.1
    assert asked(cache, 1, 1) == 1
    # A stream's bytes count when it is through.
    cache = DataKeyCache(max_bytes=100)
    proxy.clear()
    envelope = Envelope(through, "invoices", cache=cache)
    envelope.encrypt_stream(io.BytesIO(bytes(101)), io.BytesIO())
    envelope.encrypt(b"")
    assert len(proxy.seen) == 2


def test_the_least_used_keys_are_dropped_beyond_capacity(
    through: Client, proxy: FaultProxy
) -> None:
    cache = DataKeyCache(capacity=2)
    envelope = Envelope(through, "invoices", cache=cache)
    for tenant in "abacab":
        envelope.encrypt(b"", {"tenant": tenant})
    # a and b are asked for, a is used, c drops b, a is used, b drops c.
    assert len(proxy.seen) == 4
    assert len(cache) == 2
    cache.clear()
    assert len(cache) == 0


@pytest.mark.parametrize(
    "limits",
    [
        {"max_age": -1},
        {"max_age": 86_401},
        {"max_messages": 0},
        {"max_messages": 2**32 + 1},
        {"max_bytes": 0},
        {"max_bytes": 2**50 + 1},
        {"capacity": 0},
    ],
)
def test_limits_that_are_none_are_refused(limits: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        DataKeyCache(**limits)


@pytest.mark.parametrize("chunk", [0, 2048, 5000, 1 << 25])
def test_a_chunks_size_is_a_power_of_two(client: Client, chunk: int) -> None:
    with pytest.raises(ValueError):
        Envelope(client, "invoices", chunk=chunk)


def test_after_a_revocation_cached_keys_end_at_their_age(service: Service) -> None:
    token, credential = service.new_token()
    moment = 0.0
    cache = DataKeyCache(max_age=300, clock=lambda: moment)
    with Client(service.url, token, timeout=60) as client:
        envelope = Envelope(client, "invoices", cache=cache)
        message = envelope.encrypt(b"content")
        assert envelope.decrypt(message) == b"content"
        with service.inside() as house:
            administration.revoke_credential(house.ada, credential)
        # The service refuses from the next request on; what is here works for its time.
        with pytest.raises(Unauthenticated):
            client.encrypt("invoices", b"")
        moment = 299.0
        assert envelope.decrypt(message) == b"content"
        assert envelope.encrypt(b"again")
        moment = 300.0
        with pytest.raises(Unauthenticated):
            envelope.encrypt(b"again")
        with pytest.raises(Unauthenticated):
            envelope.decrypt(message)
    assert len(cache) == 0


def test_clients_that_share_a_cache_do_not_share_what_they_may(
    service: Service, client: Client
) -> None:
    cache = DataKeyCache()
    mine = Envelope(client, "invoices", cache=cache)
    message = mine.encrypt(b"content")
    assert mine.decrypt(message) == b"content"
    stranger = service.house.token("stranger")
    with Client(service.url, stranger, timeout=60) as other:
        envelope = Envelope(other, "invoices", cache=cache)
        for attempt in (lambda: envelope.encrypt(b""), lambda: envelope.decrypt(message)):
            with pytest.raises(KmsError) as caught:
                attempt()
            assert caught.value.code == "not_found"


def test_a_dropped_key_is_gone_as_soon_as_nobody_uses_it(client: Client) -> None:
    cache = DataKeyCache()
    envelope = Envelope(client, "invoices", cache=cache)
    envelope.encrypt(b"")
    (place,) = cache._keys
    key = cache.take(place, "threads", 0)
    assert isinstance(key, CachedKey)
    assert cache.take(place, "threads", 0) is key
    cache.clear()
    for _ in range(2):
        assert len(key.expand(b"still in use")) == 64
        cache.release(key)
    with pytest.raises(AttributeError):
        key.expand(b"")
    assert not key.alive
    envelope.encrypt(b"")
    kept = next(iter(cache._keys.values()))
    assert kept.alive
    cache.clear()
    assert not kept.alive


def test_the_derivation_is_hkdf_with_sha512() -> None:
    secret, info = os.urandom(64), os.urandom(300)
    wanted = HKDFExpand(hashes.SHA512(), 64, info).derive(secret)
    assert CachedKey(secret, b"", 0.0).expand(info) == wanted


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_data_keys_of_its_own(service: Service, token: str) -> None:
    cache = DataKeyCache()
    with Client(service.url, token, timeout=60) as client:
        envelope = Envelope(client, "invoices", cache=cache)
        message = envelope.encrypt(b"content")
        kept = next(iter(cache._keys.values()))
        reading, writing = os.pipe()
        with cache._lock:  # held by another thread, as it may well be
            child = os.fork()
            if not child:
                code = 1
                try:
                    assert len(cache) == 0 and not kept.alive
                    os.write(writing, envelope.encrypt(b"of the child"))
                    client.close()
                    code = 0
                finally:
                    os._exit(code)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            of_child = pipe.read()
        assert os.waitpid(child, 0)[1] == 0
        assert kept.alive
        assert envelope.decrypt(message) == b"content"
        assert envelope.decrypt(of_child) == b"of the child"
        assert read_head(of_child).encrypted != read_head(message).encrypted


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_two_processes_never_go_on_with_one_message(envelope: Envelope) -> None:
    class Forking(io.BytesIO):
        """A source in whose middle the process forks."""

        code = 0

        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() == CHUNK and not self.code:
                child = os.fork()
                if not child:
                    self.code = 1
                    return super().read(size)
                self.code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            return super().read(size)

    source = Forking(bytes(3 * CHUNK))
    parent = os.getpid()
    try:
        envelope.encrypt_stream(source, io.BytesIO())
    except RuntimeError:
        assert os.getpid() != parent
        os._exit(42)
    finally:
        if os.getpid() != parent:
            os._exit(43)
    assert source.code == 42


def test_files_appear_whole_or_not_at_all(
    service: Service, token: str, envelope: Envelope, tmp_path: Path
) -> None:
    source, sealed, opened = (tmp_path / name for name in ("source", "sealed", "opened"))
    content = os.urandom(5 * CHUNK + 1)
    source.write_bytes(content)
    assert envelope.encrypt_file(source, sealed, NORTH) == len(content)
    assert envelope.decrypt_file(str(sealed), str(opened), NORTH) == len(content)
    assert opened.read_bytes() == content
    assert stat.S_IMODE(opened.stat().st_mode) == 0o600

    async def again(task: AsyncEnvelope) -> None:
        assert await task.encrypt_file(source, sealed, NORTH) == len(content)
        assert await task.decrypt_file(sealed, opened, NORTH) == len(content)
        sealed.write_bytes(sealed.read_bytes()[:-1])
        with pytest.raises(CannotDecrypt):
            await task.decrypt_file(sealed, opened, NORTH)

    opened.write_bytes(b"before")
    with_tasks(service, token, again)
    assert opened.read_bytes() == content
    opened.unlink()
    with pytest.raises(CannotDecrypt):
        envelope.decrypt_file(sealed, opened, NORTH)
    with pytest.raises(FileNotFoundError):
        envelope.encrypt_file(tmp_path / "nothing", opened)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sealed", "source"]


def test_a_source_that_gives_a_little_at_a_time_makes_the_same_chunks(envelope: Envelope) -> None:
    content = os.urandom(2 * CHUNK + 100)
    reading, writing = os.pipe()

    def feed() -> None:
        with os.fdopen(writing, "wb", buffering=0) as pipe:
            for start in range(0, len(content), 1000):
                pipe.write(content[start : start + 1000])

    out = io.BytesIO()
    with ThreadPoolExecutor(1) as pool, os.fdopen(reading, "rb", buffering=0) as pipe:
        pool.submit(feed)
        assert envelope.encrypt_stream(pipe, out) == len(content)  # type: ignore[arg-type]
    assert envelope.decrypt(out.getvalue()) == content


def test_a_data_key_that_can_not_be_one_is_not_used(through: Client, proxy: FaultProxy) -> None:
    envelope = Envelope(through, "invoices")
    message = envelope.encrypt(b"content")
    short = b'"plaintext":"QUFBQUFBQUFBQUFBQUFBQQ=="'
    spoilt = Fault.alter(lambda body: re.sub(rb'"plaintext":"[^"]*"', short, body))
    proxy.next(spoilt, times=2)
    with pytest.raises(CannotDecrypt):
        envelope.decrypt(message)
    with pytest.raises(BadAnswer):
        Envelope(through, "invoices").encrypt(b"x")
    assert envelope.decrypt(message) == b"content"
