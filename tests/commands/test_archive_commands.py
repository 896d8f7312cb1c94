"""archive_audit and hold_audit, as an operator types them."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import time_machine
from django.core.management import CommandError, call_command

from audit import retention
from audit.models import Archive, LegalHold
from tests.house import House
from tests.keys.test_holds import archive_folder, filled

__all__ = ["archive_folder"]


def run(name: str, *words: str) -> str:
    out = StringIO()
    call_command(name, *words, stdout=out)
    return out.getvalue()


def left() -> list[int]:
    return [retention.rows_left(row) for row in Archive.objects.order_by("start")]


def test_entries_go_and_come_back_by_command(house: House, archive_folder: Path) -> None:
    filled(house, 1100)
    told = run("archive_audit", "write", "--entries", "256", "--bundles", "2", "--reason", "yearly")
    assert told.splitlines()[0].startswith("0..255  entries/")
    assert len(told.splitlines()) == 2
    assert house.last_entry(action="archive_audit")["facts"]["reason"] == "yearly"
    assert "768..1099" not in run("archive_audit", "write", "--entries", "256")
    assert run("archive_audit", "verify") == (
        "0..255: sound, 256 entries\n256..511: sound, 256 entries\n512..767: sound, 256 entries\n"
    )
    assert "dropped" in run("archive_audit", "drop", "256")
    assert left() == [256, 0, 256]
    told = run("archive_audit", "list")
    assert "in the database too" in told
    assert "3 bundles; the entries below 768 are in them." in told
    assert "brought back" in run("archive_audit", "restore", "256")
    assert left() == [256, 256, 256]
    with pytest.raises(CommandError, match="are in the database"):
        run("archive_audit", "restore", "256")
    with pytest.raises(CommandError, match="no such archive"):
        run("archive_audit", "drop", "17")
    with pytest.raises(CommandError, match="nothing to archive"):
        run("archive_audit", "write")


def test_nothing_is_dropped_that_nobody_named(
    house: House, archive_folder: Path, settings: Any
) -> None:
    filled(house)
    run("archive_audit", "write", "--entries", "256")
    with pytest.raises(CommandError, match="KMS_AUDIT_KEEP_DAYS is 0"):
        run("archive_audit", "drop")
    with pytest.raises(CommandError, match="not both"):
        run("archive_audit", "drop", "0", "--before", "2100-01-01T00:00:00Z")
    with pytest.raises(CommandError, match="time zone"):
        run("archive_audit", "drop", "--before", "2100-01-01T00:00:00")
    assert run("archive_audit", "drop", "--before", "2000-01-01T00:00:00Z") == (
        "There is nothing to drop.\n"
    )
    settings.AUDIT_KEEP_DAYS = 30
    assert run("archive_audit", "drop") == "There is nothing to drop.\n"
    assert left() == [256]
    with time_machine.travel("2100-01-01T00:00:00Z"):
        assert "dropped" in run("archive_audit", "drop")
    assert left() == [0]


def test_one_bundle_that_can_t_go_stops_no_other(house: House, archive_folder: Path) -> None:
    filled(house, 1100)
    run("archive_audit", "write", "--entries", "256")
    damaged = archive_folder / Archive.objects.get(start=0).name
    damaged.chmod(0o600)
    damaged.write_bytes(b"")
    with pytest.raises(CommandError, match="1 of the bundles are not sound"):
        run("archive_audit", "verify")
    with pytest.raises(CommandError, match="1 of the bundles can't be dropped"):
        run("archive_audit", "drop", "--before", "2100-01-01T00:00:00Z")
    assert left() == [256, 0, 0]


def test_a_hold_is_placed_and_listed_by_command(house: House, archive_folder: Path) -> None:
    filled(house)
    run("archive_audit", "write", "--entries", "256")
    words = ("Case 7", "--since", "2020-01-01T00:00:00Z", "--reason", "A court asked.")
    told = run("hold_audit", "place", *words)
    hold = LegalHold.objects.get()
    assert told == f"Case 7 is in force: {hold.id}\n"
    assert run("hold_audit", "list") == (
        f"{hold.id}  Case 7  2020-01-01 00:00 to now on UTC  in force\n"
    )
    with pytest.raises(CommandError, match="Case 7"):
        run("hold_audit", "place", *words)
    with pytest.raises(CommandError, match="Case 7"):
        run("archive_audit", "drop", "0")
    assert left() == [256]
