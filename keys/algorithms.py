"""Key specs and algorithms: closed vocabularies, one row each.

Names of specs and usages follow AWS KMS where it has one, since its callers are the most. `code`
is the byte that stands for an algorithm in ciphertext headers; a code is never used again.
Strengths in bits are those of NIST SP 800-57 part 1 rev. 5, table 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Usage(StrEnum):
    """What a key is for; one purpose a key (SP 800-57 part 1, 5.2)."""

    ENCRYPT_DECRYPT = "ENCRYPT_DECRYPT"
    SIGN_VERIFY = "SIGN_VERIFY"
    GENERATE_VERIFY_MAC = "GENERATE_VERIFY_MAC"

    @property
    def label(self) -> str:
        return {
            Usage.ENCRYPT_DECRYPT: "Encrypt and decrypt",
            Usage.SIGN_VERIFY: "Sign and verify",
            Usage.GENERATE_VERIFY_MAC: "Authenticate (MAC)",
        }[self]


class Family(StrEnum):
    """What kind of material a spec has; backends switch on this and nothing finer."""

    AES = "AES"
    HMAC = "HMAC"
    RSA = "RSA"
    EC = "EC"


@dataclass(frozen=True, slots=True)
class Algorithm:
    """One way to use a key. `digest` is the hash's name in lower case, or empty."""

    name: str
    code: int
    usage: Usage
    digest: str = ""
    label: str = ""
    # Random 96-bit nonces limit a key to 2^32 messages (SP 800-38D, 8.3); None: no practical limit.
    message_limit: int | None = None


@dataclass(frozen=True, slots=True)
class KeySpec:
    """One kind of key. `bits` is the size of the secret or the modulus; `algorithms`, default first."""

    name: str
    family: Family
    bits: int
    strength: int
    usage: Usage
    algorithms: tuple[str, ...]
    label: str
    curve: str = ""

    @property
    def asymmetric(self) -> bool:
        return self.family in (Family.RSA, Family.EC)


_RSA_SIGNATURES = (
    "RSA_PSS_SHA_256",
    "RSA_PSS_SHA_384",
    "RSA_PSS_SHA_512",
    "RSA_PKCS1_SHA_256",
    "RSA_PKCS1_SHA_384",
    "RSA_PKCS1_SHA_512",
)

ALGORITHMS: dict[str, Algorithm] = {
    row.name: row
    for row in (
        Algorithm("XAES_256_GCM", 1, Usage.ENCRYPT_DECRYPT, label="XAES-256-GCM (C2SP)"),
        Algorithm(
            "AES_256_GCM", 2, Usage.ENCRYPT_DECRYPT, label="AES-256-GCM", message_limit=2**32
        ),
        Algorithm("HMAC_SHA_256", 16, Usage.GENERATE_VERIFY_MAC, "sha256", "HMAC-SHA-256"),
        Algorithm("HMAC_SHA_384", 17, Usage.GENERATE_VERIFY_MAC, "sha384", "HMAC-SHA-384"),
        Algorithm("HMAC_SHA_512", 18, Usage.GENERATE_VERIFY_MAC, "sha512", "HMAC-SHA-512"),
        Algorithm("RSA_PSS_SHA_256", 32, Usage.SIGN_VERIFY, "sha256", "RSASSA-PSS, SHA-256"),
        Algorithm("RSA_PSS_SHA_384", 33, Usage.SIGN_VERIFY, "sha384", "RSASSA-PSS, SHA-384"),
        Algorithm("RSA_PSS_SHA_512", 34, Usage.SIGN_VERIFY, "sha512", "RSASSA-PSS, SHA-512"),
        Algorithm(
            "RSA_PKCS1_SHA_256", 35, Usage.SIGN_VERIFY, "sha256", "RSASSA-PKCS1-v1_5, SHA-256"
        ),
        Algorithm(
            "RSA_PKCS1_SHA_384", 36, Usage.SIGN_VERIFY, "sha384", "RSASSA-PKCS1-v1_5, SHA-384"
        ),
        Algorithm(
            "RSA_PKCS1_SHA_512", 37, Usage.SIGN_VERIFY, "sha512", "RSASSA-PKCS1-v1_5, SHA-512"
        ),
        Algorithm("ECDSA_SHA_256", 48, Usage.SIGN_VERIFY, "sha256", "ECDSA, SHA-256"),
        Algorithm("ECDSA_SHA_384", 49, Usage.SIGN_VERIFY, "sha384", "ECDSA, SHA-384"),
        Algorithm("ECDSA_SHA_512", 50, Usage.SIGN_VERIFY, "sha512", "ECDSA, SHA-512"),
    )
}

SPECS: dict[str, KeySpec] = {
    row.name: row
    for row in (
        KeySpec(
            "AES_256",
            Family.AES,
            256,
            256,
            Usage.ENCRYPT_DECRYPT,
            ("XAES_256_GCM", "AES_256_GCM"),
            "AES-256",
        ),
        KeySpec(
            "HMAC_256",
            Family.HMAC,
            256,
            256,
            Usage.GENERATE_VERIFY_MAC,
            ("HMAC_SHA_256",),
            "HMAC-SHA-256",
        ),
        KeySpec(
            "HMAC_384",
            Family.HMAC,
            384,
            256,
            Usage.GENERATE_VERIFY_MAC,
            ("HMAC_SHA_384",),
            "HMAC-SHA-384",
        ),
        KeySpec(
            "HMAC_512",
            Family.HMAC,
            512,
            256,
            Usage.GENERATE_VERIFY_MAC,
            ("HMAC_SHA_512",),
            "HMAC-SHA-512",
        ),
        KeySpec("RSA_2048", Family.RSA, 2048, 112, Usage.SIGN_VERIFY, _RSA_SIGNATURES, "RSA-2048"),
        KeySpec("RSA_3072", Family.RSA, 3072, 128, Usage.SIGN_VERIFY, _RSA_SIGNATURES, "RSA-3072"),
        KeySpec("RSA_4096", Family.RSA, 4096, 152, Usage.SIGN_VERIFY, _RSA_SIGNATURES, "RSA-4096"),
        KeySpec(
            "ECC_NIST_P256",
            Family.EC,
            256,
            128,
            Usage.SIGN_VERIFY,
            ("ECDSA_SHA_256",),
            "EC P-256",
            "secp256r1",
        ),
        KeySpec(
            "ECC_NIST_P384",
            Family.EC,
            384,
            192,
            Usage.SIGN_VERIFY,
            ("ECDSA_SHA_384",),
            "EC P-384",
            "secp384r1",
        ),
        KeySpec(
            "ECC_NIST_P521",
            Family.EC,
            521,
            256,
            Usage.SIGN_VERIFY,
            ("ECDSA_SHA_512",),
            "EC P-521",
            "secp521r1",
        ),
    )
}

ALGORITHM_BY_CODE: dict[int, Algorithm] = {row.code: row for row in ALGORITHMS.values()}

# Everything a classification can allow or forbid is a key spec.
SPEC_CHOICES = [(row.name, row.label) for row in SPECS.values()]
USAGE_CHOICES = [(usage.value, usage.label) for usage in Usage]
