"""Which backend serves a key store, and where its credential comes from."""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from keys.backends import registry
from keys.backends.base import Protection
from keys.errors import BackendUnavailable, Invalid, Unsupported
from keys.secret import Secret
from tests.databases import Database
from tests.hsm import Token

STORE = uuid.UUID(int=77)


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    yield
    registry.forget(STORE)


def test_every_kind_has_a_label_help_and_a_class_of_that_name() -> None:
    kinds = registry.kinds()
    assert [kind.name for kind in kinds] == [
        "software",
        "pkcs11",
        "aws",
        "azure",
        "gcp",
        "vault",
    ]
    for kind in kinds:
        assert kind.label
        assert kind.help
        cls = registry.backend_class(kind.name)
        assert (cls.kind, cls.protection) == (kind.name, kind.protection)


def test_a_process_has_one_backend_for_a_key_store(database: Database) -> None:
    gate = threading.Barrier(8)

    def ask(_: int) -> int:
        gate.wait()
        return id(registry.backend_for(STORE, "software", {}, ""))

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(ask, range(8)))) == 1


def test_forgetting_makes_a_new_one() -> None:
    first = registry.backend_for(STORE, "software", {}, "")
    registry.forget(STORE)
    assert registry.backend_for(STORE, "software", {}, "") is not first


def test_changed_settings_make_a_new_one_and_close_the_old(
    softhsm: Token, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_PIN", softhsm.pin)
    first = registry.backend_for(STORE, "pkcs11", softhsm.settings, "env:TEST_PIN")
    assert first.health().ok
    assert (first.kind, first.protection) == ("pkcs11", Protection.HSM)
    changed = dict(softhsm.settings) | {"sessions": 2}
    second = registry.backend_for(STORE, "pkcs11", changed, "env:TEST_PIN")
    assert second is not first
    assert second.health().ok
    assert not first.health().ok


def test_a_forked_child_makes_its_own() -> None:
    parent = registry.backend_for(STORE, "software", {}, "")
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if registry.backend_for(STORE, "software", {}, "") is not parent else 1)
        finally:
            os._exit(2)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def test_an_unknown_kind_or_wrong_settings_are_refused(softhsm: Token) -> None:
    with pytest.raises(Unsupported, match="software, pkcs11"):
        registry.backend_for(STORE, "abacus", {}, "")
    with pytest.raises(Invalid):
        registry.backend_for(STORE, "software", {"colour": "red"}, "")
    with pytest.raises(Invalid, match="credential"):
        registry.check_settings("pkcs11", softhsm.settings, "")
    registry.check_settings("pkcs11", softhsm.settings, "env:PIN_NOT_SET_YET")
    registry.check_settings("software", {}, "")


def test_a_kind_whose_library_is_missing_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = replace(registry.KINDS["software"], path="a_vendors_library.backend.Theirs")
    monkeypatch.setattr(registry, "KINDS", {"software": elsewhere})
    with pytest.raises(BackendUnavailable, match="a_vendors_library"):
        registry.backend_for(STORE, "software", {}, "")


def test_a_credential_comes_from_the_environment_or_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_PIN", "se cret")
    path = tmp_path / "pin"
    path.write_bytes(b"se cret\n")
    assert registry.resolve_credential("") is None
    assert registry.resolve_credential("env:TEST_PIN") == Secret(b"se cret")
    assert registry.resolve_credential(f"file:{path}") == Secret(b"se cret")


@pytest.mark.parametrize(
    "reference",
    [
        "hunter2",
        "env:",
        "env:NOT A NAME",
        "file:",
        "file:relative",
        "vault:x",
        "ENV:X",
        "file:/a\x00",
    ],
)
def test_a_reference_of_another_form_is_refused_without_repeating_it(reference: str) -> None:
    with pytest.raises(Invalid) as caught:
        registry.resolve_credential(reference)
    assert reference not in caught.value.detail or reference in ("env:", "file:")


def test_a_credential_that_cannot_be_read_makes_the_store_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_EMPTY", "")
    (tmp_path / "empty").write_bytes(b"\n")
    (tmp_path / "long").write_bytes(b"x" * 70_000)
    for reference in (
        "env:TEST_NOT_SET",
        "env:TEST_EMPTY",
        f"file:{tmp_path / 'none'}",
        f"file:{tmp_path}",
        f"file:{tmp_path / 'empty'}",
        f"file:{tmp_path / 'long'}",
    ):
        with pytest.raises(BackendUnavailable, match=reference.split(":")[0]):
            registry.resolve_credential(reference)


def test_a_credential_is_read_from_a_plain_file_only(tmp_path: Path) -> None:
    """A pipe would hold whoever reads it, and all who wait for any key store, for ever."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for place in (pipe, tmp_path, Path("/dev/zero")):
        with pytest.raises(BackendUnavailable):
            registry.resolve_credential(f"file:{place}")


def test_no_store_gets_to_see_a_secret_of_the_console_itself(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    root, link = tmp_path / "root-key", tmp_path / "vault-token"
    root.write_text("not to be sent anywhere")
    link.symlink_to(root)
    monkeypatch.setattr("django.conf.settings.PRIVATE_PATHS", [root, Path("/proc")])
    for reference in (
        "env:KMS_ROOT_KEY",
        "env:SECRET_KEY",
        "env:DATABASE_URL",
        f"file:{root}",
        f"file:{link}",
        f"file:{tmp_path}/../{tmp_path.name}/root-key",
        "file:/proc/self/environ",
    ):
        with pytest.raises(Invalid, match="of the console itself"):
            registry.check_settings("software", {}, reference)
        with pytest.raises(Invalid, match="of the console itself"):
            registry.resolve_credential(reference)
