"""What is particular to hardware security modules: objects, suspension, configuration."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pkcs11
import pytest
from pkcs11 import Attribute, KeyType, MechanismFlag, ObjectClass
from pkcs11.util.ec import decode_ec_public_key

from keys.backends.pkcs11 import objects
from keys.backends.pkcs11.backend import Pkcs11Backend
from keys.backends.software.backend import SoftwareBackend
from keys.errors import (
    BackendError,
    BackendUnavailable,
    CannotDecrypt,
    Invalid,
    KeyServiceError,
    StateForbids,
    Unsupported,
)
from keys.secret import Secret
from tests.backends.test_contract import some_material
from tests.hsm import Token

ROOT = Path(__file__).resolve().parent.parent.parent
AAD = b"header and context"
CANARY = bytes.fromhex("c0ffee00facade11deadbea75a1ad0e5b16b00b5c0a1e5cedefec8edfee1dead")


def another(token: Token, **settings: object) -> Pkcs11Backend:
    return Pkcs11Backend(uuid.uuid4(), dict(token.settings) | settings, Secret(token.pin.encode()))


def on_the_token(hsm: Pkcs11Backend, label: uuid.UUID) -> list[dict[str, Any]]:
    """What an operator's tool would see under an id."""
    wanted = (Attribute.CLASS, Attribute.LABEL, Attribute.TOKEN)
    with hsm._connection().managing() as session:
        return [
            {attribute.name: item[attribute] for attribute in wanted}
            for item in objects.all_under(session, label)
        ]


# --- objects on the token


@pytest.mark.parametrize("spec", ["AES_256", "HMAC_512", "RSA_2048", "ECC_NIST_P384"])
@pytest.mark.parametrize("imported", [False, True])
def test_keys_are_private_sensitive_not_extractable_and_of_one_use(
    hsm: Pkcs11Backend, spec: str, imported: bool
) -> None:
    label = uuid.uuid4()
    if imported:
        hsm.import_material(label, spec, some_material(spec))
    else:
        hsm.generate(label, spec)
    with hsm._connection().managing() as session:
        found = objects.find(session, label, hsm._keyring.abilities())
        assert found is not None
        key = found.key
        assert key[Attribute.ID] == label.bytes
        assert key[Attribute.LABEL].startswith("kms-console ")
        for attribute in (Attribute.TOKEN, Attribute.PRIVATE, Attribute.SENSITIVE):
            assert key[attribute] is True
        for attribute in (Attribute.EXTRACTABLE, Attribute.UNWRAP, Attribute.DERIVE):
            assert key[attribute] is False
        assert key[Attribute.SIGN] is (spec != "AES_256")
        assert key[Attribute.DECRYPT] is (spec == "AES_256")
        secret = Attribute.VALUE if spec != "RSA_2048" else Attribute.PRIVATE_EXPONENT
        with pytest.raises(pkcs11.AttributeSensitive):
            key[secret]


def half_of(hsm: Pkcs11Backend, label: uuid.UUID, kind: ObjectClass) -> None:
    """Leave what a crash between the two objects of a pair would."""
    with hsm._connection().managing() as session:
        for item in objects.all_under(session, label):
            if item[Attribute.CLASS] is not kind:
                item.destroy()


@pytest.mark.parametrize("left", [ObjectClass.PRIVATE_KEY, ObjectClass.PUBLIC_KEY])
def test_a_half_made_pair_is_cleared_away_and_made_anew(
    hsm: Pkcs11Backend, left: ObjectClass
) -> None:
    label = uuid.uuid4()
    first = hsm.generate(label, "ECC_NIST_P256")
    half_of(hsm, label, left)
    assert len(on_the_token(hsm, label)) == 1
    assert hsm.find(label) is None
    assert on_the_token(hsm, label) == []
    assert hsm.generate(label, "ECC_NIST_P256").public_key != first.public_key


def test_destroying_a_half_made_pair_leaves_nothing(hsm: Pkcs11Backend) -> None:
    label = uuid.uuid4()
    handle = hsm.generate(label, "ECC_NIST_P256").handle
    half_of(hsm, label, ObjectClass.PUBLIC_KEY)
    hsm.destroy(handle)
    assert on_the_token(hsm, label) == []


