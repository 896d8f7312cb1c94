"""`manage.py root_key`, and what `prepare` and the system checks say once a key store holds the root key."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from audit.models import Entry
from keys import administration, checks, sealing
from keys.backends.software.models import RootKey
from keys.root_keys import opening
from keys.secret import Secret
from keys.services import operator
from keys.stores import wrapping_keys
from tests.commands.conftest import Folder
from tests.house import PEOPLE, password
from tests.hsm import Token
from tests.keys.holding import restarted
from tests.processes import BASE_DIR

LABEL = "0" * 31 + "7"


@pytest.fixture
def hsm(folder: Folder, softhsm: Token, monkeypatch: pytest.MonkeyPatch) -> Iterator[Folder]:
    """A prepared folder with some material, and the key store `hsm`."""
    monkeypatch.delenv(sealing.VARIABLE, raising=False)
    monkeypatch.setenv("ROOT_KEY_TEST_PIN", softhsm.pin)
    opening.forget()
    folder.run("prepare")
    settings = [f"--setting={name}={value}" for name, value in softhsm.settings.items()]
    pin = "--credentials=env:ROOT_KEY_TEST_PIN"
    folder.run("keystore", "add", "hsm", "--kind=pkcs11", *settings, pin)
    wrapping_keys().generate(uuid.UUID(LABEL), "AES_256")
    try:
        yield folder
    finally:
        restarted()


def test_it_tells_shows_and_does_everything(hsm: Folder) -> None:
    first = sealing.root_key_id(sealing.root_key()).hex()
    assert hsm.run("root_key", "status") == f"{first}  seals; file or variable; 1 under it\n"

    told = hsm.run("root_key", "hold", "hsm", "--reason", "no key on any host")
    assert f"{first}  seals; hsm (AES_256_GCM); 1 under it" in told
    assert f"then remove the file {hsm.root_key} from every host" in told
    asked = Entry.objects.get(action="hold_root_key", outcome="started")
    assert json.loads(bytes(asked.body))["facts"]["reason"] == "no key on any host"

    hsm.root_key.unlink()
    restarted()
    told = hsm.run("root_key", "rotate")
    second = RootKey.objects.get(state="current").id
    assert f"{second}  seals; hsm (AES_256_GCM); 1 under it" in told
    assert f"{first}  retired; hsm (AES_256_GCM); 0 under it" in told
    assert "remove" not in told
    assert hsm.run("root_key", "status") == told
    wrapping_keys().encrypt(LABEL, "AES_256_GCM", b"x", b"")


def test_a_store_that_is_away_is_said_to_be_waited_for(
    hsm: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ROOT_KEY_TEST_PIN")
    told = hsm.run("root_key", "hold", "hsm")
    assert "asked for: its key store is not ready yet; hsm" in told
    assert "goes on with the worker's next sweep" in told


def test_what_can_not_be_is_told_in_one_line(hsm: Folder) -> None:
    with pytest.raises(CommandError, match="Only a file or a variable holds the root key"):
        hsm.run("root_key", "rotate")
    with pytest.raises(CommandError, match="There is no such key store"):
        hsm.run("root_key", "hold", "nowhere")


def test_where_officers_must_agree_the_request_is_named(hsm: Folder) -> None:
    administration.create_key_store(operator(), name="software", kind="software")
    people = [
        {"name": name, "username": username, "role": role.value, "password": password(username)}
        for username, (name, role) in PEOPLE.items()
    ]
    administration.set_up(operator(), people=Secret(json.dumps(people).encode()))
    administration.create_classification(
        operator(),
        name="voted",
        title="Voted",
        allowed_specs=["AES_256"],
        key_stores=["software"],
        quorum_m=2,
        quorum_n=3,
    )
    told = hsm.run("root_key", "hold", "hsm")
    assert told.startswith("Waits for the officers' votes: request ")
    assert not RootKey.objects.exists()


def test_a_start_needs_no_file_where_a_store_holds_the_root_key(
    hsm: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    hsm.run("root_key", "hold", "hsm")
    hsm.root_key.unlink()
    restarted()
    hsm.run("prepare", "--no-root-key")
    hsm.run("prepare")
    assert not hsm.root_key.exists(), "none is made beside it"
    monkeypatch.delenv("ROOT_KEY_TEST_PIN")
    restarted()
    said = StringIO()
    call_command("prepare", stdout=StringIO(), stderr=said)
    assert "The root key can't be opened yet: The credential env:ROOT_KEY_TEST_PIN" in (
        said.getvalue()
    )


def test_a_file_that_nothing_needs_any_more_is_warned_of(hsm: Folder) -> None:
    def warned() -> list[str | None]:
        return [one.id for one in checks.root_key_left_behind(None, ["default", "material"])]

    assert warned() == []
    hsm.run("root_key", "hold", "hsm")
    assert warned() == ["keys.W003"]
    assert checks.root_key_left_behind(None, None) == [], "only where the database is looked at"
    hsm.root_key.unlink()
    assert warned() == []


def test_another_process_opens_it_at_the_store_when_it_starts(
    hsm: Folder, softhsm: Token, tmp_path: Path
) -> None:
    hsm.run("root_key", "rotate", "--key-store", "hsm")
    code = (
        "import django; django.setup()\n"
        "from keys.stores import wrapping_keys\n"
        f"wrapping_keys().encrypt('{LABEL}', 'AES_256_GCM', b'x', b''); print('opened')"
    )
    environment = os.environ | {
        "DJANGO_SETTINGS_MODULE": "kms_console.settings",
        "DATABASE_URL": hsm.database.url,
        "MATERIAL_DATABASE_URL": hsm.database.material_url,
        "KMS_DATA": str(tmp_path / "other"),
        "KMS_ROOT_KEY_PATH": str(tmp_path / "none"),
        "SECRET_KEY": "x" * 50,
        "ROOT_KEY_TEST_PIN": softhsm.pin,
    }
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, env=environment, cwd=BASE_DIR, capture_output=True, text=True, check=False
    )
    assert done.stdout == "opened\n", done.stderr
