"""Key specs and algorithms: closed vocabularies, one row each.

Names of specs and algorithms follow AWS KMS where it has one, since its callers are the most, and
else the document that defines the thing. `code` is the byte that stands for an algorithm in
ciphertext headers; a code is never used again. Strengths in bits are those of NIST SP 800-57 part 1
rev. 5, table 2; of post-quantum algorithms those that their FIPS claims.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Usage(StrEnum):
    """What a key is for; one purpose a key (SP 800-57 part 1, 5.2)."""

    ENCRYPT_DECRYPT = "ENCRYPT_DECRYPT"
    SIGN_VERIFY = "SIGN_VERIFY"
    GENERATE_VERIFY_MAC = "GENERATE_VERIFY_MAC"
    WRAP_UNWRAP = "WRAP_UNWRAP"
    KEY_AGREEMENT = "KEY_AGREEMENT"
    KEY_ENCAPSULATION = "KEY_ENCAPSULATION"
    DERIVE_KEY = "DERIVE_KEY"

    @property
    def label(self) -> str:
        return _USAGE_LABELS[self]


_USAGE_LABELS = {
    Usage.ENCRYPT_DECRYPT: "Encrypt and decrypt",
    Usage.SIGN_VERIFY: "Sign and verify",
    Usage.GENERATE_VERIFY_MAC: "Authenticate (MAC)",
    Usage.WRAP_UNWRAP: "Wrap and unwrap keys",
    Usage.KEY_AGREEMENT: "Agree on a shared secret",
    Usage.KEY_ENCAPSULATION: "Encapsulate a shared secret (KEM)",
    Usage.DERIVE_KEY: "Derive keys",
}


class Family(StrEnum):
    """What kind of material a spec has; backends switch on this and nothing finer."""

    AES = "AES"
    AES_SIV = "AES_SIV"
    XCHACHA20 = "XCHACHA20"
    HMAC = "HMAC"
    RSA = "RSA"
    EC = "EC"
    EDWARDS = "EDWARDS"
    MONTGOMERY = "MONTGOMERY"
    ML_DSA = "ML_DSA"
    SLH_DSA = "SLH_DSA"
    ML_KEM = "ML_KEM"
    X_WING = "X_WING"


SECRETS = frozenset({Family.AES, Family.AES_SIV, Family.XCHACHA20, Family.HMAC})


class MessageType(StrEnum):
    """What is handed over to be signed: the message, its digest, or ML-DSA's mu (FIPS 204, 6.2)."""

    MESSAGE = "message"
    DIGEST = "digest"
    EXTERNAL_MU = "external_mu"


@dataclass(frozen=True, slots=True)
class Algorithm:
    """One way to use a key. `digest` is the hash's name in lower case, or empty."""

    name: str
    code: int
    usages: tuple[Usage, ...]
    label: str
    digest: str = ""
    # Random 96-bit nonces limit a key to 2^32 messages (SP 800-38D, 8.3); None: no practical limit.
    message_limit: int | None = None
    messages: tuple[MessageType, ...] = ()
    # Kept for old peers: never a default, only where a caller names it.
    legacy: bool = False
    # Equal plaintexts under one version and context give equal ciphertexts.
    deterministic: bool = False


@dataclass(frozen=True, slots=True)
class KeySpec:
    """One kind of key. `bits` is the size of the secret or the modulus; `algorithms`, default first.

    The first algorithm's first usage is the spec's default purpose.
    """

    name: str
    family: Family
    bits: int
    strength: int
    algorithms: tuple[str, ...]
    label: str
    # The curve as pyca/cryptography names it, or the parameter set.
    curve: str = ""

    @property
    def asymmetric(self) -> bool:
        return self.family not in SECRETS

    @property
    def usages(self) -> tuple[Usage, ...]:
        """What keys of this spec can be made for, default first."""
        every = (usage for name in self.algorithms for usage in ALGORITHMS[name].usages)
        return tuple(dict.fromkeys(every))

    def algorithms_for(self, usage: str, among: Iterable[str] | None = None) -> tuple[str, ...]:
        """Return this spec's algorithms for one purpose (of those named), default first."""
        offered = self.algorithms if among is None else tuple(among)
        return tuple(name for name in offered if usage in ALGORITHMS[name].usages)


