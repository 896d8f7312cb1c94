"""Streams where the log isn't what it was: entries that were dropped, removed, or changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from django.db import connection, connections

from audit import retention, streams
from audit.canonical import encode
from audit.errors import StreamError
from audit.events import Actor, Personal, Subject
from audit.merkle import leaf_hash
from audit.models import Archive, Checkpoint, Cursor, Entry
from audit.streams import delivery, state
from audit.streams.addresses import parse
from tests.audit.helpers import ALICE, attacker, use, write, write_many
from tests.audit.receivers import Hook
from tests.audit.test_retention import archive, archive_folder, drop, log_of, restore
from tests.audit.test_streams import hook, once, received, running, shared_secret
from tests.databases import Database
from tests.processes import eventually

__all__ = ["archive_folder", "hook", "shared_secret"]
pytestmark = pytest.mark.each_database(fast="postgresql")


def tamper(database: Database, *statements: str) -> None:
    """Change the database as one who owns it can."""
    if database.server is None:
        with attacker(database) as file:
            for sql in statements:
                file.execute(sql)
        connections.close_all()
        return
    with connection.cursor() as cursor:
        for table in ("audit_entry", "audit_head"):
            cursor.execute(f"ALTER TABLE {table} DISABLE TRIGGER ALL")
        for sql in statements:
            cursor.execute(sql)


def everything(hook: Hook, path: str = "/hook?from=0") -> list[int]:
    while once(hook.url(path)):
        continue
    return received(hook)


# --- what may be missing, and what may not


def test_what_was_dropped_before_its_turn_is_passed_over(
    database: Database, hook: Hook, archive_folder: Path
) -> None:
    log_of(1400)
    first = archive(512)
    archive(256)
    drop(first)
    assert everything(hook) == list(range(512, 1400))
    hook.requests.clear()
    drop(Archive.objects.get(start=512))
    assert everything(hook, "/other?from=100") == list(range(768, 1400))
    hook.requests.clear()
    restore(Archive.objects.get(start=512))
    # A gap before what came back: nothing of what is there is left out.
    assert everything(hook, "/third?from=100") == list(range(512, 1400))


def test_an_entry_that_somebody_removed_stops_the_stream_and_is_told_of(
    database: Database, hook: Hook, settings: Any
) -> None:
    write_many(30)
    tamper(database, 'DELETE FROM audit_entry WHERE "index" IN (7, 8, 20)')
    settings.AUDIT_STREAMS = [hook.url("/hook?from=0")]
    with running(*settings.AUDIT_STREAMS):
        eventually(lambda: Cursor.objects.exclude(failing_since=None).exists())
    assert received(hook) == list(range(7))
    assert Cursor.objects.get().next == 7
    assert streams.trouble().endswith(": entry 7 is missing: verify the log")


def test_a_bundle_that_was_not_dropped_explains_no_gap(
    database: Database, hook: Hook, archive_folder: Path
) -> None:
    log_of(600)
    row = archive(256)
    tamper(database, 'DELETE FROM audit_entry WHERE "index" BETWEEN 10 AND 300')
    with pytest.raises(StreamError, match="entry 10 is missing"):
        everything(hook)
    # Nor does one that was dropped, where the gap goes beyond it.
    Archive.objects.filter(pk=row.pk).update(dropped_at=row.archived_at)
    with pytest.raises(StreamError, match="entry 256 is missing"):
        everything(hook)
    assert received(hook) == list(range(10))


def test_entries_that_are_missing_at_the_end_are_missed(database: Database, hook: Hook) -> None:
    write_many(10)
    tamper(database, 'DELETE FROM audit_entry WHERE "index" >= 4')
    with pytest.raises(StreamError, match="entry 4 is missing"):
        everything(hook)
    assert received(hook) == list(range(4))


def test_a_log_that_became_shorter_is_not_waited_for(database: Database, hook: Hook) -> None:
    write_many(10)
    everything(hook)
    tamper(
        database,
        'DELETE FROM audit_entry WHERE "index" >= 4',
        "UPDATE audit_head SET size = 4 WHERE id = 1",
    )
    with pytest.raises(StreamError, match="10 entries were delivered, and the log has 4"):
        once(hook.url("/hook?from=0"))


# --- entries that were changed


def _put(database: Database, index: int, body: bytes, leaf: bytes) -> None:
    """Put another body and another leaf hash in an entry's place."""
    mark = "'\\x{}'::bytea" if database.server else "x'{}'"
    told, hashed = mark.format(body.hex()), mark.format(leaf.hex())
    sql = f'UPDATE audit_entry SET body = {told}, leaf_hash = {hashed} WHERE "index" = {index}'
    tamper(database, sql)


