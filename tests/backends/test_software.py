"""What is particular to the software key store: rows, the root key, the cache."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import logging
import pickle
import random
import sys
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.hazmat.primitives.keywrap import (
    aes_key_unwrap_with_padding,
    aes_key_wrap_with_padding,
)

from keys import sealing
from keys.algorithms import SPECS, Usage
from keys.backends import materials
from keys.backends.base import NoMaterial
from keys.backends.software import backend as software_module
from keys.backends.software.backend import SoftwareBackend
from keys.backends.software.models import WrappedMaterial
from keys.errors import (
    BackendError,
    BackendUnavailable,
    CannotDecrypt,
    Conflict,
    Invalid,
    StateForbids,
    Unavailable,
    Unsupported,
)
from keys.primitives import der, post_quantum, x_wing
from keys.secret import Secret
from tests.backends.conftest import STORE_ID
from tests.backends.uses import SLOW, check_use, some_material
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
    rsa = software.generate(uuid.uuid4(), "RSA_2048").handle
    lattice = software.generate(uuid.uuid4(), "ML_DSA_44").handle
    hashes = software.generate(uuid.uuid4(), "SLH_DSA_SHA2_128F").handle
    assert not any(software.inline(handle) for handle in (aes, pair, rsa, lattice, hashes))
    software.encrypt(aes, "XAES_256_GCM", b"", b"")
    software.sign(pair, "ECDSA_SHA_256", b"")
    software.sign(rsa, "RSASSA_PSS_SHA_256", b"")
    software.sign(lattice, "ML_DSA_SHAKE_256", b"")
    software.sign(hashes, "SLH_DSA_SHA2_128F", b"")
    assert software.inline(aes)
    assert software.inline(pair)
    assert not any(software.inline(handle) for handle in (rsa, lattice, hashes))
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
        lambda row, other: setattr(row, "exportable", True),
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


@pytest.mark.parametrize("spec", [name for name in SPECS if name not in SLOW])
def test_loaded_keys_cannot_be_pickled(software: SoftwareBackend, spec: str) -> None:
    material = software.generate(uuid.uuid4(), spec)
    check_use(software, spec, SPECS[spec].usages[0], material)
    with pytest.raises(TypeError):
        pickle.dumps(software._cache[material.handle])


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


def test_check_values_are_what_they_were_and_the_documents_say() -> None:
    """A changed one would make every import that is known a stranger."""
    expected = {
        "AES_256": "f52856afe8d9df00",
        "AES_128": "c34119c72ef326e6",
        "HMAC_256": "29356b2deb46c017",
        "HMAC_512": "05f6ea040f68a322",
        "AES_SIV_512": "a7a1985d71eab13f",
        "XCHACHA20": "29356b2deb46c017",
    }
    for spec, value in expected.items():
        row = SPECS[spec]
        material = bytes(range(1, row.bits // 8 + 1))
        assert materials.check_value_of_secret(row, material) == value, spec


# --- what may leave, and what may not


def test_a_row_that_was_flipped_to_exportable_gives_nothing_away(
    software: SoftwareBackend,
) -> None:
    for exportable in (False, True):
        handle = software.generate(uuid.uuid4(), "AES_256", exportable=exportable).handle
        WrappedMaterial.objects.filter(label=uuid.UUID(handle)).update(exportable=not exportable)
        with pytest.raises((BackendError, StateForbids)):
            fresh(software).export_material(handle)
        with pytest.raises(BackendError):
            fresh(software).encrypt(handle, "XAES_256_GCM", b"x", b"")


def test_a_label_is_exportable_or_not_from_its_beginning(software: SoftwareBackend) -> None:
    label, secret = uuid.uuid4(), some_material("AES_256")
    software.import_material(label, "AES_256", secret)
    with pytest.raises(Conflict, match="can't be exported"):
        software.import_material(label, "AES_256", secret, exportable=True)
    with pytest.raises(Conflict):
        software.generate(label, "AES_256", exportable=True)
    other = uuid.uuid4()
    software.generate(other, "AES_256", exportable=True)
    with pytest.raises(Conflict, match="can be exported"):
        software.generate(other, "AES_256")


def test_material_from_before_there_was_export_still_opens(software: SoftwareBackend) -> None:
    """The purpose it was sealed for is spelt out: what is in databases today says exactly this."""
    label = uuid.uuid4()
    WrappedMaterial.objects.create(
        label=label,
        store_id=STORE_ID,
        spec="HMAC_256",
        wrapped=sealing.seal(f"software key material {STORE_ID} HMAC_256", label, Secret(CANARY)),
        check_value=materials.check_value_of_secret(SPECS["HMAC_256"], CANARY),
    )
    expected = hmac.digest(CANARY, b"message", "sha256")
    assert software.mac(label.hex, "HMAC_SHA_256", b"message") == expected


# --- the families' own edges


def test_an_oaep_label_is_bound(software: SoftwareBackend) -> None:
    handle = software.generate(uuid.uuid4(), "RSA_2048").handle
    for name in ("RSAES_OAEP_SHA_256", "RSAES_OAEP_SHA_1"):
        sealed = software.encrypt(handle, name, b"text", b"label")
        assert software.decrypt(handle, name, sealed, b"label") == b"text"
        for other in (b"", b"labels"):
            with pytest.raises(CannotDecrypt):
                software.decrypt(handle, name, sealed, other)


def test_wrapped_forms_of_rsa_are_those_of_pkcs11(software: SoftwareBackend) -> None:
    """RSA_AES_KEY_WRAP: the OAEP of a fresh AES-256 key, then the target in KWP under it."""
    label = uuid.uuid4()
    material = software.generate(label, "RSA_2048", exportable=True)
    wrapped = software.wrap(material.handle, "RSA_AES_KEY_WRAP_SHA_256", CANARY)
    passing = software.unwrap(material.handle, "RSAES_OAEP_SHA_256", wrapped[:256])
    assert len(passing) == 32
    assert aes_key_unwrap_with_padding(passing, wrapped[256:]) == CANARY
    # A key of another length in the first part is not the form, whatever it unwraps.
    short = software.wrap(material.handle, "RSAES_OAEP_SHA_256", passing[:16])
    with pytest.raises(CannotDecrypt):
        software.unwrap(
            material.handle,
            "RSA_AES_KEY_WRAP_SHA_256",
            short + aes_key_wrap_with_padding(passing[:16], CANARY),
        )


def test_wrapping_nothing_is_refused(software: SoftwareBackend) -> None:
    for spec, algorithm in (
        ("AES_256", "AES_KWP"),
        ("RSA_2048", "RSAES_OAEP_SHA_256"),
        ("RSA_2048", "RSA_AES_KEY_WRAP_SHA_256"),
        ("X_WING", "HPKE_X_WING_HKDF_SHA_256_AES_256_GCM"),
    ):
        handle = software.generate(uuid.uuid4(), spec).handle
        with pytest.raises(Invalid):
            software.wrap(handle, algorithm, b"")


# RFC 7748, 6.1 and the points of small order on Curve25519 and its twist, as they are known since
# its author listed them.
SMALL_ORDER = [
    bytes(32),
    (1).to_bytes(32, "little"),
    (2**255 - 20).to_bytes(32, "little"),
    (2**255 - 19).to_bytes(32, "little"),
    (2**255 - 18).to_bytes(32, "little"),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
]


def test_peers_of_small_order_are_refused(software: SoftwareBackend) -> None:
    handle = software.generate(uuid.uuid4(), "X25519").handle
    for point in SMALL_ORDER:
        peer = materials.public_der(X25519PublicKey.from_public_bytes(point))
        with pytest.raises(Invalid):
            software.agree(handle, "ECDH", peer)


def test_x_wing_takes_a_small_order_half_as_its_document_says(software: SoftwareBackend) -> None:
    """The draft has no check there: ML-KEM's half keeps the secret, and both sides agree."""
    made = x_wing.XWingPrivateKey.generate()
    handle = software.import_material(uuid.uuid4(), "X_WING", Secret(made.der())).handle
    secret, ciphertext = made.public_key().encapsulate()
    forged = ciphertext[:1088] + SMALL_ORDER[0]
    given = software.decapsulate(handle, "X_WING", forged)
    assert len(given) == 32
    assert given != secret
    own = made.public_key().curve.public_bytes_raw()
    kem_secret = made.kem.decapsulate(ciphertext[:1088])
    expected = hashlib.sha3_256(kem_secret + bytes(32) + SMALL_ORDER[0] + own + x_wing.LABEL)
    assert given == expected.digest()


