"""A database is put back behind running processes: none of them goes by what it remembers of the other."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from django.core.management import call_command
from django.db import connections

from audit import guard
from audit.writer import close_appender, head
from keys import administration, operations, snapshot
from keys.errors import KeyServiceError, LogUnavailable
from keys.models import Grant, Principal
from tests.house import House


def add(house: House, name: str) -> None:
    administration.create_person(house.ada, name=name, username=name, role="auditor")


def test_a_revocation_after_a_restore_is_seen_by_who_saw_another_change_of_that_number(
    house: House, tmp_path: Path
) -> None:
    path = Path(house.database.url.removeprefix("sqlite:///"))
    grant = Grant.objects.get(
        principal=Principal.objects.get(name="billing"), key__alias="invoices", revoked_at=None
    )
    connections.close_all()
    kept = tmp_path / "backup.sqlite3"
    shutil.copyfile(path, kept)
    before = head().epoch
    # This process sees changes that the backup has not, and goes on from what it knows then.
    for number in range(3):
        add(house, f"before-{number}")
    changes = head().epoch - before
    operations.encrypt(house.billing, "invoices", b"x")
    seen, mark = snapshot.cache.epoch, guard._state("default").mark
    assert mark is not None and seen == head().epoch
    caches = dict(snapshot.cache._values), dict(snapshot.cache._by_subject)
    close_appender()
    connections.close_all()
    for end in ("-wal", "-shm"):
        Path(f"{path}{end}").unlink(missing_ok=True)
    shutil.copyfile(kept, path)
    guard.look()
    with pytest.raises(LogUnavailable):
        operations.encrypt(house.billing, "invoices", b"x")

    # Another process: an operator's, and then an officer's.
    snapshot.cache.forget()
    call_command("accept_log", reason="Last night's backup.")
    administration.revoke_grant(house.olga, str(grant.id))
    while head().epoch < seen:  # as many changes as this process has seen
        add(house, f"after-{head().epoch}")
    assert changes > 0

    # And this one again, with all it remembers.
    snapshot.cache.forget()
    snapshot.cache.advance(seen, None)
    snapshot.cache._values, snapshot.cache._by_subject = caches[0], dict(caches[1])
    guard._state("default").mark = mark
    guard.look()
    assert guard.refusal() == ""
    with pytest.raises(KeyServiceError) as refused:
        operations.encrypt(house.billing, "invoices", b"x")
    assert refused.value.code in ("denied", "not_found")
