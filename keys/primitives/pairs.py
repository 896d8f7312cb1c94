"""Key pairs of every family: made, encoded, read back strictly.

Encodings are PKCS#8 DER and SubjectPublicKeyInfo DER everywhere: RFC 8410 for the Edwards and
Montgomery curves, RFC 9881 (ML-DSA) and RFC 9935 (ML-KEM) in their seed form, RFC 9909 (SLH-DSA),
draft-connolly-cfrg-xwing-kem (X-Wing). ML-KEM-512 has the expanded form: its library takes no seed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import (
    ec,
    ed448,
    ed25519,
    mldsa,
    mlkem,
    rsa,
    x25519,
)

from keys.algorithms import Family, KeySpec
from keys.errors import BackendError, Invalid
from keys.primitives import post_quantum, x_wing
from keys.primitives.post_quantum import (
    MlKem512PrivateKey,
    MlKem512PublicKey,
    SlhDsaPrivateKey,
    SlhDsaPublicKey,
)
from keys.primitives.x_wing import XWingPrivateKey, XWingPublicKey
from keys.secret import Secret

MlDsaPrivateKey = mldsa.MLDSA44PrivateKey | mldsa.MLDSA65PrivateKey | mldsa.MLDSA87PrivateKey
MlDsaPublicKey = mldsa.MLDSA44PublicKey | mldsa.MLDSA65PublicKey | mldsa.MLDSA87PublicKey
EdwardsPrivateKey = ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey
EdwardsPublicKey = ed25519.Ed25519PublicKey | ed448.Ed448PublicKey
MlKemPrivateKey = mlkem.MLKEM768PrivateKey | mlkem.MLKEM1024PrivateKey
MlKemPublicKey = mlkem.MLKEM768PublicKey | mlkem.MLKEM1024PublicKey

_OwnPrivateKey = SlhDsaPrivateKey | MlKem512PrivateKey | XWingPrivateKey
_OwnPublicKey = SlhDsaPublicKey | MlKem512PublicKey | XWingPublicKey
_SeededPrivateKey = EdwardsPrivateKey | x25519.X25519PrivateKey | MlDsaPrivateKey | MlKemPrivateKey

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | _SeededPrivateKey | _OwnPrivateKey
PublicKey = (
    rsa.RSAPublicKey
    | ec.EllipticCurvePublicKey
    | EdwardsPublicKey
    | x25519.X25519PublicKey
    | MlDsaPublicKey
    | MlKemPublicKey
    | _OwnPublicKey
)

RSA_EXPONENT = 65537
CURVES: dict[str, ec.EllipticCurve] = {
    "secp256r1": ec.SECP256R1(),
    "secp384r1": ec.SECP384R1(),
    "secp521r1": ec.SECP521R1(),
    "secp256k1": ec.SECP256K1(),
}
# The library's classes of the specs that have one of their own: private, public.
_CLASSES: dict[str, tuple[Any, Any]] = {
    "ECC_NIST_EDWARDS25519": (ed25519.Ed25519PrivateKey, ed25519.Ed25519PublicKey),
    "ECC_NIST_EDWARDS448": (ed448.Ed448PrivateKey, ed448.Ed448PublicKey),
    "X25519": (x25519.X25519PrivateKey, x25519.X25519PublicKey),
    "ML_DSA_44": (mldsa.MLDSA44PrivateKey, mldsa.MLDSA44PublicKey),
    "ML_DSA_65": (mldsa.MLDSA65PrivateKey, mldsa.MLDSA65PublicKey),
    "ML_DSA_87": (mldsa.MLDSA87PrivateKey, mldsa.MLDSA87PublicKey),
    "ML_KEM_768": (mlkem.MLKEM768PrivateKey, mlkem.MLKEM768PublicKey),
    "ML_KEM_1024": (mlkem.MLKEM1024PrivateKey, mlkem.MLKEM1024PublicKey),
}


def generate(spec: KeySpec) -> PrivateKey:
    """Return a fresh private key. Raises Unsupported where a library is missing."""
    if spec.family is Family.RSA:
        return rsa.generate_private_key(RSA_EXPONENT, spec.bits)
    if spec.family is Family.EC:
        return ec.generate_private_key(CURVES[spec.curve])
    if spec.family is Family.SLH_DSA:
        return SlhDsaPrivateKey.generate(spec.curve)
    if spec.family is Family.X_WING:
        return XWingPrivateKey.generate()
    if spec.name == "ML_KEM_512":
        return MlKem512PrivateKey.generate()
    made: PrivateKey = _CLASSES[spec.name][0].generate()
    return made


def public_der(key: PrivateKey | PublicKey) -> bytes:
    """Return DER SubjectPublicKeyInfo."""
    public: PublicKey = key.public_key() if isinstance(key, PrivateKey) else key
    if isinstance(public, _OwnPublicKey):
        return public.der()
    return public.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def private_der(key: PrivateKey) -> bytes:
    """Return DER PKCS#8, not encrypted: for sealing and for export only."""
    if isinstance(key, _OwnPrivateKey):
        return key.der()
    return key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def load_private(spec: KeySpec, encoded: Secret) -> PrivateKey:
    """Return the private key of our own PKCS#8 DER, without the checks of an import.

    They were made before it was sealed, and the seal authenticates; RSA's take 45 ms.
    """
    try:
        if (own := _own_private(spec)) is not None:
            return own(encoded.reveal())
        key = serialization.load_der_private_key(
            encoded.reveal(), password=None, unsafe_skip_rsa_key_validation=True
        )
        return _of_spec(spec, key)
    except (ValueError, TypeError):
        raise BackendError("Key material can't be read back.") from None


