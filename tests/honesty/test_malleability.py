"""What is equal in mathematics and not in bytes: one ciphertext or signature must not have two faces."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa, utils
from cryptography.hazmat.primitives.serialization import load_der_public_key

from keys.algorithms import SPECS, Usage
from keys.backends import materials
from keys.backends.base import Backend
from keys.backends.pkcs11.backend import Pkcs11Backend
from keys.backends.software.backend import SoftwareBackend
from keys.errors import CannotDecrypt, Invalid, TooLarge
from keys.secret import Secret

STORE = uuid.UUID("5f0c6f5e-0d0b-4f4e-9f55-3a0f0a5c0004")
TEXT = b"dose: 5 mg"
# Group orders of edwards25519 and edwards448 (RFC 8032, 5.1 and 5.2).
ORDERS = {
    "ECC_NIST_EDWARDS25519": 2**252 + 27742317777372353535851937790883648493,
    "ECC_NIST_EDWARDS448": 2**446
    - 13818066809895115352007386748515426880336692474882178609894547503885,
}
P25519 = 2**255 - 19
# Every u of small order, and those that are the same modulo p (RFC 7748, 6.1; the list of cr.yp.to).
SMALL = [
    0,
    1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
    P25519 - 1,
    P25519,
    P25519 + 1,
]


@pytest.fixture(params=["software", "pkcs11"])
def store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Backend]:
    """Each key store in turn."""
    if request.param == "pkcs11":
        token = request.getfixturevalue("softhsm")
        backend: Backend = Pkcs11Backend(STORE, token.settings, Secret(token.pin.encode()))
    else:
        request.getfixturevalue("database")
        monkeypatch.setenv("KMS_ROOT_KEY", "33" * 32)
        backend = SoftwareBackend(STORE, {}, None)
    yield backend
    backend.close()


def made(store: Backend, spec: str, usage: Usage) -> tuple[str, Any]:
    """Return a new key's handle and its public key."""
    material = store.generate(uuid.uuid4(), spec, usage=usage)
    return material.handle, load_der_public_key(material.public_key or b"")


def offers(store: Backend, spec: str, algorithm: str) -> bool:
    return algorithm in store.capabilities().algorithms.get(spec, ())


def test_a_number_of_rsa_has_one_form(store: Backend) -> None:
    """A ciphertext or signature plus the modulus is the same number modulo it (RFC 8017, 5.1 and 5.2)."""
    handle, public = made(store, "RSA_2048", Usage.ENCRYPT_DECRYPT)
    assert isinstance(public, rsa.RSAPublicKey)
    modulus, tried = public.public_numbers().n, 0
    named = [name for name in SPECS["RSA_2048"].algorithms if name.startswith("RSAES")]
    for algorithm in [name for name in named if offers(store, "RSA_2048", name)]:
        for _ in range(40):
            sealed = store.encrypt(handle, algorithm, TEXT, b"")
            larger = int.from_bytes(sealed, "big") + modulus
            if larger < 2**2048:
                tried += 1
                with pytest.raises(CannotDecrypt):
                    store.decrypt(handle, algorithm, larger.to_bytes(256, "big"), b"")
        for number in (0, 1, modulus - 1, modulus, 2**2048 - 1):
            with pytest.raises(CannotDecrypt):
                store.decrypt(handle, algorithm, number.to_bytes(256, "big"), b"")
    assert tried
    signing, public = made(store, "RSA_2048", Usage.SIGN_VERIFY)
    for algorithm in ("RSASSA_PSS_SHA_256", "RSASSA_PKCS1_V1_5_SHA_256"):
        signature = store.sign(signing, algorithm, TEXT)
        modulus = public.public_numbers().n
        larger = int.from_bytes(signature, "big") + modulus
        forms = [number.to_bytes(257, "big") for number in (larger, larger - modulus)]
        forms += [larger.to_bytes(256, "big")] if larger < 2**2048 else []
        forms += [number.to_bytes(256, "big") for number in (0, 1)]
        assert not any(store.verify(signing, algorithm, TEXT, form) for form in forms)
        assert store.verify(signing, algorithm, TEXT, signature)