def make_foreign(hsm: Pkcs11Backend, label: uuid.UUID, name: str) -> None:
    with hsm._connection().managing() as session:
        session.generate_key(
            KeyType.AES,
            256,
            id=label.bytes,
            label=name,
            store=True,
            capabilities=MechanismFlag.ENCRYPT | MechanismFlag.DECRYPT,
        )


def test_two_keys_under_one_id_are_never_guessed_between(hsm: Pkcs11Backend) -> None:
    label = uuid.uuid4()
    handle = hsm.generate(label, "AES_256").handle
    make_foreign(hsm, label, "somebody else's")
    for call in (
        lambda: hsm.find(label),
        lambda: hsm.generate(label, "AES_256"),
        lambda: hsm.destroy(handle),
        lambda: hsm.encrypt(handle, "AES_256_GCM", b"x", AAD),
    ):
        with pytest.raises(BackendError):
            call()
    assert len(on_the_token(hsm, label)) == 2


def test_an_object_that_is_not_ours_is_not_cleared_away(hsm: Pkcs11Backend) -> None:
    label = uuid.uuid4()
    with hsm._connection().managing() as session:
        attributes = {Attribute.TOKEN: True, Attribute.LABEL: "a note", Attribute.ID: label.bytes}
        public = decode_ec_public_key(
            SoftwareKey.public_der  # a lone public key, as another product may keep it
        )
        session.create_object(public | attributes)
    with pytest.raises(BackendError, match="somebody else"):
        hsm.find(label)
    assert len(on_the_token(hsm, label)) == 1


class SoftwareKey:
    """A public key from elsewhere."""

    from cryptography.hazmat.primitives.asymmetric import ec as _ec

    from keys.backends import materials as _materials

    public_der = _materials.public_der(_ec.generate_private_key(_ec.SECP256R1()))


def test_other_material_under_the_same_id_is_neither_used_nor_destroyed(
    hsm: Pkcs11Backend, softhsm: Token
) -> None:
    label = uuid.uuid4()
    handle = hsm.generate(label, "AES_256").handle
    with hsm._connection().managing() as session:
        for item in objects.all_under(session, label):
            item.destroy()
    make_foreign(hsm, label, "kms-console")
    with pytest.raises(BackendError, match="other material"):
        hsm.encrypt(handle, "AES_256_GCM", b"x", AAD)
    with pytest.raises(BackendError, match="other material"):
        hsm.destroy(handle)
    assert len(on_the_token(hsm, label)) == 1


def test_a_private_key_that_does_not_match_its_public_key_is_noticed(hsm: Pkcs11Backend) -> None:
    one, two = uuid.uuid4(), uuid.uuid4()
    handle = hsm.generate(one, "ECC_NIST_P256").handle
    hsm.generate(two, "ECC_NIST_P256")
    half_of(hsm, one, ObjectClass.PUBLIC_KEY)
    half_of(hsm, two, ObjectClass.PRIVATE_KEY)
    with hsm._connection().managing() as session:
        (private,) = objects.all_under(session, two)
        private[Attribute.ID] = one.bytes
    with pytest.raises(BackendError, match="don't belong together"):
        hsm.sign(handle, "ECDSA_SHA_256", b"x")


# --- suspension by the token itself


@pytest.mark.parametrize("spec", ["AES_256", "HMAC_256", "ECC_NIST_P256"])
def test_a_suspended_key_is_refused_by_the_token_in_every_process(
    hsm: Pkcs11Backend, softhsm: Token, spec: str
) -> None:
    material = hsm.generate(uuid.uuid4(), spec)
    uses: dict[str, Callable[[Pkcs11Backend], object]] = {
        "AES_256": lambda store: store.encrypt(material.handle, "AES_256_GCM", b"x", AAD),
        "HMAC_256": lambda store: store.mac(material.handle, "HMAC_SHA_256", b"x"),
        "ECC_NIST_P256": lambda store: store.sign(material.handle, "ECDSA_SHA_256", b"x"),
    }
    other = another(softhsm)  # has its own caches, as another process would
    uses[spec](hsm)
    uses[spec](other)
    hsm.suspend(material.handle)
    for store in (hsm, other, hsm, other):
        with pytest.raises(StateForbids):
            uses[spec](store)
    hsm.resume(material.handle)
    for store in (hsm, other):
        uses[spec](store)
    hsm.deactivate(material.handle)
    for store in (hsm, other):
        with pytest.raises(StateForbids):
            uses[spec](store)
    other.close()


