"""Objects on a token: how ours are made, found, recognised and described.

Every object of a version has CKA_ID = the version's uuid (16 bytes) and a CKA_LABEL that begins
with "kms-console". The label goes on with the check value, once it is known, because a suspended secret
can't compute it any more. Ids and labels are not unique on a token, so what is found is checked.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

import pkcs11
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa, utils
from pkcs11 import Attribute, KeyType, MechanismFlag, ObjectClass
from pkcs11.util.ec import (
    decode_ec_private_key,
    decode_ec_public_key,
    encode_named_curve_parameters,
)
from pkcs11.util.rsa import decode_rsa_private_key, decode_rsa_public_key

from keys.algorithms import ALGORITHMS, SPECS, Family, KeySpec
from keys.backends import materials
from keys.backends.base import Material
from keys.backends.pkcs11 import mechanisms
from keys.errors import BackendError
from keys.secret import Secret

OWNER = "kms-console"
_USES = (
    Attribute.ENCRYPT,
    Attribute.DECRYPT,
    Attribute.SIGN,
    Attribute.VERIFY,
    Attribute.WRAP,
    Attribute.UNWRAP,
    Attribute.DERIVE,
)
_ENCRYPTION = MechanismFlag.ENCRYPT | MechanismFlag.DECRYPT
_SIGNING = MechanismFlag.SIGN | MechanismFlag.VERIFY
# What a token answers that does not let attributes change.
FIXED = (
    pkcs11.AttributeReadOnly,
    pkcs11.AttributeTypeInvalid,
    pkcs11.AttributeValueInvalid,
    pkcs11.FunctionNotSupported,
)


@dataclass(frozen=True, slots=True, repr=False)
class Found:
    """A version's objects as one session sees them. `public` is None for secrets."""

    spec: KeySpec
    key: Any
    public: Any
    public_key: bytes | None

    def everything(self) -> list[Any]:
        return [self.key] if self.public is None else [self.key, self.public]


# --- handles. The check value is part of them, so that every process can check what it finds.


def handle_of(label: uuid.UUID, check_value: str) -> str:
    return f"{label.hex}.{check_value}"


def parse_handle(handle: str) -> tuple[uuid.UUID, str] | None:
    """Return label and check value, or None for what handle_of() did not make."""
    label, dot, check_value = handle.partition(".")
    try:
        parsed = uuid.UUID(hex=label)
    except ValueError:
        return None
    return (parsed, check_value) if dot and check_value else None


# --- finding


def all_under(session: pkcs11.Session, label: uuid.UUID) -> list[Any]:
    # A list at once: the search holds the session's lock until it ends.
    return list(session.get_objects({Attribute.ID: label.bytes}))


def find(session: pkcs11.Session, label: uuid.UUID) -> Found | None:
    """Return the complete material under `label`, or None; changes nothing.

    Raises BackendError where more than one key is there: nobody could tell which is meant.
    """
    keys, publics = [], []
    for item in all_under(session, label):
        kind = item[Attribute.CLASS]
        if kind in (ObjectClass.SECRET_KEY, ObjectClass.PRIVATE_KEY):
            keys.append(item)
        elif kind is ObjectClass.PUBLIC_KEY:
            publics.append(item)
    if len(keys) > 1 or len(publics) > 1:
        raise BackendError(
            "The token holds more than one key under this id; an operator must look."
        )
    if not keys:
        return None
    key = keys[0]
    if key[Attribute.CLASS] is ObjectClass.SECRET_KEY:
        return Found(_spec_of_secret(key), key, None, None)
    if not publics:
        return None
    public_key = _subject_public_key_info(publics[0])
    return Found(_spec_of_public_key(public_key), key, publics[0], public_key)


def clear_half_made(session: pkcs11.Session, label: uuid.UUID) -> None:
    """Remove what a crash left of a pair. Raises BackendError where an object there isn't ours."""
    leftovers = all_under(session, label)
    for item in leftovers:
        if not str(item[Attribute.LABEL]).startswith(OWNER):
            raise BackendError("The token holds an object of somebody else under this id.")
    for item in leftovers:
        item.destroy()


