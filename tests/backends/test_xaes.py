"""XAES-256-GCM against C2SP's published vectors, and against itself."""

from __future__ import annotations

import hashlib

import pytest

from keys.errors import CannotDecrypt
from keys.xaes import Xaes

NONCE = b"ABCDEFGHIJKLMNOPQRSTUVWX"
TEXT = b"XAES-256-GCM"


def test_the_published_vectors() -> None:
    sealed = Xaes(b"\x01" * 32).seal(NONCE, TEXT, b"")
    assert sealed.hex() == "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"
    # This key's L has its highest bit set, so K1 takes the reduction; the other's has not.
    sealed = Xaes(b"\x03" * 32).seal(NONCE, TEXT, b"c2sp.org/XAES-256-GCM")
    assert sealed.hex() == "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d"


def test_the_published_accumulated_vector_of_ten_thousand_messages() -> None:
    rounds = 10_000
    stream = hashlib.shake_128(b"").digest(rounds * (32 + 24 + 2 * (1 + 255)))
    position = 0

    def take(count: int) -> bytes:
        nonlocal position
        position += count
        return stream[position - count : position]

    total = hashlib.shake_128()
    for _ in range(rounds):
        key, nonce = take(32), take(24)
        plaintext, aad = take(take(1)[0]), take(take(1)[0])
        sealed = Xaes(key).seal(nonce, plaintext, aad)
        assert Xaes(key).decrypt(nonce + sealed, aad) == plaintext
        total.update(sealed)
    expected = "e6b9edf2df6cec60c8cbd864e2211b597fb69a529160cd040d56c0c210081939"
    assert total.hexdigest(32) == expected


def test_one_key_serves_message_after_message() -> None:
    cipher = Xaes(bytes(range(32)))
    sealed = [cipher.encrypt(str(number).encode(), b"aad") for number in range(100)]
    for number, one in enumerate(sealed):
        assert Xaes(bytes(range(32))).decrypt(one, b"aad") == str(number).encode()


def test_a_key_or_nonce_of_another_length_is_refused() -> None:
    for length in (0, 16, 31, 33):
        with pytest.raises(ValueError):
            Xaes(bytes(length))
    for length in (0, 12, 23, 25):
        with pytest.raises(ValueError):
            Xaes(bytes(range(32))).seal(bytes(length), b"", b"")


def test_a_changed_message_does_not_open() -> None:
    cipher = Xaes(bytes(range(32)))
    sealed = cipher.encrypt(TEXT, b"aad")
    for position in range(len(sealed)):
        changed = bytearray(sealed)
        changed[position] ^= 0x80
        with pytest.raises(CannotDecrypt):
            cipher.decrypt(bytes(changed), b"aad")
    with pytest.raises(CannotDecrypt):
        cipher.decrypt(sealed, b"add")
    with pytest.raises(CannotDecrypt):
        Xaes(bytes(range(1, 33))).decrypt(sealed, b"aad")
