"""The contract of keys/backends/base.py, checked alike on every key store."""

from __future__ import annotations

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from keys.algorithms import SPECS, Usage
from keys.backends import materials
from keys.backends.base import Backend, Material, NoMaterial
from keys.errors import (
    CannotDecrypt,
    Conflict,
    Invalid,
    KeyServiceError,
    StateForbids,
    TooLarge,
    Unsupported,
)
from keys.secret import Secret
from tests.backends.uses import AAD, EVERY_SPEC, SLOW, check_use, some_material

PKCS8 = (
    serialization.Encoding.DER,
    serialization.PrivateFormat.PKCS8,
    serialization.NoEncryption(),
)
PAIRS = [name for name, row in SPECS.items() if row.asymmetric]


def usages(store: Backend, spec: str) -> tuple[Usage, ...]:
    """What this store can make keys of a spec for."""
    offered = store.capabilities().algorithms[spec]
    return tuple(
        usage for usage in SPECS[spec].usages if SPECS[spec].algorithms_for(usage, offered)
    )


def made(store: Backend, spec: str, usage: Usage | None = None) -> Material:
    return store.generate(uuid.uuid4(), spec, usage=usage)


def ciphers(store: Backend) -> list[tuple[str, str]]:
    """Every cipher with a secret key that this store offers: spec and algorithm."""
    return [
        (spec, algorithm)
        for spec, offered in store.capabilities().algorithms.items()
        if not SPECS[spec].asymmetric
        for algorithm in SPECS[spec].algorithms_for(Usage.ENCRYPT_DECRYPT, offered)
    ]


@pytest.mark.parametrize("spec", EVERY_SPEC)
def test_every_spec_is_made_used_for_each_purpose_and_destroyed(store: Backend, spec: str) -> None:
    if spec not in store.capabilities().algorithms:
        with pytest.raises(Unsupported):
            store.generate(uuid.uuid4(), spec)
        return
    for usage in usages(store, spec):
        label = uuid.uuid4()
        material = store.generate(label, spec, usage=usage)
        assert (material.public_key is not None) == SPECS[spec].asymmetric
        assert len(bytes.fromhex(material.check_value)) == 8
        if material.public_key is not None:
            materials.load_public_key(material.public_key, SPECS[spec])
        check_use(store, spec, usage, material)
        store.destroy(material.handle)
        assert store.find(label) is None


def test_a_purpose_that_a_spec_has_not_is_refused(store: Backend) -> None:
    for spec, usage in (
        ("AES_256", Usage.SIGN_VERIFY),
        ("HMAC_256", Usage.ENCRYPT_DECRYPT),
        ("ECC_NIST_P256", Usage.WRAP_UNWRAP),
    ):
        label = uuid.uuid4()
        with pytest.raises(Unsupported):
            store.generate(label, spec, usage=usage)
        with pytest.raises(Unsupported):
            store.import_material(label, spec, some_material(spec), usage=usage)
        assert store.find(label) is None


def test_a_store_offers_only_algorithms_of_the_spec(store: Backend) -> None:
    capabilities = store.capabilities()
    assert set(capabilities.algorithms) <= set(SPECS)
    for spec, algorithms in capabilities.algorithms.items():
        assert algorithms
        assert set(algorithms) <= set(SPECS[spec].algorithms)
    assert capabilities.imports <= set(capabilities.algorithms)
    assert capabilities.exports <= set(capabilities.algorithms)
    # What every store has: the console's own defaults stand on it.
    assert {"AES_256", "HMAC_256", "RSA_2048", "ECC_NIST_P256"} <= set(capabilities.algorithms)


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
    usage = SPECS[spec].usages[0]
    material = made(store, spec)
    check_use(store, spec, usage, material)
    store.destroy(material.handle)
    with pytest.raises(NoMaterial):
        check_use(store, spec, usage, material)


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


