"""The same doubts about a hardware security module: SoftHSM 2, for whatever it offers."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from keys import administration, operations, stores
from keys.algorithms import Usage
from keys.backends.pkcs11.backend import Pkcs11Backend
from keys.errors import CannotDecrypt, Unsupported
from keys.gate import Item
from keys.models import KeyStore
from keys.secret import Secret
from keys.services import operator
from tests.honesty import fuzz
from tests.honesty.conftest import Shop, offered, specs_for
from tests.honesty.targets import Bench
from tests.honesty.test_tampering import CONTEXT, TEXT, cut_and_grown, each, flipped, refuses
from tests.house import House
from tests.hsm import Token

PIN_VARIABLE = "KMS_TEST_HSM_PIN"
STORE = uuid.UUID("5f0c6f5e-0d0b-4f4e-9f55-3a0f0a5c0005")


@pytest.fixture
def vault(house: House, softhsm: Token, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """A house whose keys are in SoftHSM."""
    monkeypatch.setenv(PIN_VARIABLE, softhsm.pin)
    administration.create_key_store(
        operator(),
        name="hsm",
        kind="pkcs11",
        settings=dict(softhsm.settings),
        credentials=f"env:{PIN_VARIABLE}",
    )
    row = KeyStore.objects.get(name="hsm")
    able = stores.backend(stores.facts(row)).capabilities().algorithms
    administration.create_classification(
        house.ada, name="vault", title="Vault", allowed_specs=sorted(able), key_stores=["hsm"]
    )
    return Shop(house, {"classification": "vault", "key_store": "hsm"}, able)


def test_no_byte_of_a_tokens_ciphertext_can_be_changed(vault: Shop) -> None:
    tried = []
    for row in offered(Usage.ENCRYPT_DECRYPT, vault.able):
        key = vault.key(row.name, Usage.ENCRYPT_DECRYPT)
        named = {"algorithm": row.name}
        try:
            made = operations.encrypt(vault.caller, str(key.id), TEXT, context=CONTEXT, **named)
        except Unsupported:  # a token that binds no label to RSA-OAEP has the raw form only
            raw = named | {"raw": True}
            made = operations.encrypt(vault.caller, str(key.id), TEXT, **raw)
            changed = [*flipped(made.ciphertext, (3,), 3), *cut_and_grown(made.ciphertext, 9)]
            refuses(vault, key, [Item((one,), raw) for one in changed])
            opened = operations.decrypt(vault.caller, str(key.id), made.ciphertext, **raw)
        else:
            changed = [*flipped(made.ciphertext, (0, 7)), *cut_and_grown(made.ciphertext)]
            refuses(vault, key, [Item((one,), {"context": CONTEXT}) for one in changed])
            others: list[dict[str, str]] = [{}, {"ward": "7"}, CONTEXT | {"ward": "8"}]
            refuses(vault, key, [Item((made.ciphertext,), {"context": one}) for one in others])
            opened = operations.decrypt(vault.caller, str(key.id), made.ciphertext, context=CONTEXT)
        assert opened.plaintext.reveal() == TEXT
        tried.append(row.name)
    assert "AES_256_GCM" in tried
    assert any(name.startswith("RSAES") for name in tried)


def test_no_byte_of_a_tokens_signature_or_mac_can_be_changed(vault: Shop) -> None:
    for row in offered(Usage.SIGN_VERIFY, vault.able):
        for spec in specs_for(row.name, vault.able):
            key, named = vault.key(row.name, Usage.SIGN_VERIFY, spec.name), {"algorithm": row.name}
            made = operations.sign(vault.caller, str(key.id), TEXT, **named).signature
            step = 1 if len(made) < 600 else 61
            changed = [*flipped(made, (1,), step), *cut_and_grown(made, 2 * step)]
            items = [Item((TEXT, one), named) for one in changed]
            items += [Item((one, made), named) for one in flipped(TEXT, (2,))]
            for item, done in each(vault, operations.verify, key, items):
                assert done.error is None, (row.name, spec.name, item, done.error)
                assert done.result.valid is False, (row.name, spec.name, item)
            assert operations.verify(vault.caller, str(key.id), TEXT, made, **named).valid
    for row in offered(Usage.GENERATE_VERIFY_MAC, vault.able):
        key = vault.key(row.name, Usage.GENERATE_VERIFY_MAC)
        made = operations.mac(vault.caller, str(key.id), TEXT).mac
        items = [Item((TEXT, one), {}) for one in (*flipped(made, (4,)), *cut_and_grown(made))]
        for item, done in each(vault, operations.verify_mac, key, items):
            assert done.error is None, (row.name, item, done.error)
            assert done.result.valid is False, (row.name, item)
        assert operations.verify_mac(vault.caller, str(key.id), TEXT, made).valid


def test_no_byte_of_what_a_token_wrapped_can_be_changed(vault: Shop) -> None:
    for row in offered(Usage.WRAP_UNWRAP, vault.able):
        key, named = vault.key(row.name, Usage.WRAP_UNWRAP), {"algorithm": row.name}
        target = bytes(range(1, 33))
        made = operations.wrap_key(vault.caller, str(key.id), target, **named).wrapped_key
        changed = [*flipped(made, (5,)), *cut_and_grown(made, 3)]
        for item, done in each(
            vault, operations.unwrap_key, key, [Item((one,), named) for one in changed]
        ):
            assert type(done.error) is CannotDecrypt, (row.name, item, done.result, done.error)
        opened = operations.unwrap_key(vault.caller, str(key.id), made, **named)
        assert opened.key_material.reveal() == target


@pytest.fixture
def bench(softhsm: Token) -> Iterator[Bench]:
    backend = Pkcs11Backend(STORE, softhsm.settings, Secret(softhsm.pin.encode()))
    yield Bench(backend)
    backend.close()


def test_a_token_answers_some_thousand_malformed_inputs(bench: Bench) -> None:
    assert sum(fuzz.run(bench.targets(), 1_000, seed=1).values()) >= 1_000


@pytest.mark.exhaustive
@pytest.mark.parametrize(("chunk", "count"), fuzz.chunks(40_000, 4))
def test_a_token_answers_forty_thousand_malformed_inputs(
    bench: Bench, chunk: int, count: int
) -> None:
    fuzz.run(bench.targets(), count, seed=4000 + chunk)
