"""A second implementation of docs/ciphertext.md, written from that page alone.

It knows nothing of the rooms keys/ and audit/: the standard library, the primitives of
pyca/cryptography, and PyNaCl for XChaCha20. Where the two implementations agree on the vectors in
docs/vectors, and on what the product makes today, the page says what the product does.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import struct
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESGCMSIV, AESSIV
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.cmac import CMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap_with_padding
from cryptography.hazmat.primitives.serialization import load_der_private_key
from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_decrypt
from nacl.exceptions import CryptoError

# The code in the header, the algorithm, the length of the key's bytes (0: a PKCS#8 RSA key).
ALGORITHMS = {
    2: ("AES_256_GCM", 32),
    3: ("XAES_256_GCM", 32),
    4: ("AES_128_GCM", 16),
    5: ("XCHACHA20_POLY1305", 32),
    6: ("AES_256_GCM_SIV", 32),
    7: ("AES_SIV_CMAC_512", 64),
    8: ("RSAES_OAEP_SHA_256", 0),
    9: ("RSAES_OAEP_SHA_384", 0),
    10: ("RSAES_OAEP_SHA_512", 0),
    11: ("RSAES_OAEP_SHA_1", 0),
}
# The bytes of the random nonce in front of a body; RSA-OAEP's is inside.
NONCES = {
    "XAES_256_GCM": 24,
    "AES_256_GCM": 12,
    "AES_128_GCM": 12,
    "AES_256_GCM_SIV": 12,
    "XCHACHA20_POLY1305": 24,
    "AES_SIV_CMAC_512": 0,
}
HASHES: dict[str, hashes.HashAlgorithm] = {
    "SHA_1": hashes.SHA1(),
    "SHA_256": hashes.SHA256(),
    "SHA_384": hashes.SHA384(),
    "SHA_512": hashes.SHA512(),
}
HEADER = struct.Struct(">BBB16sI")
TAG = 16
X_WING_CIPHERTEXT = 1120


class Refused(Exception):
    """The bytes are no ciphertext of this key for this context."""


@dataclass(frozen=True)
class Held:
    """A version's material. A secret key has one algorithm for its life; an RSA key every OAEP."""

    material: bytes
    algorithm: str


Ring = Mapping[tuple[uuid.UUID, int], Held]


@dataclass(frozen=True)
class Parts:
    header: bytes
    algorithm: str
    key_id: uuid.UUID
    version: int
    body: bytes


def split(ciphertext: bytes) -> Parts:
    """Return a ciphertext's parts. Raises Refused."""
    if len(ciphertext) <= HEADER.size:
        raise Refused("no body")
    header = ciphertext[: HEADER.size]
    magic, form, code, key_id, version = HEADER.unpack(header)
    if (magic, form) != (0x4B, 0x01):
        raise Refused("another magic or format")
    if code not in ALGORITHMS:
        raise Refused("no algorithm that encrypts")
    if version == 0:
        raise Refused("versions count from 1")
    return Parts(
        header, ALGORITHMS[code][0], uuid.UUID(bytes=key_id), version, ciphertext[HEADER.size :]
    )


def encoded_context(context: Mapping[str, str]) -> bytes:
    """Return the context's canonical bytes."""
    pairs = sorted((name.encode(), value.encode()) for name, value in context.items())
    encoded = len(pairs).to_bytes(4, "big")
    for name, value in pairs:
        encoded += len(name).to_bytes(4, "big") + name + len(value).to_bytes(4, "big") + value
    return encoded


def decrypt(ciphertext: bytes, ring: Ring, context: Mapping[str, str]) -> bytes:
    """Return the plaintext. Raises Refused for whatever is wrong."""
    parts = split(ciphertext)
    held = ring.get((parts.key_id, parts.version))
    if held is None:
        raise Refused("another key or version")
    by_rsa = parts.algorithm.startswith("RSAES") and held.algorithm.startswith("RSAES")
    if parts.algorithm != held.algorithm and not by_rsa:
        raise Refused("the key has another algorithm")
    return open_body(
        parts.algorithm, held.material, parts.body, parts.header + encoded_context(context)
    )


