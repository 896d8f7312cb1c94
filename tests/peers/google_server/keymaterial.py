"""Key material of each algorithm: made, taken, used. Real cryptography, from pyca/cryptography and pqcrypto."""

from __future__ import annotations

import hashlib
import hmac
import os
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, keywrap, serialization
from cryptography.hazmat.primitives.asymmetric import (
    ec,
    ed25519,
    mldsa,
    mlkem,
    padding,
    rsa,
    utils,
    x25519,
)
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.peers.google_server.answers import invalid

CURVES = {"P256": ec.SECP256R1, "P384": ec.SECP384R1, "SECP256K1": ec.SECP256K1}
HASHES: dict[str, Any] = {
    "SHA1": hashes.SHA1,
    "SHA256": hashes.SHA256,
    "SHA384": hashes.SHA384,
    "SHA512": hashes.SHA512,
}
HMAC_BITS = {"SHA1": 160, "SHA224": 224, "SHA256": 256, "SHA384": 384, "SHA512": 512}
ML_DSA = {
    "44": mldsa.MLDSA44PrivateKey,
    "65": mldsa.MLDSA65PrivateKey,
    "87": mldsa.MLDSA87PrivateKey,
}
ML_KEM = {"ML_KEM_768": mlkem.MLKEM768PrivateKey, "ML_KEM_1024": mlkem.MLKEM1024PrivateKey}
DIGEST_FIELDS = {"SHA256": "sha256", "SHA384": "sha384", "SHA512": "sha512"}


def purposes() -> dict[str, str]:
    """Every algorithm that this server has, and the purpose it belongs to."""
    table = {"GOOGLE_SYMMETRIC_ENCRYPTION": "ENCRYPT_DECRYPT"}
    table["EXTERNAL_SYMMETRIC_ENCRYPTION"] = "ENCRYPT_DECRYPT"
    table |= dict.fromkeys(("AES_128_GCM", "AES_256_GCM"), "RAW_ENCRYPT_DECRYPT")
    table |= {f"HMAC_{name}": "MAC" for name in HMAC_BITS}
    for bits in ("2048", "3072", "4096"):
        for digest in ("SHA256", "SHA512") if bits == "4096" else ("SHA256",):
            table[f"RSA_SIGN_PSS_{bits}_{digest}"] = "ASYMMETRIC_SIGN"
            table[f"RSA_SIGN_PKCS1_{bits}_{digest}"] = "ASYMMETRIC_SIGN"
            table[f"RSA_DECRYPT_OAEP_{bits}_{digest}"] = "ASYMMETRIC_DECRYPT"
        table[f"RSA_DECRYPT_OAEP_{bits}_SHA1"] = "ASYMMETRIC_DECRYPT"
    for name in ("P256_SHA256", "P384_SHA384", "SECP256K1_SHA256", "ED25519"):
        table[f"EC_SIGN_{name}"] = "ASYMMETRIC_SIGN"
    for name in ML_DSA:
        table[f"PQ_SIGN_ML_DSA_{name}"] = "ASYMMETRIC_SIGN"
        table[f"PQ_SIGN_ML_DSA_{name}_EXTERNAL_MU"] = "ASYMMETRIC_SIGN"
    table["PQ_SIGN_SLH_DSA_SHA2_128S"] = "ASYMMETRIC_SIGN"
    table |= dict.fromkeys((*ML_KEM, "KEM_XWING"), "KEY_ENCAPSULATION")
    return table


def secret_bytes(algorithm: str) -> int:
    """How long a secret of an algorithm is; 0 where it is a pair."""
    if algorithm in ("GOOGLE_SYMMETRIC_ENCRYPTION", "AES_256_GCM"):
        return 32
    if algorithm == "AES_128_GCM":
        return 16
    return HMAC_BITS[algorithm[5:]] // 8 if algorithm.startswith("HMAC_") else 0


def post_quantum(algorithm: str) -> bool:
    return algorithm.startswith(("PQ_", "ML_KEM", "KEM_"))


def made(algorithm: str) -> Any:
    """Fresh material: bytes, or a private key."""
    size = secret_bytes(algorithm)
    if size:
        return os.urandom(size)
    parts = algorithm.split("_")
    if algorithm.startswith("RSA_"):
        return rsa.generate_private_key(65537, int(next(part for part in parts if part.isdigit())))
    if algorithm == "EC_SIGN_ED25519":
        return ed25519.Ed25519PrivateKey.generate()
    if algorithm.startswith("EC_SIGN_"):
        return ec.generate_private_key(CURVES[parts[2]]())
    if algorithm.startswith("PQ_SIGN_ML_DSA_"):
        return ML_DSA[parts[4]].generate()
    if algorithm == "PQ_SIGN_SLH_DSA_SHA2_128S":
        from pqcrypto.sign import slh_dsa_sha2_128s

        return slh_dsa_sha2_128s.keygen()
    if algorithm == "KEM_XWING":
        return mlkem.MLKEM768PrivateKey.generate(), x25519.X25519PrivateKey.generate()
    return ML_KEM[algorithm].generate() if algorithm in ML_KEM else None


