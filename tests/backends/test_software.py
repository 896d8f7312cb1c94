"""What is particular to the software key store: rows, the root key, the cache."""

from __future__ import annotations

import logging
import pickle
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from keys.backends import materials
from keys.backends.base import NoMaterial
from keys.backends.software import backend as software_module
from keys.backends.software.backend import SoftwareBackend
from keys.backends.software.models import WrappedMaterial
from keys.errors import BackendError, BackendUnavailable, Conflict, Invalid, Unavailable
from keys.secret import Secret
from tests.backends.conftest import STORE_ID
from tests.backends.test_contract import some_material
from tests.databases import Database

CANARY = bytes.fromhex("c0ffee00facade11deadbea75a1ad0e5b16b00b5c0a1e5cedefec8edfee1dead")


def fresh(software: SoftwareBackend) -> SoftwareBackend:
    """The same key store as another process would see it: nothing loaded yet."""
    return SoftwareBackend(STORE_ID, {}, None)


@pytest.mark.each_database
def test_a_second_process_finds_and_uses_what_the_first_made(software: SoftwareBackend) -> None:
    material = software.generate(uuid.uuid4(), "AES_256")
    sealed = software.encrypt(material.handle, "XAES_256_GCM", b"text", b"")
    other = fresh(software)
    assert other.find(uuid.UUID(material.handle)) == material
    assert other.decrypt(material.handle, "XAES_256_GCM", sealed, b"") == b"text"


@pytest.mark.each_database
def test_two_key_stores_do_not_see_each_others_material(software: SoftwareBackend) -> None:
    material = software.generate(uuid.uuid4(), "AES_256")
    neighbour = SoftwareBackend(uuid.uuid4(), {}, None)
    assert neighbour.find(uuid.UUID(material.handle)) is None
    with pytest.raises(NoMaterial):
        neighbour.encrypt(material.handle, "XAES_256_GCM", b"x", b"")
    neighbour.destroy(material.handle)
    assert software.find(uuid.UUID(material.handle)) == material
    with pytest.raises(Conflict):
        neighbour.generate(uuid.UUID(material.handle), "AES_256")


def test_a_key_is_inline_once_it_is_loaded_unless_it_is_slow(software: SoftwareBackend) -> None:
    aes = software.generate(uuid.uuid4(), "AES_256").handle
    pair = software.generate(uuid.uuid4(), "ECC_NIST_P256").handle
    slow = software.generate(uuid.uuid4(), "RSA_2048").handle
    assert not any(software.inline(handle) for handle in (aes, pair, slow))
    software.encrypt(aes, "XAES_256_GCM", b"", b"")
    software.sign(pair, "ECDSA_SHA_256", b"")
    software.sign(slow, "RSA_PSS_SHA_256", b"")
    assert software.inline(aes)
    assert software.inline(pair)
    assert not software.inline(slow)
    software.destroy(aes)
    assert not software.inline(aes)