def open_body(algorithm: str, key: bytes, body: bytes, aad: bytes) -> bytes:
    """Return what a body holds. Raises Refused."""
    try:
        if algorithm.startswith("RSAES"):
            return oaep_open(algorithm, key, body, aad)
        if algorithm == "XAES_256_GCM":
            return xaes_open(key, body, aad)
        if algorithm in ("AES_256_GCM", "AES_128_GCM"):
            nonce, rest = cut(body, 12)
            return AESGCM(key).decrypt(nonce, rest, aad)
        if algorithm == "AES_256_GCM_SIV":
            nonce, rest = cut(body, 12)
            return AESGCMSIV(key).decrypt(nonce, rest, aad)
        if algorithm == "XCHACHA20_POLY1305":
            nonce, rest = cut(body, 24)
            return crypto_aead_xchacha20poly1305_ietf_decrypt(rest, aad, nonce, key)
        if algorithm == "AES_SIV_CMAC_512":
            cut(body, 0)
            return AESSIV(key).decrypt(body, [aad])
    except (InvalidTag, CryptoError, ValueError):
        raise Refused("it does not authenticate") from None
    raise AssertionError(algorithm)


def cut(body: bytes, nonce: int, after: int = TAG) -> tuple[bytes, bytes]:
    """Return nonce and rest; what follows the nonce has at least `after` bytes."""
    if len(body) < nonce + after:
        raise Refused("too short")
    return body[:nonce], body[nonce:]


# --- XAES-256-GCM with key commitment


def cmac(key: bytes, message: bytes) -> bytes:
    mac = CMAC(AES(key))
    mac.update(message)
    return mac.finalize()


def xaes_message_key(key: bytes, nonce: bytes) -> bytes:
    """Return the AES-256-GCM key of one message: C2SP, XAES-256-GCM."""
    return cmac(key, b"\x00\x01X\x00" + nonce[:12]) + cmac(key, b"\x00\x02X\x00" + nonce[:12])


def xaes_commitment(key: bytes, nonce: bytes) -> bytes:
    """Return the commitment of key and nonce: IACR ePrint 2025/758, KC-XAES-256-GCM."""
    first, second = (
        cmac(key, b"XCMT" + nonce + b"\x00\x01\x00" + bytes([block])) for block in (1, 2)
    )
    return first + second


def xaes_seal(key: bytes, nonce: bytes, plaintext: bytes, aad: bytes) -> bytes:
    sealed = AESGCM(xaes_message_key(key, nonce)).encrypt(nonce[12:], plaintext, aad)
    return nonce + xaes_commitment(key, nonce) + sealed


def xaes_open(key: bytes, body: bytes, aad: bytes) -> bytes:
    nonce, rest = cut(body, 24, after=32 + TAG)
    if not hmac.compare_digest(rest[:32], xaes_commitment(key, nonce)):
        raise Refused("made with another key")
    return AESGCM(xaes_message_key(key, nonce)).decrypt(nonce[12:], rest[32:], aad)


# --- RSA


@functools.cache
def rsa_key(pkcs8: bytes) -> rsa.RSAPrivateKey:
    key = load_der_private_key(pkcs8, password=None)
    assert isinstance(key, rsa.RSAPrivateKey)
    return key


def oaep_open(algorithm: str, pkcs8: bytes, body: bytes, label: bytes) -> bytes:
    digest = HASHES[algorithm.removeprefix("RSAES_OAEP_")]
    return rsa_key(pkcs8).decrypt(body, padding.OAEP(padding.MGF1(digest), digest, label or None))


# --- what the material database holds


def unsealed(
    root_key: bytes, sealed: bytes, label: uuid.UUID, store: uuid.UUID, spec: str, exportable: bool
) -> bytes:
    """Return the material in a row of a software key store. Raises Refused."""
    if len(sealed) < 49 or sealed[0] != 1:
        raise Refused("an unknown format")
    if sealed[1:9] != hmac.digest(root_key, b"kms-console root key id", "sha256")[:8]:
        raise Refused("sealed under another root key")
    purpose = f"software key material {store} {spec}" + (" exportable" if exportable else "")
    aad = b"kms-console sealed secret\x00" + sealed[:9] + label.bytes + purpose.encode()
    nonce = sealed[9:33]
    try:
        return AESGCM(xaes_message_key(root_key, nonce)).decrypt(nonce[12:], sealed[33:], aad)
    except InvalidTag:
        raise Refused("it does not authenticate") from None