def _spec_of_secret(key: Any) -> KeySpec:
    family = {KeyType.AES: Family.AES, KeyType.GENERIC_SECRET: Family.HMAC}.get(
        key[Attribute.KEY_TYPE]
    )
    bits = 8 * int(key[Attribute.VALUE_LEN])
    return _spec(lambda spec: spec.family is family and spec.bits == bits)


def _spec_of_public_key(public_key: bytes) -> KeySpec:
    key = materials.load_public_key(public_key)
    if isinstance(key, rsa.RSAPublicKey):
        size = key.key_size
        return _spec(lambda spec: spec.family is Family.RSA and spec.bits == size)
    curve = key.curve.name
    return _spec(lambda spec: spec.family is Family.EC and spec.curve == curve)


def _spec(fits: Any) -> KeySpec:
    for spec in SPECS.values():
        if fits(spec):
            return spec
    raise BackendError("The token holds a key of an unknown kind under this id.")


def _subject_public_key_info(public: Any) -> bytes:
    try:
        if public[Attribute.KEY_TYPE] is KeyType.RSA:
            numbers = rsa.RSAPublicNumbers(
                int.from_bytes(public[Attribute.PUBLIC_EXPONENT], "big"),
                int.from_bytes(public[Attribute.MODULUS], "big"),
            )
            return materials.public_der(numbers.public_key())
        # Not from_encoded_point: the curve's name is in the attribute, not in our hands.
        encoded = pkcs11.util.ec.encode_ec_public_key(public)
        key = serialization.load_der_public_key(encoded)
    except (ValueError, UnsupportedAlgorithm):
        raise BackendError("The token holds a public key that makes no sense.") from None
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise BackendError("The token holds a public key that makes no sense.")
    return materials.public_der(key)


# --- describing


def check_value(found: Found) -> str:
    """Return the material's check value; for a suspended secret the one that was recorded.

    A pair's is that of its public key, after the private key has shown, where it may, that it
    belongs to it. Raises BackendError where it can't be told.
    """
    if found.public_key is not None:
        if hasattr(found.key, "sign"):
            _prove_pair(found)
        return materials.check_value_of_public_key(found.public_key)
    if found.spec.family is Family.AES and hasattr(found.key, "decrypt"):
        block = found.key.decrypt(materials.CHECK_BLOCK, mechanism=pkcs11.Mechanism.AES_ECB)
        return bytes(block[: materials.CHECK_BYTES]).hex()
    if found.spec.family is Family.HMAC and hasattr(found.key, "sign"):
        tag = found.key.sign(materials.CHECK_TEXT, mechanism=mechanisms.hmac_of(found.spec))
        return bytes(tag[: materials.CHECK_BYTES]).hex()
    owner, _, recorded = str(found.key[Attribute.LABEL]).partition(" ")
    if owner != OWNER or not recorded:
        raise BackendError("The token does not let this key be checked; resume it first.")
    return recorded


def _prove_pair(found: Found) -> None:
    algorithm = ALGORITHMS[found.spec.algorithms[0]]
    if found.spec.family is Family.RSA:
        algorithm = ALGORITHMS["RSA_PKCS1_SHA_256"]
    state = hashes.Hash(materials.HASHES[algorithm.digest])
    state.update(materials.CHECK_TEXT)
    digest = state.finalize()
    data, keywords = mechanisms.signing(algorithm, digest)
    signature = signature_from_token(found.spec, bytes(found.key.sign(data, **keywords)))
    assert found.public_key is not None
    public = materials.load_public_key(found.public_key)
    if not materials.verify_signature(public, algorithm, digest, signature, prehashed=True):
        raise BackendError(
            "The token's private and public key under this id don't belong together."
        )


def signature_from_token(spec: KeySpec, signature: bytes) -> bytes:
    """Return a signature as the console gives it: ECDSA in DER, not r and s side by side."""
    if spec.family is not Family.EC:
        return signature
    half = len(signature) // 2
    return utils.encode_dss_signature(
        int.from_bytes(signature[:half], "big"), int.from_bytes(signature[half:], "big")
    )


