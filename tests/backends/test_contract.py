"""The contract of keys/backends/base.py, checked alike on every key store."""

from __future__ import annotations

import hashlib
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from keys.algorithms import ALGORITHMS, SPECS, Family, Usage
from keys.backends.base import Backend, NoMaterial
from keys.errors import CannotDecrypt, Conflict, Invalid, KeyServiceError, Unsupported
from keys.secret import Secret

AAD = b"header and context"
PKCS8 = (
    serialization.Encoding.DER,
    serialization.PrivateFormat.PKCS8,
    serialization.NoEncryption(),
)


def digest_of(algorithm: str, message: bytes) -> bytes:
    return hashlib.new(ALGORITHMS[algorithm].digest, message).digest()


def check_use(store: Backend, spec: str, handle: str) -> None:
    """Use a key in every way its spec has."""
    for algorithm in store.capabilities().algorithms[spec]:
        if SPECS[spec].usage is Usage.ENCRYPT_DECRYPT:
            sealed = store.encrypt(handle, algorithm, b"diagnosis", AAD)
            assert store.decrypt(handle, algorithm, sealed, AAD) == b"diagnosis"
        elif SPECS[spec].usage is Usage.GENERATE_VERIFY_MAC:
            tag = store.mac(handle, algorithm, b"message")
            assert store.verify_mac(handle, algorithm, b"message", tag)
        else:
            signature = store.sign(handle, algorithm, b"message")
            assert store.verify(handle, algorithm, b"message", signature)


@pytest.mark.parametrize("spec", SPECS)
def test_every_spec_is_made_used_and_destroyed(store: Backend, spec: str) -> None:
    label = uuid.uuid4()
    material = store.generate(label, spec)
    assert (material.public_key is not None) == SPECS[spec].asymmetric
    assert len(bytes.fromhex(material.check_value)) == 8
    check_use(store, spec, material.handle)
    store.destroy(material.handle)
    assert store.find(label) is None


def test_a_store_offers_only_algorithms_of_the_spec(store: Backend) -> None:
    offers = store.capabilities().algorithms
    assert set(offers) == set(SPECS)
    for spec, algorithms in offers.items():
        assert algorithms
        assert set(algorithms) <= set(SPECS[spec].algorithms)


def test_a_healthy_store_says_so_and_names_itself(store: Backend) -> None:
    health = store.health()
    assert health.ok, health.detail
    assert health.facts


# --- a version's life


@pytest.mark.parametrize("spec", ["AES_256", "HMAC_384", "RSA_2048", "ECC_NIST_P256"])
def test_generating_again_under_a_label_makes_nothing_new(store: Backend, spec: str) -> None:
    label = uuid.uuid4()
    first = store.generate(label, spec)
    assert store.generate(label, spec) == first
    assert store.find(label) == first


def test_two_labels_have_two_materials(store: Backend) -> None:
    one, other = (store.generate(uuid.uuid4(), "AES_256") for _ in range(2))
    assert one.handle != other.handle
    assert one.check_value != other.check_value


def test_another_spec_under_a_label_is_a_conflict(store: Backend) -> None:
    label = uuid.uuid4()
    material = store.generate(label, "HMAC_256")
    with pytest.raises(Conflict):
        store.generate(label, "AES_256")
    assert store.find(label) == material


def test_what_was_never_made_is_not_found(store: Backend) -> None:
    assert store.find(uuid.uuid4()) is None


def test_destroying_twice_is_as_good_as_once(store: Backend) -> None:
    material = store.generate(uuid.uuid4(), "ECC_NIST_P256")
    store.destroy(material.handle)
    store.destroy(material.handle)


@pytest.mark.parametrize("spec", ["AES_256", "HMAC_256", "ECC_NIST_P256"])
def test_destroyed_material_cannot_be_used_in_any_way(store: Backend, spec: str) -> None:
    material = store.generate(uuid.uuid4(), spec)
    algorithm = store.capabilities().algorithms[spec][-1]
    handle = material.handle
    check_use(store, spec, handle)
    sealed = store.encrypt(handle, algorithm, b"x", AAD) if spec == "AES_256" else b""
    store.destroy(handle)
    with pytest.raises(NoMaterial):
        if spec == "AES_256":
            store.decrypt(handle, algorithm, sealed, AAD)
        elif spec == "HMAC_256":
            store.mac(handle, algorithm, b"x")
        else:
            store.sign(handle, algorithm, b"x")


def test_a_handle_of_nothing_is_refused(store: Backend) -> None:
    algorithm = store.capabilities().algorithms["AES_256"][0]
    for handle in ("", "nonsense", uuid.uuid4().hex, f"{uuid.uuid4().hex}.0011223344556677"):
        with pytest.raises(NoMaterial):
            store.encrypt(handle, algorithm, b"x", AAD)