def test_a_suspended_secret_is_still_recognised_by_its_recorded_check_value(
    hsm: Pkcs11Backend,
) -> None:
    label = uuid.uuid4()
    material = hsm.generate(label, "AES_256")
    hsm.suspend(material.handle)
    with hsm._connection().managing() as session:
        (item,) = objects.all_under(session, label)
        item[Attribute.LABEL] = "kms-console 0000000000000000"
    with pytest.raises(BackendError, match="other material"):
        hsm.destroy(material.handle)


# --- the same material in both stores


@pytest.mark.parametrize("spec", ["AES_256", "HMAC_256", "HMAC_384", "HMAC_512"])
def test_the_same_secret_has_one_check_value_and_one_behaviour(
    hsm: Pkcs11Backend, software: SoftwareBackend, spec: str
) -> None:
    label, secret = uuid.uuid4(), some_material(spec)
    here = software.import_material(label, spec, secret)
    there = hsm.import_material(label, spec, secret)
    assert here.check_value == there.check_value
    if spec == "AES_256":
        for one, other in ((software, hsm), (hsm, software)):
            handles = {software: here.handle, hsm: there.handle}
            sealed = one.encrypt(handles[one], "AES_256_GCM", b"text", AAD)
            assert other.decrypt(handles[other], "AES_256_GCM", sealed, AAD) == b"text"
            with pytest.raises(CannotDecrypt):
                other.decrypt(handles[other], "AES_256_GCM", sealed, b"")
    else:
        (algorithm,) = software.capabilities().algorithms[spec]
        tag = software.mac(here.handle, algorithm, b"text")
        assert tag == hsm.mac(there.handle, algorithm, b"text")


@pytest.mark.parametrize("spec", ["RSA_2048", "ECC_NIST_P256", "ECC_NIST_P384", "ECC_NIST_P521"])
def test_each_store_verifies_what_the_other_signed(
    hsm: Pkcs11Backend, software: SoftwareBackend, spec: str
) -> None:
    label, secret = uuid.uuid4(), some_material(spec)
    here = software.import_material(label, spec, secret)
    there = hsm.import_material(label, spec, secret)
    assert (here.check_value, here.public_key) == (there.check_value, there.public_key)
    for algorithm in hsm.capabilities().algorithms[spec]:
        signed_here = software.sign(here.handle, algorithm, b"text")
        signed_there = hsm.sign(there.handle, algorithm, b"text")
        for signature in (signed_here, signed_there):
            assert software.verify(here.handle, algorithm, b"text", signature)
            assert hsm.verify(there.handle, algorithm, b"text", signature)
            assert not software.verify(here.handle, algorithm, b"next", signature)


# --- configuration


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"module": "/usr/lib/softhsm/libsofthsm2.so"},
        {"token_label": "x"},
        {"module": "softhsm2.so", "token_label": "x"},
        {"module": "/tmp/evil.so", "token_label": "x"},
        {"module": "/usr/lib/../../tmp/evil.so", "token_label": "x"},
        {"module": "/usr/lib/x.so", "token_label": 7},
        {"module": "/usr/lib/x.so", "token_label": "x", "slot": "first"},
        {"module": "/usr/lib/x.so", "token_label": "x", "slot": True},
        {"module": "/usr/lib/x.so", "token_label": "x", "sessions": 0},
        {"module": "/usr/lib/x.so", "token_label": "x", "sessions": 65},
        {"module": "/usr/lib/x.so", "token_label": "x", "iv_by_token": "yes"},
        {"module": "/usr/lib/x.so", "token_label": "x", "pin": "1234"},
    ],
)
def test_settings_that_could_not_work_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(Invalid):
        Pkcs11Backend.check_settings(settings)