# --- encryption with a secret key


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 4096, 65536])
def test_encryption_returns_what_it_was_given_at_any_size(store: Backend, size: int) -> None:
    plaintext = bytes(index % 251 for index in range(size))
    for spec, algorithm in ciphers(store):
        handle = made(store, spec, Usage.ENCRYPT_DECRYPT).handle
        for aad in (b"", AAD, AAD * 200):
            sealed = store.encrypt(handle, algorithm, plaintext, aad)
            assert store.decrypt(handle, algorithm, sealed, aad) == plaintext


def test_no_two_random_encryptions_are_alike(store: Backend) -> None:
    for spec, algorithm in ciphers(store):
        if algorithm == "AES_SIV_CMAC_512":
            continue
        handle = made(store, spec, Usage.ENCRYPT_DECRYPT).handle
        sealed = {store.encrypt(handle, algorithm, b"same", AAD) for _ in range(50)}
        assert len({one[:12] for one in sealed}) == 50


def test_a_ciphertext_changed_in_any_byte_does_not_decrypt(store: Backend) -> None:
    for spec, algorithm in ciphers(store):
        handle = made(store, spec, Usage.ENCRYPT_DECRYPT).handle
        sealed = store.encrypt(handle, algorithm, b"dose: 5 mg", AAD)
        for position in range(len(sealed)):
            changed = bytearray(sealed)
            changed[position] ^= 1
            with pytest.raises(CannotDecrypt):
                store.decrypt(handle, algorithm, bytes(changed), AAD)
        assert store.decrypt(handle, algorithm, sealed, AAD) == b"dose: 5 mg"


def test_a_ciphertext_cut_or_lengthened_does_not_decrypt(store: Backend) -> None:
    for spec, algorithm in ciphers(store):
        handle = made(store, spec, Usage.ENCRYPT_DECRYPT).handle
        sealed = store.encrypt(handle, algorithm, b"dose: 5 mg", AAD)
        others = [sealed[:length] for length in range(len(sealed))]
        others += [sealed[1:], sealed + b"\x00", b"\x00" + sealed]
        for other in others:
            with pytest.raises(CannotDecrypt):
                store.decrypt(handle, algorithm, other, AAD)


def test_other_associated_data_or_another_key_does_not_decrypt(store: Backend) -> None:
    for spec, algorithm in ciphers(store):
        one, other = (made(store, spec, Usage.ENCRYPT_DECRYPT).handle for _ in range(2))
        sealed = store.encrypt(one, algorithm, b"dose: 5 mg", AAD)
        for aad in (b"", AAD[:-1], AAD + b"\x00", AAD.upper()):
            with pytest.raises(CannotDecrypt):
                store.decrypt(one, algorithm, sealed, aad)
        with pytest.raises(CannotDecrypt):
            store.decrypt(other, algorithm, sealed, AAD)


def test_a_ciphertext_of_one_algorithm_is_not_one_of_another(store: Backend) -> None:
    offered = store.capabilities().algorithms["AES_256"]
    names = SPECS["AES_256"].algorithms_for(Usage.ENCRYPT_DECRYPT, offered)
    handle = made(store, "AES_256", Usage.ENCRYPT_DECRYPT).handle
    text = b"a message that is long enough for any of them"
    sealed = {name: store.encrypt(handle, name, text, AAD) for name in names}
    for name in names:
        assert store.decrypt(handle, name, sealed[name], AAD) == text
        for other in set(names) - {name}:
            with pytest.raises(CannotDecrypt):
                store.decrypt(handle, other, sealed[name], AAD)


# --- RSA, and what an algorithm is for


def test_rsa_signatures_of_one_kind_are_not_of_another(store: Backend) -> None:
    offered = store.capabilities().algorithms["RSA_2048"]
    algorithms = SPECS["RSA_2048"].algorithms_for(Usage.SIGN_VERIFY, offered)
    handle = made(store, "RSA_2048", Usage.SIGN_VERIFY).handle
    signatures = {name: store.sign(handle, name, b"message") for name in algorithms}
    for name_of_it, signature in signatures.items():
        for name in algorithms:
            assert store.verify(handle, name, b"message", signature) == (name == name_of_it)


