"""Secrets at rest: what the root key seals opens only where it was made for."""

from __future__ import annotations

import base64
import os
import stat
import subprocess
import sys
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from keys import checks, sealing
from keys.errors import AlreadyExists, BackendError, Unavailable
from keys.secret import Secret

ROOT = Path(__file__).resolve().parent.parent.parent
LABEL = uuid.UUID(int=1)
SECRET = Secret(b"material of a patient-health key")


@pytest.fixture
def key_file(tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the root key would be; there is none yet."""
    monkeypatch.delenv("KMS_ROOT_KEY", raising=False)
    settings.ROOT_KEY_FILE = tmp_path / "secrets" / "root-key"
    return tmp_path / "secrets" / "root-key"


def test_what_was_sealed_opens_again_and_shows_nothing(key_file: Path) -> None:
    sealing.create_root_key()
    sealed = sealing.seal("test", LABEL, SECRET)
    assert sealing.unseal("test", LABEL, sealed) == SECRET
    assert SECRET.reveal() not in sealed
    assert sealed != sealing.seal("test", LABEL, SECRET)


def test_the_blob_names_its_format_and_root_key(key_file: Path) -> None:
    key_id = sealing.create_root_key()
    sealed = sealing.seal("test", LABEL, SECRET)
    assert sealed[:1] == b"\x01"
    assert sealed[1:9].hex() == key_id == sealing.root_key_id(sealing.root_key()).hex()
    assert len(sealed) == 1 + 8 + 24 + len(SECRET) + 16
    assert sealed[1:9] not in sealing.root_key().reveal()


def test_another_purpose_or_label_does_not_open_it(key_file: Path) -> None:
    sealing.create_root_key()
    sealed = sealing.seal("test", LABEL, SECRET)
    with pytest.raises(BackendError):
        sealing.unseal("tests", LABEL, sealed)
    with pytest.raises(BackendError):
        sealing.unseal("test", uuid.UUID(int=2), sealed)


def test_a_changed_blob_does_not_open(key_file: Path) -> None:
    sealing.create_root_key()
    sealed = sealing.seal("test", LABEL, SECRET)
    for position in range(len(sealed)):
        changed = bytearray(sealed)
        changed[position] ^= 1
        with pytest.raises((BackendError, Unavailable)):
            sealing.unseal("test", LABEL, bytes(changed))
    for length in range(len(sealed)):
        with pytest.raises(BackendError):
            sealing.unseal("test", LABEL, sealed[:length])


def test_a_wrong_root_key_is_told_by_its_id(key_file: Path) -> None:
    first = sealing.create_root_key()
    sealed = sealing.seal("test", LABEL, SECRET)
    key_file.unlink()
    second = sealing.create_root_key()
    with pytest.raises(Unavailable, match=f"another root key: {first}, not {second}"):
        sealing.unseal("test", LABEL, sealed)


def test_a_root_key_that_is_named_is_used_and_no_file_is_asked_for(key_file: Path) -> None:
    one, two = Secret(b"\x01" * 32), Secret(b"\x02" * 32)
    sealed = sealing.seal("test", LABEL, SECRET, one)
    assert sealing.sealed_under(sealed) == sealing.root_key_id(one).hex()
    assert sealing.unseal("test", LABEL, sealed, one) == SECRET
    with pytest.raises(Unavailable, match="another root key"):
        sealing.unseal("test", LABEL, sealed, two)
    with pytest.raises(Unavailable, match="There is no root key"):
        sealing.unseal("test", LABEL, sealed)


def test_where_the_root_key_is_can_be_told(key_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sealing.where() == f"the file {key_file}"
    monkeypatch.setenv("KMS_ROOT_KEY", "11" * 32)
    assert sealing.where() == "the variable KMS_ROOT_KEY"


def test_without_a_root_key_the_message_says_what_to_do(key_file: Path) -> None:
    assert not sealing.root_key_exists()
    with pytest.raises(Unavailable, match="KMS_ROOT_KEY"):
        sealing.seal("test", LABEL, SECRET)


def test_the_file_is_for_its_owner_only_and_never_overwritten(key_file: Path) -> None:
    sealing.create_root_key()
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    before = key_file.read_bytes()
    with pytest.raises(AlreadyExists):
        sealing.create_root_key()
    assert key_file.read_bytes() == before
    assert os.listdir(key_file.parent) == ["root-key"]


def test_of_many_starts_at_once_one_makes_the_key(key_file: Path) -> None:
    gate = threading.Barrier(8)

    def create(_: int) -> str | None:
        gate.wait()
        try:
            return sealing.create_root_key()
        except AlreadyExists:
            return None

    with ThreadPoolExecutor(8) as pool:
        made = [one for one in pool.map(create, range(8)) if one is not None]
    assert made == [sealing.root_key_id(sealing.root_key()).hex()]
    assert os.listdir(key_file.parent) == ["root-key"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o601])
def test_a_key_that_others_can_read_is_refused(key_file: Path, mode: int) -> None:
    sealing.create_root_key()
    key_file.chmod(mode)
    with pytest.raises(Unavailable, match="chmod 600"):
        sealing.root_key()
    assert [message.id for message in checks.root_key_private(None)] == ["keys.W002"]
    key_file.chmod(0o600)
    assert checks.root_key_private(None) == []
    sealing.root_key()


def test_the_variable_takes_base64_and_hexadecimal(
    key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = bytes(range(32))
    for written in (base64.b64encode(key).decode(), key.hex(), key.hex().upper() + "\n"):
        monkeypatch.setenv("KMS_ROOT_KEY", written)
        assert sealing.root_key().reveal() == key


@pytest.mark.parametrize("written", ["", "short", "zz" * 32, base64.b64encode(bytes(31)).decode()])
def test_a_variable_that_holds_no_key_is_refused_without_repeating_it(
    key_file: Path, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    monkeypatch.setenv("KMS_ROOT_KEY", written)
    with pytest.raises(Unavailable) as caught:
        sealing.root_key()
    assert not written or written not in str(caught.value)


def manage_check(data: Path, key: Path, *options: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "KMS_ROOT_KEY"} | {
        "KMS_DATA": str(data),
        "KMS_ROOT_KEY_PATH": str(key),
        "MATERIAL_DATABASE_URL": f"sqlite:///{data / 'material' / 'material.sqlite3'}",
    }
    command = [sys.executable, "manage.py", "check", "--tag", "security", *options]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)


def test_a_root_key_beside_the_material_is_warned_of_and_refused_for_deployment(
    tmp_path: Path,
) -> None:
    beside = tmp_path / "material" / "root-key"
    warned = manage_check(tmp_path, beside)
    assert warned.returncode == 0, warned.stderr
    assert "keys.W001" in warned.stderr
    refused = manage_check(tmp_path, beside, "--deploy")
    assert refused.returncode != 0
    assert "keys.E001" in refused.stderr


def test_a_root_key_apart_from_the_material_is_fine(tmp_path: Path) -> None:
    done = manage_check(tmp_path, tmp_path / "secrets" / "root-key", "--deploy")
    assert "keys." not in done.stderr + done.stdout


def test_only_a_file_beside_a_file_counts_as_beside(
    key_file: Path, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside = {"ENGINE": "django.db.backends.sqlite3", "NAME": key_file.parent / "m.sqlite3"}
    monkeypatch.setitem(settings.DATABASES, "material", beside)
    assert [one.id for one in checks.root_key_apart(None)] == ["keys.W001"]
    for other in (
        beside | {"NAME": key_file.parent / "x" / "m.sqlite3"},
        {"ENGINE": "django.db.backends.postgresql", "NAME": "material"},
    ):
        monkeypatch.setitem(settings.DATABASES, "material", other)
        assert checks.root_key_apart(None) == []
    monkeypatch.setitem(settings.DATABASES, "material", beside)
    monkeypatch.setenv("KMS_ROOT_KEY", bytes(range(32)).hex())
    assert checks.root_key_apart(None) == []
