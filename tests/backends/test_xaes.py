"""XAES-256-GCM against C2SP's published vectors, and against itself."""

from __future__ import annotations

import hashlib
import sys

import pytest
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.cmac import CMAC
from cryptography.hazmat.primitives.hashes import SHAKE128, XOFHash

from keys.errors import CannotDecrypt
from keys.primitives.xaes import COMMITMENT_BYTES, NONCE_BYTES, CommittingXaes, Xaes

NONCE = b"ABCDEFGHIJKLMNOPQRSTUVWX"
TEXT = b"XAES-256-GCM"


def test_the_published_vectors() -> None:
    sealed = Xaes(b"\x01" * 32).seal(NONCE, TEXT, b"")
    assert sealed.hex() == "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"
    # This key's L has its highest bit set, so K1 takes the reduction; the other's has not.
    sealed = Xaes(b"\x03" * 32).seal(NONCE, TEXT, b"c2sp.org/XAES-256-GCM")
    assert sealed.hex() == "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d"


@pytest.mark.parametrize(
    ("rounds", "expected"),
    [
        (10_000, "e6b9edf2df6cec60c8cbd864e2211b597fb69a529160cd040d56c0c210081939"),
        pytest.param(
            1_000_000,
            "2163ae1445985a30b60585ee67daa55674df06901b890593e824b8a7c885ab15",
            marks=pytest.mark.exhaustive,
        ),
    ],
)
def test_the_published_accumulated_vectors(rounds: int, expected: str) -> None:
    """C2SP's: keys, nonces, messages and data from a stream of SHAKE-128, the hash of all outputs."""
    stream = XOFHash(SHAKE128(sys.maxsize))
    total = hashlib.shake_128()
    for _ in range(rounds):
        key, nonce = stream.squeeze(32), stream.squeeze(24)
        plaintext, aad = (_some(stream, stream.squeeze(1)[0]) for _ in range(2))
        cipher = Xaes(key)
        sealed = cipher.seal(nonce, plaintext, aad)
        assert cipher.decrypt(nonce + sealed, aad) == plaintext
        total.update(sealed)
    assert total.hexdigest(32) == expected


def _some(stream: XOFHash, count: int) -> bytes:
    return stream.squeeze(count) if count else b""


@pytest.mark.parametrize("kind", [Xaes, CommittingXaes])
def test_one_key_serves_message_after_message(kind: type[Xaes]) -> None:
    cipher = kind(bytes(range(32)))
    sealed = [cipher.encrypt(str(number).encode(), b"aad") for number in range(100)]
    for number, one in enumerate(sealed):
        assert kind(bytes(range(32))).decrypt(one, b"aad") == str(number).encode()


@pytest.mark.parametrize("kind", [Xaes, CommittingXaes])
def test_a_key_or_nonce_of_another_length_is_refused(kind: type[Xaes]) -> None:
    for length in (0, 16, 31, 33):
        with pytest.raises(ValueError):
            kind(bytes(length))
    for length in (0, 12, 23, 25):
        with pytest.raises(ValueError):
            kind(bytes(range(32))).seal(bytes(length), b"", b"")


@pytest.mark.parametrize("kind", [Xaes, CommittingXaes])
def test_a_changed_message_does_not_open(kind: type[Xaes]) -> None:
    cipher = kind(bytes(range(32)))
    sealed = cipher.encrypt(TEXT, b"aad")
    for position in range(len(sealed)):
        changed = bytearray(sealed)
        changed[position] ^= 0x80
        with pytest.raises(CannotDecrypt):
            cipher.decrypt(bytes(changed), b"aad")
    with pytest.raises(CannotDecrypt):
        cipher.decrypt(sealed, b"add")
    with pytest.raises(CannotDecrypt):
        kind(bytes(range(1, 33))).decrypt(sealed, b"aad")


# --- the commitment. Published vectors of it: test_vectors_symmetric.py


def parts(sealed: bytes) -> tuple[bytes, bytes, bytes]:
    end = NONCE_BYTES + COMMITMENT_BYTES
    return sealed[:NONCE_BYTES], sealed[NONCE_BYTES:end], sealed[end:]


def test_within_the_commitment_is_the_plain_scheme() -> None:
    key = bytes(range(32))
    nonce, commitment, rest = parts(CommittingXaes(key).encrypt(TEXT, b"aad"))
    assert len(commitment) == 32
    assert Xaes(key).decrypt(nonce + rest, b"aad") == TEXT


def test_the_commitment_is_cmac_of_the_whole_nonce() -> None:
    """With the library's CMAC, over "XCMT", the nonce, and 0001 with the block's number."""
    key = bytes(range(32))
    nonce, commitment, _ = parts(CommittingXaes(key).encrypt(TEXT, b""))
    expected = b""
    for number in (1, 2):
        mac = CMAC(AES(key))
        mac.update(b"XCMT" + nonce + b"\x00\x01\x00" + bytes([number]))
        expected += mac.finalize()
    assert commitment == expected


def test_a_ciphertext_made_to_open_under_two_keys_opens_under_none_but_its_own() -> None:
    """GCM commits to no key, so one ciphertext can be made that opens under two.

    Whatever the ciphertext, another key has another commitment, and that is compared first.
    """
    one, other = CommittingXaes(bytes(range(32))), CommittingXaes(bytes(range(1, 33)))
    nonce, commitment, rest = parts(one.encrypt(TEXT, b"aad"))
    # What opens under the other key in the plain scheme, with the same nonce …
    forged = Xaes(bytes(range(1, 33))).seal(nonce, TEXT, b"aad")
    assert Xaes(bytes(range(1, 33))).decrypt(nonce + forged, b"aad") == TEXT
    # … doesn't with the first key's commitment, and the first key refuses it by its tag.
    for cipher in (one, other):
        with pytest.raises(CannotDecrypt):
            cipher.decrypt(nonce + commitment + forged, b"aad")
    assert one.decrypt(nonce + commitment + rest, b"aad") == TEXT