def test_rsa_takes_what_fits_under_its_padding_and_says_when_it_does_not(store: Backend) -> None:
    offered = store.capabilities().algorithms["RSA_2048"]
    handle = made(store, "RSA_2048", Usage.ENCRYPT_DECRYPT).handle
    for name in SPECS["RSA_2048"].algorithms_for(Usage.ENCRYPT_DECRYPT, offered):
        digest = {"SHA_1": 20, "SHA_256": 32, "SHA_384": 48, "SHA_512": 64}
        most = 256 - 2 * digest[name.removeprefix("RSAES_OAEP_")] - 2
        for size in (0, 1, most):
            sealed = store.encrypt(handle, name, bytes(size), b"")
            assert len(sealed) == 256
            assert store.decrypt(handle, name, sealed, b"") == bytes(size)
        with pytest.raises(TooLarge, match=str(most)):
            store.encrypt(handle, name, bytes(most + 1), b"")


def test_an_algorithm_of_another_kind_of_key_is_not_supported(store: Backend) -> None:
    handle = made(store, "AES_256").handle
    signer = made(store, "ECC_NIST_P256", Usage.SIGN_VERIFY).handle
    with pytest.raises(Unsupported, match="AES_256_GCM"):
        store.mac(handle, "HMAC_SHA_256", b"x")
    for call in (
        lambda: store.sign(handle, "ECDSA_SHA_256", b"x"),
        lambda: store.verify(handle, "ECDSA_SHA_256", b"x", b"y"),
        lambda: store.derive(handle, "HKDF_SHA_256", salt=b"", info=b"", length=16),
        lambda: store.unwrap(handle, "RSAES_OAEP_SHA_256", b"x"),
        lambda: store.encrypt(signer, "AES_256_GCM", b"x", AAD),
        lambda: store.sign(signer, "ECDSA_SHA_384", b"x"),
        lambda: store.sign(signer, "nonsense", b"x"),
        lambda: store.decapsulate(signer, "ML_KEM", b"x"),
        lambda: store.generate(uuid.uuid4(), "AES_512"),
        lambda: store.import_material(uuid.uuid4(), "AES_512", Secret(bytes(range(64)))),
    ):
        with pytest.raises(Unsupported):
            call()


def test_an_algorithm_of_another_purpose_of_the_key_is_not_supported(store: Backend) -> None:
    handle = made(store, "AES_256", Usage.ENCRYPT_DECRYPT).handle
    pair = made(store, "ECC_NIST_P256", Usage.SIGN_VERIFY).handle
    for call in (
        lambda: store.encrypt(handle, "AES_KWP", b"x", AAD),
        lambda: store.decrypt(handle, "AES_KWP", b"x", AAD),
        lambda: store.wrap(handle, "AES_256_GCM", b"x"),
        lambda: store.sign(pair, "ECDH", b"x"),
        lambda: store.agree(pair, "ECDSA_SHA_256", b"x"),
    ):
        with pytest.raises(Unsupported):
            call()


# --- imports and exports


@pytest.mark.parametrize("spec", EVERY_SPEC)
def test_imported_material_is_found_used_and_taken_once(store: Backend, spec: str) -> None:
    label, secret = uuid.uuid4(), some_material(spec)
    if spec not in store.capabilities().imports:
        with pytest.raises(Unsupported):
            store.import_material(label, spec, secret)
        return
    usage = usages(store, spec)[0]
    material = store.import_material(label, spec, secret, usage=usage)
    assert material.check_value == materials.check_value(SPECS[spec], secret)
    assert store.find(label) == material
    assert store.import_material(label, spec, secret, usage=usage) == material
    assert store.generate(label, spec, usage=usage) == material
    check_use(store, spec, usage, material)
    if spec not in SLOW:
        with pytest.raises(Conflict):
            store.import_material(label, spec, some_material(spec), usage=usage)
    assert store.find(label) == material


