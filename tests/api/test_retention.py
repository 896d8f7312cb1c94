"""Legal holds and the trail's archive through the API."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from audit import tiles
from audit.models import Entry
from keys import administration
from keys.services import operator
from tests.api.clients import application, person
from tests.audit.helpers import use, write
from tests.audit.test_retention import sign
from tests.house import House

ASKED = {"name": "Case 7", "since": "2020-01-01T00:00:00Z", "reason": "A court asked."}


def test_an_auditor_places_a_hold_and_officers_release_it(house: House) -> None:
    udo = person("udo")
    placed = udo.post("audit/holds", ASKED)
    assert placed.status == 201
    hold = placed.json["id"]
    assert udo.get(f"audit/holds/{hold}").json["released_at"] is None
    assert [one["id"] for one in udo.get("audit/holds?active=true").json["items"]] == [hold]
    udo.post("audit/holds", ASKED).problem(409, "already_exists")
    udo.post(f"audit/holds/{hold}/release", {}).problem(403, "denied")
    application(house, "billing").get("audit/holds").problem(403, "denied")
    waits = person("olga").post(f"audit/holds/{hold}/release", {"reason": "It is closed."})
    assert waits.status == 202
    house.approve(waits.json["approval"]["id"])
    assert udo.get("audit/holds?active=true").json["items"] == []
    udo.get("audit/holds/x").problem(404, "not_found")


def test_an_auditor_brings_entries_back(house: House, tmp_path: Path, settings: Any) -> None:
    folder = tmp_path / "archive"
    folder.mkdir()
    settings.AUDIT_ARCHIVE = folder.as_uri()
    write(*(use() for _ in range(600 - Entry.objects.count())))
    tiles.build()
    sign()
    administration.archive_audit(operator(), entries=256)
    administration.drop_audit(operator(), "0")
    udo = person("udo")
    (row,) = udo.get("audit/archives").json["items"]
    assert (row["start"], row["end"]) == (0, 256)
    assert row["dropped_at"]
    assert not Entry.objects.filter(index=3).exists()
    back = udo.post("audit/archives/0/restore", {"reason": "An inspection."})
    assert back.status == 200
    assert back.json["dropped_at"] is None
    assert Entry.objects.filter(index=3).exists()
    udo.post("audit/archives/0/restore", {}).problem(409, "conflict")
    udo.get("audit/archives/256").problem(404, "not_found")
    person("ada").post("audit/archives/0/restore", {}).problem(403, "denied")