def test_parts_of_a_post_quantum_key_that_do_not_belong_together_are_refused(
    software: SoftwareBackend,
) -> None:
    one, two = (post_quantum.MlKem512PrivateKey.generate().raw.reveal() for _ in range(2))
    signer = post_quantum.SlhDsaPrivateKey.generate("128F").raw.reveal()
    other = post_quantum.SlhDsaPrivateKey.generate("128F").raw.reveal()
    oid = post_quantum.ML_KEM_512_OID
    slh = post_quantum.SLH_DSA_OIDS["128F"]
    for spec, encoded in (
        # Another's decryption half, another's public half, another hash, a cut.
        ("ML_KEM_512", der.private_key_info(oid, der.octet_string(two[:768] + one[768:]))),
        ("ML_KEM_512", der.private_key_info(oid, der.octet_string(one[:768] + two[768:]))),
        ("ML_KEM_512", der.private_key_info(oid, der.octet_string(one[:1568] + bytes(64)))),
        ("ML_KEM_512", der.private_key_info(oid, der.octet_string(one[:-1]))),
        ("ML_KEM_512", der.private_key_info(oid, one)),
        # Another's root, another's seeds, a cut, another set's name.
        ("SLH_DSA_SHA2_128F", der.private_key_info(slh, signer[:48] + other[48:])),
        ("SLH_DSA_SHA2_128F", der.private_key_info(slh, other[:16] + signer[16:])),
        ("SLH_DSA_SHA2_128F", der.private_key_info(slh, signer[:-1])),
        ("SLH_DSA_SHA2_192F", der.private_key_info(slh, signer)),
        ("SLH_DSA_SHA2_128F", der.private_key_info(slh, signer) + b"\x00"),
    ):
        with pytest.raises(Invalid):
            software.import_material(uuid.uuid4(), spec, Secret(encoded))


