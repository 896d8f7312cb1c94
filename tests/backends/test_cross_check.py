"""Two implementations of everything, one in a token and one here: each checks what the other makes.

The same material goes into both key stores, for every spec and purpose that both offer.
"""

from __future__ import annotations

import functools
import hashlib
import os
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from keys.algorithms import ALGORITHMS, SPECS, Family, MessageType, Usage
from keys.backends import materials
from keys.backends.base import Backend, Material
from keys.backends.pkcs11 import acts
from keys.backends.pkcs11.backend import Pkcs11Backend
from keys.backends.pkcs11.objects import Found
from keys.backends.software.backend import SoftwareBackend
from keys.errors import CannotDecrypt, Invalid, StateForbids, TooLarge, Unsupported
from keys.primitives import pairs, wrapping
from keys.secret import Secret

AAD = b"header and context"
SIZES = (0, 1, 15, 16, 17, 100, 5000)
# What SoftHSM 2.6 does, in the order of keys.algorithms. RSA of all sizes is alike.
SIGNING_RSA = tuple(name for name in SPECS["RSA_2048"].algorithms if name.startswith("RSASSA"))
SOFTHSM = {
    ("AES_256", Usage.ENCRYPT_DECRYPT): ("AES_256_GCM",),
    ("AES_256", Usage.WRAP_UNWRAP): ("AES_KWP",),
    ("AES_128", Usage.ENCRYPT_DECRYPT): ("AES_128_GCM",),
    ("AES_128", Usage.WRAP_UNWRAP): ("AES_KWP",),
    **{
        (f"HMAC_{bits}", Usage.GENERATE_VERIFY_MAC): (f"HMAC_SHA_{bits}",)
        for bits in (224, 256, 384, 512)
    },
    **{
        (f"RSA_{bits}", usage): algorithms
        for bits in (2048, 3072, 4096)
        for usage, algorithms in (
            (Usage.SIGN_VERIFY, SIGNING_RSA),
            (Usage.ENCRYPT_DECRYPT, ("RSAES_OAEP_SHA_1",)),
            (Usage.WRAP_UNWRAP, ("RSAES_OAEP_SHA_1",)),
        )
    },
    **{
        (spec, usage): algorithms
        for spec, digest in (
            ("ECC_NIST_P256", 256),
            ("ECC_NIST_P384", 384),
            ("ECC_NIST_P521", 512),
            ("ECC_SECG_P256K1", 256),
        )
        for usage, algorithms in (
            (Usage.SIGN_VERIFY, (f"ECDSA_SHA_{digest}",)),
            (Usage.KEY_AGREEMENT, ("ECDH",)),
        )
    },
    ("ECC_NIST_EDWARDS25519", Usage.SIGN_VERIFY): ("ED25519_SHA_512",),
    ("ECC_NIST_EDWARDS448", Usage.SIGN_VERIFY): ("ED448_SHAKE_256",),
    ("X25519", Usage.KEY_AGREEMENT): ("ECDH",),
}


# RSA of the larger sizes takes seconds to make, and nothing about it is otherwise.
EVERY_KIND = [
    pytest.param(
        spec, usage, marks=pytest.mark.exhaustive if spec in ("RSA_3072", "RSA_4096") else ()
    )
    for spec, usage in SOFTHSM
]


def kinds(usage: Usage) -> list[str]:
    """The specs that SoftHSM has for a purpose; of RSA the smallest, since it takes the least time."""
    return [
        spec for spec, wanted in SOFTHSM if wanted is usage and spec not in ("RSA_3072", "RSA_4096")
    ]


@dataclass(frozen=True)
class Twins:
    """The same material in the token and here."""

    hsm: Pkcs11Backend
    software: SoftwareBackend
    there: Material
    here: Material
    algorithms: tuple[str, ...]
    material: Secret

    def both_ways(self) -> list[tuple[Backend, str, Backend, str]]:
        """(maker, its handle, checker, its handle), both ways."""
        one, other = (self.hsm, self.there.handle), (self.software, self.here.handle)
        return [(*one, *other), (*other, *one)]


TwinsOf = Callable[[str, Usage], Twins]


@functools.cache
def rsa_material(spec: str) -> Secret:
    return materials.new_pair(SPECS[spec])[0]