def test_one_of_many_racing_generations_wins(store: Backend) -> None:
    label = uuid.uuid4()
    gate = threading.Barrier(6)

    def generate(_: int) -> str:
        gate.wait()
        return store.generate(label, "AES_256").check_value

    with ThreadPoolExecutor(6) as pool:
        assert len(set(pool.map(generate, range(6)))) == 1


# --- encryption


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 4096, 65536])
def test_encryption_returns_what_it_was_given_at_any_size(store: Backend, size: int) -> None:
    handle = store.generate(uuid.uuid4(), "AES_256").handle
    plaintext = bytes(index % 251 for index in range(size))
    for algorithm in store.capabilities().algorithms["AES_256"]:
        for aad in (b"", AAD, AAD * 200):
            sealed = store.encrypt(handle, algorithm, plaintext, aad)
            assert store.decrypt(handle, algorithm, sealed, aad) == plaintext


def test_no_two_encryptions_are_alike(store: Backend) -> None:
    handle = store.generate(uuid.uuid4(), "AES_256").handle
    for algorithm in store.capabilities().algorithms["AES_256"]:
        sealed = {store.encrypt(handle, algorithm, b"same", AAD) for _ in range(50)}
        assert len({one[:12] for one in sealed}) == 50


def test_a_ciphertext_changed_in_any_byte_does_not_decrypt(store: Backend) -> None:
    handle = store.generate(uuid.uuid4(), "AES_256").handle
    for algorithm in store.capabilities().algorithms["AES_256"]:
        sealed = store.encrypt(handle, algorithm, b"dose: 5 mg", AAD)
        for position in range(len(sealed)):
            changed = bytearray(sealed)
            changed[position] ^= 1
            with pytest.raises(CannotDecrypt):
                store.decrypt(handle, algorithm, bytes(changed), AAD)
        assert store.decrypt(handle, algorithm, sealed, AAD) == b"dose: 5 mg"


def test_a_ciphertext_cut_or_lengthened_does_not_decrypt(store: Backend) -> None:
    handle = store.generate(uuid.uuid4(), "AES_256").handle
    for algorithm in store.capabilities().algorithms["AES_256"]:
        sealed = store.encrypt(handle, algorithm, b"dose: 5 mg", AAD)
        others = [sealed[:length] for length in range(len(sealed))]
        others += [sealed[1:], sealed + b"\x00", b"\x00" + sealed]
        for other in others:
            with pytest.raises(CannotDecrypt):
                store.decrypt(handle, algorithm, other, AAD)


def test_other_associated_data_does_not_decrypt(store: Backend) -> None:
    handle = store.generate(uuid.uuid4(), "AES_256").handle
    for algorithm in store.capabilities().algorithms["AES_256"]:
        sealed = store.encrypt(handle, algorithm, b"dose: 5 mg", AAD)
        for aad in (b"", AAD[:-1], AAD + b"\x00", AAD.upper()):
            with pytest.raises(CannotDecrypt):
                store.decrypt(handle, algorithm, sealed, aad)


def test_another_key_does_not_decrypt(store: Backend) -> None:
    one, other = (store.generate(uuid.uuid4(), "AES_256").handle for _ in range(2))
    for algorithm in store.capabilities().algorithms["AES_256"]:
        sealed = store.encrypt(one, algorithm, b"dose: 5 mg", AAD)
        with pytest.raises(CannotDecrypt):
            store.decrypt(other, algorithm, sealed, AAD)


# --- MACs and signatures


@pytest.mark.parametrize("spec", ["HMAC_256", "HMAC_384", "HMAC_512"])
def test_a_mac_is_valid_for_its_message_only(store: Backend, spec: str) -> None:
    handle = store.generate(uuid.uuid4(), spec).handle
    (algorithm,) = store.capabilities().algorithms[spec]
    tag = store.mac(handle, algorithm, b"message")
    assert tag == store.mac(handle, algorithm, b"message")
    assert store.verify_mac(handle, algorithm, b"message", tag)
    assert not store.verify_mac(handle, algorithm, b"massage", tag)
    for wrong in (b"", tag[:-1], tag + b"\x00", bytes(len(tag)), tag[::-1]):
        assert not store.verify_mac(handle, algorithm, b"message", wrong)
    assert store.verify_mac(handle, algorithm, b"", store.mac(handle, algorithm, b""))


