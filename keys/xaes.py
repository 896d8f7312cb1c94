"""XAES-256-GCM: AES-256-GCM with a 192-bit nonce and a key derived for each message.

Source: C2SP, https://c2sp.org/XAES-256-GCM. The derivation is the counter mode of SP 800-108 with
AES-CMAC as its PRF, so every part is an approved one. Random nonces are safe for 2^80 messages,
which is why no counter has to be kept for software keys.
"""

from __future__ import annotations

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

_BLOCK = 16
_CONSTANT = 0x87  # the polynomial of AES-CMAC, SP 800-38B 5.3
_MASK = (1 << 128) - 1
# M1 and M2 without the nonce: a counter of 16 bits, the letter X, a zero byte.
_FIRST = b"\x00\x01X\x00"
_SECOND = b"\x00\x02X\x00"


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

    def _message_cipher(self, nonce: bytes) -> AESGCM:
        head = nonce[:12]
        blocks = int.from_bytes(_FIRST + head + _SECOND + head, "big") ^ self._k1_twice
        with self._lock:
            derived = self._block_cipher.update(blocks.to_bytes(2 * _BLOCK, "big"))
        return AESGCM(derived)

    def seal(self, nonce: bytes, plaintext: bytes, aad: bytes) -> bytes:
        """Return ciphertext and tag under a nonce of 24 bytes, which must never be used again."""
        if len(nonce) != NONCE_BYTES:
            raise ValueError(f"An XAES-256-GCM nonce has {NONCE_BYTES} bytes.")
        return self._message_cipher(nonce).encrypt(nonce[12:], plaintext, aad)

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
            return self._message_cipher(nonce).decrypt(nonce[12:], sealed[NONCE_BYTES:], aad)
        except InvalidTag:
            raise CannotDecrypt from None