def test_foreign_bytes_are_refused_by_our_own_errors_only(software: SoftwareBackend) -> None:
    """Keys of every kind with one byte changed or cut away, and noise, wherever keys are read."""
    chance = random.Random(7)
    specs = [name for name, row in SPECS.items() if row.asymmetric and name not in SLOW]
    for name in specs:
        row = SPECS[name]
        private, public = materials.new_pair(row)
        for _ in range(12):
            for good in (private.reveal(), public):
                odd = bytearray(good)
                odd[chance.randrange(min(len(odd), 60))] ^= 1 << chance.randrange(8)
                cut = good[: chance.randrange(len(good))]
                for foreign in (bytes(odd), cut, chance.randbytes(chance.randrange(200))):
                    with contextlib.suppress(Invalid):
                        materials.imported_private_key(row, Secret(foreign))
                    with contextlib.suppress(Invalid):
                        materials.load_public_key(foreign, row)
                    with contextlib.suppress(Invalid):
                        materials.load_public_key(foreign)
                    if Usage.KEY_ENCAPSULATION in row.usages:
                        with contextlib.suppress(Invalid):
                            materials.encapsulate(row, foreign)


# --- an optional library


def test_without_the_optional_library_less_is_offered_and_said(
    software: SoftwareBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    label = uuid.uuid4()
    handle = software.generate(label, "SLH_DSA_SHA2_128F").handle
    monkeypatch.setitem(sys.modules, "pqcrypto.kem", None)
    monkeypatch.setitem(sys.modules, "pqcrypto.sign", None)
    for cached in (post_quantum._module, software_module.offers):
        cached.cache_clear()
    try:
        capabilities = software.capabilities()
        missing = set(SPECS) - set(capabilities.algorithms)
        assert missing == {name for name in SPECS if "SLH_DSA" in name} | {"ML_KEM_512"}
        assert "pqcrypto" in capabilities.notes[0]
        for call in (
            lambda: software.generate(uuid.uuid4(), "ML_KEM_512"),
            lambda: software.sign(handle, "SLH_DSA_SHA2_128F", b"x"),
            lambda: materials.new_pair(SPECS["SLH_DSA_SHA2_192F"]),
        ):
            with pytest.raises(Unsupported):
                call()
        assert software.find(label) is not None  # it isn't lost
    finally:
        for cached in (post_quantum._module, software_module.offers):
            cached.cache_clear()
    monkeypatch.undo()
    assert set(software.capabilities().algorithms) == set(SPECS)
