"""XAES-256-GCM: AES-256-GCM with a 192-bit nonce and a key derived for each message.

Source: C2SP, https://c2sp.org/XAES-256-GCM. The derivation is the counter mode of SP 800-108 with
AES-CMAC as its PRF, so every part is an approved one. Random nonces are safe for 2^80 messages,
which is why no counter has to be kept for software keys.

`CommittingXaes` adds a key commitment: Kampanakis et al., "Blockcipher-Based Key Commitment for
Nonce-Derived Schemes", IACR ePrint 2025/758, KC-XAES-256-GCM. With L = AES(K, 0), K1 = dbl(L) and
the nonce N of 24 bytes:

    message key  = AES(K, K1 ^ (0001 "X" 00 || N[0:12])) || AES(K, K1 ^ (0002 "X" 00 || N[0:12]))
    X            = AES(K, "XCMT" || N[0:12])
    commitment   = AES(K, X ^ K1 ^ (N[12:24] || 00010001)) || AES(K, X ^ K1 ^ (N[12:24] || 00010002))

so the commitment is AES-CMAC of two blocks, twice. A ciphertext then opens under one key only.
"""

from __future__ import annotations

import hmac
import os
import threading

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import ECB

from keys.errors import CannotDecrypt

NONCE_BYTES = 24
TAG_BYTES = 16
KEY_BYTES = 32
COMMITMENT_BYTES = 32

_BLOCK = 16
_HALF = 12  # of the nonce: the first half derives, the second is GCM's own nonce
_CONSTANT = 0x87  # the polynomial of AES-CMAC, SP 800-38B 5.3
_MASK = (1 << 128) - 1
# M1 and M2 without the nonce: a counter of 16 bits, the letter X, a zero byte.
_FIRST = b"\x00\x01X\x00"
_SECOND = b"\x00\x02X\x00"
# The commitment's label, and the ends of its two last blocks.
_COMMIT = b"XCMT"
_COMMIT_FIRST = b"\x00\x01\x00\x01"
_COMMIT_SECOND = b"\x00\x01\x00\x02"


class Xaes:
    """One key, ready for use: K1 and the key schedule are computed once. Threads may share it."""

    __slots__ = ("_block_cipher", "_k1_twice", "_lock")

    def __init__(self, key: bytes) -> None:
        """Take a key of 32 bytes. Raises ValueError for any other length."""
        if len(key) != KEY_BYTES:
            raise ValueError(f"An XAES-256-GCM key has {KEY_BYTES} bytes.")
        # ECB of single, distinct blocks is the raw block cipher that CMAC is built from.
        self._block_cipher = Cipher(AES256(key), ECB()).encryptor()  # noqa: S305
        self._lock = threading.Lock()
        zero = int.from_bytes(self._block_cipher.update(bytes(_BLOCK)), "big")
        k1 = ((zero << 1) & _MASK) ^ (_CONSTANT if zero >> 127 else 0)
        self._k1_twice = (k1 << 128) | k1

    def _derivation(self, head: bytes) -> bytes:
        """Return the two blocks whose encryption is the message key."""
        blocks = int.from_bytes(_FIRST + head + _SECOND + head, "big") ^ self._k1_twice
        return blocks.to_bytes(2 * _BLOCK, "big")

    def _message_cipher(self, nonce: bytes) -> AESGCM:
        blocks = self._derivation(nonce[:_HALF])
        with self._lock:
            derived = self._block_cipher.update(blocks)
        return AESGCM(derived)

    def seal(self, nonce: bytes, plaintext: bytes, aad: bytes) -> bytes:
        """Return ciphertext and tag under a nonce of 24 bytes, which must never be used again."""
        _check_nonce(nonce)
        return self._message_cipher(nonce).encrypt(nonce[_HALF:], plaintext, aad)

    def encrypt(self, plaintext: bytes, aad: bytes) -> bytes:
        """Return nonce, ciphertext and tag, with a random nonce."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self.seal(nonce, plaintext, aad)

    def decrypt(self, sealed: bytes, aad: bytes) -> bytes:
        """Undo encrypt(). Raises CannotDecrypt for whatever is not its output for `aad`."""
        if len(sealed) < NONCE_BYTES + TAG_BYTES:
            raise CannotDecrypt
        nonce = sealed[:NONCE_BYTES]
        try:
            return self._message_cipher(nonce).decrypt(nonce[_HALF:], sealed[NONCE_BYTES:], aad)
        except InvalidTag:
            raise CannotDecrypt from None


class CommittingXaes(Xaes):
    """KC-XAES-256-GCM: `nonce (24) || commitment (32) || ciphertext || tag (16)`.

    The order of the parts is ours; the parts are those of the paper and of AWS-LC.
    """

    __slots__ = ()

    def _committed(self, nonce: bytes) -> tuple[AESGCM, bytes]:
        """Return the message's cipher and its commitment: five blocks in two calls."""
        head, tail = nonce[:_HALF], nonce[_HALF:]
        blocks = self._derivation(head) + _COMMIT + head
        ends = int.from_bytes(tail + _COMMIT_FIRST + tail + _COMMIT_SECOND, "big")
        with self._lock:
            derived = self._block_cipher.update(blocks)
            chained = derived[2 * _BLOCK :]
            last = ends ^ int.from_bytes(chained + chained, "big") ^ self._k1_twice
            commitment = self._block_cipher.update(last.to_bytes(2 * _BLOCK, "big"))
        return AESGCM(derived[: 2 * _BLOCK]), commitment

    def seal(self, nonce: bytes, plaintext: bytes, aad: bytes) -> bytes:
        """Return commitment, ciphertext and tag under a nonce of 24 bytes, never to be used again."""
        _check_nonce(nonce)
        cipher, commitment = self._committed(nonce)
        return commitment + cipher.encrypt(nonce[_HALF:], plaintext, aad)

    def decrypt(self, sealed: bytes, aad: bytes) -> bytes:
        """Undo encrypt(). Raises CannotDecrypt for whatever is not its output for `aad`."""
        body = NONCE_BYTES + COMMITMENT_BYTES
        if len(sealed) < body + TAG_BYTES:
            raise CannotDecrypt
        nonce = sealed[:NONCE_BYTES]
        cipher, commitment = self._committed(nonce)
        if not hmac.compare_digest(commitment, sealed[NONCE_BYTES:body]):
            raise CannotDecrypt
        try:
            return cipher.decrypt(nonce[_HALF:], sealed[body:], aad)
        except InvalidTag:
            raise CannotDecrypt from None


def _check_nonce(nonce: bytes) -> None:
    if len(nonce) != NONCE_BYTES:
        raise ValueError(f"An XAES-256-GCM nonce has {NONCE_BYTES} bytes.")
