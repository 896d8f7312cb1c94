"""One key's whole life in a hardware security module: SoftHSM 2 behind the same functions."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import timedelta

import pytest

from keys import administration, clock, operations, snapshot
from keys.algorithms import SPECS, Usage
from keys.backends import materials
from keys.backends.base import Backend
from keys.errors import BackendUnavailable, CannotDecrypt, Invalid, StateForbids, Unsupported
from keys.models import Key, KeyStore
from keys.services import operator
from keys.states import VersionState as S
from keys.stores import backend_of
from tests.house import House
from tests.hsm import Token
from tests.processes import Process, eventually

PIN_VARIABLE = "KMS_TEST_HSM_PIN"


@pytest.fixture
def hsm(house: House, softhsm: Token, monkeypatch: pytest.MonkeyPatch) -> KeyStore:
    """A key store in SoftHSM, and a classification for which nothing weaker will do."""
    monkeypatch.setenv(PIN_VARIABLE, softhsm.pin)
    house.environment.update(softhsm.environment, **{PIN_VARIABLE: softhsm.pin})
    store = administration.create_key_store(
        operator(),
        name="hsm",
        kind="pkcs11",
        settings=dict(softhsm.settings),
        credentials=f"env:{PIN_VARIABLE}",
    )
    administration.create_classification(
        house.ada,
        name="vault",
        title="Vault",
        allowed_specs=[
            "AES_256",
            "AES_128",
            "HMAC_256",
            "RSA_2048",
            "ECC_NIST_P256",
            "ECC_NIST_EDWARDS25519",
            "X25519",
            "ML_KEM_768",
        ],
        minimum_protection="hsm",
        key_stores=["hsm", "software"],
    )
    return store


def in_store(key: Key, label: uuid.UUID) -> bool:
    backend: Backend = backend_of(key)
    return backend.find(label) is not None


def vault_key(house: House, spec: str, alias: str, *grants: str, **more: str) -> Key:
    key = house.key("vault", spec, alias=alias, key_store="hsm", **more)
    house.grant("billing", key, *grants)
    return key


def test_a_key_lives_its_whole_life_in_the_module(house: House, hsm: KeyStore) -> None:
    key = vault_key(house, "AES_256", "ledger", "encrypt", "decrypt", "generate_data_key")
    assert (key.model, key.algorithm) == ("hsm-backed", "AES_256_GCM")
    first = key.versions.get()
    sealed = operations.encrypt(house.billing, "ledger", b"old", context={"row": "1"})
    administration.rotate_key(house.olga, "ledger", reason="yearly")
    again = operations.encrypt(house.billing, "ledger", b"new")
    assert (sealed.version, again.version) == (1, 2)
    opened = operations.decrypt(house.billing, "ledger", sealed.ciphertext, context={"row": "1"})
    assert (opened.plaintext.reveal(), opened.version) == (b"old", 1)
    with pytest.raises(CannotDecrypt):
        operations.decrypt(house.billing, "ledger", sealed.ciphertext, context={"row": "2"})
    data_key = operations.generate_data_key(house.billing, "ledger")
    unwrapped = operations.decrypt(house.billing, "ledger", data_key.ciphertext)
    assert unwrapped.plaintext == data_key.plaintext

    house.move(key, 2, S.SUSPENDED)
    with pytest.raises(StateForbids):
        operations.encrypt(house.billing, "ledger", b"x")
    house.move(key, 2, S.ACTIVE)
    operations.encrypt(house.billing, "ledger", b"x")

    house.move(key, 1, S.COMPROMISED, reason="printed on paper")
    with pytest.raises(StateForbids):
        operations.decrypt(house.billing, "ledger", sealed.ciphertext, context={"row": "1"})

    administration.schedule_destruction(house.olga, "ledger")
    assert in_store(key, first.id)
    house.let_days_pass(31)
    house.run_due_jobs()
    states = {v.number: v.state for v in key.versions.all()}
    assert states == {1: S.DESTROYED_COMPROMISED, 2: S.DESTROYED}
    assert not any(in_store(key, version.id) for version in key.versions.all())


@pytest.mark.parametrize("spec", ["RSA_2048", "ECC_NIST_P256", "ECC_NIST_EDWARDS25519"])
def test_key_pairs_sign_in_the_module_and_old_signatures_verify(
    house: House, hsm: KeyStore, spec: str
) -> None:
    alias = spec.lower().replace("_", "-")
    vault_key(house, spec, alias, "sign", "verify", "public_key")
    signed = operations.sign(house.billing, alias, b"contract")
    administration.rotate_key(house.olga, alias)
    assert operations.verify(
        house.billing, alias, b"contract", signed.signature, version=signed.version
    ).valid
    assert not operations.verify(house.billing, alias, b"contract", signed.signature).valid
    old = operations.public_key(house.billing, alias, version=1).public_key
    assert old != operations.public_key(house.billing, alias).public_key


def test_a_mac_is_made_and_verified_in_the_module(house: House, hsm: KeyStore) -> None:
    vault_key(house, "HMAC_256", "webhooks", "mac", "verify_mac")
    tag = operations.mac(house.billing, "webhooks", b"body").mac
    assert operations.verify_mac(house.billing, "webhooks", b"body", tag).valid
    assert not operations.verify_mac(house.billing, "webhooks", b"other", tag).valid


def test_keys_are_wrapped_and_unwrapped_in_the_module(house: House, hsm: KeyStore) -> None:
    key = vault_key(
        house, "AES_128", "carrier", "wrap_key", "unwrap_key", usage=Usage.WRAP_UNWRAP.value
    )
    assert key.algorithm == "AES_KWP"
    target = bytes(range(32))
    wrapped = operations.wrap_key(house.billing, "carrier", target)
    administration.rotate_key(house.olga, "carrier")
    assert operations.wrap_key(house.billing, "carrier", target).version == 2
    opened = operations.unwrap_key(
        house.billing, "carrier", wrapped.wrapped_key, version=wrapped.version
    )
    assert opened.key_material.reveal() == target
    with pytest.raises(CannotDecrypt):
        operations.unwrap_key(house.billing, "carrier", wrapped.wrapped_key)  # another version
    house.move(key, 1, S.COMPROMISED, reason="printed on paper")
    with pytest.raises(StateForbids):
        operations.unwrap_key(house.billing, "carrier", wrapped.wrapped_key, version=1)
    with pytest.raises(Unsupported, match="whole 8 bytes"):
        operations.wrap_key(house.billing, "carrier", bytes(33))


@pytest.mark.parametrize("spec", ["ECC_NIST_P256", "X25519"])
def test_a_shared_secret_is_agreed_on_in_the_module(house: House, hsm: KeyStore, spec: str) -> None:
    grants = ("derive_shared_secret", "public_key")
    vault_key(house, spec, "meeting", *grants, usage=Usage.KEY_AGREEMENT.value)
    private, peer = materials.new_pair(SPECS[spec])
    agreed = operations.derive_shared_secret(house.billing, "meeting", peer)
    public = operations.public_key(house.billing, "meeting").public_key
    assert agreed.shared_secret.reveal() == materials.agreed(SPECS[spec], private, public)
    with pytest.raises(Invalid):
        operations.derive_shared_secret(house.billing, "meeting", peer[:-1])


def test_old_peers_encrypt_to_the_module_where_a_person_chose_so(
    house: House, hsm: KeyStore
) -> None:
    """SoftHSM has RSA-OAEP with SHA-1 only, and binds no label: named by name, and raw."""
    usage = Usage.ENCRYPT_DECRYPT.value
    with pytest.raises(Invalid, match="old peers: name it"):
        vault_key(house, "RSA_2048", "fax", usage=usage)
    vault_key(
        house, "RSA_2048", "fax", "encrypt", "decrypt", usage=usage, algorithm="RSAES_OAEP_SHA_1"
    )
    sealed = operations.encrypt(house.billing, "fax", b"a data key", raw=True)
    opened = operations.decrypt(house.billing, "fax", sealed.ciphertext, raw=True)
    assert opened.plaintext.reveal() == b"a data key"
    with pytest.raises(Unsupported, match="raw"):
        operations.encrypt(house.billing, "fax", b"a data key")
    with pytest.raises(CannotDecrypt):
        operations.decrypt(house.billing, "fax", bytes(256), raw=True)


def test_what_the_module_cannot_do_is_refused_when_the_key_is_made(
    house: House, hsm: KeyStore
) -> None:
    with pytest.raises(Unsupported, match="It can do: AES_128, AES_256"):
        vault_key(house, "ML_KEM_768", "future")
    with pytest.raises(Unsupported, match="only for: GENERATE_VERIFY_MAC"):
        vault_key(house, "HMAC_256", "seeds", usage=Usage.DERIVE_KEY.value)
    with pytest.raises(Unsupported, match="Nothing leaves"):
        house.key("vault", "AES_256", alias="way-out", key_store="hsm", exportable=True)
    assert not Key.objects.filter(alias__in=["future", "seeds", "way-out"]).exists()


def test_a_classification_that_asks_for_hardware_takes_no_software_store(
    house: House, hsm: KeyStore
) -> None:
    with pytest.raises(Invalid, match="protects less"):
        house.key("vault", key_store="software")


def test_a_real_worker_rotates_what_is_due_in_the_module(
    house: House, hsm: KeyStore, start_worker: Callable[..., Process], beat: Process
) -> None:
    """Nobody else rotates HSM-resident keys on schedule."""
    key = vault_key(house, "AES_256", "nightly", "encrypt", "decrypt")
    sealed = operations.encrypt(house.billing, "nightly", b"old")
    Key.objects.filter(pk=key.pk).update(rotate_at=clock.now() - timedelta(hours=1))
    start_worker()
    eventually(lambda: key.versions.filter(number=2, state=S.ACTIVE, primary=True).exists())
    assert operations.encrypt(house.billing, "nightly", b"new").version == 2
    assert operations.decrypt(house.billing, "nightly", sealed.ciphertext).version == 1
    assert key.versions.count() == 2


def test_a_module_that_is_away_stops_its_own_keys_and_no_others(
    house: House, hsm: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault_key(house, "AES_256", "away", "encrypt")
    monkeypatch.delenv(PIN_VARIABLE)
    administration.update_key_store(house.ada, "hsm", credentials="env:KMS_TEST_NO_SUCH_PIN")
    snapshot.cache.forget()
    with pytest.raises(BackendUnavailable):
        operations.encrypt(house.billing, "away", b"x")
    assert house.last_entry()["reason"] == "backend_unavailable"
    assert administration.check_key_store(house.olga, "hsm").healthy is False
    assert operations.encrypt(house.billing, "invoices", b"x").version == 1
