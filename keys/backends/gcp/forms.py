"""Google's key algorithms in the console's words: one row each.

At Google the algorithm of a CryptoKey is fixed when it is made, digest and padding included. A row
says what the console does with such a key. `SPECS` order and names: keys.algorithms.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from keys.algorithms import ALGORITHMS, SPECS, Usage
from keys.errors import Unsupported

SYMMETRIC, RAW = "ENCRYPT_DECRYPT", "RAW_ENCRYPT_DECRYPT"
SIGN, DECRYPT, MAC, KEM = "ASYMMETRIC_SIGN", "ASYMMETRIC_DECRYPT", "MAC", "KEY_ENCAPSULATION"

EXTERNAL_MU = "_EXTERNAL_MU"


@dataclass(frozen=True, slots=True)
class Form:
    """`google`: CryptoKeyVersionAlgorithm; `purpose`: CryptoKeyPurpose; `algorithms`, default first.

    `made`: the console makes such keys; else it only takes them over. `hsm_only`: Google has it in
    hardware only. `imports`: Google takes material for it. `raw_public`: how Google hands out the
    public key where it isn't PEM.
    """

    google: str
    purpose: str
    spec: str
    algorithms: tuple[str, ...]
    made: bool = True
    hsm_only: bool = False
    imports: bool = True
    raw_public: str = ""

    @property
    def has_primary(self) -> bool:
        """Only such keys have a primary version, and a rotation of Google's own."""
        return self.purpose == SYMMETRIC

    def serves(self, usage: str) -> bool:
        return any(usage in ALGORITHMS[name].usages for name in self.algorithms)


def _rsa(bits: int) -> tuple[Form, ...]:
    spec = f"RSA_{bits}"
    digests = (256, 512) if bits == 4096 else (256,)
    rows = [
        Form(f"RSA_SIGN_PSS_{bits}_SHA{size}", SIGN, spec, (f"RSASSA_PSS_SHA_{size}",))
        for size in digests
    ]
    rows += [
        Form(f"RSA_SIGN_PKCS1_{bits}_SHA{size}", SIGN, spec, (f"RSASSA_PKCS1_V1_5_SHA_{size}",))
        for size in digests
    ]
    rows += [
        Form(f"RSA_DECRYPT_OAEP_{bits}_SHA{size}", DECRYPT, spec, (f"RSAES_OAEP_SHA_{size}", *more))
        for size, more in ((256, ("RSA_AES_KEY_WRAP_SHA_256",)), (512, ()))
        if size in digests
    ]
    return (*rows, Form(f"RSA_DECRYPT_OAEP_{bits}_SHA1", DECRYPT, spec, ("RSAES_OAEP_SHA_1",)))


def _ml_dsa(parameters: str) -> tuple[Form, ...]:
    # With an external mu, computed here from the public key, a key signs messages of any length and
    # mu alike (FIPS 204, 6.2); the other form takes only messages of at most 64 KiB.
    spec, name, own = f"ML_DSA_{parameters}", f"PQ_SIGN_ML_DSA_{parameters}", ("ML_DSA_SHAKE_256",)
    return (
        Form(name + EXTERNAL_MU, SIGN, spec, own, imports=False, raw_public="NIST_PQC"),
        Form(name, SIGN, spec, own, made=False, imports=False, raw_public="NIST_PQC"),
    )


FORMS: Mapping[str, Form] = {
    row.google: row
    for row in (
        Form("GOOGLE_SYMMETRIC_ENCRYPTION", SYMMETRIC, "AES_256", ("AES_256_GCM",)),
        Form("AES_128_GCM", RAW, "AES_128", ("AES_128_GCM",)),
        *(
            Form(f"HMAC_SHA{size}", MAC, f"HMAC_{size}", (f"HMAC_SHA_{size}",))
            for size in (224, 256, 384, 512)
        ),
        *_rsa(2048),
        *_rsa(3072),
        *_rsa(4096),
        Form("EC_SIGN_P256_SHA256", SIGN, "ECC_NIST_P256", ("ECDSA_SHA_256",)),
        Form("EC_SIGN_P384_SHA384", SIGN, "ECC_NIST_P384", ("ECDSA_SHA_384",)),
        Form(
            "EC_SIGN_SECP256K1_SHA256", SIGN, "ECC_SECG_P256K1", ("ECDSA_SHA_256",), hsm_only=True
        ),
        Form("EC_SIGN_ED25519", SIGN, "ECC_NIST_EDWARDS25519", ("ED25519_SHA_512",)),
        *_ml_dsa("44"),
        *_ml_dsa("65"),
        *_ml_dsa("87"),
        Form(
            "PQ_SIGN_SLH_DSA_SHA2_128S",
            SIGN,
            "SLH_DSA_SHA2_128S",
            ("SLH_DSA_SHA2_128S",),
            imports=False,
            raw_public="NIST_PQC",
        ),
        Form("ML_KEM_768", KEM, "ML_KEM_768", ("ML_KEM",), imports=False, raw_public="NIST_PQC"),
        Form("ML_KEM_1024", KEM, "ML_KEM_1024", ("ML_KEM",), imports=False, raw_public="NIST_PQC"),
        Form("KEM_XWING", KEM, "X_WING", ("X_WING",), imports=False, raw_public="XWING_RAW_BYTES"),
    )
}


def offered(level: str) -> dict[str, tuple[str, ...]]:
    """Return what a key ring offers at a protection level: spec to algorithms, the spec's own order."""
    by_spec: dict[str, set[str]] = {}
    for form in _made_at(level):
        by_spec.setdefault(form.spec, set()).update(form.algorithms)
    return {
        spec: tuple(name for name in SPECS[spec].algorithms if name in names)
        for spec, names in by_spec.items()
    }


def importable(level: str) -> frozenset[str]:
    return frozenset(form.spec for form in _made_at(level) if form.imports)


def form_for(level: str, spec: str, usage: Usage | None, algorithm: str = "") -> Form:
    """Return the form of a new key. Raises Unsupported, saying what would work.

    `algorithm` is the one that the key is made for, else the first that fits spec and purpose.
    """
    names = offered(level).get(spec, ())
    if not names:
        raise Unsupported(f"Google Cloud KMS makes no {spec} keys at this protection level.")
    named = ALGORITHMS.get(algorithm, ALGORITHMS[names[0]])
    purpose = usage or named.usages[0]
    fitting = SPECS[spec].algorithms_for(purpose, names)
    if not fitting:
        raise Unsupported(f"Google Cloud KMS makes no {spec} keys for {purpose.label.lower()}.")
    if algorithm and algorithm not in fitting:
        raise Unsupported(
            f"Google Cloud KMS has no {algorithm} for {spec} keys. It offers {', '.join(fitting)}."
        )
    wanted = algorithm or fitting[0]
    return next(form for form in _made_at(level) if form.spec == spec and wanted in form.algorithms)


def has_primary(spec: str, usage: str) -> bool:
    """Whether Google keeps a primary version of a key that the console knows as this."""
    return any(
        form.has_primary and form.spec == spec and form.serves(usage) for form in FORMS.values()
    )


def _made_at(level: str) -> list[Form]:
    # SLH-DSA, ML-DSA and KEMs exist in software only, as long as Google's list says so.
    return [
        form
        for form in FORMS.values()
        if form.made
        and (level == "hsm" or not form.hsm_only)
        and not (level == "hsm" and form.raw_public)
    ]