@pytest.mark.parametrize("spec", EVERY_SPEC)
def test_what_was_made_exportable_comes_out_as_it_goes_in(store: Backend, spec: str) -> None:
    if spec not in store.capabilities().exports:
        if spec in store.capabilities().algorithms:
            with pytest.raises((Unsupported, StateForbids)):
                store.export_material(made(store, spec).handle)
        return
    material = store.generate(uuid.uuid4(), spec, exportable=True)
    out = store.export_material(material.handle)
    assert materials.check_value(SPECS[spec], out) == material.check_value
    copy = store.import_material(uuid.uuid4(), spec, out)
    assert (copy.check_value, copy.public_key) == (material.check_value, material.public_key)
    # The copy was not made exportable, and so it stays.
    with pytest.raises(StateForbids):
        store.export_material(copy.handle)
    store.destroy(material.handle)
    with pytest.raises(NoMaterial):
        store.export_material(material.handle)


def refused_imports() -> list[tuple[str, str, bytes]]:
    p256 = ec.generate_private_key(ec.SECP256R1())
    small = rsa.generate_private_key(65537, 1024).private_bytes(*PKCS8)
    flat = rsa.generate_private_key(3, 2048).private_bytes(*PKCS8)
    locked = p256.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"password"),
    )
    good = bytearray(some_material("RSA_2048").reveal())
    good[-20] ^= 1  # another CRT coefficient: the numbers no longer belong together
    public = p256.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    key = bytes(range(64))
    return [
        ("AES too short", "AES_256", key[:31]),
        ("AES too long", "AES_256", key[:33]),
        ("AES-128", "AES_256", key[:16]),
        ("AES-256", "AES_128", key[:32]),
        ("nothing", "AES_256", b""),
        ("zeros", "AES_256", bytes(32)),
        ("equal halves", "AES_SIV_512", key[:32] * 2),
        ("HMAC of another size", "HMAC_512", key[:32]),
        ("a modulus of another size", "RSA_2048", small),
        ("a small exponent", "RSA_2048", flat),
        ("numbers that do not fit", "RSA_2048", bytes(good)),
        ("another curve", "ECC_NIST_P384", p256.private_bytes(*PKCS8)),
        ("another kind", "RSA_2048", p256.private_bytes(*PKCS8)),
        ("an encrypted key", "ECC_NIST_P256", locked),
        ("a public key", "ECC_NIST_P256", public),
        ("garbage", "ECC_NIST_P256", b"0\x82\xff\xff garbage"),
        ("zeros", "ECC_NIST_EDWARDS25519",
         ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32)).private_bytes(*PKCS8)),
        ("signing for agreement", "X25519",
         ed25519.Ed25519PrivateKey.generate().private_bytes(*PKCS8)),
        ("another set", "ML_DSA_65", some_material("ML_DSA_44").reveal()),
        ("another set", "ML_KEM_1024", some_material("ML_KEM_768").reveal()),
        ("another algorithm", "X_WING", some_material("X25519").reveal()),
    ]  # fmt: skip


def test_material_that_does_not_fit_is_refused_and_leaves_nothing(store: Backend) -> None:
    for what, spec, material in refused_imports():
        if spec not in store.capabilities().imports:
            continue
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
    for usage in usages(store, spec):
        label = uuid.uuid4()
        material = store.generate(label, spec, usage=usage)
        check_use(store, spec, usage, material)
        store.suspend(material.handle)
        assert store.find(label) == material
        store.resume(material.handle)
        check_use(store, spec, usage, material)
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
    algorithm = "AES_256_GCM"
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