def test_an_entry_with_another_body_stops_the_stream(database: Database, hook: Hook) -> None:
    write_many(5)
    row = Entry.objects.get(index=3)
    other = bytes(row.body).replace(b"encrypt", b"decrypt")
    _put(database, 3, other, bytes(row.leaf_hash))
    for form in ("ocsf", "json"):
        hook.requests.clear()
        with pytest.raises(StreamError, match="entry 3 is not what was written: verify the log"):
            everything(hook, f"/hook?from=0&format={form}")
        assert sum(len(request.lines) for request in hook.requests) == 3


@pytest.mark.parametrize(
    "body",
    [
        b"\xff\xfe",
        b"{",
        b"[]",
        b"3",
        b"{}",
        b'{"index": 3}',
        b'{"index": 4, "action": "encrypt"}',
        b'{"index": 3, "action": [], "outcome": {}}',
    ],
)
def test_an_unreadable_entry_stops_its_stream_with_a_clear_sentence(
    database: Database, hook: Hook, settings: Any, body: bytes
) -> None:
    write_many(5)
    _put(database, 3, body, leaf_hash(body))
    settings.AUDIT_STREAMS = [hook.url("/hook?from=0&format=cef")]
    with running(*settings.AUDIT_STREAMS):
        eventually(lambda: Cursor.objects.exclude(failing_since=None).exists())
    assert Cursor.objects.get().next == 3
    assert len(hook.requests) == 1
    assert hook.requests[0].body.count(b"\n") == 3
    told = streams.trouble().partition(" UTC: ")[2]
    assert told in (
        "entry 3 can't be read: verify the log",
        "entry 3 says that it is another one: verify the log",
    )


def test_facts_of_an_odd_form_do_not_stop_the_keeper(database: Database, hook: Hook) -> None:
    write_many(5)
    body = json.loads(bytes(Entry.objects.get(index=3).body)) | {"facts": [], "at": "soon"}
    forged = encode(body)
    _put(database, 3, forged, leaf_hash(forged))
    with pytest.raises(StreamError, match="entry 3 can't be read"):
        everything(hook)
    assert received(hook) == [0, 1, 2]


# --- what a receiver takes at once


def test_a_batch_that_is_too_long_is_halved_until_it_is_taken(
    database: Database, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "GROW_AFTER", 3)
    write_many(200)
    hook.limit = 20_000  # some 12 of these events
    with running(hook.url("/hook?from=0")):
        eventually(lambda: Cursor.objects.filter(next=200).exists())
    assert received(hook) == list(range(200))
    assert Cursor.objects.get().failing_since is None
    sizes = [len(request.lines) for request in hook.requests]
    # Halved from 200 to what fits, and now and then more is tried again.
    assert max(sizes) <= 12
    assert len(hook.refused) > 4
    assert sizes.count(1) < 10


def test_one_entry_alone_that_is_too_long_is_told_of_and_never_skipped(
    database: Database, hook: Hook, settings: Any
) -> None:
    write(use(), use(facts={"text": "x" * 10_000}), use())
    hook.limit = 5000
    settings.AUDIT_STREAMS = [hook.url("/hook?from=0")]
    with running(*settings.AUDIT_STREAMS):
        eventually(lambda: Cursor.objects.exclude(failing_since=None).exists())
        assert streams.trouble().endswith("entry 1 alone is too long for the receiver")
        assert received(hook) == [0]
        hook.limit = None
        eventually(lambda: Cursor.objects.filter(next=3).exists())
    assert received(hook) == [0, 1, 2]