def encoded(*numbers: int) -> bytes:
    """Return a SEQUENCE of INTEGERs, negative ones too."""
    parts = [n.to_bytes(n.bit_length() // 8 + 1, "big", signed=True) for n in numbers]
    body = b"".join(b"\x02" + bytes([len(part)]) + part for part in parts)
    return b"\x30" + bytes([len(body)]) + body


def test_an_ecdsa_signature_has_one_encoding(store: Backend) -> None:
    handle, public = made(store, "ECC_NIST_P256", Usage.SIGN_VERIFY)
    assert isinstance(public, ec.EllipticCurvePublicKey)
    signature = store.sign(handle, "ECDSA_SHA_256", TEXT)
    r, s = utils.decode_dss_signature(signature)
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551

    def valid(form: bytes) -> bool:
        return store.verify(handle, "ECDSA_SHA_256", TEXT, form)

    # The mirrored s is a valid signature by the standard, in every implementation.
    assert valid(utils.encode_dss_signature(r, order - s))
    numbers = [(r + order, s), (r, s + order), (0, s), (r, 0), (0, 0), (-r, s), (r, -s), (r, order)]
    assert [valid(encoded(*pair)) for pair in numbers] == [False] * len(numbers)
    assert encoded(r, s) == signature
    body = signature[2:]
    padded = b"\x02" + bytes([body[1] + 1]) + b"\x00" + body[2:]
    forms = [
        r.to_bytes(32, "big") + s.to_bytes(32, "big"),
        b"\x30\x81" + signature[1:],
        b"\x30\x82\x00" + signature[1:],
        b"\x30\x80" + body + b"\x00\x00",
        b"\x30" + bytes([signature[1] + 1]) + padded,
        b"\x30" + bytes([signature[1] + 2]) + body + b"\x05\x00",
        signature + b"\x00",
        b"\x31" + signature[1:],
    ]
    assert [valid(form) for form in forms] == [False] * len(forms)
    assert valid(signature)


@pytest.mark.parametrize("spec", sorted(ORDERS))
def test_an_edwards_signature_has_one_s(store: Backend, spec: str) -> None:
    algorithm = SPECS[spec].algorithms[0]
    if not offers(store, spec, algorithm):
        assert store.kind == "pkcs11"
        return
    handle, _ = made(store, spec, Usage.SIGN_VERIFY)
    signature = store.sign(handle, algorithm, TEXT)
    half = len(signature) // 2
    s = int.from_bytes(signature[half:], "little")
    for times in (1, 2, 3):
        larger = s + times * ORDERS[spec]
        if larger < 2 ** (8 * half):
            form = signature[:half] + larger.to_bytes(half, "little")
            assert not store.verify(handle, algorithm, TEXT, form), times
    assert not store.verify(handle, algorithm, TEXT, bytes(2 * half))
    # The neutral element and s = 0: valid under a public key of small order only.
    neutral = b"\x01" + bytes(2 * half - 1)
    assert not store.verify(handle, algorithm, TEXT, neutral)


def x25519_key(u: int) -> bytes:
    """Return a SubjectPublicKeyInfo (RFC 8410)."""
    return bytes.fromhex("302a300506032b656e032100") + u.to_bytes(32, "little")


def test_no_secret_is_shared_with_a_point_of_small_order(store: Backend) -> None:
    if offers(store, "X25519", "ECDH"):
        handle, _ = made(store, "X25519", Usage.KEY_AGREEMENT)
        for u in SMALL:
            for high_bit in (0, 2**255):  # which is ignored (RFC 7748, 5)
                if (u | high_bit) < 2**256:
                    with pytest.raises(Invalid):
                        store.agree(handle, "ECDH", x25519_key(u | high_bit))
    handle, _ = made(store, "ECC_NIST_P256", Usage.KEY_AGREEMENT)
    own = materials.new_pair(SPECS["ECC_NIST_P256"])[1]
    assert len(store.agree(handle, "ECDH", own)) == 32
    head, point = own[:-65], own[-65:]
    x, y = point[1:33], point[33:]
    points = [
        b"\x04" + bytes(64),
        b"\x04" + x + x,
        b"\x04" + y + x,
        b"\x04" + x + bytes(31) + b"\x01",
        b"\x04" + b"\xff" * 64,
        b"\x05" + x + y,
    ]
    # The length of a bit string and of what is around it, put right for shorter points.
    short = [b"\x00", b"", b"\x02" + b"\xff" * 32, b"\x04" + x]
    keys = [head + one for one in points]
    algorithm = head[2:-3]
    keys += [
        b"\x30"
        + bytes([len(algorithm) + 3 + len(one)])
        + algorithm
        + b"\x03"
        + bytes([len(one) + 1])
        + b"\x00"
        + one
        for one in short
    ]
    for key in keys:
        with pytest.raises(Invalid):
            store.agree(handle, "ECDH", key)


def test_an_oaep_plaintext_fits_or_is_too_large(store: Backend) -> None:
    handle, _ = made(store, "RSA_2048", Usage.ENCRYPT_DECRYPT)
    for algorithm, hash_bytes in (("RSAES_OAEP_SHA_1", 20), ("RSAES_OAEP_SHA_256", 32)):
        if offers(store, "RSA_2048", algorithm):
            most = 256 - 2 * hash_bytes - 2
            text = bytes(range(256))[:most]
            sealed = store.encrypt(handle, algorithm, text, b"")
            assert store.decrypt(handle, algorithm, sealed, b"") == text
            with pytest.raises(TooLarge):
                store.encrypt(handle, algorithm, text + b"x", b"")