def taken(algorithm: str, raw: bytes) -> Any:
    """Material from outside. Raises ValueError, with a reason, for what doesn't fit."""
    size = secret_bytes(algorithm)
    if size:
        if len(raw) != size:
            raise ValueError(f"the key has {len(raw)} bytes, not {size}")
        return raw
    if post_quantum(algorithm):
        raise ValueError("this algorithm can't be imported")
    key = serialization.load_der_private_key(raw, None)
    parts = algorithm.split("_")
    if isinstance(key, rsa.RSAPrivateKey) and str(key.key_size) in parts:
        return key
    if isinstance(key, ed25519.Ed25519PrivateKey) and algorithm == "EC_SIGN_ED25519":
        return key
    curve = CURVES.get(parts[2]) if parts[:2] == ["EC", "SIGN"] else None
    if curve and isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name == curve.name:
        return key
    raise ValueError("the key is of another kind")


def fingerprint(material: Any) -> bytes:
    """What tells whether material is brought again."""
    if not isinstance(material, bytes):
        material = material.private_bytes(
            serialization.Encoding.DER,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    return hashlib.sha256(material).digest()


def public_pem(material: Any) -> str:
    encoded: bytes = material.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return encoded.decode()


def public_raw(algorithm: str, material: Any) -> bytes:
    """The public key of a post-quantum pair as its standard has it."""
    if algorithm == "PQ_SIGN_SLH_DSA_SHA2_128S":
        return bytes(material[0])
    if algorithm == "KEM_XWING":
        return b"".join(part.public_key().public_bytes_raw() for part in material)
    return bytes(material.public_key().public_bytes_raw())


def sealed(key: bytes, header: bytes, plaintext: bytes, aad: bytes) -> bytes:
    iv = os.urandom(12)
    return header + iv + AESGCM(key).encrypt(iv, plaintext, header + aad)


def opened(key: bytes, header: bytes, ciphertext: bytes, aad: bytes) -> bytes:
    body = ciphertext[len(header) :]
    try:
        return AESGCM(key).decrypt(body[:12], body[12:], header + aad)
    except (InvalidTag, ValueError):
        raise invalid("Decryption failed: the ciphertext is invalid.") from None


def mac(algorithm: str, key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, algorithm[5:].lower())


def signed(algorithm: str, key: Any, digests: dict[str, bytes], data: bytes | None) -> bytes:
    """Sign a digest (by its field's name) or, where the scheme wants it, the data itself."""
    if algorithm.endswith("_EXTERNAL_MU"):
        mu = digests.get("external_mu", b"")
        if len(mu) != 64:
            raise invalid("An external mu of 64 bytes is required.")
        return bytes(key.sign_mu(mu))
    if algorithm == "EC_SIGN_ED25519" or algorithm.startswith("PQ_"):
        if data is None:
            raise invalid("The data field is required for this algorithm.")
        if len(data) > 65536:
            raise invalid("The data is longer than 64 KiB.")
        if algorithm == "PQ_SIGN_SLH_DSA_SHA2_128S":
            from pqcrypto.sign import slh_dsa_sha2_128s

            return bytes(slh_dsa_sha2_128s.sign(key[1], data))
        return bytes(key.sign(data))
    name = algorithm.rpartition("_")[2]
    hashed = HASHES[name]()
    digest = digests.get(DIGEST_FIELDS[name])
    if digest is None and data is not None:
        digest = hashlib.new(name, data).digest()
    if digest is None or len(digest) != hashed.digest_size:
        raise invalid(f"A {name} digest is required.")
    prehashed = utils.Prehashed(hashed)
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(digest, ec.ECDSA(prehashed))
    if "_PSS_" in algorithm:
        salted = padding.PSS(padding.MGF1(hashed), hashed.digest_size)
        return bytes(key.sign(digest, salted, prehashed))
    return bytes(key.sign(digest, padding.PKCS1v15(), prehashed))


def rsa_opened(key: rsa.RSAPrivateKey, digest: str, ciphertext: bytes) -> bytes:
    hashed = HASHES[digest]()
    try:
        return key.decrypt(ciphertext, padding.OAEP(padding.MGF1(hashed), hashed, None))
    except ValueError:
        raise invalid("Decryption failed: the ciphertext is invalid.") from None


def unwrapped(key: rsa.RSAPrivateKey, wrapped: bytes) -> bytes:
    """RSA-OAEP of an AES-256 key, then AES-KWP under it. Raises ValueError."""
    size = key.key_size // 8
    oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
    passing = key.decrypt(wrapped[:size], oaep)
    try:
        return keywrap.aes_key_unwrap_with_padding(passing, wrapped[size:])
    except keywrap.InvalidUnwrap:
        raise ValueError("the key can't be unwrapped") from None


def decapsulated(algorithm: str, material: Any, ciphertext: bytes) -> bytes:
    try:
        if algorithm != "KEM_XWING":
            return bytes(material.decapsulate(ciphertext))
        if len(ciphertext) != 1120:
            raise ValueError("wrong length")
        kem, curve = material
        sent, own = ciphertext[1088:], curve.public_key().public_bytes_raw()
        first = kem.decapsulate(ciphertext[:1088])
        try:
            second = curve.exchange(x25519.X25519PublicKey.from_public_bytes(sent))
        except ValueError:  # a point of small order; the draft goes on with zeros
            second = bytes(32)
        label = bytes((0x5C, 0x2E, 0x2F, 0x2F, 0x5E, 0x5C))
        return hashlib.sha3_256(first + second + sent + own + label).digest()
    except ValueError:
        raise invalid("The ciphertext is malformed.") from None