_MESSAGE, _DIGEST = (MessageType.MESSAGE,), (MessageType.MESSAGE, MessageType.DIGEST)
_CRYPT, _SIGN = (Usage.ENCRYPT_DECRYPT,), (Usage.SIGN_VERIFY,)
_MAC, _WRAP = (Usage.GENERATE_VERIFY_MAC,), (Usage.WRAP_UNWRAP,)
_CRYPT_OR_WRAP = (Usage.ENCRYPT_DECRYPT, Usage.WRAP_UNWRAP)
_DERIVE = (Usage.DERIVE_KEY,)


def _signature(name: str, code: int, label: str, digest: str) -> Algorithm:
    return Algorithm(name, code, _SIGN, label, digest, messages=_DIGEST)


def _whole(name: str, code: int, label: str) -> Algorithm:
    """A signature scheme that wants the whole message: its hash is part of it."""
    return Algorithm(name, code, _SIGN, label, messages=_MESSAGE)


# Code 1 was XAES-256-GCM without key commitment, and is retired.
ALGORITHMS: dict[str, Algorithm] = {
    row.name: row
    for row in (
        Algorithm("AES_256_GCM", 2, _CRYPT, "AES-256-GCM", message_limit=2**32),
        Algorithm("XAES_256_GCM", 3, _CRYPT, "XAES-256-GCM, key-committing (C2SP)"),
        Algorithm("AES_128_GCM", 4, _CRYPT, "AES-128-GCM", message_limit=2**32),
        Algorithm("XCHACHA20_POLY1305", 5, _CRYPT, "XChaCha20-Poly1305"),
        Algorithm("AES_256_GCM_SIV", 6, _CRYPT, "AES-256-GCM-SIV", message_limit=2**32),
        Algorithm("AES_SIV_CMAC_512", 7, _CRYPT, "AES-SIV, deterministic", deterministic=True),
        Algorithm("RSAES_OAEP_SHA_256", 8, _CRYPT_OR_WRAP, "RSA-OAEP, SHA-256", "sha256"),
        Algorithm("RSAES_OAEP_SHA_384", 9, _CRYPT_OR_WRAP, "RSA-OAEP, SHA-384", "sha384"),
        Algorithm("RSAES_OAEP_SHA_512", 10, _CRYPT_OR_WRAP, "RSA-OAEP, SHA-512", "sha512"),
        Algorithm(
            "RSAES_OAEP_SHA_1",
            11,
            _CRYPT_OR_WRAP,
            "RSA-OAEP, SHA-1 (old peers)",
            "sha1",
            legacy=True,
        ),
        Algorithm("HMAC_SHA_256", 16, _MAC, "HMAC-SHA-256", "sha256"),
        Algorithm("HMAC_SHA_384", 17, _MAC, "HMAC-SHA-384", "sha384"),
        Algorithm("HMAC_SHA_512", 18, _MAC, "HMAC-SHA-512", "sha512"),
        Algorithm("HMAC_SHA_224", 19, _MAC, "HMAC-SHA-224", "sha224"),
        _signature("RSASSA_PSS_SHA_256", 32, "RSASSA-PSS, SHA-256", "sha256"),
        _signature("RSASSA_PSS_SHA_384", 33, "RSASSA-PSS, SHA-384", "sha384"),
        _signature("RSASSA_PSS_SHA_512", 34, "RSASSA-PSS, SHA-512", "sha512"),
        _signature("RSASSA_PKCS1_V1_5_SHA_256", 35, "RSASSA-PKCS1-v1_5, SHA-256", "sha256"),
        _signature("RSASSA_PKCS1_V1_5_SHA_384", 36, "RSASSA-PKCS1-v1_5, SHA-384", "sha384"),
        _signature("RSASSA_PKCS1_V1_5_SHA_512", 37, "RSASSA-PKCS1-v1_5, SHA-512", "sha512"),
        _signature("ECDSA_SHA_256", 48, "ECDSA, SHA-256", "sha256"),
        _signature("ECDSA_SHA_384", 49, "ECDSA, SHA-384", "sha384"),
        _signature("ECDSA_SHA_512", 50, "ECDSA, SHA-512", "sha512"),
        _whole("ED25519_SHA_512", 51, "Ed25519 (RFC 8032)"),
        _whole("ED448_SHAKE_256", 52, "Ed448 (RFC 8032)"),
        Algorithm(
            "ML_DSA_SHAKE_256",
            56,
            _SIGN,
            "ML-DSA (FIPS 204)",
            messages=(MessageType.MESSAGE, MessageType.EXTERNAL_MU),
        ),
        _whole("SLH_DSA_SHA2_128S", 64, "SLH-DSA-SHA2-128s (FIPS 205)"),
        _whole("SLH_DSA_SHA2_128F", 65, "SLH-DSA-SHA2-128f (FIPS 205)"),
        _whole("SLH_DSA_SHA2_192S", 66, "SLH-DSA-SHA2-192s (FIPS 205)"),
        _whole("SLH_DSA_SHA2_192F", 67, "SLH-DSA-SHA2-192f (FIPS 205)"),
        _whole("SLH_DSA_SHA2_256S", 68, "SLH-DSA-SHA2-256s (FIPS 205)"),
        _whole("SLH_DSA_SHA2_256F", 69, "SLH-DSA-SHA2-256f (FIPS 205)"),
        Algorithm("ECDH", 80, (Usage.KEY_AGREEMENT,), "ECDH (SP 800-56A, RFC 7748)"),
        Algorithm("ML_KEM", 96, (Usage.KEY_ENCAPSULATION,), "ML-KEM (FIPS 203)"),
        Algorithm("X_WING", 97, (Usage.KEY_ENCAPSULATION,), "X-Wing (X25519 and ML-KEM-768)"),
        Algorithm("HKDF_SHA_256", 112, _DERIVE, "HKDF, SHA-256 (RFC 5869)", "sha256"),
        Algorithm("HKDF_SHA_384", 113, _DERIVE, "HKDF, SHA-384 (RFC 5869)", "sha384"),
        Algorithm("HKDF_SHA_512", 114, _DERIVE, "HKDF, SHA-512 (RFC 5869)", "sha512"),
        Algorithm("AES_KWP", 128, _WRAP, "AES key wrap with padding (RFC 5649)"),
        Algorithm(
            "RSA_AES_KEY_WRAP_SHA_256", 129, _WRAP, "RSA-OAEP and AES key wrap, SHA-256", "sha256"
        ),
        Algorithm(
            "HPKE_X_WING_HKDF_SHA_256_AES_256_GCM", 130, _WRAP, "HPKE with X-Wing (RFC 9180)"
        ),
    )
}

