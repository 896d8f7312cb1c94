"""Whether what was found is what the console knows: fingerprints of material.

A fingerprint is the check value (keys.backends.materials). A secret that wraps can't be checked in
that way, since it must never decrypt; so its check value is taken when it is made, and its
fingerprint goes on with a proof: what it wraps a known text to.
"""

from __future__ import annotations

import uuid

from cryptography.hazmat.primitives import hashes
from pkcs11 import Attribute

from keys.algorithms import ALGORITHMS, Algorithm, Family, Usage
from keys.backends import materials
from keys.backends.base import NoMaterial
from keys.backends.pkcs11 import forms, mechanisms, purposes
from keys.backends.pkcs11.abilities import oaep_seal
from keys.backends.pkcs11.objects import Found, check_value_of_aes, parse_handle
from keys.backends.pkcs11.passing import agreed, unwrapped, wrapped
from keys.errors import BackendError

_PROVEN_TEXT = materials.CHECK_TEXT[:16]


def check_value_of(fingerprint: str) -> str:
    return fingerprint.partition(".")[0]


def fingerprint(found: Found) -> str:
    """Return the material's fingerprint; of a suspended secret the one that was recorded.

    A pair's is that of its public key, after the private key has shown, where it may, that it
    belongs to it. Raises BackendError where it can't be told.
    """
    if found.public_key is not None:
        if not _belongs(found):
            raise BackendError(
                "The token's private and public key under this id don't belong together."
            )
        return materials.check_value_of_public_key(found.public_key)
    if found.usage is Usage.ENCRYPT_DECRYPT and hasattr(found.key, "decrypt"):
        return check_value_of_aes(found.key)
    if found.usage is Usage.GENERATE_VERIFY_MAC and hasattr(found.key, "sign"):
        mechanism = mechanisms.HMACS[f"sha{found.spec.bits}"]
        tag = found.key.sign(materials.CHECK_TEXT, mechanism=mechanism)
        return bytes(tag[: materials.CHECK_BYTES]).hex()
    _, recorded = purposes.recorded(str(found.key[Attribute.LABEL]))
    if not recorded:
        raise BackendError("The token does not let this key be checked; resume it first.")
    if found.usage is Usage.WRAP_UNWRAP and hasattr(found.key, "wrap_key"):
        return f"{check_value_of(recorded)}.{_proof(found)}"
    return recorded


def _proof(found: Found) -> str:
    if found.abilities.kwp is None:
        raise BackendError(
            "The token has no AES-KWP any more, with which this key was made to work."
        )
    proof = wrapped(found.key, found.abilities.kwp, _PROVEN_TEXT)
    return proof[: materials.CHECK_BYTES].hex()


def _belongs(found: Found) -> bool:
    """Whether the private key does what its public key says; True where it may do nothing now."""
    assert found.public_key is not None
    if found.usage is Usage.SIGN_VERIFY and hasattr(found.key, "sign"):
        return _signs(found, found.public_key)
    if found.usage is Usage.KEY_AGREEMENT and hasattr(found.key, "derive_key"):
        other, peer = materials.new_pair(found.spec)
        ours = agreed(found.key, found.point(peer), forms.field_bytes(found.spec.curve))
        return ours == materials.agreed(found.spec, other, found.public_key)
    if not found.abilities.oaep:
        return True
    digest, text = found.abilities.oaep[0], materials.CHECK_TEXT
    how = mechanisms.oaep(digest)
    if found.usage is Usage.ENCRYPT_DECRYPT and hasattr(found.key, "decrypt"):
        sealed = oaep_seal(found.public_key, digest, text, b"")
        return bytes(found.key.decrypt(sealed, **how)) == text
    if found.usage is Usage.WRAP_UNWRAP and hasattr(found.key, "unwrap_key"):
        sealed = oaep_seal(found.public_key, digest, text, b"")
        return unwrapped(found.key, sealed, **how) == text
    return True


def _signs(found: Found, public_key: bytes) -> bool:
    name = found.spec.algorithms[0]
    algorithm = ALGORITHMS["RSASSA_PKCS1_V1_5_SHA_256" if found.spec.family is Family.RSA else name]
    data, keywords = mechanisms.signing(algorithm, digested(algorithm, materials.CHECK_TEXT))
    signature = forms.signature_from_token(found.spec, bytes(found.key.sign(data, **keywords)))
    public = materials.load_public_key(public_key, found.spec)
    return materials.verify_signature(public, algorithm, materials.CHECK_TEXT, signature)


def digested(algorithm: Algorithm, message: bytes) -> bytes:
    """Return the message's digest; the message itself for schemes whose hash is part of them."""
    if not algorithm.digest:
        return message
    state = hashes.Hash(materials.HASHES[algorithm.digest])
    state.update(message)
    return state.finalize()


def check(found: Found, handle: str) -> None:
    """Raise BackendError where what was found isn't the material that the handle was made for."""
    if fingerprint(found) != parsed(handle)[1]:
        raise BackendError("The token holds other material under this id than the console knows.")


def parsed(handle: str) -> tuple[uuid.UUID, str]:
    """Return label and fingerprint. Raises NoMaterial for what is no handle of ours."""
    found = parse_handle(handle)
    if found is None:
        raise NoMaterial
    return found