@pytest.mark.parametrize("spec", ["RSA_2048", "ECC_NIST_P256", "ECC_NIST_P384", "ECC_NIST_P521"])
def test_a_signature_is_valid_for_its_message_only(store: Backend, spec: str) -> None:
    handle = store.generate(uuid.uuid4(), spec).handle
    for algorithm in store.capabilities().algorithms[spec]:
        signature = store.sign(handle, algorithm, b"message")
        assert store.verify(handle, algorithm, b"message", signature)
        assert not store.verify(handle, algorithm, b"massage", signature)
        for wrong in (b"", signature[:-1], signature + b"\x00", bytes(len(signature))):
            assert not store.verify(handle, algorithm, b"message", wrong)
        changed = bytearray(signature)
        changed[-1] ^= 1
        assert not store.verify(handle, algorithm, b"message", bytes(changed))


@pytest.mark.parametrize("spec", ["RSA_2048", "ECC_NIST_P256", "ECC_NIST_P521"])
def test_signing_a_digest_is_signing_its_message(store: Backend, spec: str) -> None:
    handle = store.generate(uuid.uuid4(), spec).handle
    for algorithm in store.capabilities().algorithms[spec]:
        digest = digest_of(algorithm, b"message")
        signature = store.sign(handle, algorithm, digest, prehashed=True)
        assert store.verify(handle, algorithm, b"message", signature)
        assert store.verify(handle, algorithm, digest, signature, prehashed=True)
        for wrong in (b"", digest[:-1], digest + b"\x00"):
            with pytest.raises(Invalid):
                store.sign(handle, algorithm, wrong, prehashed=True)
            with pytest.raises(Invalid):
                store.verify(handle, algorithm, wrong, signature, prehashed=True)


def test_rsa_signatures_of_one_kind_are_not_of_another(store: Backend) -> None:
    handle = store.generate(uuid.uuid4(), "RSA_2048").handle
    algorithms = store.capabilities().algorithms["RSA_2048"]
    signatures = {name: store.sign(handle, name, b"message") for name in algorithms}
    for made, signature in signatures.items():
        for name in algorithms:
            assert store.verify(handle, name, b"message", signature) == (name == made)


def test_an_algorithm_of_another_kind_of_key_is_not_supported(store: Backend) -> None:
    handle = store.generate(uuid.uuid4(), "AES_256").handle
    signer = store.generate(uuid.uuid4(), "ECC_NIST_P256").handle
    with pytest.raises(Unsupported, match="AES_256_GCM"):
        store.mac(handle, "HMAC_SHA_256", b"x")
    with pytest.raises(Unsupported):
        store.sign(handle, "ECDSA_SHA_256", b"x")
    with pytest.raises(Unsupported):
        store.verify(handle, "ECDSA_SHA_256", b"x", b"y")
    with pytest.raises(Unsupported):
        store.encrypt(signer, "AES_256_GCM", b"x", AAD)
    with pytest.raises(Unsupported):
        store.sign(signer, "ECDSA_SHA_384", b"x")
    with pytest.raises(Unsupported):
        store.generate(uuid.uuid4(), "AES_128")


# --- imports


def private_key(spec: str) -> bytes:
    if SPECS[spec].family is Family.RSA:
        return rsa.generate_private_key(65537, SPECS[spec].bits).private_bytes(*PKCS8)
    curve = {"secp256r1": ec.SECP256R1(), "secp384r1": ec.SECP384R1(), "secp521r1": ec.SECP521R1()}
    return ec.generate_private_key(curve[SPECS[spec].curve]).private_bytes(*PKCS8)


def some_material(spec: str) -> Secret:
    row = SPECS[spec]
    if row.asymmetric:
        return Secret(private_key(spec))
    return Secret(hashlib.shake_256(uuid.uuid4().bytes).digest(row.bits // 8))


@pytest.mark.parametrize("spec", [name for name in SPECS if name != "RSA_4096"])
def test_imported_material_is_found_used_and_taken_once(store: Backend, spec: str) -> None:
    label, secret = uuid.uuid4(), some_material(spec)
    material = store.import_material(label, spec, secret)
    assert store.find(label) == material
    assert store.import_material(label, spec, secret) == material
    assert store.generate(label, spec) == material
    check_use(store, spec, material.handle)
    with pytest.raises(Conflict):
        store.import_material(label, spec, some_material(spec))
    assert store.find(label) == material


def refused_imports() -> list[tuple[str, str, bytes]]:
    p256 = ec.generate_private_key(ec.SECP256R1())
    small = rsa.generate_private_key(65537, 1024).private_bytes(*PKCS8)
    flat = rsa.generate_private_key(3, 2048).private_bytes(*PKCS8)
    locked = p256.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"password"),
    )
    good = bytearray(private_key("RSA_2048"))
    good[-20] ^= 1  # another CRT coefficient: the numbers no longer belong together
    return [
        ("AES too short", "AES_256", bytes(range(31))),
        ("AES too long", "AES_256", bytes(range(33))),
        ("AES-128", "AES_256", bytes(range(16))),
        ("nothing", "AES_256", b""),
        ("zeros", "AES_256", bytes(32)),
        ("HMAC of another size", "HMAC_512", bytes(range(32))),
        ("a modulus of another size", "RSA_2048", small),
        ("a small exponent", "RSA_2048", flat),
        ("numbers that do not fit", "RSA_2048", bytes(good)),
        ("another curve", "ECC_NIST_P384", p256.private_bytes(*PKCS8)),
        ("another kind", "RSA_2048", p256.private_bytes(*PKCS8)),
        ("an encrypted key", "ECC_NIST_P256", locked),
        ("a public key", "ECC_NIST_P256", p256.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)),
        ("garbage", "ECC_NIST_P256", b"0\x82\xff\xff garbage"),
    ]  # fmt: skip