def imported(spec: KeySpec, material: Secret) -> PrivateKey:
    """Return the validated private key of an import. Raises Invalid where it isn't one of `spec`."""
    own = _own_private(spec)
    key: object
    try:
        if own is not None:
            key = own(material.reveal())
            if isinstance(key, SlhDsaPrivateKey | MlKem512PrivateKey):
                key.check()
        else:
            key = serialization.load_der_private_key(material.reveal(), password=None)
    except Invalid:
        raise
    except Exception as error:
        _let_through(error)
        # The library's message could quote the input.
        form = f"private key of {spec.label} in " if own is not None else "private key in "
        raise Invalid(f"The material is not a valid {form}PKCS#8 DER, unencrypted.") from None
    checked = _of_spec(spec, key)
    if not any(_secret_part(checked)):
        raise Invalid("The material is all zeros, which is no key.")
    return checked


def load_public(public_key: bytes, spec: KeySpec | None = None) -> PublicKey:
    """Return a public key from DER SubjectPublicKeyInfo, of `spec` where it is named.

    Raises Invalid for whatever is none.
    """
    try:
        if spec is not None and (own := _own_public(spec)) is not None:
            return own(public_key)
        key = serialization.load_der_public_key(public_key)
    except Exception as error:
        _let_through(error)
        raise Invalid("That is not a public key in DER SubjectPublicKeyInfo.") from None
    if not isinstance(key, PublicKey):
        raise Invalid("That kind of public key is not known here.")
    if spec is not None and not _fits(spec, key):
        raise Invalid(f"That is not a public key of {spec.label}.")
    return key


def _let_through(error: Exception) -> None:
    # A parser of foreign bytes may raise anything; what is not its verdict on them goes on.
    if isinstance(error, MemoryError) or type(error).__module__.startswith("keys."):
        raise error


def _own_private(spec: KeySpec) -> Callable[[bytes], _OwnPrivateKey] | None:
    if spec.family is Family.SLH_DSA:
        return lambda encoded: post_quantum.read_slh_dsa_private(spec.curve, encoded)
    if spec.family is Family.X_WING:
        return x_wing.read_private
    return post_quantum.read_ml_kem_512_private if spec.name == "ML_KEM_512" else None


def _own_public(spec: KeySpec) -> Callable[[bytes], _OwnPublicKey] | None:
    if spec.family is Family.SLH_DSA:
        return lambda encoded: post_quantum.read_slh_dsa_public(spec.curve, encoded)
    if spec.family is Family.X_WING:
        return x_wing.read_public
    return post_quantum.read_ml_kem_512_public if spec.name == "ML_KEM_512" else None


def _of_spec(spec: KeySpec, key: object) -> PrivateKey:
    if spec.family is Family.RSA and isinstance(key, rsa.RSAPrivateKey):
        if key.key_size != spec.bits:
            raise Invalid(f"{spec.name} needs a modulus of {spec.bits} bits, not {key.key_size}.")
        # FIPS 186-5, A.1.1: an odd exponent above 2^16 and below 2^256.
        if not 2**16 < key.public_key().public_numbers().e < 2**256:
            raise Invalid("The RSA public exponent must be above 65536 and below 2^256.")
        return key
    if spec.family is Family.EC and isinstance(key, ec.EllipticCurvePrivateKey):
        if key.curve.name != spec.curve:
            raise Invalid(f"{spec.name} needs the curve {spec.curve}, not {key.curve.name}.")
        return key
    if isinstance(key, _OwnPrivateKey):
        return key  # its reader took no other
    kind = _CLASSES.get(spec.name)
    if kind is None or not isinstance(key, kind[0]):
        raise Invalid(f"The material is not a private key of the kind {spec.name} names.")
    seeded: PrivateKey = key
    return seeded


def _fits(spec: KeySpec, key: PublicKey) -> bool:
    if isinstance(key, rsa.RSAPublicKey):
        return spec.family is Family.RSA and key.key_size == spec.bits
    if isinstance(key, ec.EllipticCurvePublicKey):
        return spec.family is Family.EC and key.curve.name == spec.curve
    kind = _CLASSES.get(spec.name)
    return kind is not None and isinstance(key, kind[1])


def _secret_part(key: PrivateKey) -> bytes:
    if isinstance(key, _SeededPrivateKey):
        return key.private_bytes_raw()
    if isinstance(key, XWingPrivateKey):
        return key.seed.reveal()
    if isinstance(key, SlhDsaPrivateKey):
        raw = key.raw.reveal()
        return raw[: len(raw) // 4]
    return b"\x01"  # the other kinds can't be zero: their numbers were checked
