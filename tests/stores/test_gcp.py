"""Google Cloud KMS: making, rotating, importing and using keys, at a server of ours (tests/peers/google)."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from google.cloud import kms_v1

from keys.algorithms import ALGORITHMS, SPECS, MessageType, Usage
from keys.backends import materials
from keys.backends.base import Backend, Material, NoMaterial, Parent, Protection
from keys.backends.gcp.backend import GcpBackend
from keys.backends.gcp.forms import FORMS
from keys.errors import (
    BackendUnavailable,
    CannotDecrypt,
    Conflict,
    Invalid,
    StateForbids,
    StillWaiting,
    TooLarge,
    Unsupported,
)
from keys.secret import Secret
from tests.backends.uses import AAD, MESSAGE, message_of, some_material
from tests.peers.google import GoogleServer

# What takes long to make at the server: minutes of processor time are not for `make test`.
SLOW = ("3072", "4096", "SLH_DSA")
EVERY_FORM = [
    pytest.param(
        form.google,
        marks=pytest.mark.exhaustive if any(part in form.google for part in SLOW) else (),
    )
    for form in FORMS.values()
    if form.made and not form.hsm_only
]


@pytest.fixture
def store(google_store: Backend) -> Backend:
    return google_store


@pytest.fixture
def hardware(google_server: GoogleServer) -> Iterator[Backend]:
    backend = GcpBackend(uuid.uuid4(), google_server.settings(protection_level="hsm"), None)
    yield backend
    backend.close()


def make(store: Backend, spec: str, algorithm: str = "", usage: Usage | None = None) -> Material:
    parent = Parent(uuid.uuid4(), algorithm=algorithm)
    return store.generate(uuid.uuid4(), spec, usage=usage, parent=parent)


# --- every algorithm that Google has


@pytest.mark.parametrize("google", EVERY_FORM)
def test_a_key_of_each_of_googles_algorithms_does_what_it_is_for(
    store: Backend, google: str
) -> None:
    form = FORMS[google]
    material = make(store, form.spec, form.algorithms[0])
    for algorithm in form.algorithms:
        assert algorithm in store.capabilities().algorithms[form.spec]
        for usage in ALGORITHMS[algorithm].usages:
            uses(store, material, algorithm, usage)


def uses(store: Backend, material: Material, algorithm: str, usage: Usage) -> None:
    handle = material.handle
    if usage is Usage.ENCRYPT_DECRYPT:
        aad = b"" if algorithm.startswith("RSA") else AAD
        sealed = store.encrypt(handle, algorithm, MESSAGE, aad)
        assert store.decrypt(handle, algorithm, sealed, aad) == MESSAGE
        for wrong in (b"", sealed[:-1], sealed[:-1] + bytes([sealed[-1] ^ 1])):
            with pytest.raises(CannotDecrypt):
                store.decrypt(handle, algorithm, wrong, aad)
    elif usage is Usage.SIGN_VERIFY:
        assert material.public_key is not None
        for kind in ALGORITHMS[algorithm].messages:
            message = message_of(algorithm, MESSAGE, kind, material.public_key)
            signature = store.sign(handle, algorithm, message, message_type=kind)
            assert store.verify(handle, algorithm, MESSAGE, signature)
            assert not store.verify(handle, algorithm, b"another", signature)
    elif usage is Usage.GENERATE_VERIFY_MAC:
        tag = store.mac(handle, algorithm, MESSAGE)
        assert store.verify_mac(handle, algorithm, MESSAGE, tag)
        assert not store.verify_mac(handle, algorithm, MESSAGE, tag[::-1])
        assert not store.verify_mac(handle, algorithm, MESSAGE, tag[:-1])
    elif usage is Usage.WRAP_UNWRAP:
        for size in (16, 17, 32):
            wrapped = store.wrap(handle, algorithm, bytes(range(size)))
            assert store.unwrap(handle, algorithm, wrapped) == bytes(range(size))
        with pytest.raises(CannotDecrypt):
            store.unwrap(handle, algorithm, wrapped[:-1])
    else:
        assert usage is Usage.KEY_ENCAPSULATION and material.public_key is not None
        decapsulates(store, material, algorithm)


def decapsulates(store: Backend, material: Material, algorithm: str) -> None:
    assert material.public_key is not None
    for name in ("ML_KEM_768", "ML_KEM_1024", "X_WING"):
        try:
            secret, ciphertext = materials.encapsulate(SPECS[name], material.public_key)
        except Invalid:
            continue
        assert store.decapsulate(material.handle, algorithm, ciphertext) == secret
        with pytest.raises(CannotDecrypt):
            store.decapsulate(material.handle, algorithm, ciphertext[:-1])
        return
    pytest.fail("the public key is of no KEM")


def test_a_key_has_the_one_algorithm_that_it_was_made_for(store: Backend) -> None:
    material = make(store, "RSA_2048", "RSASSA_PKCS1_V1_5_SHA_256")
    signature = store.sign(material.handle, "RSASSA_PKCS1_V1_5_SHA_256", MESSAGE)
    assert store.verify(material.handle, "RSASSA_PKCS1_V1_5_SHA_256", MESSAGE, signature)
    for other in ("RSASSA_PSS_SHA_256", "RSASSA_PKCS1_V1_5_SHA_512", "nonsense"):
        with pytest.raises(Unsupported, match="RSASSA_PKCS1_V1_5_SHA_256"):
            store.sign(material.handle, other, MESSAGE)
    with pytest.raises(Unsupported):
        store.decrypt(material.handle, "RSASSA_PKCS1_V1_5_SHA_256", bytes(256), b"")
    with pytest.raises(Unsupported, match="RSASSA_PSS_SHA_256"):
        make(store, "RSA_2048", "RSASSA_PSS_SHA_512")


def test_hardware_keys_are_hardware_keys(hardware: Backend) -> None:
    settings = {"key_ring": "projects/p/locations/l/keyRings/r"}
    assert GcpBackend.protection_with(settings) is Protection.SOFTWARE
    assert GcpBackend.protection_with({**settings, "protection_level": "hsm"}) is Protection.HSM
    assert "ECC_SECG_P256K1" in hardware.capabilities().algorithms
    assert "ML_DSA_65" not in hardware.capabilities().algorithms
    material = make(hardware, "ECC_SECG_P256K1")
    assert hardware.sign(material.handle, "ECDSA_SHA_256", MESSAGE)
    (view,) = hardware.discover().keys
    assert view.facts["protection level"] == "HSM"
    cipher = make(hardware, "AES_256").handle
    hardware.encrypt(cipher, "AES_256_GCM", bytes(8192 - 16), bytes(16))
    with pytest.raises(TooLarge, match="8192"):
        hardware.encrypt(cipher, "AES_256_GCM", bytes(8192 - 15), bytes(16))


def test_a_software_key_is_never_passed_off_as_a_hardware_key(google_server: GoogleServer) -> None:
    settings = google_server.settings()
    software = GcpBackend(uuid.uuid4(), settings, None)
    key = uuid.uuid4()
    one = software.generate(uuid.uuid4(), "AES_256", parent=Parent(key))
    hardware = GcpBackend(uuid.uuid4(), {**settings, "protection_level": "hsm"}, None)
    (view,) = hardware.discover().keys
    assert "software" in view.problem
    with pytest.raises(Conflict, match="software"):
        hardware.generate(uuid.uuid4(), "AES_256", parent=Parent(key, newest=one.handle))
    software.close()
    hardware.close()


def test_what_is_too_long_for_google_is_refused_before_it_leaves(store: Backend) -> None:
    limit = 65536
    for spec, call in (
        ("AES_256", lambda handle, size: store.encrypt(handle, "AES_256_GCM", bytes(size), b"")),
        ("HMAC_256", lambda handle, size: store.mac(handle, "HMAC_SHA_256", bytes(size))),
        ("ECC_NIST_EDWARDS25519", lambda h, size: store.sign(h, "ED25519_SHA_512", bytes(size))),
    ):
        handle = make(store, spec).handle
        call(handle, limit)
        with pytest.raises(TooLarge, match=str(limit)):
            call(handle, limit + 1)


def test_ml_dsa_signs_messages_of_any_length_and_mu(store: Backend) -> None:
    material = make(store, "ML_DSA_44")
    assert material.public_key is not None
    long = bytes(200_000)
    signature = store.sign(material.handle, "ML_DSA_SHAKE_256", long)
    assert store.verify(material.handle, "ML_DSA_SHAKE_256", long, signature)
    mu = message_of("ML_DSA_SHAKE_256", long, MessageType.EXTERNAL_MU, material.public_key)
    again = store.sign(
        material.handle, "ML_DSA_SHAKE_256", mu, message_type=MessageType.EXTERNAL_MU
    )
    assert store.verify(material.handle, "ML_DSA_SHAKE_256", long, again)


def test_random_bytes_come_from_googles_hardware_in_any_number(store: Backend) -> None:
    for count in (1, 7, 8, 1024):
        assert len(store.random(count)) == count
    for count in (0, 1025):
        with pytest.raises(Invalid):
            store.random(count)


# --- versions


def test_a_rotation_makes_the_next_version_of_the_same_key(store: Backend) -> None:
    key, first, second = uuid.uuid4(), uuid.uuid4(), uuid.uuid4()
    one = store.generate(first, "AES_256", parent=Parent(key))
    two = store.generate(second, "AES_256", parent=Parent(key, newest=one.handle))
    assert one.handle.endswith(f"/cryptoKeys/kms-console-{key}/cryptoKeyVersions/1")
    assert two.handle.endswith(f"/cryptoKeys/kms-console-{key}/cryptoKeyVersions/2")
    # Asked again, in any order and however much of it the console knows: nothing new.
    for newest in ("", one.handle, two.handle):
        assert store.find(first, Parent(key, newest=newest)) == one
        assert store.find(second, Parent(key, newest=newest)) == two
        assert store.generate(second, "AES_256", parent=Parent(key, newest=newest)) == two
    assert store.find(uuid.uuid4(), Parent(key, newest=two.handle)) is None
    old = store.encrypt(one.handle, "AES_256_GCM", MESSAGE, AAD)
    assert store.decrypt(one.handle, "AES_256_GCM", old, AAD) == MESSAGE


def test_a_version_that_somebody_else_made_is_not_taken_for_ours(
    store: Backend, google_server: GoogleServer
) -> None:
    key = uuid.uuid4()
    one = store.generate(uuid.uuid4(), "AES_256", parent=Parent(key))
    name = one.handle.partition("/cryptoKeyVersions/")[0]
    google_server.call(kms_v1.CreateCryptoKeyVersionRequest(parent=name))
    label, parent = uuid.uuid4(), Parent(key, newest=one.handle)
    assert store.find(label, parent) is None
    ours = store.generate(label, "AES_256", parent=parent)
    assert ours.handle.endswith("/3")
    assert store.find(label, parent) == ours


def test_many_rotations_keep_within_googles_64_labels(store: Backend) -> None:
    key, newest, labels = uuid.uuid4(), "", []
    for _ in range(30):
        labels.append(uuid.uuid4())
        newest = store.generate(labels[-1], "HMAC_256", parent=Parent(key, newest=newest)).handle
    assert newest.endswith("/30")
    (view,) = store.discover().keys
    assert len(view.versions) == 30
    assert view.tags == {}, "the console's own labels are nobody's business"
    found = store.find(labels[-1], Parent(key, newest=newest))
    assert found is not None and found.handle == newest


def test_threads_that_ask_for_one_rotation_get_one_version(store: Backend) -> None:
    key, label = uuid.uuid4(), uuid.uuid4()
    one = store.generate(uuid.uuid4(), "AES_256", parent=Parent(key))
    gate = threading.Barrier(6)

    def rotate(_: int) -> str:
        gate.wait()
        return store.generate(label, "AES_256", parent=Parent(key, newest=one.handle)).handle

    with ThreadPoolExecutor(6) as pool:
        assert len(set(pool.map(rotate, range(6)))) == 1


def test_a_key_that_is_there_for_something_else_is_a_conflict(store: Backend) -> None:
    label = uuid.uuid4()
    store.generate(label, "RSA_2048", usage=Usage.SIGN_VERIFY)
    for spec, usage in (("AES_256", None), ("RSA_2048", Usage.ENCRYPT_DECRYPT)):
        with pytest.raises(Conflict):
            store.generate(label, spec, usage=usage)


def test_a_handle_of_another_key_ring_is_not_touched(store: Backend) -> None:
    ours = make(store, "AES_256").handle
    elsewhere = ours.replace("/keyRings/", "/keyRings/other-")
    for handle in (elsewhere, ours + "0", ours[:-1] + "0", ours + "/x", ours.upper(), ""):
        with pytest.raises(NoMaterial):
            store.encrypt(handle, "AES_256_GCM", MESSAGE, AAD)
    for call in (store.destroy, store.suspend, store.resume):
        with pytest.raises(NoMaterial):
            call(elsewhere)


# --- imports


def test_material_is_brought_once_and_under_its_label(store: Backend) -> None:
    key, label, material = uuid.uuid4(), uuid.uuid4(), some_material("AES_256")
    parent = Parent(key)
    one = store.import_material(label, "AES_256", material, parent=parent)
    assert one.check_value == materials.check_value(SPECS["AES_256"], material)
    assert store.find(label, parent) == one
    assert store.import_material(label, "AES_256", material, parent=parent) == one
    with pytest.raises(Conflict):
        store.import_material(label, "AES_256", some_material("AES_256"), parent=parent)
    # The next version's material, into the same key.
    other, more = uuid.uuid4(), some_material("AES_256")
    newer = Parent(key, newest=one.handle)
    two = store.import_material(other, "AES_256", more, parent=newer)
    assert two.handle == one.handle[:-1] + "2"
    assert store.find(other, newer) == two
    assert store.find(label, newer) == one
    sealed = store.encrypt(one.handle, "AES_256_GCM", MESSAGE, AAD)
    assert store.decrypt(one.handle, "AES_256_GCM", sealed, AAD) == MESSAGE
    # Google makes no version of its own in such a key.
    with pytest.raises(StateForbids):
        store.generate(uuid.uuid4(), "AES_256", parent=newer)


def test_a_pair_is_brought_and_signs_as_itself(store: Backend) -> None:
    secret, public = materials.new_pair(SPECS["ECC_NIST_P256"])
    brought = store.import_material(uuid.uuid4(), "ECC_NIST_P256", secret)
    assert brought.public_key == public
    signature = store.sign(brought.handle, "ECDSA_SHA_256", MESSAGE)
    assert store.verify(brought.handle, "ECDSA_SHA_256", MESSAGE, signature)
    with pytest.raises(Unsupported):
        store.import_material(uuid.uuid4(), "ML_DSA_65", some_material("ML_DSA_65"))


def test_removed_material_comes_back_only_as_the_very_same(
    store: Backend, google_server: GoogleServer
) -> None:
    label, material = uuid.uuid4(), some_material("HMAC_256")
    one = store.import_material(label, "HMAC_256", material)
    tag = store.mac(one.handle, "HMAC_SHA_256", MESSAGE)
    with pytest.raises(StillWaiting):
        store.remove(one.handle)
    assert store.find(label) is None
    with pytest.raises(Conflict):
        store.import_material(label, "HMAC_256", some_material("HMAC_256"))
    # While Google waits it is restored, afterwards it is imported again.
    assert store.import_material(label, "HMAC_256", material) == one
    assert store.verify_mac(one.handle, "HMAC_SHA_256", MESSAGE, tag)
    with pytest.raises(StillWaiting):
        store.remove(one.handle)
    with google_server.later(days=31):
        store.remove(one.handle)
    with pytest.raises(NoMaterial):
        store.mac(one.handle, "HMAC_SHA_256", MESSAGE)
    with pytest.raises(Conflict):
        store.import_material(label, "HMAC_256", some_material("HMAC_256"))
    assert store.import_material(label, "HMAC_256", material) == one
    assert store.verify_mac(one.handle, "HMAC_SHA_256", MESSAGE, tag)


def test_an_import_job_that_ended_is_replaced(store: Backend, google_server: GoogleServer) -> None:
    store.import_material(uuid.uuid4(), "HMAC_256", some_material("HMAC_256"))
    with google_server.later(days=4):
        material = some_material("HMAC_256")
        brought = store.import_material(uuid.uuid4(), "HMAC_256", material)
        assert brought.check_value == materials.check_value(SPECS["HMAC_256"], material)


def test_nothing_of_what_is_brought_stands_in_an_error(store: Backend) -> None:
    label, material = uuid.uuid4(), Secret(bytes(range(64, 97)))
    with pytest.raises(Invalid) as caught:
        store.import_material(label, "AES_256", material)
    assert material.reveal().hex() not in str(caught.value)
    assert store.find(label) is None
    with pytest.raises(Unsupported):
        store.import_material(label, "AES_256", some_material("AES_256"), exportable=True)
    with pytest.raises(Unsupported):
        store.export_material(make(store, "AES_256").handle)


# --- states that Google enforces


def test_a_suspended_version_is_refused_by_google_itself(store: Backend) -> None:
    cipher, signer = make(store, "AES_256").handle, make(store, "ECC_NIST_P256").handle
    sealed = store.encrypt(cipher, "AES_256_GCM", MESSAGE, AAD)
    for handle in (cipher, signer):
        store.suspend(handle)
        store.suspend(handle)
    for call in (
        lambda: store.encrypt(cipher, "AES_256_GCM", MESSAGE, AAD),
        lambda: store.decrypt(cipher, "AES_256_GCM", sealed, AAD),
        lambda: store.sign(signer, "ECDSA_SHA_256", MESSAGE),
    ):
        with pytest.raises(StateForbids, match="disabled"):
            call()
    store.resume(cipher)
    assert store.decrypt(cipher, "AES_256_GCM", sealed, AAD) == MESSAGE


def test_a_disabled_pair_is_still_found_by_who_never_saw_its_public_key(
    google_server: GoogleServer,
) -> None:
    settings = google_server.settings()
    label = uuid.uuid4()
    first = GcpBackend(uuid.uuid4(), settings, None)
    material = first.generate(label, "ECC_NIST_P256")
    first.suspend(material.handle)
    first.close()
    again = GcpBackend(uuid.uuid4(), settings, None)
    found = again.find(label)
    assert found is not None and found.handle == material.handle
    with pytest.raises(StateForbids):
        again.verify(material.handle, "ECDSA_SHA_256", MESSAGE, b"x")
    again.close()


def test_destruction_waits_for_googles_window_and_then_nothing_is_left(
    google_server: GoogleServer,
) -> None:
    store = GcpBackend(uuid.uuid4(), google_server.settings(destroy_days="1"), None)
    key = uuid.uuid4()
    one = store.generate(uuid.uuid4(), "AES_256", parent=Parent(key)).handle
    two = store.generate(uuid.uuid4(), "AES_256", parent=Parent(key, newest=one)).handle
    with pytest.raises(StillWaiting) as waiting:
        store.destroy_all([one, two])
    until = waiting.value.until
    assert until is not None
    for handle in (one, two):  # both have begun, not only the first
        with pytest.raises(StillWaiting) as again:
            store.destroy(handle)
        assert again.value.until is not None
        assert abs(until - again.value.until) < timedelta(minutes=5)
        with pytest.raises(NoMaterial):
            store.encrypt(handle, "AES_256_GCM", MESSAGE, AAD)
    with google_server.later(days=1):
        store.destroy_all([one, two])
    store.destroy(one)
    with pytest.raises(NoMaterial):
        store.encrypt(one, "AES_256_GCM", MESSAGE, AAD)
    store.close()


def test_material_under_a_label_that_was_destroyed_is_not_made_again(store: Backend) -> None:
    label = uuid.uuid4()
    handle = store.generate(label, "AES_256").handle
    with pytest.raises(StillWaiting):
        store.destroy(handle)
    assert store.find(label) is None
    with pytest.raises(Conflict, match="destroyed"):
        store.generate(label, "AES_256")
    with pytest.raises(StateForbids):
        store.resume(handle)


def test_the_parts_that_google_lacks_say_so(store: Backend) -> None:
    aes, rsa = make(store, "AES_256").handle, make(store, "RSA_2048", "RSAES_OAEP_SHA_256").handle
    for call in (
        lambda: store.agree(aes, "ECDH", b""),
        lambda: store.derive(aes, "HKDF_SHA_256", salt=b"", info=b"", length=16),
        lambda: store.encrypt(rsa, "RSAES_OAEP_SHA_256", b"x", b"a label"),
        lambda: store.decrypt(rsa, "RSAES_OAEP_SHA_256", bytes(256), b"a label"),
        lambda: store.generate(uuid.uuid4(), "AES_256", exportable=True),
        lambda: store.generate(uuid.uuid4(), "ECC_NIST_P521"),
        lambda: store.generate(uuid.uuid4(), "ECC_NIST_P256", usage=Usage.KEY_AGREEMENT),
    ):
        with pytest.raises(Unsupported):
            call()


def test_a_key_ring_that_is_not_there_is_told_and_not_made(google_server: GoogleServer) -> None:
    settings = dict(google_server.settings())
    settings["key_ring"] += "-gone"
    store = GcpBackend(uuid.uuid4(), settings, None)
    health = store.health()
    assert not health.ok and "KeyRing" in health.detail
    with pytest.raises(NoMaterial):
        store.generate(uuid.uuid4(), "AES_256")
    with pytest.raises((NoMaterial, BackendUnavailable)):
        store.discover()
    store.close()
