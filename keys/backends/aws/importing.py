"""Bringing material of one's own (BYOK), and removing it (GetParametersForImport, ImportKeyMaterial,
DeleteImportedKeyMaterial).

Each import is a key of its own at AWS, of origin EXTERNAL. The console brings no second material
there; somebody at AWS can, to a secret, and rotate to it.
"""

from __future__ import annotations

import os

from cryptography.hazmat.primitives import hashes, keywrap
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from keys.algorithms import SPECS, Family
from keys.backends import materials
from keys.backends.aws.connection import member
from keys.backends.aws.keyring import EMPTY_TAG, Keyring, Metadata, handle_of
from keys.backends.aws.making import Maker, Wanted, same_check, shown_late
from keys.backends.base import Material
from keys.errors import BackendError, BackendUnavailable, Conflict, Invalid

_OAEP = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)


def imported(keyring: Keyring, maker: Maker, wanted: Wanted, raw: bytes) -> Material:
    """Take material that has been checked: the bytes of a secret, PKCS#8 DER of a pair."""
    key = maker.own_key(wanted.label)
    with shown_late():
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
    # Before: a tag that says there is no material must never stand beside material.
    not_empty(keyring, key)
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


def not_empty(keyring: Keyring, key: Metadata) -> None:
    """Take away the tag that says that a key's material was removed for good."""
    if EMPTY_TAG in keyring.tags(key.arn):
        keyring.connection.kms("untag_resource", KeyId=key.arn, TagKeys=[EMPTY_TAG])


def emptied(keyring: Keyring, key: Metadata) -> None:
    """Remove all imported material of a key at once, also what is not rotated to yet."""
    held = keyring.imports(key)
    if held is None:
        _delete_only(keyring, key)
        return
    # It waits for import as soon as the first is gone: its state doesn't say that all are.
    for material, there in held:
        if there:
            _delete(keyring, key, material)


def removed(keyring: Keyring, key: Metadata, number: int) -> None:
    """Remove one imported material at once; the key stays, waiting for the same material.

    Without its id AWS would remove the newest, which can be another one's.
    """
    held = keyring.imports(key)
    if held is None and number == 0:
        _delete_only(keyring, key)
    elif held is None or number >= len(held):
        raise BackendUnavailable("AWS KMS does not list the version's material.")
    elif held[number][1]:
        _delete(keyring, key, held[number][0])


def _delete_only(keyring: Keyring, key: Metadata) -> None:
    if key.state != "PendingImport":
        _delete(keyring, key)


def _delete(keyring: Keyring, key: Metadata, material: str = "") -> None:
    which = {"KeyMaterialId": material} if material else {}
    keyring.connection.kms("delete_imported_key_material", KeyId=key.arn, **which)
    keyring.forget(key.arn)
