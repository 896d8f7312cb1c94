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

from keys.algorithms import Usage
from keys.backends.pkcs11 import objects
from keys.backends.pkcs11.backend import Pkcs11Backend
from keys.errors import (
    BackendError,
    BackendUnavailable,
    Conflict,
    Invalid,
    KeyServiceError,
    StateForbids,
    Unsupported,
)
from keys.secret import Secret
from tests.backends.uses import some_material
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


PURPOSES = {
    ("AES_256", Usage.ENCRYPT_DECRYPT): {"ENCRYPT", "DECRYPT"},
    ("AES_256", Usage.WRAP_UNWRAP): {"WRAP", "UNWRAP"},
    ("AES_128", Usage.WRAP_UNWRAP): {"WRAP", "UNWRAP"},
    ("HMAC_512", Usage.GENERATE_VERIFY_MAC): {"SIGN", "VERIFY"},
    ("RSA_2048", Usage.SIGN_VERIFY): {"SIGN", "VERIFY"},
    ("RSA_2048", Usage.ENCRYPT_DECRYPT): {"ENCRYPT", "DECRYPT"},
    ("RSA_2048", Usage.WRAP_UNWRAP): {"WRAP", "UNWRAP"},
    ("ECC_NIST_P384", Usage.SIGN_VERIFY): {"SIGN", "VERIFY"},
    ("ECC_NIST_P384", Usage.KEY_AGREEMENT): {"DERIVE"},
    ("ECC_NIST_EDWARDS25519", Usage.SIGN_VERIFY): {"SIGN", "VERIFY"},
    ("X25519", Usage.KEY_AGREEMENT): {"DERIVE"},
}
EVERY_USE = ("ENCRYPT", "DECRYPT", "SIGN", "VERIFY", "WRAP", "UNWRAP", "DERIVE")


@pytest.mark.parametrize(("spec", "usage"), list(PURPOSES))
@pytest.mark.parametrize("imported", [False, True])
def test_keys_are_private_sensitive_not_extractable_and_of_one_purpose(
    hsm: Pkcs11Backend, spec: str, usage: Usage, imported: bool
) -> None:
    label = uuid.uuid4()
    if imported:
        material = hsm.import_material(label, spec, some_material(spec), usage=usage)
    else:
        material = hsm.generate(label, spec, usage=usage)
    with hsm._connection().managing() as session:
        found = find(hsm, session, label)
        assert found is not None
        assert (found.spec.name, found.usage) == (spec, usage)
        uses: set[str] = set()
        for item in found.everything():
            assert item[Attribute.ID] == label.bytes
            name = f"kms-console {usage.value} {material.check_value}"
            assert item[Attribute.LABEL].startswith(name)
            assert item[Attribute.TOKEN] is True
            uses |= {name for name in EVERY_USE if is_on(item, name)}
        assert uses == PURPOSES[spec, usage]
        for attribute in (Attribute.PRIVATE, Attribute.SENSITIVE):
            assert found.key[attribute] is True
        assert found.key[Attribute.EXTRACTABLE] is False
        secret = Attribute.PRIVATE_EXPONENT if spec == "RSA_2048" else Attribute.VALUE
        with pytest.raises(pkcs11.AttributeSensitive):
            found.key[secret]


def find(hsm: Pkcs11Backend, session: Any, label: uuid.UUID) -> objects.Found | None:
    return objects.find(session, label, hsm._keyring.abilities())


def is_on(item: Any, name: str) -> bool:
    try:
        return bool(item[Attribute[name]])
    except pkcs11.AttributeTypeInvalid:  # of a kind that this object can't have
        return False


def test_a_key_made_before_labels_named_purposes_is_still_known(hsm: Pkcs11Backend) -> None:
    label = uuid.uuid4()
    material = hsm.generate(label, "AES_256")
    with hsm._connection().managing() as session:
        (item,) = objects.all_under(session, label)
        item[Attribute.LABEL] = f"kms-console {material.check_value}"
    hsm.suspend(material.handle)
    assert hsm.find(label) == material
    hsm.resume(material.handle)
    hsm.encrypt(material.handle, "AES_256_GCM", b"x", AAD)