def test_material_that_does_not_fit_is_refused_and_leaves_nothing(store: Backend) -> None:
    for what, spec, material in refused_imports():
        label = uuid.uuid4()
        with pytest.raises(Invalid) as caught:
            store.import_material(label, spec, Secret(material))
        assert store.find(label) is None, what
        if len(material) > 8:
            assert material.hex() not in str(caught.value)


# --- the store itself refuses


@pytest.mark.parametrize("spec", ["AES_256", "HMAC_256", "RSA_2048", "ECC_NIST_P256"])
def test_suspending_keeps_the_material_and_resuming_gives_back_every_use(
    store: Backend, spec: str
) -> None:
    label = uuid.uuid4()
    material = store.generate(label, spec)
    check_use(store, spec, material.handle)
    store.suspend(material.handle)
    assert store.find(label) == material
    store.resume(material.handle)
    check_use(store, spec, material.handle)
    store.suspend(material.handle)
    store.destroy(material.handle)
    assert store.find(label) is None


def test_what_was_protected_before_deactivation_can_still_be_read(store: Backend) -> None:
    offers = store.capabilities().algorithms
    aes, mac, pair = (
        store.generate(uuid.uuid4(), spec) for spec in ("AES_256", "HMAC_256", "ECC_NIST_P256")
    )
    sealed = store.encrypt(aes.handle, offers["AES_256"][0], b"old", AAD)
    tag = store.mac(mac.handle, "HMAC_SHA_256", b"old")
    signature = store.sign(pair.handle, "ECDSA_SHA_256", b"old")
    for material in (aes, mac, pair):
        store.deactivate(material.handle)
    assert store.decrypt(aes.handle, offers["AES_256"][0], sealed, AAD) == b"old"
    assert store.verify_mac(mac.handle, "HMAC_SHA_256", b"old", tag)
    assert not store.verify_mac(mac.handle, "HMAC_SHA_256", b"new", tag)
    assert not store.verify_mac(mac.handle, "HMAC_SHA_256", b"old", tag[:-1])
    assert store.verify(pair.handle, "ECDSA_SHA_256", b"old", signature)
    for material in (aes, mac, pair):
        assert store.find(uuid.UUID(material.handle[:32])) == material


# --- the rest


def test_random_bytes_come_in_the_number_asked_for(store: Backend) -> None:
    for count in (1, 32, 1024):
        assert len(store.random(count)) == count
    assert store.random(32) != store.random(32)
    for count in (0, -1, 1025):
        with pytest.raises(Invalid):
            store.random(count)


def test_many_threads_use_many_keys_without_a_mistake(store: Backend) -> None:
    offers = store.capabilities().algorithms
    algorithm = offers["AES_256"][-1]
    keys = [store.generate(uuid.uuid4(), "AES_256").handle for _ in range(4)]
    signer = store.generate(uuid.uuid4(), "ECC_NIST_P256").handle
    wrong = bytes(40)
    mistakes: list[object] = []

    def work(number: int) -> None:
        try:
            for turn in range(100):
                handle, text = keys[(number + turn) % 4], f"{number} {turn}".encode()
                sealed = store.encrypt(handle, algorithm, text, AAD)
                if store.decrypt(handle, algorithm, sealed, AAD) != text:
                    mistakes.append((number, turn))
                if turn % 10 == 0:
                    signature = store.sign(signer, "ECDSA_SHA_256", text)
                    if not store.verify(signer, "ECDSA_SHA_256", text, signature):
                        mistakes.append(("signature", number, turn))
                    passing = store.generate(uuid.uuid4(), "HMAC_256")
                    store.destroy(passing.handle)
                    with pytest.raises(CannotDecrypt):
                        store.decrypt(handle, algorithm, wrong, AAD)
        except KeyServiceError as error:
            mistakes.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert mistakes == []