def test_a_batch_has_up_to_one_mebibyte_as_it_is_sent(database: Database, hook: Hook) -> None:
    # As CEF text is cut at 4000 characters, as OCSF it is longer than the entry.
    write(*[use(facts={"text": "x" * 9000}) for _ in range(150)])
    assert everything(hook) == list(range(150))
    lengths = [len(request.body) for request in hook.requests]
    assert len(lengths) == 2 and max(lengths) <= 1024 * 1024
    # Another entry would have fitted in neither.
    assert lengths[0] + max(len(line) for line in hook.requests[0].body.split(b"\n")) > 1024 * 1024


# --- whose name is told


def test_who_is_named_like_somebodys_commitment_is_not_shown_under_that_name(
    database: Database, hook: Hook
) -> None:
    write(use(actor=Actor("person", ALICE.id, Personal("Alice Ng", ALICE.id))))
    commitment = json.loads(bytes(Entry.objects.get().body))["actor"]["name"]
    impostor = Actor("application", "0192f0c1-0000-7000-8000-00000000bad0", commitment)
    write(
        use(actor=impostor, source=commitment),
        use(object=Subject("principal", impostor.id, commitment)),
    )
    for path in ("/a?from=0&names=yes", "/b?from=0&names=yes&format=cef"):
        once(hook.url(path))

    alice, acting, acted_on = hook.requests[0].lines
    assert alice["actor"]["user"]["name"] == "Alice Ng"
    assert acting["actor"]["user"]["name"] == acting["src_endpoint"]["uid"] == commitment
    assert "Alice" not in json.dumps([acting, acted_on])
    assert hook.requests[1].body.count(b"Alice Ng") == 1


def test_a_name_that_was_erased_stays_a_commitment(database: Database, hook: Hook) -> None:
    from audit.personal import PREFIX, erase

    write(use(actor=Actor("person", ALICE.id, Personal("Alice Ng", ALICE.id))))
    erase(ALICE.id)
    once(hook.url("/hook?from=0&names=yes"))
    assert hook.requests[0].lines[0]["actor"]["user"]["name"].startswith(PREFIX)


# --- what events say of the log, and what the log keeps for streams


def test_events_name_the_log_as_its_checkpoints_do(database: Database, hook: Hook) -> None:
    log_of(5)
    assert Checkpoint.objects.get().origin == "a.example/log"
    everything(hook)
    assert {line["metadata"]["log_name"] for line in hook.requests[0].lines} == {"a.example/log"}


def test_before_anything_was_signed_the_log_has_the_products_name(
    database: Database, hook: Hook
) -> None:
    write_many(2)
    everything(hook)
    assert {line["metadata"]["log_name"] for line in hook.requests[0].lines} == {"kms-console"}


def test_what_streams_have_still_to_deliver_is_known(
    database: Database, hook: Hook, settings: Any
) -> None:
    write_many(700)
    settings.AUDIT_STREAMS = []
    assert streams.reached() is None
    first, second, third = hook.url("/a?from=0"), hook.url("/b?from=600"), hook.url("/c")
    settings.AUDIT_STREAMS = [second, third]
    assert streams.reached() == 600
    settings.AUDIT_STREAMS = [first, second, third]
    assert streams.reached() == 0
    once(first)
    assert streams.reached() == 500
    once(first)
    once(second)
    assert streams.reached() == 700
    # A stream that is no longer configured holds up nothing, but while an address is unclear it may.
    state.position(parse(hook.url("/gone?from=10")))
    assert streams.reached() == 700
    settings.AUDIT_STREAMS = [first, "ftp://nowhere"]
    assert streams.reached() == 10


def test_streams_say_nothing_of_what_may_be_dropped_once_all_was_delivered(
    database: Database, hook: Hook, settings: Any, archive_folder: Path
) -> None:
    log_of(600)
    settings.AUDIT_STREAMS = [hook.url("/hook?from=0")]
    everything(hook)
    row = archive(256)
    assert streams.reached() == 600
    assert drop(row) == 256
    assert retention.rows_left(row) == 0
    assert not once(settings.AUDIT_STREAMS[0])
    write_many(2)
    assert once(settings.AUDIT_STREAMS[0]) == 2