def test_a_link_out_of_the_allowed_folders_is_refused(tmp_path: Path, settings: Any) -> None:
    settings.PKCS11_MODULE_FOLDERS = [str(tmp_path / "allowed")]
    (tmp_path / "allowed").mkdir()
    (tmp_path / "allowed" / "link.so").symlink_to(tmp_path / "elsewhere.so")
    with pytest.raises(Invalid, match="allowed"):
        Pkcs11Backend.check_settings(
            {"module": str(tmp_path / "allowed" / "link.so"), "token_label": "x"}
        )


def test_a_module_or_token_that_is_missing_makes_the_store_unavailable(softhsm: Token) -> None:
    module = softhsm.settings["module"]
    for settings, words in (
        ({"module": "/usr/lib/no-such-module.so", "token_label": "x"}, "no PKCS#11 module"),
        ({"module": "/usr/lib/os-release", "token_label": "x"}, "can't be loaded"),
        ({"module": module, "token_label": "no such token"}, "No token"),
        (dict(softhsm.settings) | {"slot": 12345}, "No token"),
    ):
        store = Pkcs11Backend(uuid.uuid4(), settings, Secret(softhsm.pin.encode()))
        health = store.health()
        assert not health.ok
        assert words in health.detail
        with pytest.raises(BackendUnavailable):
            store.find(uuid.uuid4())
        with pytest.raises(BackendUnavailable):
            store.capabilities()
        store.close()


def test_a_token_that_is_said_to_make_nonces_and_does_not_gets_no_ciphertext_out(
    softhsm: Token,
) -> None:
    store = another(softhsm, iv_by_token=True)
    handle = store.generate(uuid.uuid4(), "AES_256").handle
    with pytest.raises(BackendError, match="iv_by_token"):
        store.encrypt(handle, "AES_256_GCM", b"x", AAD)
    store.close()


def test_a_token_offers_no_xaes_and_says_what_it_offers_instead(hsm: Pkcs11Backend) -> None:
    handle = hsm.generate(uuid.uuid4(), "AES_256").handle
    with pytest.raises(Unsupported, match="AES_256_GCM"):
        hsm.encrypt(handle, "XAES_256_GCM", b"x", AAD)


def test_no_trace_of_pin_or_material_is_shown_logged_or_left_readable_on_disk(
    hsm: Pkcs11Backend, softhsm: Token, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    label = uuid.uuid4()
    material = hsm.import_material(label, "AES_256", Secret(CANARY))
    sealed = hsm.encrypt(material.handle, "AES_256_GCM", b"text", AAD)
    connection = hsm._connection()
    shown = [repr(hsm), repr(material), repr(vars(hsm)), repr(vars(connection)), caplog.text]
    shown += [repr(hsm.health()), repr(hsm.capabilities())]
    for attempt in (
        lambda: hsm.decrypt(material.handle, "AES_256_GCM", sealed, b""),
        lambda: hsm.import_material(label, "AES_256", Secret(CANARY[::-1])),
        lambda: hsm.import_material(label, "RSA_2048", Secret(CANARY)),
        lambda: hsm.mac(material.handle, "HMAC_SHA_256", b"x"),
    ):
        with pytest.raises(KeyServiceError) as caught:
            attempt()
        shown.append("".join(str(part) for part in caught.value.args) + repr(caught.value))
    plain = uuid.uuid4()
    hsm.generate(plain, "ECC_NIST_P256")
    stored = b"".join(path.read_bytes() for path in softhsm.folder.rglob("*") if path.is_file())
    assert (
        plain.bytes in stored
    )  # a public object is not encrypted: the search looks where they are
    for form in (CANARY, CANARY.hex().encode(), repr(CANARY).encode(), softhsm.pin.encode()):
        assert form not in "\n".join(shown).encode()
        assert form not in stored
