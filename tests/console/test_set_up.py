"""The first run: one code, one page, once."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.test import Client, override_settings

from keys import snapshot
from keys.models import Classification, KeyStore, Principal
from kms_console import presets
from tests.databases import Database


@pytest.fixture
def secrets(database: Database, tmp_path: Path, root_key: Path) -> Iterator[Path]:
    folder = tmp_path / "secrets"
    snapshot.cache.forget()
    hashers = ["tests.house.QuickHasher"]
    with override_settings(SECRETS_DIR=folder, ROOT_KEY_FILE=root_key, PASSWORD_HASHERS=hashers):
        yield folder
    snapshot.cache.forget()


def form(code: str, officers: int = 3, **more: Any) -> dict[str, Any]:
    values: dict[str, Any] = {"code": code, "officers": officers, "presets": list(_PRESETS)}
    for prefix in ["administrator", *(f"officer_{n}" for n in range(1, officers + 1))]:
        name = prefix.replace("_", "-")
        values |= {
            f"{prefix}_name": f"The {name}",
            f"{prefix}_username": name,
            f"{prefix}_password": f"a password of {name}",
        }
    return values | more


_PRESETS = [row["name"] for row in presets.CLASSIFICATIONS]


def test_a_new_house_shows_nothing_but_its_set_up_page(secrets: Path, client: Client) -> None:
    for address in ("/", "/keys", "/sign-in", "/audit"):
        assert client.get(address)["Location"] == "/set-up", address
    page = client.get("/set-up")
    assert page.status_code == 200
    code = secrets / "setup-code"
    assert stat.S_IMODE(code.stat().st_mode) == 0o600
    assert code.read_text().strip() not in page.content.decode()


def test_the_set_up_page_makes_people_store_and_policies_and_closes_for_ever(
    secrets: Path, client: Client
) -> None:
    client.get("/set-up")
    code = (secrets / "setup-code").read_text().strip()
    auditor = {
        "auditor_name": "The auditor",
        "auditor_username": "auditor",
        "auditor_password": "a password of auditor",
    }
    answer = client.post("/set-up", form(code, officers=4, **auditor))
    assert answer.status_code == 302, answer.content.decode()
    people = Principal.objects.filter(kind="person")
    assert sorted(people.values_list("role", flat=True)) == [
        "administrator", "auditor", "officer", "officer", "officer", "officer",
    ]  # fmt: skip
    assert KeyStore.objects.get().name == presets.FIRST_KEY_STORE["name"]
    assert set(Classification.objects.values_list("name", flat=True)) == set(_PRESETS)
    health = Classification.objects.get(name="patient-health")
    assert (health.rotation_days, health.quorum_m, health.quorum_n) == (90, 2, 3)
    assert not (secrets / "setup-code").exists()
    assert client.get("/set-up").status_code == 404
    assert client.post("/set-up", form(code)).status_code == 404
    assert client.post(
        "/sign-in", {"username": "administrator", "password": "a password of administrator"}
    ).status_code == 302  # fmt: skip


def test_a_wrong_code_opens_nothing_and_guessing_is_stopped(secrets: Path, client: Client) -> None:
    statuses = [client.post("/set-up", form(f"guess {number}")).status_code for number in range(12)]
    assert statuses == [403] * 10 + [429] * 2
    right = (secrets / "setup-code").read_text().strip()
    assert client.post("/set-up", form(right)).status_code == 429
    assert not Principal.objects.filter(kind="person").exists()


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"officer_2_username": "officer-1"}, "Somebody above has this user name"),
        ({"administrator_password": "short"}, "too short"),
        ({"officer_3_name": ""}, "This field is required"),
        ({"auditor_name": "Only a name"}, "or none of them"),
        ({"administrator_username": "Not A Slug!"}, "username must have"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_half_done(
    changes: dict[str, str], word: str, secrets: Path, client: Client
) -> None:
    client.get("/set-up")
    code = (secrets / "setup-code").read_text().strip()
    answer = client.post("/set-up", form(code, **changes))
    assert answer.status_code == 400
    body = answer.content.decode()
    assert word in body
    assert "a password of" not in body
    assert not Principal.objects.filter(kind="person").exists()
    assert client.post("/set-up", form(code)).status_code == 302


def test_there_is_room_for_more_officers_without_script(secrets: Path, client: Client) -> None:
    assert "officer_4_name" not in client.get("/set-up").content.decode()
    assert "officer_6_name" in client.get("/set-up?officers=6").content.decode()
    assert client.get("/set-up?officers=99999999999999999999").status_code == 200