# --- wrapped keys, derived keys, batches


def unwrap(algorithm: str, key: bytes, wrapped: bytes) -> bytes:
    """Return a key that was wrapped in a standard form. Raises Refused."""
    try:
        if algorithm == "AES_KWP":
            return aes_key_unwrap_with_padding(key, wrapped)
        if algorithm.startswith("RSAES"):
            return oaep_open(algorithm, key, wrapped, b"")
        if algorithm == "RSA_AES_KEY_WRAP_SHA_256":
            size = rsa_key(key).key_size // 8
            inner = oaep_open("RSAES_OAEP_SHA_256", key, wrapped[:size], b"")
            if len(inner) != 32:
                raise Refused("the inner key is no AES-256 key")
            return aes_key_unwrap_with_padding(inner, wrapped[size:])
        if algorithm.startswith("HPKE_X_WING"):
            enc, rest = cut(wrapped, X_WING_CIPHERTEXT)
            message_key, nonce = hpke_key_schedule(x_wing_secret(key, enc))
            return AESGCM(message_key).decrypt(nonce, rest, b"")
    except (InvalidUnwrap, InvalidTag, ValueError):
        raise Refused("it does not unwrap") from None
    raise AssertionError(algorithm)


def x_wing_parts(pkcs8: bytes) -> tuple[MLKEM768PrivateKey, X25519PrivateKey]:
    """Return the two keys of an X-Wing key, whose seed is the end of its PKCS#8 structure."""
    expanded = hashlib.shake_256(pkcs8[-32:]).digest(96)
    kem = MLKEM768PrivateKey.from_seed_bytes(expanded[:64])
    return kem, X25519PrivateKey.from_private_bytes(expanded[64:])


def x_wing_secret(pkcs8: bytes, ciphertext: bytes) -> bytes:
    """Return the shared secret of an X-Wing ciphertext."""
    kem, curve = x_wing_parts(pkcs8)
    of_kem, sent = kem.decapsulate(ciphertext[:1088]), ciphertext[1088:]
    of_curve = curve.exchange(X25519PublicKey.from_public_bytes(sent))
    own = curve.public_key().public_bytes_raw()
    return hashlib.sha3_256(of_kem + of_curve + sent + own + b"\\.//^\\").digest()


def hpke_key_schedule(shared: bytes) -> tuple[bytes, bytes]:
    """Return the key and the first nonce of HPKE's base mode, info empty (RFC 9180, 5.1)."""
    suite = b"HPKE" + bytes.fromhex("647a 0001 0002")

    def extract(salt: bytes, label: bytes, material: bytes) -> bytes:
        return hmac.digest(salt, b"HPKE-v1" + suite + label + material, "sha256")

    context = b"\x00" + extract(b"", b"psk_id_hash", b"") + extract(b"", b"info_hash", b"")
    secret = extract(shared, b"secret", b"")

    def expand(label: bytes, length: int) -> bytes:
        info = length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + context
        return hmac.digest(secret, info + b"\x01", "sha256")[:length]

    return expand(b"key", 32), expand(b"base_nonce", 12)


def derived_key(
    algorithm: str, key: bytes, salt: bytes, context: Mapping[str, str], length: int
) -> bytes:
    """Return what derive-key returns: HKDF with the context in its info."""
    digest = HASHES[algorithm.removeprefix("HKDF_")]
    info = b"kms-console derive key 1\x00" + encoded_context(context)
    return HKDF(digest, length, salt or None, info).derive(key)


def leaf(position: int, error: str, version: int, evidence: bytes) -> bytes:
    """Return the canonical JSON of one item of a batch."""
    digest = hashlib.sha256(evidence).hexdigest() if evidence else ""
    return f'{{"error":"{error}","evidence":"{digest}","item":{position},"version":{version}}}'.encode()


def root(leaves: Sequence[bytes]) -> bytes:
    """Return the Merkle tree hash, by its recursive definition (RFC 6962, 2.1)."""
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    middle = 1
    while middle * 2 < len(leaves):
        middle *= 2
    return hashlib.sha256(b"\x01" + root(leaves[:middle]) + root(leaves[middle:])).digest()