_RSA = (
    "RSASSA_PSS_SHA_256",
    "RSASSA_PSS_SHA_384",
    "RSASSA_PSS_SHA_512",
    "RSASSA_PKCS1_V1_5_SHA_256",
    "RSASSA_PKCS1_V1_5_SHA_384",
    "RSASSA_PKCS1_V1_5_SHA_512",
    "RSAES_OAEP_SHA_256",
    "RSAES_OAEP_SHA_384",
    "RSAES_OAEP_SHA_512",
    "RSAES_OAEP_SHA_1",
    "RSA_AES_KEY_WRAP_SHA_256",
)
_KEM_AND_HPKE = ("X_WING", "HPKE_X_WING_HKDF_SHA_256_AES_256_GCM")


def _curve(name: str, bits: int, strength: int, digest: int, label: str, curve: str) -> KeySpec:
    return KeySpec(
        name, Family.EC, bits, strength, (f"ECDSA_SHA_{digest}", "ECDH"), f"EC {label}", curve
    )


def _slh_dsa(parameters: str, strength: int) -> KeySpec:
    name = f"SLH_DSA_SHA2_{parameters}"
    label = f"SLH-DSA-SHA2-{parameters.lower()}"
    return KeySpec(name, Family.SLH_DSA, 4 * strength, strength, (name,), label, parameters)