def test_the_cache_is_bounded_and_keeps_what_was_used_last(
    software: SoftwareBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(software_module, "CACHE_SIZE", 3)
    handles = [software.generate(uuid.uuid4(), "HMAC_256").handle for _ in range(4)]
    for handle in handles[:3]:
        software.mac(handle, "HMAC_SHA_256", b"x")
    software.mac(handles[0], "HMAC_SHA_256", b"x")
    software.mac(handles[3], "HMAC_SHA_256", b"x")
    assert [software.inline(handle) for handle in handles] == [True, False, True, True]


def test_ciphertexts_of_one_algorithm_are_not_of_the_other(software: SoftwareBackend) -> None:
    handle = software.generate(uuid.uuid4(), "AES_256").handle
    for made, other in (("XAES_256_GCM", "AES_256_GCM"), ("AES_256_GCM", "XAES_256_GCM")):
        sealed = software.encrypt(handle, made, b"a message long enough for either", b"")
        with pytest.raises(software_module.CannotDecrypt):
            software.decrypt(handle, other, sealed, b"")


@pytest.mark.each_database
@pytest.mark.parametrize("spec", ["AES_256", "ECC_NIST_P256"])
def test_one_of_many_racing_imports_wins_and_the_others_are_conflicts(
    software: SoftwareBackend, spec: str
) -> None:
    label, gate = uuid.uuid4(), threading.Barrier(4)
    secrets = [some_material(spec) for _ in range(4)]

    def take(secret: Secret) -> str | None:
        gate.wait()
        try:
            return software.import_material(label, spec, secret).check_value
        except Conflict:
            return None

    with ThreadPoolExecutor(4) as pool:
        taken = [one for one in pool.map(take, secrets) if one is not None]
    found = software.find(label)
    assert found is not None
    assert taken == [found.check_value]


@pytest.mark.each_database
@pytest.mark.parametrize(
    "change",
    [
        lambda row, other: setattr(row, "wrapped", other.wrapped),
        lambda row, other: setattr(row, "spec", "HMAC_256"),
        lambda row, other: setattr(row, "wrapped", bytes(row.wrapped)[:-1] + b"\x00"),
        lambda row, other: setattr(row, "wrapped", b"\x01"),
    ],
)
def test_a_row_that_was_tampered_with_does_not_load(software: SoftwareBackend, change: Any) -> None:
    one, two = (software.generate(uuid.uuid4(), "AES_256").handle for _ in range(2))
    row, other = (WrappedMaterial.objects.get(label=uuid.UUID(handle)) for handle in (one, two))
    change(row, other)
    row.save()
    with pytest.raises(BackendError):
        fresh(software).encrypt(one, "XAES_256_GCM", b"x", b"")


def test_another_root_key_is_told_from_tampering(
    software: SoftwareBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = software.generate(uuid.uuid4(), "AES_256").handle
    monkeypatch.setenv("KMS_ROOT_KEY", "11" * 32)
    with pytest.raises(Unavailable, match="another root key"):
        fresh(software).encrypt(handle, "XAES_256_GCM", b"x", b"")


def test_without_a_root_key_nothing_is_stored_and_health_says_why(
    software: SoftwareBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KMS_ROOT_KEY", "not a key")
    health = software.health()
    assert not health.ok
    assert "KMS_ROOT_KEY" in health.detail
    label = uuid.uuid4()
    with pytest.raises(Unavailable):
        software.generate(label, "AES_256")
    assert software.find(label) is None


@pytest.mark.each_database
def test_a_material_database_that_is_gone_is_unavailable_not_a_crash(
    software: SoftwareBackend, database: Database
) -> None:
    from django.db import connections

    handle = software.generate(uuid.uuid4(), "AES_256").handle
    with connections["material"].cursor() as cursor:
        cursor.execute("ALTER TABLE software_wrappedmaterial RENAME TO hidden")
    for call in (
        lambda: software.find(uuid.uuid4()),
        lambda: software.generate(uuid.uuid4(), "AES_256"),
        lambda: software.destroy(handle),
        lambda: fresh(software).encrypt(handle, "XAES_256_GCM", b"x", b""),
    ):
        with pytest.raises(BackendUnavailable):
            call()
    assert not software.health().ok


def test_settings_that_mean_nothing_are_refused() -> None:
    with pytest.raises(Invalid, match="module"):
        SoftwareBackend.check_settings({"module": "/usr/lib/x.so"})


def test_the_table_is_in_the_material_database_and_only_there(
    software: SoftwareBackend, database: Database
) -> None:
    from django.db import connections

    software.generate(uuid.uuid4(), "AES_256")
    tables = {alias: connections[alias].introspection.table_names() for alias in connections}
    assert "software_wrappedmaterial" in tables["material"]
    assert "software_wrappedmaterial" not in tables["default"]


def test_no_trace_of_material_is_shown_stored_or_logged(
    software: SoftwareBackend, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    label = uuid.uuid4()
    material = software.import_material(label, "AES_256", Secret(CANARY))
    sealed = software.encrypt(material.handle, "XAES_256_GCM", b"text", b"aad")
    row = WrappedMaterial.objects.get(label=label)
    shown = [repr(software), str(material), repr(row), str(row), repr(software._cache)]
    shown += [repr(vars(software)), repr(software.health()), caplog.text]
    for attempt in (
        lambda: software.decrypt(material.handle, "XAES_256_GCM", sealed, b""),
        lambda: software.import_material(label, "AES_256", Secret(CANARY[::-1])),
        lambda: software.import_material(label, "HMAC_512", Secret(CANARY)),
        lambda: software.import_material(label, "RSA_2048", Secret(CANARY)),
        lambda: software.mac(material.handle, "HMAC_SHA_256", b"x"),
    ):
        with pytest.raises(Exception) as caught:
            attempt()
        shown.append("".join(str(part) for part in caught.value.args) + repr(caught.value))
    files = [database.path, database.path.with_name("material.sqlite3")]
    files += [path for file in files for path in file.parent.glob(file.name + "-wal")]
    stored = b"".join(file.read_bytes() for file in files)
    for form in (CANARY, CANARY.hex().encode(), repr(CANARY).encode(), CANARY[:12]):
        assert form not in stored
        assert form not in "\n".join(shown).encode()
    assert bytes(row.wrapped) in stored  # the search looks where the material is


def test_loaded_keys_cannot_be_pickled(software: SoftwareBackend) -> None:
    for spec, algorithm in (("AES_256", "XAES_256_GCM"), ("HMAC_256", "HMAC_SHA_256")):
        handle = software.generate(uuid.uuid4(), spec).handle
        if spec == "AES_256":
            software.encrypt(handle, algorithm, b"", b"")
        else:
            software.mac(handle, algorithm, b"")
        with pytest.raises(TypeError):
            pickle.dumps(software._cache[handle])


def test_a_check_value_tells_keys_apart_and_nothing_about_them(
    software: SoftwareBackend,
) -> None:
    spec = materials.spec_named("AES_256")
    assert materials.check_value_of_secret(spec, CANARY) != materials.check_value_of_secret(
        spec, CANARY[::-1]
    )
    # Never the encryption of the zero block: that is GCM's hash key.
    from cryptography.hazmat.primitives.ciphers import Cipher
    from cryptography.hazmat.primitives.ciphers.algorithms import AES256
    from cryptography.hazmat.primitives.ciphers.modes import ECB

    hash_key = Cipher(AES256(CANARY), ECB()).encryptor().update(bytes(16))
    assert not hash_key.hex().startswith(materials.check_value_of_secret(spec, CANARY)[:6])
