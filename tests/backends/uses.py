"""Every use a key can be put to, as the contract's tests put it: what fits, and what doesn't."""

from __future__ import annotations

import hashlib
import uuid

import pytest

from keys.algorithms import ALGORITHMS, SPECS, MessageType, Usage
from keys.backends import materials
from keys.backends.base import Backend, Material
from keys.errors import CannotDecrypt, Invalid, Unsupported
from keys.secret import Secret

AAD = b"header and context"
MESSAGE = b"diagnosis"

# What takes long: making RSA-4096, and each signature of SLH-DSA's small sets.
SLOW = {"RSA_3072", "RSA_4096", "SLH_DSA_SHA2_128S", "SLH_DSA_SHA2_192S", "SLH_DSA_SHA2_256S"}
EVERY_SPEC = [
    pytest.param(name, marks=pytest.mark.exhaustive if name in SLOW else ()) for name in SPECS
]


def aad_of(algorithm: str) -> bytes:
    """Associated data: a token may have no way to bind a label to RSA-OAEP."""
    return b"" if algorithm.startswith("RSA") else AAD


def some_material(spec: str) -> Secret:
    """Fresh material of a spec in the form that an import takes."""
    row = SPECS[spec]
    if row.asymmetric:
        return materials.new_pair(row)[0]
    return Secret(hashlib.shake_256(uuid.uuid4().bytes).digest(row.bits // 8))


def message_of(algorithm: str, message: bytes, kind: MessageType, public_key: bytes) -> bytes:
    """What is handed over to be signed, computed here and not by the store."""
    if kind is MessageType.DIGEST:
        return hashlib.new(ALGORITHMS[algorithm].digest, message).digest()
    if kind is MessageType.EXTERNAL_MU:
        return mu_of(public_key, message)
    return message


def mu_of(public_key: bytes, message: bytes, context: bytes = b"") -> bytes:
    """ML-DSA's mu (FIPS 204, algorithm 7, line 6) from a SubjectPublicKeyInfo."""
    key = materials.load_public_key(public_key)
    raw = key.public_bytes_raw()  # type: ignore[union-attr]
    framed = b"\x00" + bytes([len(context)]) + context + message
    return hashlib.shake_256(hashlib.shake_256(raw).digest(64) + framed).digest(64)


def check_use(store: Backend, spec: str, usage: Usage, material: Material) -> None:
    """Use material in every way that this store offers for its purpose."""
    for algorithm in SPECS[spec].algorithms_for(usage, store.capabilities().algorithms[spec]):
        _CHECKS[usage](store, spec, material, algorithm)


def _encrypts(store: Backend, spec: str, material: Material, algorithm: str) -> None:
    aad = aad_of(algorithm)
    sealed = store.encrypt(material.handle, algorithm, MESSAGE, aad)
    again = store.encrypt(material.handle, algorithm, MESSAGE, aad)
    assert (sealed == again) == ALGORITHMS[algorithm].deterministic
    assert store.decrypt(material.handle, algorithm, sealed, aad) == MESSAGE
    changed = sealed[:-1] + bytes([sealed[-1] ^ 1])
    for other in (changed, sealed[:-1], sealed + b"\x00", b"", bytes(len(sealed))):
        with pytest.raises(CannotDecrypt):
            store.decrypt(material.handle, algorithm, other, aad)


def _signs(store: Backend, spec: str, material: Material, algorithm: str) -> None:
    assert material.public_key is not None
    for kind in ALGORITHMS[algorithm].messages:
        message = message_of(algorithm, MESSAGE, kind, material.public_key)
        signature = store.sign(material.handle, algorithm, message, message_type=kind)
        # However it was signed, it is a signature of the message.
        assert store.verify(material.handle, algorithm, MESSAGE, signature)
        assert store.verify(material.handle, algorithm, message, signature, message_type=kind)
        assert not store.verify(material.handle, algorithm, b"another", signature)
        for wrong in (b"", signature[:-1], signature + b"\x00", bytes(len(signature))):
            assert not store.verify(material.handle, algorithm, MESSAGE, wrong)
        if kind is not MessageType.MESSAGE:
            for wrong in (b"", message[:-1], message + b"\x00"):
                with pytest.raises(Invalid):
                    store.sign(material.handle, algorithm, wrong, message_type=kind)
                with pytest.raises(Invalid):
                    store.verify(material.handle, algorithm, wrong, signature, message_type=kind)
    for kind in set(MessageType) - set(ALGORITHMS[algorithm].messages):
        with pytest.raises(Invalid):
            store.sign(material.handle, algorithm, bytes(64), message_type=kind)


def _macs(store: Backend, spec: str, material: Material, algorithm: str) -> None:
    tag = store.mac(material.handle, algorithm, MESSAGE)
    assert len(tag) == materials.HASHES[ALGORITHMS[algorithm].digest].digest_size
    assert tag == store.mac(material.handle, algorithm, MESSAGE)
    assert store.verify_mac(material.handle, algorithm, MESSAGE, tag)
    assert not store.verify_mac(material.handle, algorithm, b"another", tag)
    for wrong in (b"", tag[:-1], tag + b"\x00", bytes(len(tag)), tag[::-1]):
        assert not store.verify_mac(material.handle, algorithm, MESSAGE, wrong)
    assert store.verify_mac(
        material.handle, algorithm, b"", store.mac(material.handle, algorithm, b"")
    )


def _wraps(store: Backend, spec: str, material: Material, algorithm: str) -> None:
    try:
        odd = store.wrap(material.handle, algorithm, b"a key of 17 bytes")
    except Unsupported as error:
        # SoftHSM pads AES-KWP wrongly, and its store says what lengths it takes instead.
        assert "whole 8 bytes" in error.detail
    else:
        assert store.unwrap(material.handle, algorithm, odd) == b"a key of 17 bytes"
    for target in (bytes(range(16)), bytes(range(32))):
        wrapped = store.wrap(material.handle, algorithm, target)
        assert target not in wrapped
        assert store.unwrap(material.handle, algorithm, wrapped) == target
    changed = wrapped[:-1] + bytes([wrapped[-1] ^ 1])
    for other in (changed, wrapped[:-1], wrapped + bytes(8), b"", bytes(len(wrapped))):
        with pytest.raises(CannotDecrypt):
            store.unwrap(material.handle, algorithm, other)


def _agrees(store: Backend, spec: str, material: Material, algorithm: str) -> None:
    assert material.public_key is not None
    other, peer = materials.new_pair(SPECS[spec])
    secret = store.agree(material.handle, algorithm, peer)
    assert secret == materials.agreed(SPECS[spec], other, material.public_key)
    assert any(secret)
    foreign = "ECC_NIST_P384" if spec != "ECC_NIST_P384" else "ECC_NIST_P256"
    for wrong in (b"", peer[:-1], b"\x00" * len(peer), materials.new_pair(SPECS[foreign])[1]):
        with pytest.raises(Invalid):
            store.agree(material.handle, algorithm, wrong)


def _decapsulates(store: Backend, spec: str, material: Material, algorithm: str) -> None:
    assert material.public_key is not None
    secret, ciphertext = materials.encapsulate(SPECS[spec], material.public_key)
    assert len(secret) == 32
    assert store.decapsulate(material.handle, algorithm, ciphertext) == secret
    forged = store.decapsulate(material.handle, algorithm, bytes(len(ciphertext)))
    assert len(forged) == 32  # implicit rejection
    assert forged != secret
    for wrong in (b"", ciphertext[:-1], ciphertext + b"\x00"):
        with pytest.raises(CannotDecrypt):
            store.decapsulate(material.handle, algorithm, wrong)


def _derives(store: Backend, spec: str, material: Material, algorithm: str) -> None:
    def derived(salt: bytes = b"salt", info: bytes = b"info", length: int = 48) -> bytes:
        return store.derive(material.handle, algorithm, salt=salt, info=info, length=length)

    assert len(derived()) == 48
    assert derived() == derived()
    assert derived(length=16) == derived()[:16]
    assert len({derived(), derived(salt=b""), derived(info=b""), derived(info=b"other")}) == 4
    for length in (0, -1, 255 * 64 + 1):
        with pytest.raises(Invalid):
            derived(length=length)


_CHECKS = {
    Usage.ENCRYPT_DECRYPT: _encrypts,
    Usage.SIGN_VERIFY: _signs,
    Usage.GENERATE_VERIFY_MAC: _macs,
    Usage.WRAP_UNWRAP: _wraps,
    Usage.KEY_AGREEMENT: _agrees,
    Usage.KEY_ENCAPSULATION: _decapsulates,
    Usage.DERIVE_KEY: _derives,
}
