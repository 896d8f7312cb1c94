"""The contract of keys/backends/base.py, checked alike on every key store.

What a store does otherwise it says in its Capabilities; what the server of a test does otherwise
than its model, in Peer.gaps. No test asks what a store is called.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
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
from tests.backends.uses import (
    AAD,
    COMMON,
    EVERY_SPEC,
    SLOW,
    aad_of,
    algorithms,
    attempts,
    check_use,
    destroyed,
    foreign,
    is_remote,
    made_for,
    offers,
    some_material,
    usages,
)

Gaps = frozenset[str]
Needs = Callable[[str], None]

PKCS8 = (
    serialization.Encoding.DER,
    serialization.PrivateFormat.PKCS8,
    serialization.NoEncryption(),
)
PAIRS = [name for name, row in SPECS.items() if row.asymmetric]


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


def cipher(store: Backend) -> tuple[str, str]:
    """A spec and algorithm that this store encrypts with: with a secret key, where it has such."""
    spec = "AES_256" if "AES_256" in store.capabilities().algorithms else "RSA_2048"
    offers(store, spec)
    return spec, algorithms(store, spec, Usage.ENCRYPT_DECRYPT)[0]


def told(store: Backend, material: Material) -> bool:
    """Whether a check value is one: a store elsewhere may have none of a secret that it keeps."""
    if material.check_value == "":
        return is_remote(store) and material.public_key is None
    return len(bytes.fromhex(material.check_value)) == 8


@pytest.mark.parametrize("spec", EVERY_SPEC)
def test_every_spec_is_made_used_for_each_purpose_and_destroyed(
    store: Backend, spec: str, gaps: Gaps
) -> None:
    if spec not in store.capabilities().algorithms:
        with pytest.raises(Unsupported):
            store.generate(uuid.uuid4(), spec)
        return
    for usage in usages(store, spec, gaps):
        label = uuid.uuid4()
        try:
            material = store.generate(label, spec, usage=usage)
        except Unsupported as error:
            # A region, or the server that stands in for one, may be behind what its kind offers.
            if is_remote(store) and spec not in COMMON:
                pytest.skip(error.detail)
            raise
        assert (material.public_key is not None) == SPECS[spec].asymmetric
        assert told(store, material)
        if material.public_key is not None:
            materials.load_public_key(material.public_key, SPECS[spec])
        check_use(store, spec, usage, material, gaps, afresh=True)
        if destroyed(store, material.handle):
            assert store.find(label) is None


def test_a_purpose_that_a_spec_has_not_is_refused(store: Backend) -> None:
    for spec, usage in (
        ("AES_256", Usage.SIGN_VERIFY),
        ("HMAC_256", Usage.ENCRYPT_DECRYPT),
        ("ECC_NIST_P256", Usage.WRAP_UNWRAP),
        ("RSA_2048", Usage.GENERATE_VERIFY_MAC),
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
    for spec, names in capabilities.algorithms.items():
        assert names
        assert set(names) <= set(SPECS[spec].algorithms)
    assert capabilities.imports <= set(capabilities.algorithms)
    assert capabilities.exports <= set(capabilities.algorithms)
    # The console's own defaults stand on what every store here has; one elsewhere has most of it.
    missing = set(COMMON) - set(capabilities.algorithms)
    assert len(missing) <= (2 if is_remote(store) else 0), missing


def test_a_store_that_waits_with_a_destruction_says_how_long(store: Backend) -> None:
    capabilities = store.capabilities()
    if capabilities.window is None:
        assert capabilities.destroys_at_once or is_remote(store)
        return
    least, most = capabilities.window
    assert 0 <= least <= most <= 400, "days"


def test_a_healthy_store_says_so_and_names_itself(store: Backend) -> None:
    health = store.health()
    assert health.ok, health.detail
    assert health.facts


# --- a version's life


@pytest.mark.parametrize("spec", [*COMMON, "HMAC_384"])
def test_generating_again_under_a_label_makes_nothing_new(store: Backend, spec: str) -> None:
    offers(store, spec)
    label = uuid.uuid4()
    first = store.generate(label, spec)
    assert store.generate(label, spec) == first
    assert store.find(label) == first


def test_two_labels_have_two_materials(store: Backend, gaps: Gaps) -> None:
    spec, algorithm = cipher(store)
    one, other = (made(store, spec, Usage.ENCRYPT_DECRYPT) for _ in range(2))
    assert one.handle != other.handle
    assert one.check_value != other.check_value or one.check_value == ""
    if "sealing" in gaps:
        return
    sealed = store.encrypt(one.handle, algorithm, b"dose: 5 mg", b"")
    with pytest.raises(CannotDecrypt):
        store.decrypt(other.handle, algorithm, sealed, b"")


def test_another_spec_under_a_label_is_a_conflict(store: Backend) -> None:
    label = uuid.uuid4()
    one, other = [spec for spec in COMMON if spec in store.capabilities().algorithms][-2:]
    material = store.generate(label, one)
    with pytest.raises(Conflict):
        store.generate(label, other)
    assert store.find(label) == material


def test_what_was_never_made_is_not_found(store: Backend) -> None:
    assert store.find(uuid.uuid4()) is None


def test_destroying_twice_is_as_good_as_once(store: Backend) -> None:
    offers(store, "ECC_NIST_P256")
    material = store.generate(uuid.uuid4(), "ECC_NIST_P256")
    assert destroyed(store, material.handle) == destroyed(store, material.handle)


@pytest.mark.parametrize("spec", COMMON)
def test_destroyed_material_cannot_be_used_in_any_way(
    store: Backend, spec: str, needs: Needs, gaps: Gaps
) -> None:
    offers(store, spec)
    usage = usages(store, spec)[0]
    material = made(store, spec, usage)
    calls = attempts(store, spec, usage, material, gaps)
    for call in calls.all:
        call()
    gone = destroyed(store, material.handle)
    if not gone:
        needs("states")
    for call in calls.closed:
        # One that waits for its date can't be used either.
        with pytest.raises(NoMaterial if gone else (NoMaterial, StateForbids)):
            call()


def test_a_handle_of_nothing_is_refused(store: Backend) -> None:
    spec, algorithm = cipher(store)
    own = foreign(made(store, spec, Usage.ENCRYPT_DECRYPT).handle)
    assert own
    sealed = bytes(256)
    for handle in (*own, "", "nonsense", uuid.uuid4().hex, f"{uuid.uuid4().hex}.0011223344556677"):
        with pytest.raises(NoMaterial):
            store.encrypt(handle, algorithm, b"x", b"")
        with pytest.raises(NoMaterial):
            store.decrypt(handle, algorithm, sealed, b"")
    for handle in own:
        assert destroyed(store, handle), "what is gone already is a success"


def test_one_of_many_racing_generations_wins(store: Backend) -> None:
    label = uuid.uuid4()
    gate = threading.Barrier(6)

    spec, _ = cipher(store)

    def generate(_: int) -> tuple[str, str]:
        gate.wait()
        material = store.generate(label, spec)
        return material.handle, material.check_value

    with ThreadPoolExecutor(6) as pool:
        assert len(set(pool.map(generate, range(6)))) == 1


# --- encryption with a secret key


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 4096, 65536])
def test_encryption_returns_what_it_was_given_at_any_size(store: Backend, size: int) -> None:
    plaintext = bytes(index % 251 for index in range(size))
    for spec, algorithm in ciphers(store):
        handle = made(store, spec, Usage.ENCRYPT_DECRYPT).handle
        for aad in (b"", AAD, AAD * 200):
            try:
                sealed = store.encrypt(handle, algorithm, plaintext, aad)
            except (TooLarge, Unsupported) as error:
                # A service has a largest size, and some a least one; the console names it.
                assert is_remote(store)
                assert (size > 4096) if isinstance(error, TooLarge) else (size == 0), error
                continue
            assert store.decrypt(handle, algorithm, sealed, aad) == plaintext


def test_no_two_random_encryptions_are_alike(store: Backend) -> None:
    for spec, algorithm in ciphers(store):
        if algorithm == "AES_SIV_CMAC_512":
            continue
        handle = made(store, spec, Usage.ENCRYPT_DECRYPT).handle
        turns = 5 if is_remote(store) else 50
        sealed = {store.encrypt(handle, algorithm, b"same", AAD) for _ in range(turns)}
        assert len(sealed) == turns
        # A service may write something of its own, which is always the same, before its nonce.
        assert is_remote(store) or len({one[:12] for one in sealed}) == turns


def some(store: Backend, positions: range) -> list[int]:
    """All positions in a ciphertext; over a network the first, the last and every fifth."""
    step = 5 if is_remote(store) else 1
    return sorted({*positions[::step], *positions[-1:]})


def test_a_ciphertext_changed_in_any_byte_does_not_decrypt(store: Backend, needs: Needs) -> None:
    needs("sealing")
    for spec, algorithm in ciphers(store):
        handle = made(store, spec, Usage.ENCRYPT_DECRYPT).handle
        sealed = store.encrypt(handle, algorithm, b"dose: 5 mg", AAD)
        for position in some(store, range(len(sealed))):
            changed = bytearray(sealed)
            changed[position] ^= 1
            with pytest.raises(CannotDecrypt):
                store.decrypt(handle, algorithm, bytes(changed), AAD)
        assert store.decrypt(handle, algorithm, sealed, AAD) == b"dose: 5 mg"


def test_a_ciphertext_cut_or_lengthened_does_not_decrypt(store: Backend, needs: Needs) -> None:
    needs("sealing")
    for spec, algorithm in ciphers(store):
        handle = made(store, spec, Usage.ENCRYPT_DECRYPT).handle
        sealed = store.encrypt(handle, algorithm, b"dose: 5 mg", AAD)
        others = [sealed[:length] for length in some(store, range(len(sealed)))]
        others += [sealed[1:], sealed + b"\x00", b"\x00" + sealed]
        for other in others:
            with pytest.raises(CannotDecrypt):
                store.decrypt(handle, algorithm, other, AAD)


def test_other_associated_data_or_another_key_does_not_decrypt(
    store: Backend, needs: Needs
) -> None:
    needs("sealing")
    for spec, algorithm in ciphers(store):
        one, other = (made(store, spec, Usage.ENCRYPT_DECRYPT).handle for _ in range(2))
        sealed = store.encrypt(one, algorithm, b"dose: 5 mg", AAD)
        for aad in (b"", AAD[:-1], AAD + b"\x00", AAD.upper()):
            with pytest.raises(CannotDecrypt):
                store.decrypt(one, algorithm, sealed, aad)
        with pytest.raises(CannotDecrypt):
            store.decrypt(other, algorithm, sealed, AAD)


def test_a_ciphertext_of_one_algorithm_is_not_one_of_another(store: Backend) -> None:
    offers(store, "AES_256")
    names = algorithms(store, "AES_256", Usage.ENCRYPT_DECRYPT)
    handle = made(store, "AES_256", Usage.ENCRYPT_DECRYPT).handle
    text = b"a message that is long enough for any of them"
    sealed = {name: store.encrypt(handle, name, text, AAD) for name in names}
    for name in names:
        assert store.decrypt(handle, name, sealed[name], AAD) == text
        for other in set(names) - {name}:
            with pytest.raises(CannotDecrypt):
                store.decrypt(handle, other, sealed[name], AAD)


# --- RSA, and what an algorithm is for


def test_rsa_signatures_of_one_kind_are_not_of_another(store: Backend, gaps: Gaps) -> None:
    offers(store, "RSA_2048")
    names = algorithms(store, "RSA_2048", Usage.SIGN_VERIFY, gaps)
    handle = made(store, "RSA_2048", Usage.SIGN_VERIFY).handle
    signatures: dict[str, bytes] = {}
    for name in names:
        try:
            signatures[name] = store.sign(handle, name, b"message")
        except Unsupported:  # the key was made for one algorithm, and for ever
            assert is_remote(store)
            assert signatures
    for name_of_it, signature in signatures.items():
        for name in signatures:
            assert store.verify(handle, name, b"message", signature) == (name == name_of_it)


def test_rsa_takes_what_fits_under_its_padding_and_says_when_it_does_not(
    store: Backend, needs: Needs
) -> None:
    offers(store, "RSA_2048")
    needs("rsa")
    for name in algorithms(store, "RSA_2048", Usage.ENCRYPT_DECRYPT):
        handle = made_for(store, "RSA_2048", Usage.ENCRYPT_DECRYPT, name).handle
        digest = {"SHA_1": 20, "SHA_256": 32, "SHA_384": 48, "SHA_512": 64}
        most = 256 - 2 * digest[name.removeprefix("RSAES_OAEP_")] - 2
        for size in (*(() if is_remote(store) else (0,)), 1, most):
            sealed = store.encrypt(handle, name, bytes(size), b"")
            assert len(sealed) == 256
            assert store.decrypt(handle, name, sealed, b"") == bytes(size)
        with pytest.raises(TooLarge, match=str(most)):
            store.encrypt(handle, name, bytes(most + 1), b"")


def test_an_algorithm_of_another_kind_of_key_is_not_supported(store: Backend) -> None:
    offers(store, "ECC_NIST_P256")
    spec, algorithm = cipher(store)
    handle = made(store, spec, Usage.ENCRYPT_DECRYPT).handle
    signer = made(store, "ECC_NIST_P256", Usage.SIGN_VERIFY).handle
    would_work = "|".join(algorithms(store, spec, Usage.ENCRYPT_DECRYPT))
    with pytest.raises(Unsupported, match=would_work):
        store.mac(handle, "HMAC_SHA_256", b"x")
    for call in (
        lambda: store.sign(handle, "ECDSA_SHA_256", b"x"),
        lambda: store.verify(handle, "ECDSA_SHA_256", b"x", b"y"),
        lambda: store.derive(handle, "HKDF_SHA_256", salt=b"", info=b"", length=16),
        lambda: store.unwrap(handle, "RSA_AES_KEY_WRAP_SHA_256", b"x"),
        lambda: store.encrypt(signer, algorithm, b"x", b""),
        lambda: store.sign(signer, "ECDSA_SHA_384", b"x"),
        lambda: store.sign(signer, "nonsense", b"x"),
        lambda: store.decapsulate(signer, "ML_KEM", b"x"),
        lambda: store.generate(uuid.uuid4(), "AES_512"),
        lambda: store.import_material(uuid.uuid4(), "AES_512", Secret(bytes(range(64)))),
    ):
        with pytest.raises(Unsupported):
            call()


def test_an_algorithm_of_another_purpose_of_the_key_is_not_supported(store: Backend) -> None:
    offers(store, "ECC_NIST_P256")
    spec, algorithm = cipher(store)
    handle = made(store, spec, Usage.ENCRYPT_DECRYPT).handle
    pair = made(store, "ECC_NIST_P256", Usage.SIGN_VERIFY).handle
    for call in (
        lambda: store.encrypt(handle, "AES_KWP", b"x", b""),
        lambda: store.decrypt(handle, "AES_KWP", b"x", b""),
        lambda: store.wrap(handle, algorithm, b"x"),
        lambda: store.sign(pair, "ECDH", b"x"),
        lambda: store.agree(pair, "ECDSA_SHA_256", b"x"),
    ):
        with pytest.raises(Unsupported):
            call()


# --- imports and exports


@pytest.mark.parametrize("spec", EVERY_SPEC)
def test_imported_material_is_found_used_and_taken_once(
    store: Backend, spec: str, needs: Needs, gaps: Gaps
) -> None:
    label, secret = uuid.uuid4(), some_material(spec)
    if spec not in store.capabilities().imports:
        with pytest.raises(Unsupported):
            store.import_material(label, spec, secret)
        return
    needs("import")
    usage = usages(store, spec, gaps)[0]
    material = store.import_material(label, spec, secret, usage=usage)
    assert material.check_value == materials.check_value(SPECS[spec], secret)
    assert store.find(label) == material
    assert store.import_material(label, spec, secret, usage=usage) == material
    assert store.generate(label, spec, usage=usage) == material
    check_use(store, spec, usage, material, gaps)
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


def test_material_that_does_not_fit_is_refused_and_leaves_nothing(
    store: Backend, needs: Needs
) -> None:
    needs("import")
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


@pytest.mark.parametrize("spec", COMMON)
def test_suspending_keeps_the_material_and_resuming_gives_back_every_use(
    store: Backend, spec: str, gaps: Gaps
) -> None:
    offers(store, spec)
    for usage in usages(store, spec, gaps):
        label = uuid.uuid4()
        material = store.generate(label, spec, usage=usage)
        check_use(store, spec, usage, material, gaps)
        store.suspend(material.handle)
        assert store.find(label) == material
        store.resume(material.handle)
        check_use(store, spec, usage, material, gaps)
        store.suspend(material.handle)
        if destroyed(store, material.handle):
            assert store.find(label) is None


@pytest.mark.parametrize("spec", COMMON)
def test_what_was_protected_before_deactivation_can_still_be_read(
    store: Backend, spec: str, gaps: Gaps
) -> None:
    offers(store, spec)
    for usage in set(usages(store, spec)) & {
        Usage.ENCRYPT_DECRYPT, Usage.SIGN_VERIFY, Usage.GENERATE_VERIFY_MAC
    }:  # fmt: skip
        label = uuid.uuid4()
        material = store.generate(label, spec, usage=usage)
        calls = attempts(store, spec, usage, material, gaps)
        store.deactivate(material.handle)
        for call in (*calls.read, *calls.open):
            call()
        assert store.find(label) == material


# --- the rest


def test_random_bytes_come_in_the_number_asked_for(store: Backend) -> None:
    try:
        store.random(1)
    except Unsupported as error:
        assert is_remote(store), "only a service may have no generator to ask"
        pytest.skip(error.detail)
    for count in (1, 32, 1024):
        assert len(store.random(count)) == count
    assert store.random(32) != store.random(32)
    for count in (0, -1, 1025):
        with pytest.raises(Invalid):
            store.random(count)


def test_many_threads_use_many_keys_without_a_mistake(store: Backend) -> None:
    spec, algorithm = cipher(store)
    offers(store, "ECC_NIST_P256")
    aad, turns = aad_of(algorithm), 3 if is_remote(store) else 40
    keys = [made(store, spec, Usage.ENCRYPT_DECRYPT).handle for _ in range(4)]
    signer = made(store, "ECC_NIST_P256", Usage.SIGN_VERIFY).handle
    quick = "HMAC_256" if "HMAC_256" in store.capabilities().algorithms else "ECC_NIST_P256"
    mistakes: list[object] = []

    def work(number: int) -> None:
        try:
            for turn in range(turns):
                handle, text = keys[(number + turn) % 4], f"{number} {turn}".encode()
                sealed = store.encrypt(handle, algorithm, text, aad)
                if store.decrypt(handle, algorithm, sealed, aad) != text:
                    mistakes.append((number, turn))
                if turn % 10 == 0:
                    signature = store.sign(signer, "ECDSA_SHA_256", text)
                    if not store.verify(signer, "ECDSA_SHA_256", text, signature):
                        mistakes.append(("signature", number, turn))
                    passing = store.generate(uuid.uuid4(), quick)
                    destroyed(store, passing.handle)
                    with pytest.raises(CannotDecrypt):
                        store.decrypt(handle, algorithm, bytes(len(sealed)), aad)
        except KeyServiceError as error:
            mistakes.append(error)

    workers = 4 if is_remote(store) else 8
    threads = [threading.Thread(target=work, args=(number,)) for number in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert mistakes == []
