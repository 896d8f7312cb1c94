"""The root key through the API: how it stands, and its two changes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connections

from keys import root_keys, sealing
from keys.models import Classification, KeyStore
from kms_console import health
from tests.api.clients import application, person
from tests.house import House
from tests.hsm import Token
from tests.keys import holding
from tests.keys.holding import restarted


@pytest.fixture
def hsm(house: House, softhsm: Token) -> Iterator[KeyStore]:
    with holding.furnished(softhsm) as store:
        yield store


@pytest.fixture(autouse=True)
def looked_at_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this process can open is looked at each time, and nothing else of the house."""
    checks = tuple(check for check in health.CHECKS if check.name == "root_key")
    monkeypatch.setattr(health, "_examiner", health.Examiner(checks))
    monkeypatch.setattr(health, "KEPT_SECONDS", -1.0)


def own_root() -> str:
    return sealing.root_key_id(sealing.root_key()).hex()


def test_who_sees_key_stores_sees_how_it_stands(house: House) -> None:
    for name in ("ada", "olga", "udo"):
        seen = person(name).get("root-key").json
        assert seen["current"] == own_root() and seen["trouble"] == ""
        assert not seen["held_by_store"] and seen["file_needed"] and not seen["under_way"]
        (row,) = seen["root_keys"]
        assert (row["state"], row["key_store"], row["materials"]) == ("current", None, 1)
    application(house, "billing").get("root-key").problem(403, "denied")


def test_officers_agree_and_then_a_store_holds_it_and_rotates_it(
    house: House,
    hsm: KeyStore,
    settings: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ada, first = person("ada"), own_root()
    for path in ("hold", "rotate"):
        person("olga").post(f"root-key/{path}", {"key_store": "hsm"}).problem(403, "denied")
        ada.post(f"root-key/{path}", {"key_store": "nowhere"}).problem(404, "not_found")
        ada.post(f"root-key/{path}", {"key_store": "software"}).problem(422, "unsupported")
    ada.post("root-key/rotate").problem(400, "invalid")
    asked = ada.post("root-key/hold", {"key_store": "hsm", "reason": "no disk has it"})
    assert (asked.status, asked.json["status"]) == (202, "pending_approval")
    assert asked.headers["location"] == f"/api/v1/approvals/{asked.json['approval_id']}"
    assert not ada.get("root-key").json["held_by_store"]
    house.approve(asked.json["approval_id"])
    seen = ada.get("root-key").json
    assert seen["current"] == first and seen["held_by_store"] and seen["file_to_remove"]
    assert [row["key_store"] for row in seen["root_keys"]] == ["hsm"]
    ada.post("root-key/hold", {"key_store": "hsm"}).problem(409, "conflict")

    # The present one's store is meant where none is named; without votes it is done at once.
    Classification.objects.update(quorum_m=None, quorum_n=None)
    done = ada.post("root-key/rotate", {"reason": "a new year"})
    assert done.status == 200, done.body
    assert done.json["current"] != first and not done.json["under_way"]
    states = {row["id"]: row["state"] for row in done.json["root_keys"]}
    assert states == {done.json["current"]: "current", first: "retired"}

    settings.ROOT_KEY_FILE = tmp_path / "removed"
    restarted()
    monkeypatch.delenv(holding.PIN)
    away = ada.get("root-key").json
    assert away["trouble"] == "The key store that holds it can't be reached."
    assert away["current"] == done.json["current"] and not away["file_to_remove"]


def test_a_store_that_is_away_is_under_way_until_it_is_back(
    house: House, hsm: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    pin = os.environ[holding.PIN]
    monkeypatch.delenv(holding.PIN)
    Classification.objects.update(quorum_m=None, quorum_n=None)
    monkeypatch.setattr("keys.root_keys.making.PAUSE", timedelta(0))
    ada = person("ada")
    begun = ada.post("root-key/hold", {"key_store": "hsm"})
    assert begun.status == 200 and begun.json["under_way"] and not begun.json["held_by_store"]
    assert {row["state"] for row in begun.json["root_keys"]} == {"current", "making"}
    ada.post("root-key/rotate", {"key_store": "hsm"}).problem(409, "conflict")
    monkeypatch.setenv(holding.PIN, pin)
    root_keys.tidy()
    seen = ada.get("root-key").json
    assert seen["held_by_store"] and not seen["under_way"]


def test_without_the_material_database_it_is_503(house: House) -> None:
    connections.close_all()
    file = Path(house.database.material_url.removeprefix("sqlite:///"))
    aside = file.with_name("aside")
    os.rename(file, aside)
    file.mkdir()
    try:
        told = person("udo").get("root-key").problem(503, "backend_unavailable")
        assert told["detail"] == "The material database can't be reached."
    finally:
        connections.close_all()
        file.rmdir()
        os.rename(aside, file)
    assert person("udo").get("root-key").status == 200
