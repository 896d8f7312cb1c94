"""Bringing material of one's own (BYOK), and removing it (GetParametersForImport, ImportKeyMaterial,
DeleteImportedKeyMaterial).

Each import is a key of its own at AWS, of origin EXTERNAL, which takes no other material ever after.
"""

from __future__ import annotations

import os

from cryptography.hazmat.primitives import hashes, keywrap
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from keys.algorithms import SPECS, Family
from keys.backends import materials
from keys.backends.aws.connection import member
from keys.backends.aws.keyring import Keyring, Metadata, handle_of
from keys.backends.aws.making import Maker, Wanted, same_check
from keys.backends.base import Material
from keys.errors import BackendError, Conflict, Invalid

_OAEP = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)


def imported(keyring: Keyring, maker: Maker, wanted: Wanted, raw: bytes) -> Material:
    """Take material that has been checked: the bytes of a secret, PKCS#8 DER of a pair."""
    key = maker.own_key(wanted.label)
    if key is None:
        key = maker.created(wanted, "EXTERNAL")
    if not key.imported:
        raise Conflict("There is other material under this label already.")
    maker.check_same(key, wanted)
    if key.state == "PendingImport":
        _bring(keyring, key, wanted, raw)
    material = maker.described(key)
    same_check(material, wanted.check)
    if wanted.spec.family is Family.HMAC:
        _check_mac(keyring, key, wanted)
    return material


def _bring(keyring: Keyring, key: Metadata, wanted: Wanted, raw: bytes) -> None:
    # An RSA key is too long for OAEP itself.
    algorithm = "RSA_AES_KEY_WRAP_SHA_256" if wanted.spec.asymmetric else "RSAES_OAEP_SHA_256"
    given = keyring.connection.kms(
        "get_parameters_for_import",
        KeyId=key.arn,
        WrappingAlgorithm=algorithm,
        WrappingKeySpec="RSA_4096",
    )
    wrapping = _wrapping_key(member(given, "PublicKey", bytes))
    if wanted.spec.asymmetric:
        fresh = os.urandom(32)
        wrapped = wrapping.encrypt(fresh, _OAEP) + keywrap.aes_key_wrap_with_padding(fresh, raw)
    else:
        wrapped = wrapping.encrypt(raw, _OAEP)
    keyring.connection.kms(
        "import_key_material",
        KeyId=key.arn,
        ImportToken=member(given, "ImportToken", bytes),
        EncryptedKeyMaterial=wrapped,
        # Its end is the console's to watch (RemoveMaterial), not AWS's.
        ExpirationModel="KEY_MATERIAL_DOES_NOT_EXPIRE",
    )


def _wrapping_key(written: bytes) -> rsa.RSAPublicKey:
    try:
        found = materials.load_public_key(written)
    except Invalid:
        found = None
    if not isinstance(found, rsa.RSAPublicKey) or found.key_size != 4096:
        raise BackendError("AWS KMS gave no RSA-4096 key to wrap the material under.")
    return found


def _check_mac(keyring: Keyring, key: Metadata, wanted: Wanted) -> None:
    """An HMAC key can show that it is the one: its check value is a MAC."""
    answer = keyring.connection.kms(
        "generate_mac",
        KeyId=key.arn,
        MacAlgorithm=SPECS[wanted.spec.name].algorithms[0],
        Message=materials.CHECK_TEXT,
    )
    mac = bytes(member(answer, "Mac", bytes))
    same_check(Material(handle_of(key.arn, 0), mac[: materials.CHECK_BYTES].hex()), wanted.check)


def removed(keyring: Keyring, key: Metadata) -> None:
    """Remove imported material at once; the key stays, waiting for the same material."""
    if key.state == "PendingImport":
        return
    keyring.connection.kms("delete_imported_key_material", KeyId=key.arn)
    keyring.forget(key.arn)
