"""The words of AWS KMS and the console's: specs, usages, algorithms and their limits.

From the API reference of AWS KMS (CreateKey, Encrypt, Sign, GenerateMac, ImportKeyMaterial).
"""

from __future__ import annotations

from keys.algorithms import ALGORITHMS, SPECS, Family, KeySpec, Usage
from keys.backends import materials
from keys.errors import Unsupported

MESSAGE_LIMIT = 4096  # bytes of a plaintext under a symmetric key, a message to sign or to MAC
CIPHERTEXT_LIMIT = 6144
RANDOM_LIMIT = 1024
ROTATIONS_LIMIT = 25  # on demand, in a key's whole life (RotateKeyOnDemand)
ROTATION_DAYS = (90, 2560)  # of its own rotation (EnableKeyRotation)
DEFAULT_ROTATION_DAYS = 365
WINDOW = (7, 30)  # days (ScheduleKeyDeletion)

SYMMETRIC = "SYMMETRIC_DEFAULT"
_NIST_CURVES = ("ECC_NIST_P256", "ECC_NIST_P384", "ECC_NIST_P521")
_RSA = (
    "RSASSA_PSS_SHA_256",
    "RSASSA_PSS_SHA_384",
    "RSASSA_PSS_SHA_512",
    "RSASSA_PKCS1_V1_5_SHA_256",
    "RSASSA_PKCS1_V1_5_SHA_384",
    "RSASSA_PKCS1_V1_5_SHA_512",
    "RSAES_OAEP_SHA_256",
    "RSAES_OAEP_SHA_1",
)

OFFERS: dict[str, tuple[str, ...]] = {
    "AES_256": ("AES_256_GCM",),
    "HMAC_224": ("HMAC_SHA_224",),
    "HMAC_256": ("HMAC_SHA_256",),
    "HMAC_384": ("HMAC_SHA_384",),
    "HMAC_512": ("HMAC_SHA_512",),
    "RSA_2048": _RSA,
    "RSA_3072": _RSA,
    "RSA_4096": _RSA,
    "ECC_NIST_P256": ("ECDSA_SHA_256", "ECDH"),
    "ECC_NIST_P384": ("ECDSA_SHA_384", "ECDH"),
    "ECC_NIST_P521": ("ECDSA_SHA_512", "ECDH"),
    "ECC_SECG_P256K1": ("ECDSA_SHA_256",),
    "ECC_NIST_EDWARDS25519": ("ED25519_SHA_512",),
    "ML_DSA_44": ("ML_DSA_SHAKE_256",),
    "ML_DSA_65": ("ML_DSA_SHAKE_256",),
    "ML_DSA_87": ("ML_DSA_SHAKE_256",),
    "ML_KEM_512": ("ML_KEM",),
    "ML_KEM_768": ("ML_KEM",),
    "ML_KEM_1024": ("ML_KEM",),
}
# Its documents don't say that post-quantum material can be imported.
IMPORTS = frozenset(
    name for name in OFFERS if SPECS[name].family not in (Family.ML_DSA, Family.ML_KEM)
)

# AWS has no usage for wrapping keys: such an RSA key encrypts there, and a tag says what it is for.
_AWS_USAGES = {
    Usage.ENCRYPT_DECRYPT: "ENCRYPT_DECRYPT",
    Usage.WRAP_UNWRAP: "ENCRYPT_DECRYPT",
    Usage.SIGN_VERIFY: "SIGN_VERIFY",
    Usage.GENERATE_VERIFY_MAC: "GENERATE_VERIFY_MAC",
    Usage.KEY_AGREEMENT: "KEY_AGREEMENT",
    Usage.KEY_ENCAPSULATION: "ENCAPSULATE_DECAPSULATE",
}
_USAGES = {
    "ENCRYPT_DECRYPT": Usage.ENCRYPT_DECRYPT,
    "SIGN_VERIFY": Usage.SIGN_VERIFY,
    "GENERATE_VERIFY_MAC": Usage.GENERATE_VERIFY_MAC,
    "KEY_AGREEMENT": Usage.KEY_AGREEMENT,
    "ENCAPSULATE_DECAPSULATE": Usage.KEY_ENCAPSULATION,
}


def offered(spec: str, usage: Usage | None) -> tuple[KeySpec, Usage]:
    """Return a spec's row and the purpose to make it for. Raises Unsupported."""
    row = materials.spec_named(spec)
    if spec not in OFFERS:
        raise Unsupported(f"AWS KMS has no {row.label} keys.")
    purposes = [one for one in row.usages if row.algorithms_for(one, OFFERS[spec])]
    purpose = purposes[0] if usage is None else usage
    if purpose not in purposes:
        able = ", ".join(purposes)
        raise Unsupported(f"AWS KMS has {row.label} keys for: {able}.")
    return row, purpose


def aws_spec(spec: KeySpec) -> str:
    return SYMMETRIC if spec.name == "AES_256" else spec.name


def aws_usage(usage: Usage) -> str:
    return _AWS_USAGES[usage]


def spec_of(aws: str) -> str:
    """Return the console's name of a KeySpec of AWS, "" where it has none (SM2)."""
    name = "AES_256" if aws == SYMMETRIC else aws
    return name if name in OFFERS else ""


def usage_of(aws: str, tagged: str = "") -> Usage | None:
    """Return the purpose of a KeyUsage of AWS; `tagged`: what our own tag says beside it."""
    usage = _USAGES.get(aws)
    if usage is Usage.ENCRYPT_DECRYPT and tagged == Usage.WRAP_UNWRAP:
        return Usage.WRAP_UNWRAP
    return usage


def aws_cipher(algorithm: str) -> str:
    """Return the EncryptionAlgorithm of AWS for one of ours."""
    return SYMMETRIC if algorithm == "AES_256_GCM" else algorithm


def oaep_limit(spec: KeySpec, algorithm: str) -> int:
    """Return how many bytes fit under RSA-OAEP (RFC 8017, 7.1.1)."""
    digest = materials.HASHES[ALGORITHMS[algorithm].digest].digest_size
    return spec.bits // 8 - 2 * digest - 2


def can_agree(spec: str) -> bool:
    return spec in _NIST_CURVES
