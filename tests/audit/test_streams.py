"""Streams to SIEMs: what a receiver gets, and what becomes of it when the receiver misbehaves."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connections

from audit import streams
from audit.errors import AuditError, PlaceUnavailable
from audit.events import Actor, Personal, Subject
from audit.models import Cursor, Entry
from audit.personal import PREFIX
from audit.streams import hooks, state, syslog
from audit.streams.addresses import parse
from audit.streams.delivery import Pace, Runner
from tests.audit.helpers import use, write, write_many
from tests.audit.receivers import Authority, Hook, Syslog
from tests.databases import Database
from tests.processes import eventually

pytestmark = pytest.mark.each_database(fast="postgresql")


def quick() -> Pace:
    return Pace(poll=0.02, first=0.02, longest=0.1)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.made(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def hook() -> Iterator[Hook]:
    made = Hook()
    yield made
    made.kill()


@pytest.fixture
def collector(authority: Authority) -> Iterator[Syslog]:
    made = Syslog(authority.server_context())
    yield made
    made.kill()


@pytest.fixture(autouse=True)
def shared_secret(settings: Any) -> None:
    settings.AUDIT_WEBHOOK_SECRET = "between you and me, nobody else"


@contextmanager
def running(*addresses: str) -> Iterator[list[Runner]]:
    """Deliver in threads, as the keeper does, but without long pauses."""
    stop = threading.Event()
    runners = [Runner(parse(address), stop, pace=quick) for address in addresses]
    threads = [threading.Thread(target=runner.run) for runner in runners]
    for thread in threads:
        thread.start()
    try:
        yield runners
    finally:
        stop.set()
        for runner in runners:
            runner.cutter.cut()
        for thread in threads:
            thread.join()


def once(address: str) -> int:
    """Deliver one batch, here; errors are raised."""
    runner = Runner(parse(address), threading.Event())
    try:
        return runner.deliver_one()
    finally:
        runner.release()


def indices(lines: list[Any]) -> list[int]:
    return [line["metadata"]["sequence"] for line in lines]


def received(hook: Hook) -> list[int]:
    return [index for request in hook.requests for index in indices(request.lines)]


def address(collector: Syslog, authority: Authority, more: str = "") -> str:
    return f"syslog+tls://127.0.0.1:{collector.port}?from=0&ca={authority.ca}{more}"


def told_indices(collector: Syslog) -> list[int]:
    return [int(re.search(rb'index="(\d+)"', one)[1]) for one in collector.messages]  # type: ignore[index]


# --- what a receiver gets


def test_a_hook_gets_every_entry_once_and_in_order(database: Database, hook: Hook) -> None:
    write_many(1203)
    url = hook.url("/in?tenant=7&from=0")
    while once(url):
        continue

    assert received(hook) == list(range(1203))
    assert [len(request.lines) for request in hook.requests] == [500, 500, 203]
    first = hook.requests[0]
    assert first.target == "/in?tenant=7"
    assert first.headers["content-type"] == "application/x-ndjson"
    assert first.headers["webhook-id"].startswith("entries_0_499_")
    assert first.headers["webhook-signature"].startswith("v1,")
    assert Cursor.objects.get().next == 1203


def test_syslog_over_tls_carries_each_entry_with_its_leaf_hash(
    database: Database, collector: Syslog, authority: Authority
) -> None:
    write(use(), use(action="destroy_version", object=Subject("key", "k", "Löhne", 2)))
    assert once(address(collector, authority, "&format=json&pen=54321")) == 2

    plain, accented = collector.messages
    rows = list(Entry.objects.order_by("index"))
    for message, row in zip(collector.messages, rows, strict=True):
        assert (
            f'[entry@54321 index="{row.index}" leaf="{bytes(row.leaf_hash).hex()}"'.encode()
            in message
        )
    # Facility 13, severity informational; the entry as it stands in the log.
    assert plain.startswith(b"<110>1 ")
    assert plain.endswith(b"] " + bytes(rows[0].body))
    # Severity warning, and a BOM before what is not plain ASCII.
    assert accented.startswith(b"<108>1 ")
    assert accented.endswith(b"] \xef\xbb\xbf" + bytes(rows[1].body))
    head = re.compile(
        rb"<\d+>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z [!-~]+ kms-console - encrypt \["
    )
    assert head.match(plain)


def test_a_receiver_that_wants_a_certificate_of_ours_gets_it(
    database: Database, authority: Authority
) -> None:
    collector = Syslog(authority.server_context(ask_client=True))
    try:
        write_many(3)
        with pytest.raises(PlaceUnavailable):
            once(address(collector, authority))
        certificate, key = authority.client
        assert once(address(collector, authority, f"&cert={certificate}&key={key}")) == 3
        assert told_indices(collector) == [0, 1, 2]
    finally:
        collector.kill()


def test_names_are_told_only_where_the_address_says_so(database: Database, hook: Hook) -> None:
    write(
        use(actor=Actor("person", "id", Personal("Alice Ng", "id")), facts={"to": Personal("Bob")})
    )
    once(hook.url("/a?from=0&format=cef"))
    once(hook.url("/b?from=0&names=yes"))
    once(hook.url("/c?from=0&names=yes&format=cef"))

    silent, told, told_cef = (request.body.decode() for request in hook.requests)
    assert "Alice" not in silent and "Bob" not in silent and PREFIX in silent.replace("\\=", "=")
    assert json.loads(told)["actor"]["user"]["name"] == "Alice Ng"
    assert json.loads(told)["unmapped"]["facts"] == {"to": "Bob"}
    assert "suser=Alice Ng " in told_cef


def test_a_new_stream_starts_at_the_end_of_the_log(database: Database, hook: Hook) -> None:
    write_many(5)
    assert once(hook.url()) == 0
    write(use(), use())
    assert once(hook.url()) == 2
    assert received(hook) == [5, 6]


def test_big_entries_make_small_batches(database: Database, hook: Hook) -> None:
    write(*[use(facts={"text": "x" * 300_000}) for _ in range(7)])
    while once(hook.url("/hook?from=0")):
        continue
    assert received(hook) == list(range(7))
    assert max(len(request.lines) for request in hook.requests) == 3


# --- receivers that misbehave


def test_a_hook_that_dies_and_comes_back_misses_nothing(database: Database, hook: Hook) -> None:
    write_many(700)
    hook.answers = [b"HTTP/1.1 200 Fine\r\n\r\n", b""]  # the second batch gets no answer
    with running(hook.url("/hook?from=0")):
        eventually(lambda: len(hook.requests) >= 2)
        hook.kill()
        write_many(50)
        hook.answers = [b"HTTP/1.1 204 Fine\r\n\r\n"]
        hook.start()
        eventually(lambda: Cursor.objects.filter(next=750).exists())

    got = received(hook)
    assert sorted(set(got)) == list(range(750))
    # What came twice came as a whole batch, under the same id where it was the same batch.
    assert got[:500] == list(range(500))
    assert len(got) > 750


def test_a_collector_that_dies_in_a_batch_misses_nothing(
    database: Database, collector: Syslog, authority: Authority
) -> None:
    write_many(800)
    collector.die_after = 250
    with running(address(collector, authority, "&format=cef")):
        eventually(lambda: Cursor.objects.filter(next=800).exists())

    got = told_indices(collector)
    assert sorted(set(got)) == list(range(800))
    assert got[:250] == list(range(250))
    assert got[250] == 0  # the batch began anew: the receiver knows by the index


def test_a_collector_that_is_restarted_misses_nothing(
    database: Database, collector: Syslog, authority: Authority
) -> None:
    with running(address(collector, authority)):
        for _ in range(3):
            write_many(100)
            eventually(lambda: len(collector.messages) > 0)
            collector.kill()
            write_many(20)
            collector.start()
        eventually(lambda: set(told_indices(collector)) == set(range(360)))
        eventually(lambda: Cursor.objects.filter(next=360).exists())


def test_an_end_without_close_notify_counts_only_where_the_address_says_so(
    database: Database, authority: Authority
) -> None:
    collector = Syslog(authority.server_context(), rude=True)
    try:
        write_many(2)
        with pytest.raises(PlaceUnavailable, match="without close_notify"):
            once(address(collector, authority))
        assert once(address(collector, authority, "&close=eof")) == 2
    finally:
        collector.kill()


def test_a_collector_that_never_closes_has_taken_nothing(
    database: Database,
    collector: Syslog,
    authority: Authority,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(syslog, "SECONDS", 0.3)
    collector.deaf = True
    write_many(2)
    with pytest.raises(PlaceUnavailable, match="took too long"):
        once(address(collector, authority))
    assert Cursor.objects.get().next == 0


NO = [
    b"",
    b"nonsense",
    b"HTTP/1.1 500 Oh\r\n\r\n",
    b"HTTP/1.1 400 No\r\n\r\n",
    b"HTTP/1.1 301 There\r\nLocation: /elsewhere\r\n\r\n",
    b"HTTP/1.1 200 Fine\r\n" + b"a: b\r\n" * 1000 + b"\r\n",
]


def test_an_answer_that_is_no_yes_moves_nothing(database: Database, hook: Hook) -> None:
    write_many(2)
    hook.answers = NO
    for count in range(1, len(NO) + 1):
        with pytest.raises(AuditError):
            once(hook.url("/hook?from=0"))
        assert len(hook.requests) == count
        assert Cursor.objects.get().next == 0


def test_a_hanging_hook_is_given_up_and_holds_up_nobody(
    database: Database, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooks, "SECONDS", 0.3)
    slow = Hook(hang=True)
    write_many(2)
    try:
        with running(slow.url("/hook?from=0"), hook.url("/hook?from=0")):
            eventually(lambda: received(hook) == [0, 1])
            eventually(lambda: Cursor.objects.filter(failing_since=None).count() == 1)
            failed = Cursor.objects.exclude(failing_since=None).get()
            assert failed.next == 0
            assert failed.problem.endswith("it took too long")
    finally:
        slow.kill()


def test_stopping_waits_for_no_receiver(database: Database) -> None:
    slow = Hook(hang=True)
    write_many(2)
    try:
        with running(slow.url("/hook?from=0")) as (runner,):
            eventually(lambda: len(slow.requests) == 1)
            runner.stop.set()
        # Leaving joined the thread, long before the answer's 30 seconds were over.
        assert not slow.release.is_set()
        row = Cursor.objects.get()
        assert (row.next, row.holder) == (0, "")
    finally:
        slow.kill()


def test_who_asks_for_time_gets_it() -> None:
    pace = Pace(first=1, longest=60)
    assert pace.after_failure(300) == 300
    pauses = [pace.after_failure(None) for _ in range(50)]
    assert 1 <= pauses[0] <= 2
    assert 30 <= max(pauses) <= 60


def test_a_certificate_of_nobody_known_is_refused(
    database: Database, collector: Syslog, authority: Authority, settings: Any
) -> None:
    write_many(2)
    stranger = f"syslog+tls://127.0.0.1:{collector.port}?from=0"
    settings.AUDIT_STREAMS = [stranger]
    with running(stranger):
        eventually(lambda: Cursor.objects.filter(problem__contains="certificate").exists())
    assert collector.messages == []
    told = streams.trouble()
    assert told.startswith("1 of 1 streams failing since ")
    assert "certificate is refused" in told
    assert "127.0.0.1" not in told and str(collector.port) not in told


# --- several keepers, a database that goes away


def test_two_keepers_do_not_send_everything_twice(database: Database, hook: Hook) -> None:
    url = hook.url("/hook?from=0")
    with running(url, url):
        for _ in range(5):
            write_many(40)
        eventually(lambda: Cursor.objects.filter(next=200).exists())
    assert received(hook) == list(range(200))


def test_a_lease_that_ended_is_anothers(database: Database, hook: Hook) -> None:
    stream = parse(hook.url())
    assert state.claim(stream, "one") is not None
    assert state.claim(stream, "two") is None
    assert state.claim(stream, "one") is not None
    Cursor.objects.update(held_until="2020-01-01T00:00:00+00:00")
    assert state.claim(stream, "two") is not None
    # The first one comes back from a long delivery: what it sent counts once.
    assert state.move(stream, 0, 5)
    assert not state.move(stream, 0, 5)
    state.release(stream, "one")
    assert state.claim(stream, "one") is None
    state.release(stream, "two")
    assert state.claim(stream, "one") is not None


def test_a_lost_connection_to_the_database_is_made_anew(database: Database, hook: Hook) -> None:
    if database.server is None:
        pytest.skip("SQLite has no connection to lose")
    with running(hook.url("/hook?from=0")):
        write_many(1)
        eventually(lambda: received(hook) == [0])
        with connections["default"].cursor() as cursor:
            cursor.execute(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            assert cursor.fetchone()[0] >= 1
        write_many(1)
        eventually(lambda: set(received(hook)) == {0, 1})


# --- the keeper's side


def test_the_keeper_delivers_what_the_settings_name(
    database: Database, hook: Hook, settings: Any
) -> None:
    write_many(3)
    settings.AUDIT_STREAMS = [hook.url("/a?from=0"), "ftp://nowhere", hook.url("/b?from=1")]
    stop = threading.Event()
    keeper = threading.Thread(target=streams.deliver_all, args=(stop,))
    keeper.start()
    try:
        eventually(lambda: Cursor.objects.filter(next=3).count() == 2)
    finally:
        stop.set()
        keeper.join()
    by_target = {request.target: indices(request.lines) for request in hook.requests}
    assert by_target == {"/a": [0, 1, 2], "/b": [1, 2]}
    assert "stream 2" in streams.trouble()


def test_without_streams_there_is_no_trouble(database: Database, settings: Any) -> None:
    settings.AUDIT_STREAMS = []
    assert streams.trouble() == ""


def test_a_stream_that_nobody_delivers_is_told_of(
    database: Database, hook: Hook, settings: Any
) -> None:
    settings.AUDIT_STREAMS = [hook.url("/hook?from=0")]
    long_ago = 1_500_000_000_000_000
    write(use(at=long_ago))
    state.position(parse(settings.AUDIT_STREAMS[0]))
    assert streams.trouble() == "1 of 1 streams behind since 2017-07-14 02:40 UTC"
    assert once(settings.AUDIT_STREAMS[0]) == 1
    assert streams.trouble() == ""


@pytest.mark.parametrize(
    "word",
    [
        "https://h/?format=xml",
        "https://h/?names=maybe",
        "https://h/?names=yes&format=json",
        "https://h/?from=last",
        "https://h/?format=cef&format=json",
        "https://u:p@h/",
        "syslog://h:514",
        "syslog+tls://h/path",
        "syslog+tls://h?key=/k",
        "syslog+tls://h?pen=me",
        "syslog+tls://",
        "https://[::1",
        "https://h:0/",
    ],
)
def test_an_address_that_says_nonsense_is_told_of_without_repeating_it(
    settings: Any, word: str
) -> None:
    settings.AUDIT_STREAMS = [word]
    assert re.match("1 of the streams' addresses can't be used: stream 1", streams.trouble())
    assert "u:p" not in streams.trouble()


def test_the_cursor_is_kept_without_the_address() -> None:
    def identity(word: str) -> str:
        return parse(word).identity

    plain = identity("https://h/hook/T0KEN")
    assert "T0KEN" not in plain
    assert identity("https://h:443/hook/T0KEN?ca=/x&from=0&names=yes") == plain
    assert identity("https://h/hook/T0KEN?format=cef") != plain
