"""The root key on the page of key stores: what stands there, and asking for its two changes."""

from __future__ import annotations

import html
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import connections
from django.test import Client

from keys import root_keys, sealing
from keys.administration import root_key as changes
from keys.administration.root_key import hold_root_key, rotate_root_key
from keys.backends.software.models import RootKey
from keys.models import Approval, Classification, KeyStore
from kms_console import health
from tests.house import House
from tests.hsm import Token
from tests.keys import holding
from tests.keys.holding import agreed, restarted

HOLD, ROTATE = "/key-stores/-/root-key/hold", "/key-stores/-/root-key/rotate"
ASKED = {"key_store": "hsm", "reason": "no host keeps it on its disk"}


@pytest.fixture
def hsm(house: House, softhsm: Token) -> Iterator[KeyStore]:
    with holding.furnished(softhsm) as store:
        yield store


@pytest.fixture
def looked_at_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this process can open is looked at each time, and nothing else of the house."""
    checks = tuple(check for check in health.CHECKS if check.name == "root_key")
    monkeypatch.setattr(health, "_examiner", health.Examiner(checks))
    monkeypatch.setattr(health, "KEPT_SECONDS", -1.0)


def text(client: Client, address: str, status: int = 200) -> str:
    answer = client.get(address)
    assert answer.status_code == status, answer.content.decode()
    return html.unescape(answer.content.decode())


def panel(client: Client) -> str:
    found = text(client, "/key-stores").split('id="root-key-panel"')[1].split("</section>")[0]
    return re.sub(r"\s+", " ", re.sub(r"</?(strong|span)[^>]*>", "", found))


def test_where_only_a_file_holds_it_the_page_says_so_and_what_to_add(
    house: House, ada: Client
) -> None:
    shown = panel(ada)
    own = sealing.root_key_id(sealing.root_key()).hex()
    assert "It lies in a file or a variable of every host" in shown and own in shown
    assert "add one first" in shown and "Seals" in shown
    assert HOLD not in shown and ROTATE not in shown and "progress" not in shown
    assert "No key store here can" in text(ada, HOLD)


def test_an_administrator_asks_and_the_officers_let_a_store_hold_it(
    house: House, hsm: KeyStore, ada: Client, olga: Client, udo: Client
) -> None:
    assert HOLD in panel(ada) and ROTATE in panel(ada)
    asking = text(ada, HOLD)
    assert "nothing is sealed anew" in asking and "2 officers besides you" in asking
    assert 'value="hsm"' in asking and 'value="software"' not in asking
    assert ada.post(HOLD, {"reason": "no store is chosen"}).status_code == 400
    for client in (olga, udo):
        assert HOLD not in panel(client) and ROTATE not in panel(client)
        assert client.get(HOLD).status_code == client.post(HOLD, ASKED).status_code == 403
    assert not RootKey.objects.exists() and not Approval.objects.exists()

    answer = ada.post(HOLD, ASKED)
    request = Approval.objects.get()
    assert answer["Location"] == f"/approvals/{request.id}"
    voting = text(olga, f"/approvals/{request.id}")
    assert "Let a key store hold the root key" in voting and "hsm" in voting
    assert "nothing is sealed anew" in voting
    house.approve(str(request.id))
    shown = panel(ada)
    assert "hsm holds it" in shown and "AES-256-GCM" in shown
    assert "no longer needed" in shown and "remove it from every host" in shown
    assert HOLD not in shown and ROTATE in shown
    off = ada.post("/key-stores/hsm/off", {"reason": "a mistake"})
    assert off.status_code == 409 and "holds the root key" in off.content.decode()


def test_a_rotation_says_what_happens_and_the_page_how_far_it_is(
    house: House, hsm: KeyStore, ada: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    asking = text(ada, ROTATE)
    assert "writes no root key to a file" in asking and "older backups" in asking
    monkeypatch.setattr(changes, "AT_ONCE", -1.0)  # the sweeps have it all to do
    assert ada.post(ROTATE, ASKED).status_code == 302
    house.approve(str(Approval.objects.get().id))
    shown = panel(ada)
    assert 'value="0"' in shown and "still under an old one" in shown
    assert 'hx-get="/key-stores?look=1"' in shown and "Being replaced" in shown
    assert "Keep the old root key's file or variable on every host" in shown
    root_keys.tidy()
    shown = panel(ada)
    assert "progress" not in shown and "hx-trigger" not in shown
    assert "no longer needed" in shown and "Retired" in shown
    # The store that holds it is chosen already.
    assert re.search(r'value="hsm"\s+selected', text(ada, ROTATE))


def test_without_votes_it_is_done_at_once_and_refusals_stand_in_the_form(
    house: House, hsm: KeyStore, ada: Client
) -> None:
    agreed(house, hold_root_key, key_store="hsm")
    again = ada.post(HOLD, ASKED)
    assert again.status_code == 409
    assert "A key store holds the root key already" in again.content.decode()
    Classification.objects.update(quorum_m=None, quorum_n=None)
    done = ada.post(ROTATE, ASKED)
    assert done["Location"] == "/key-stores#root-key"
    assert "It is begun" in text(ada, "/key-stores")
    assert RootKey.objects.filter(state="current").count() == 1


@pytest.mark.usefixtures("looked_at_now")
def test_while_the_store_is_away_the_page_says_so(
    house: House,
    hsm: KeyStore,
    ada: Client,
    settings: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    agreed(house, rotate_root_key, key_store="hsm")
    assert "can't open it now" not in panel(ada)
    settings.ROOT_KEY_FILE = tmp_path / "removed"
    restarted()
    monkeypatch.delenv(holding.PIN)
    shown = panel(ada)
    assert "hsm holds it" in shown
    assert "can't open it now: The key store that holds it can't be reached." in shown
    assert "no longer needed" not in shown, "it was removed"


@pytest.mark.usefixtures("looked_at_now")
def test_a_store_that_is_not_ready_is_waited_for(
    house: House, hsm: KeyStore, ada: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(holding.PIN)
    agreed(house, hold_root_key, key_store="hsm")
    shown = panel(ada)
    assert "its key store is not ready yet" in shown and "not made yet" in shown
    assert "Asked for" in shown and "It lies in a file" in shown
    assert HOLD not in shown and ROTATE not in shown


@pytest.mark.usefixtures("looked_at_now")
def test_without_the_material_database_or_a_root_key_the_page_still_answers(
    house: House, ada: Client, settings: Any, tmp_path: Path
) -> None:
    own = settings.ROOT_KEY_FILE
    settings.ROOT_KEY_FILE = tmp_path / "lost"
    shown = panel(ada)
    assert "no root key that this host can read" in shown
    assert "1 secret can't be opened" in shown and "no file, variable or key store here" in shown
    settings.ROOT_KEY_FILE = own

    connections.close_all()
    file = Path(house.database.material_url.removeprefix("sqlite:///"))
    aside = file.with_name("aside")
    os.rename(file, aside)
    file.mkdir()
    try:
        shown = panel(ada)
        assert "can't be read now: The material database can't be reached." in shown
        assert "Software" in text(ada, "/key-stores")
        assert ada.get(HOLD).status_code == 503
    finally:
        connections.close_all()
        file.rmdir()
        os.rename(aside, file)
    assert "It lies in a file" in panel(ada)