def described(label: uuid.UUID, found: Found) -> Material:
    value = check_value(found)
    return Material(handle_of(label, value), value, found.public_key)


def record_check_value(found: Found, value: str) -> None:
    """Write the check value into the labels, where the token lets them change."""
    text = f"{OWNER} {value}"
    for item in found.everything():
        if item[Attribute.LABEL] != text:
            item[Attribute.LABEL] = text


# --- making


def _kept(label: uuid.UUID, *, private: bool) -> dict[Attribute, Any]:
    template: dict[Attribute, Any] = {
        Attribute.TOKEN: True,
        Attribute.ID: label.bytes,
        Attribute.LABEL: OWNER,
        Attribute.MODIFIABLE: True,
    }
    if private:
        template |= {
            Attribute.PRIVATE: True,
            Attribute.SENSITIVE: True,
            Attribute.EXTRACTABLE: False,
        }
    return template


def generate(session: pkcs11.Session, label: uuid.UUID, spec: KeySpec) -> None:
    """Make the objects of a new version."""
    common: dict[str, Any] = {"store": True, "id": label.bytes, "label": OWNER}
    private = _kept(label, private=True)
    if not spec.asymmetric:
        session.generate_key(
            mechanisms.KEY_TYPES[spec.family],
            spec.bits,
            capabilities=_ENCRYPTION if spec.family is Family.AES else _SIGNING,
            template=private,
            **common,
        )
        return
    common["capabilities"] = _SIGNING
    common["public_template"] = _kept(label, private=False)
    common["private_template"] = private
    if spec.family is Family.RSA:
        session.generate_keypair(KeyType.RSA, spec.bits, **common)
        return
    curve = {Attribute.EC_PARAMS: encode_named_curve_parameters(spec.curve)}
    parameters = session.create_domain_parameters(KeyType.EC, curve, local=True)
    parameters.generate_keypair(**common)


def import_secret(session: pkcs11.Session, label: uuid.UUID, spec: KeySpec, raw: bytes) -> None:
    """Make an AES or HMAC object of bytes that were already checked."""
    uses = (Attribute.ENCRYPT, Attribute.DECRYPT)
    if spec.family is Family.HMAC:
        uses = (Attribute.SIGN, Attribute.VERIFY)
    session.create_object(
        {
            Attribute.CLASS: ObjectClass.SECRET_KEY,
            Attribute.KEY_TYPE: mechanisms.KEY_TYPES[spec.family],
            Attribute.VALUE: raw,
            **_kept(label, private=True),
            **{use: use in uses for use in _USES},
        }
    )


def import_pair(session: pkcs11.Session, label: uuid.UUID, key: materials.PrivateKey) -> None:
    """Make both objects of a private key that was already checked."""
    secret = Secret(
        key.private_bytes(
            serialization.Encoding.DER,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
    )
    if isinstance(key, rsa.RSAPrivateKey):
        private = decode_rsa_private_key(secret.reveal(), _SIGNING)
        public = decode_rsa_public_key(
            key.public_key().public_bytes(
                serialization.Encoding.DER, serialization.PublicFormat.PKCS1
            ),
            _SIGNING,
        )
    else:
        private = decode_ec_private_key(secret.reveal())
        public = decode_ec_public_key(materials.public_der(key))
    session.create_object(
        private
        | _kept(label, private=True)
        | {Attribute.SIGN: True, Attribute.DECRYPT: False, Attribute.UNWRAP: False}
        | {Attribute.DERIVE: False}
    )
    session.create_object(
        public
        | _kept(label, private=False)
        | {Attribute.VERIFY: True, Attribute.ENCRYPT: False, Attribute.WRAP: False}
    )


# --- usage attributes


def set_uses(found: Found, *, protect: bool, process: bool) -> None:
    """Let the token permit or refuse protecting new data, and processing what is protected."""
    if found.spec.family is Family.AES:
        found.key[Attribute.ENCRYPT] = protect
        found.key[Attribute.DECRYPT] = process
        return
    found.key[Attribute.SIGN] = protect
    if found.public is None:
        found.key[Attribute.VERIFY] = process
    else:
        found.public[Attribute.VERIFY] = process