SPECS: dict[str, KeySpec] = {
    row.name: row
    for row in (
        KeySpec(
            "AES_256",
            Family.AES,
            256,
            256,
            ("XAES_256_GCM", "AES_256_GCM", "AES_256_GCM_SIV", "AES_KWP"),
            "AES-256",
        ),
        KeySpec("AES_128", Family.AES, 128, 128, ("AES_128_GCM", "AES_KWP"), "AES-128"),
        # Two keys in one: RFC 5297, 2.2. What counts is the half that encrypts.
        KeySpec("AES_SIV_512", Family.AES_SIV, 512, 256, ("AES_SIV_CMAC_512",), "AES-SIV-512"),
        KeySpec("XCHACHA20", Family.XCHACHA20, 256, 256, ("XCHACHA20_POLY1305",), "XChaCha20"),
        KeySpec("HMAC_224", Family.HMAC, 224, 192, ("HMAC_SHA_224",), "HMAC-SHA-224"),
        KeySpec(
            "HMAC_256", Family.HMAC, 256, 256, ("HMAC_SHA_256", "HKDF_SHA_256"), "HMAC-SHA-256"
        ),
        KeySpec(
            "HMAC_384", Family.HMAC, 384, 256, ("HMAC_SHA_384", "HKDF_SHA_384"), "HMAC-SHA-384"
        ),
        KeySpec(
            "HMAC_512", Family.HMAC, 512, 256, ("HMAC_SHA_512", "HKDF_SHA_512"), "HMAC-SHA-512"
        ),
        KeySpec("RSA_2048", Family.RSA, 2048, 112, _RSA, "RSA-2048"),
        KeySpec("RSA_3072", Family.RSA, 3072, 128, _RSA, "RSA-3072"),
        KeySpec("RSA_4096", Family.RSA, 4096, 152, _RSA, "RSA-4096"),
        _curve("ECC_NIST_P256", 256, 128, 256, "P-256", "secp256r1"),
        _curve("ECC_NIST_P384", 384, 192, 384, "P-384", "secp384r1"),
        _curve("ECC_NIST_P521", 521, 256, 512, "P-521", "secp521r1"),
        _curve("ECC_SECG_P256K1", 256, 128, 256, "secp256k1", "secp256k1"),
        KeySpec(
            "ECC_NIST_EDWARDS25519",
            Family.EDWARDS,
            256,
            128,
            ("ED25519_SHA_512",),
            "Ed25519",
            "ed25519",
        ),
        KeySpec(
            "ECC_NIST_EDWARDS448", Family.EDWARDS, 456, 224, ("ED448_SHAKE_256",), "Ed448", "ed448"
        ),
        KeySpec("X25519", Family.MONTGOMERY, 256, 128, ("ECDH",), "X25519", "x25519"),
        # FIPS 204, table 1: security categories 2, 3 and 5; the secret is a seed of 32 bytes.
        KeySpec("ML_DSA_44", Family.ML_DSA, 256, 128, ("ML_DSA_SHAKE_256",), "ML-DSA-44", "44"),
        KeySpec("ML_DSA_65", Family.ML_DSA, 256, 192, ("ML_DSA_SHAKE_256",), "ML-DSA-65", "65"),
        KeySpec("ML_DSA_87", Family.ML_DSA, 256, 256, ("ML_DSA_SHAKE_256",), "ML-DSA-87", "87"),
        _slh_dsa("128S", 128),
        _slh_dsa("128F", 128),
        _slh_dsa("192S", 192),
        _slh_dsa("192F", 192),
        _slh_dsa("256S", 256),
        _slh_dsa("256F", 256),
        # FIPS 203, table 2; the secret is a seed of 64 bytes (ML-KEM-512's library knows the expanded form only).
        KeySpec("ML_KEM_512", Family.ML_KEM, 512, 128, ("ML_KEM",), "ML-KEM-512", "512"),
        KeySpec("ML_KEM_768", Family.ML_KEM, 512, 192, ("ML_KEM",), "ML-KEM-768", "768"),
        KeySpec("ML_KEM_1024", Family.ML_KEM, 512, 256, ("ML_KEM",), "ML-KEM-1024", "1024"),
        KeySpec("X_WING", Family.X_WING, 256, 192, _KEM_AND_HPKE, "X-Wing (hybrid)", "x-wing"),
    )
}

ALGORITHM_BY_CODE: dict[int, Algorithm] = {row.code: row for row in ALGORITHMS.values()}

# Everything a classification can allow or forbid is a key spec.
SPEC_CHOICES = [(row.name, row.label) for row in SPECS.values()]
USAGE_CHOICES = [(usage.value, usage.label) for usage in Usage]