def some_material(spec: str) -> Secret:
    row = SPECS[spec]
    if row.family is Family.RSA:
        return rsa_material(spec)  # once: it takes seconds
    return materials.new_pair(row)[0] if row.asymmetric else Secret(os.urandom(row.bits // 8))


@pytest.fixture
def twins_of(hsm: Pkcs11Backend, software: SoftwareBackend) -> TwinsOf:
    def make(spec: str, usage: Usage) -> Twins:
        label, material = uuid.uuid4(), some_material(spec)
        there = hsm.import_material(label, spec, material, usage=usage)
        here = software.import_material(label, spec, material, usage=usage)
        offers = [store.capabilities().algorithms[spec] for store in (hsm, software)]
        common = tuple(name for name in offers[0] if name in offers[1])
        algorithms = SPECS[spec].algorithms_for(usage, common)
        assert algorithms == SOFTHSM[spec, usage]
        return Twins(hsm, software, there, here, algorithms, material)

    return make


def test_softhsm_offers_what_it_was_found_to_do_and_nothing_else(hsm: Pkcs11Backend) -> None:
    offers = hsm.capabilities().algorithms
    found = {
        (spec, usage): SPECS[spec].algorithms_for(usage, algorithms)
        for spec, algorithms in offers.items()
        for usage in SPECS[spec].usages
        if SPECS[spec].algorithms_for(usage, algorithms)
    }
    assert found == SOFTHSM


@pytest.mark.parametrize(("spec", "usage"), EVERY_KIND)
def test_the_same_material_has_one_check_value_and_one_public_key(
    twins_of: TwinsOf, spec: str, usage: Usage
) -> None:
    twins = twins_of(spec, usage)
    assert twins.there.check_value == twins.here.check_value
    assert twins.there.check_value == materials.check_value(SPECS[spec], twins.material)
    assert twins.there.public_key == twins.here.public_key
    assert (twins.there.public_key is not None) == SPECS[spec].asymmetric


@pytest.mark.parametrize("spec", kinds(Usage.ENCRYPT_DECRYPT))
def test_each_decrypts_what_the_other_encrypted(twins_of: TwinsOf, spec: str) -> None:
    twins = twins_of(spec, Usage.ENCRYPT_DECRYPT)
    rsa = SPECS[spec].asymmetric
    for algorithm in twins.algorithms:
        for maker, made_by, checker, checked_by in twins.both_ways():
            for size in (0, 1, 32, 214) if rsa else SIZES:
                plaintext, aad = os.urandom(size), b"" if rsa else AAD
                sealed = maker.encrypt(made_by, algorithm, plaintext, aad)
                assert checker.decrypt(checked_by, algorithm, sealed, aad) == plaintext
                changed = bytearray(sealed)
                changed[-1] ^= 1
                with pytest.raises(CannotDecrypt):
                    checker.decrypt(checked_by, algorithm, bytes(changed), aad)


@pytest.mark.parametrize("spec", kinds(Usage.GENERATE_VERIFY_MAC))
def test_both_compute_the_same_mac(twins_of: TwinsOf, spec: str) -> None:
    twins = twins_of(spec, Usage.GENERATE_VERIFY_MAC)
    for algorithm in twins.algorithms:
        for maker, made_by, checker, checked_by in twins.both_ways():
            for size in SIZES:
                message = os.urandom(size)
                tag = maker.mac(made_by, algorithm, message)
                assert tag == checker.mac(checked_by, algorithm, message)
                assert checker.verify_mac(checked_by, algorithm, message, tag)
                assert not checker.verify_mac(checked_by, algorithm, message + b"x", tag)


@pytest.mark.parametrize("spec", kinds(Usage.SIGN_VERIFY))
def test_each_verifies_what_the_other_signed(twins_of: TwinsOf, spec: str) -> None:
    twins = twins_of(spec, Usage.SIGN_VERIFY)
    for algorithm in twins.algorithms:
        row = ALGORITHMS[algorithm]
        for maker, made_by, checker, checked_by in twins.both_ways():
            for size in SIZES:
                message = os.urandom(size)
                signature = maker.sign(made_by, algorithm, message)
                assert checker.verify(checked_by, algorithm, message, signature)
                assert not checker.verify(checked_by, algorithm, message + b"x", signature)
            if MessageType.DIGEST not in row.messages:
                with pytest.raises(Invalid):
                    maker.sign(made_by, algorithm, bytes(64), message_type=MessageType.DIGEST)
                continue
            digest = hashlib.new(row.digest, message).digest()
            signature = maker.sign(made_by, algorithm, digest, message_type=MessageType.DIGEST)
            assert checker.verify(checked_by, algorithm, message, signature)


@pytest.mark.parametrize("spec", ["ECC_NIST_EDWARDS25519", "ECC_NIST_EDWARDS448"])
def test_a_scheme_without_chance_gives_one_signature(twins_of: TwinsOf, spec: str) -> None:
    twins = twins_of(spec, Usage.SIGN_VERIFY)
    (algorithm,) = twins.algorithms
    one, other = (
        maker.sign(handle, algorithm, b"message") for maker, handle, *_ in twins.both_ways()
    )
    assert one == other


@pytest.mark.parametrize("spec", kinds(Usage.WRAP_UNWRAP))
def test_each_unwraps_what_the_other_wrapped(twins_of: TwinsOf, spec: str) -> None:
    twins = twins_of(spec, Usage.WRAP_UNWRAP)
    rsa = SPECS[spec].asymmetric
    for algorithm in twins.algorithms:
        for maker, made_by, checker, checked_by in twins.both_ways():
            for size in (1, 16, 32, 214) if rsa else (8, 16, 24, 32, 64, 4096, 65536):
                key = os.urandom(size)
                wrapped = maker.wrap(made_by, algorithm, key)
                assert checker.unwrap(checked_by, algorithm, wrapped) == key
                if not rsa:
                    assert wrapped == checker.wrap(checked_by, algorithm, key)
            for wrong in (b"", wrapped[:-1], wrapped[:-8], wrapped + bytes(8), bytes(len(wrapped))):
                with pytest.raises(CannotDecrypt):
                    checker.unwrap(checked_by, algorithm, wrong)


@pytest.mark.parametrize("spec", ["AES_256", "AES_128"])
def test_a_token_that_pads_wrongly_wraps_no_odd_lengths_but_unwraps_them(
    twins_of: TwinsOf, spec: str
) -> None:
    twins = twins_of(spec, Usage.WRAP_UNWRAP)
    for size in (1, 7, 9, 20, 33, 121):
        key = os.urandom(size)
        with pytest.raises(Unsupported, match="whole 8 bytes"):
            twins.hsm.wrap(twins.there.handle, "AES_KWP", key)
        wrapped = twins.software.wrap(twins.here.handle, "AES_KWP", key)
        assert twins.hsm.unwrap(twins.there.handle, "AES_KWP", wrapped) == key


def test_wrapping_in_two_steps_is_the_same_thing_in_both(twins_of: TwinsOf) -> None:
    """RSA_AES_KEY_WRAP, which a token offers where its OAEP has SHA-256: here with the hash it has."""
    twins = twins_of("RSA_2048", Usage.WRAP_UNWRAP)
    row = replace(ALGORITHMS["RSA_AES_KEY_WRAP_SHA_256"], digest="sha1")
    handle, oaep = twins.there.handle, "RSAES_OAEP_SHA_1"
    private = pairs.load_private(SPECS["RSA_2048"], twins.material)
    target = os.urandom(1201)

    def in_token(act: Callable[[Found], bytes]) -> bytes:
        use = twins.hsm._keyring.use
        return use(handle, Usage.WRAP_UNWRAP, oaep, lambda found, _: act(found))

    there = in_token(lambda found: acts.wrapped_in_two(found, row, target))
    here = wrapping.wrap(private.public_key(), row, target)
    assert wrapping.unwrap(private, row, there) == target
    assert in_token(lambda found: acts.unwrapped_in_two(found, handle, row, here)) == target
    for wrong in (b"", here[:256], here[:-8], here[:-1] + b"\x00\x01", bytes(256) + here[256:]):
        with pytest.raises(CannotDecrypt):
            in_token(lambda found, wrong=wrong: acts.unwrapped_in_two(found, handle, row, wrong))


@pytest.mark.parametrize("spec", kinds(Usage.KEY_AGREEMENT))
def test_both_agree_on_the_same_secret(twins_of: TwinsOf, spec: str) -> None:
    twins = twins_of(spec, Usage.KEY_AGREEMENT)
    assert twins.there.public_key is not None
    for _ in range(20):  # every other P-521 secret begins with a zero byte, which must stay
        private, peer = materials.new_pair(SPECS[spec])
        theirs = materials.agreed(SPECS[spec], private, twins.there.public_key)
        for maker, handle, *_ in twins.both_ways():
            assert maker.agree(handle, "ECDH", peer) == theirs


@pytest.mark.parametrize("spec", kinds(Usage.KEY_AGREEMENT))
def test_neither_agrees_with_a_key_that_is_no_good(twins_of: TwinsOf, spec: str) -> None:
    twins = twins_of(spec, Usage.KEY_AGREEMENT)
    _, peer = materials.new_pair(SPECS[spec])
    others = ["ECC_NIST_P256", "ECC_NIST_P384", "X25519", "ECC_NIST_EDWARDS25519", "RSA_2048"]
    wrong = [materials.new_pair(SPECS[other])[1] for other in others if other != spec]
    wrong += [b"", b"garbage", peer[:-1], peer + b"\x00"]
    if spec == "X25519":
        # Points of small order: zero, one, and the prime less one (RFC 7748, 6.1).
        for point in (bytes(32), b"\x01" + bytes(31), b"\xec" + b"\xff" * 30 + b"\x7f"):
            wrong.append(peer[:-32] + point)
    else:
        wrong.append(peer[:-1] + bytes([peer[-1] ^ 1]))  # not on the curve
    for public in wrong:
        for maker, handle, *_ in twins.both_ways():
            with pytest.raises(Invalid):
                maker.agree(handle, "ECDH", public)


def test_rsa_in_a_token_that_binds_no_label_refuses_one_and_knows_its_limit(
    twins_of: TwinsOf,
) -> None:
    twins = twins_of("RSA_2048", Usage.ENCRYPT_DECRYPT)
    handle, algorithm = twins.there.handle, "RSAES_OAEP_SHA_1"
    with pytest.raises(Unsupported, match="raw"):
        twins.hsm.encrypt(handle, algorithm, b"x", AAD)
    labelled = twins.software.encrypt(twins.here.handle, algorithm, b"x", AAD)
    with pytest.raises(Unsupported, match="raw"):
        twins.hsm.decrypt(handle, algorithm, labelled, AAD)
    with pytest.raises(CannotDecrypt):
        twins.hsm.decrypt(handle, algorithm, labelled, b"")
    for store, name in ((twins.hsm, handle), (twins.software, twins.here.handle)):
        with pytest.raises(TooLarge, match="214 bytes"):
            store.encrypt(name, algorithm, bytes(215), b"")


def test_a_key_in_a_token_is_good_for_its_purpose_and_says_which(hsm: Pkcs11Backend) -> None:
    _, peer = materials.new_pair(SPECS["ECC_NIST_P256"])
    rsa = {
        usage: hsm.generate(uuid.uuid4(), "RSA_2048", usage=usage).handle
        for usage in (Usage.ENCRYPT_DECRYPT, Usage.WRAP_UNWRAP)
    }
    aes = hsm.generate(uuid.uuid4(), "AES_256", usage=Usage.WRAP_UNWRAP).handle
    signing = hsm.generate(uuid.uuid4(), "ECC_NIST_P256").handle
    agreeing = hsm.generate(uuid.uuid4(), "ECC_NIST_P256", usage=Usage.KEY_AGREEMENT).handle
    oaep = "RSAES_OAEP_SHA_1"
    for call, instead in (
        (lambda: hsm.unwrap(rsa[Usage.ENCRYPT_DECRYPT], oaep, bytes(256)), "ENCRYPT_DECRYPT"),
        (lambda: hsm.decrypt(rsa[Usage.WRAP_UNWRAP], oaep, bytes(256), b""), "WRAP_UNWRAP"),
        (lambda: hsm.sign(rsa[Usage.WRAP_UNWRAP], "RSASSA_PSS_SHA_256", b"x"), oaep),
        (lambda: hsm.encrypt(aes, "AES_256_GCM", b"x", AAD), "AES_KWP"),
        (lambda: hsm.agree(signing, "ECDH", peer), "ECDSA_SHA_256"),
        (lambda: hsm.sign(agreeing, "ECDSA_SHA_256", b"x"), "ECDH"),
        (lambda: hsm.verify(agreeing, "ECDSA_SHA_256", b"x", b"x"), "ECDH"),
        (lambda: hsm.derive(aes, "HKDF_SHA_256", salt=b"", info=b"", length=32), "AES_KWP"),
        (lambda: hsm.decapsulate(agreeing, "ML_KEM", b"x"), "ECDH"),
        (lambda: hsm.mac(signing, "HMAC_SHA_256", b"x"), "ECDSA_SHA_256"),
    ):
        with pytest.raises(Unsupported, match=instead):
            call()


def test_what_a_token_cannot_do_is_refused_with_what_it_can(hsm: Pkcs11Backend) -> None:
    for spec in ("ML_DSA_65", "ML_KEM_768", "X_WING", "XCHACHA20", "AES_SIV_512"):
        with pytest.raises(Unsupported, match="AES_256, AES_128, HMAC_224"):
            hsm.generate(uuid.uuid4(), spec)
    with pytest.raises(Unsupported, match="only for: GENERATE_VERIFY_MAC"):
        hsm.generate(uuid.uuid4(), "HMAC_256", usage=Usage.DERIVE_KEY)
    with pytest.raises(Unsupported, match="only for: SIGN_VERIFY, KEY_AGREEMENT"):
        hsm.generate(uuid.uuid4(), "ECC_NIST_P256", usage=Usage.KEY_ENCAPSULATION)
    assert hsm.capabilities().exports == frozenset()
    for make in (
        lambda: hsm.generate(uuid.uuid4(), "AES_256", exportable=True),
        lambda: hsm.import_material(
            uuid.uuid4(), "AES_256", some_material("AES_256"), exportable=True
        ),
        lambda: hsm.export_material(hsm.generate(uuid.uuid4(), "AES_256").handle),
    ):
        with pytest.raises(Unsupported, match="leaves a token"):
            make()


@pytest.mark.parametrize(
    ("spec", "usage"),
    [
        ("AES_128", Usage.WRAP_UNWRAP),
        ("RSA_2048", Usage.ENCRYPT_DECRYPT),
        ("RSA_2048", Usage.WRAP_UNWRAP),
        ("ECC_SECG_P256K1", Usage.KEY_AGREEMENT),
        ("X25519", Usage.KEY_AGREEMENT),
    ],
)
def test_the_token_itself_refuses_what_a_state_forbids(
    hsm: Pkcs11Backend, spec: str, usage: Usage
) -> None:
    """Suspended: nothing. Deactivated: what was protected can be processed, and nothing new is."""
    label = uuid.uuid4()
    material = hsm.generate(label, spec, usage=usage)
    handle = material.handle
    (algorithm,) = SOFTHSM[spec, usage]
    peer = materials.new_pair(SPECS[spec])[1] if usage is Usage.KEY_AGREEMENT else b""
    protects, processes = {
        Usage.ENCRYPT_DECRYPT: (
            lambda: hsm.encrypt(handle, algorithm, b"key", b""),
            lambda sealed: hsm.decrypt(handle, algorithm, sealed, b""),
        ),
        Usage.WRAP_UNWRAP: (
            lambda: hsm.wrap(handle, algorithm, b"16 bytes of text"),
            lambda sealed: hsm.unwrap(handle, algorithm, sealed),
        ),
        # One use for both: it goes on when a version is deactivated.
        Usage.KEY_AGREEMENT: (None, lambda _: hsm.agree(handle, algorithm, peer)),
    }[usage]
    made = protects() if protects else b""
    before = processes(made)
    hsm.suspend(handle)
    assert hsm.find(label) == material
    for use in [protects] if protects else []:
        with pytest.raises(StateForbids):
            use()
    with pytest.raises(StateForbids):
        processes(made)
    hsm.deactivate(handle)
    assert hsm.find(label) == material
    assert processes(made) == before
    for use in [protects] if protects else []:
        with pytest.raises(StateForbids):
            use()
    hsm.resume(handle)
    assert hsm.find(label) == material
    assert processes(protects() if protects else b"") == before
