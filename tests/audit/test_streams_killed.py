"""Streams when the keeper's process is killed: a real `manage.py trail`, and a real receiver."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from django.db import connections

from audit.models import Cursor
from audit.streams.addresses import parse
from tests.audit.helpers import write_many
from tests.audit.receivers import Hook
from tests.audit.test_keeper import trail
from tests.databases import Database
from tests.processes import eventually

pytestmark = [pytest.mark.exhaustive, pytest.mark.each_database]


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hook]:
    made = Hook()
    monkeypatch.setenv("KMS_AUDIT_STREAMS", made.url("/hook?from=0"))
    monkeypatch.setenv("KMS_AUDIT_WEBHOOK_SECRET", "between you and me, nobody else")
    yield made
    made.kill()


def received(hook: Hook) -> list[list[int]]:
    return [[line["metadata"]["sequence"] for line in request.lines] for request in hook.requests]


def next_entry(hook: Hook) -> int:
    row = Cursor.objects.filter(stream=parse(hook.url("/hook")).identity).first()
    return row.next if row else 0


def end_lease() -> None:
    """Let 90 seconds pass: the lease of a keeper that was killed ends by itself."""
    Cursor.objects.update(held_until=datetime.now(UTC))


def test_killed_before_the_answer_the_next_keeper_sends_the_batch_again(
    database: Database, tmp_path: Path, hook: Hook
) -> None:
    write_many(700)
    connections.close_all()
    hook.hang = True
    first = trail(database, tmp_path)
    try:
        eventually(lambda: len(hook.requests) == 1)
    finally:
        first.kill()
    assert next_entry(hook) == 0
    hook.hang = False
    hook.release.set()
    end_lease()
    second = trail(database, tmp_path)
    try:
        eventually(lambda: next_entry(hook) == 700)
    finally:
        second.kill()
    assert received(hook) == [
        list(range(500)),
        list(range(500)),
        list(range(500, 700)),
    ]
    # The same batch has the same id, by which a receiver may know it.
    ids = [request.headers["webhook-id"] for request in hook.requests]
    assert ids[0] == ids[1] != ids[2]


def test_whenever_it_is_killed_nothing_is_lost(
    database: Database, tmp_path: Path, hook: Hook
) -> None:
    size = 0
    for turn in range(6):
        write_many(3000)
        size += 3000
        connections.close_all()
        offered = len(hook.requests)
        process = trail(database, tmp_path)
        try:
            eventually(lambda: len(hook.requests) > offered + turn)  # noqa: B023 - at once
        finally:
            process.kill()
        end_lease()
    process = trail(database, tmp_path)
    try:
        eventually(lambda: next_entry(hook) == size)
    finally:
        process.kill()
    # In order, but for batches that came again from where the cursor stood.
    reached = 0
    for batch in received(hook):
        assert batch == list(range(batch[0], batch[0] + len(batch)))
        assert batch[0] <= reached
        reached = max(reached, batch[-1] + 1)
    assert reached == size