def test_another_purpose_under_a_label_is_a_conflict(hsm: Pkcs11Backend) -> None:
    label, secret = uuid.uuid4(), some_material("AES_256")
    material = hsm.import_material(label, "AES_256", secret, usage=Usage.WRAP_UNWRAP)
    assert hsm.import_material(label, "AES_256", secret, usage=Usage.WRAP_UNWRAP) == material
    assert hsm.generate(label, "AES_256", usage=Usage.WRAP_UNWRAP) == material
    with pytest.raises(Conflict):
        hsm.import_material(label, "AES_256", secret, usage=Usage.ENCRYPT_DECRYPT)
    with pytest.raises(Conflict):
        hsm.generate(label, "AES_256", usage=Usage.ENCRYPT_DECRYPT)
    with pytest.raises(Conflict):
        other = some_material("AES_256")
        hsm.import_material(label, "AES_256", other, usage=Usage.WRAP_UNWRAP)
    assert hsm.find(label) == material


def test_a_key_to_which_somebody_gave_more_uses_is_not_guessed_about(hsm: Pkcs11Backend) -> None:
    label = uuid.uuid4()
    with hsm._connection().managing() as session:
        uses = MechanismFlag.WRAP | MechanismFlag.UNWRAP | MechanismFlag.DECRYPT
        named = {"id": label.bytes, "label": "kms-console"}
        session.generate_key(KeyType.AES, 256, store=True, capabilities=uses, **named)
    with pytest.raises(BackendError, match="more than one use"):
        hsm.find(label)


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


def make_foreign(
    hsm: Pkcs11Backend,
    label: uuid.UUID,
    name: str,
    uses: MechanismFlag = MechanismFlag.ENCRYPT | MechanismFlag.DECRYPT,
) -> None:
    with hsm._connection().managing() as session:
        session.generate_key(
            KeyType.AES,
            256,
            id=label.bytes,
            label=name,
            store=True,
            capabilities=uses,
        )


@pytest.mark.parametrize("kind", [KeyType.DES3, KeyType.AES])
def test_a_key_of_a_kind_that_the_console_does_not_know_is_reported(
    hsm: Pkcs11Backend, kind: KeyType
) -> None:
    label = uuid.uuid4()
    with hsm._connection().managing() as session:
        named = {"id": label.bytes, "label": "kms-console", "store": True}
        session.generate_key(kind, 192, capabilities=MechanismFlag.ENCRYPT, **named)
    for call in (lambda: hsm.find(label), lambda: hsm.generate(label, "AES_256")):
        with pytest.raises(BackendError):
            call()
    assert len(on_the_token(hsm, label)) == 1


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


def test_a_wrapping_key_that_somebody_replaced_wraps_nothing(hsm: Pkcs11Backend) -> None:
    """It can't be checked as others are; what gives the other one away is what it wraps."""
    label = uuid.uuid4()
    handle = hsm.generate(label, "AES_256", usage=Usage.WRAP_UNWRAP).handle
    with hsm._connection().managing() as session:
        (item,) = objects.all_under(session, label)
        name = item[Attribute.LABEL]
        item.destroy()
    make_foreign(hsm, label, name, MechanismFlag.WRAP | MechanismFlag.UNWRAP)
    with pytest.raises(BackendError, match="other material"):
        hsm.wrap(handle, "AES_KWP", bytes(16))
    with pytest.raises(BackendError, match="other material"):
        hsm.destroy(handle)


@pytest.mark.parametrize(
    ("spec", "usage"),
    [
        ("ECC_NIST_P256", Usage.SIGN_VERIFY),
        ("ECC_NIST_P256", Usage.KEY_AGREEMENT),
        ("X25519", Usage.KEY_AGREEMENT),
        ("ECC_NIST_EDWARDS25519", Usage.SIGN_VERIFY),
        ("RSA_2048", Usage.SIGN_VERIFY),
        ("RSA_2048", Usage.ENCRYPT_DECRYPT),
        ("RSA_2048", Usage.WRAP_UNWRAP),
    ],
)
def test_a_private_key_that_does_not_match_its_public_key_is_noticed(
    hsm: Pkcs11Backend, spec: str, usage: Usage
) -> None:
    one, two = uuid.uuid4(), uuid.uuid4()
    handle = hsm.generate(one, spec, usage=usage).handle
    hsm.generate(two, spec, usage=usage)
    half_of(hsm, one, ObjectClass.PUBLIC_KEY)
    half_of(hsm, two, ObjectClass.PRIVATE_KEY)
    with hsm._connection().managing() as session:
        (private,) = objects.all_under(session, two)
        private[Attribute.ID] = one.bytes
    for call in (lambda: hsm.find(one), lambda: hsm.destroy(handle)):
        with pytest.raises(BackendError, match=r"don't belong together|GeneralError"):
            call()
    assert len(on_the_token(hsm, one)) == 2


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
