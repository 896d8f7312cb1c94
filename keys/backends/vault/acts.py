"""Using one version of a transit key. Ciphertexts, MACs and signatures leave without transit's prefix.

`vault:v<version>:` says nothing that the handle doesn't, and the envelope around them is ours.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from keys.algorithms import ALGORITHMS, Algorithm, Family, KeySpec, MessageType, Usage
from keys.backends import materials
from keys.backends.base import NoMaterial
from keys.backends.vault import failures, names, offers
from keys.backends.vault.engine import Engine
from keys.backends.vault.records import TransitKey, decoded, encoded, truth, whole
from keys.errors import (
    BackendError,
    CannotDecrypt,
    Invalid,
    StateForbids,
    TooLarge,
    Unsupported,
)
from keys.primitives import wrapping

# Nonce and tag in bytes: what a ciphertext has at least.
OVERHEAD = {
    "AES_256_GCM": 12 + 16,
    "AES_128_GCM": 12 + 16,
    "XCHACHA20_POLY1305": 24 + 16,
}
OAEP_DIGEST = 32  # SHA-256
ED25519_SIGNATURE = 64
# Encrypting with a key that isn't there would make one, of this type. So it is no type.
NO_NEW_KEY = "kms-console-makes-no-key-here"


class Acts:
    """Uses at one mount."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def encrypt(self, handle: str, algorithm: str, plaintext: bytes, aad: bytes) -> bytes:
        name, version, spec, _ = self._for(handle, algorithm, Usage.ENCRYPT_DECRYPT)
        _check_context(spec, aad)
        return self._seal(name, version, spec, plaintext, aad)

    def decrypt(self, handle: str, algorithm: str, ciphertext: bytes, aad: bytes) -> bytes:
        name, version, spec, row = self._for(handle, algorithm, Usage.ENCRYPT_DECRYPT)
        _check_context(spec, aad)
        if not spec.asymmetric and len(ciphertext) < OVERHEAD[row.name]:
            raise CannotDecrypt
        return self._open(name, version, spec, ciphertext, aad)

    def wrap(self, handle: str, algorithm: str, target: bytes) -> bytes:
        name, version, spec, row = self._for(handle, algorithm, Usage.WRAP_UNWRAP)
        if not target:
            raise Invalid("There is no key in zero bytes.")
        if row.name != "RSA_AES_KEY_WRAP_SHA_256":
            return self._seal(name, version, spec, target, b"")
        passing = os.urandom(wrapping.WRAPPING_KEY_BYTES)
        return self._seal(name, version, spec, passing, b"") + wrapping.aes_wrap(passing, target)

    def unwrap(self, handle: str, algorithm: str, wrapped: bytes) -> bytes:
        name, version, spec, row = self._for(handle, algorithm, Usage.WRAP_UNWRAP)
        if row.name != "RSA_AES_KEY_WRAP_SHA_256":
            return self._open(name, version, spec, wrapped, b"")
        size = spec.bits // 8
        passing = self._open(name, version, spec, wrapped[:size], b"")
        if len(passing) != wrapping.WRAPPING_KEY_BYTES:
            raise CannotDecrypt
        return wrapping.aes_unwrap(passing, wrapped[size:])

    def sign(self, handle: str, algorithm: str, message: bytes, message_type: MessageType) -> bytes:
        name, version, spec, row = self._for(handle, algorithm, Usage.SIGN_VERIFY)
        materials.check_message(row, message, message_type)
        body: dict[str, object] = {"key_version": version, "marshaling_algorithm": "asn1"}
        if row.digest:
            # Hashed here: transit gets no more of the message than it needs.
            hashed = message_type is MessageType.DIGEST
            message = message if hashed else hashlib.new(row.digest, message).digest()
            body |= {"prehashed": True, "hash_algorithm": _hash_name(row)}
        if spec.family is Family.RSA:
            pss = row.name.startswith("RSASSA_PSS")
            body["signature_algorithm"] = "pss" if pss else "pkcs1v15"
            body["salt_length"] = "hash"  # FIPS 186-5, 5.4; left out it is as long as can be
        data = self._do(name, f"sign/{name}", body | {"input": encoded(message)})
        signature = decoded(data, "signature", _prefix(version))
        if not _could_be_signature(spec, signature):
            raise BackendError("The store's answer makes no sense: signature is of a wrong form.")
        return signature

    def verify(
        self,
        handle: str,
        algorithm: str,
        message: bytes,
        signature: bytes,
        message_type: MessageType,
    ) -> bool:
        name, version, spec, row = self._for(handle, algorithm, Usage.SIGN_VERIFY)
        public = self._engine.known(name, version).public.get(version)
        if public is None:
            public = self._engine.there(name).public.get(version)
        if public is None:
            raise StateForbids("The version is below the key's minimum at the store.")
        key = materials.load_public_key(public, spec)
        return materials.verify_signature(key, row, message, signature, message_type)

    def mac(self, handle: str, algorithm: str, message: bytes) -> bytes:
        name, version, _, row = self._for(handle, algorithm, Usage.GENERATE_VERIFY_MAC)
        body = {"input": encoded(message), "algorithm": _hash_name(row), "key_version": version}
        tag = decoded(self._do(name, f"hmac/{name}", body), "hmac", _prefix(version))
        if len(tag) != materials.HASHES[row.digest].digest_size:
            raise BackendError("The store's answer makes no sense: hmac is of a wrong length.")
        return tag

    def verify_mac(self, handle: str, algorithm: str, message: bytes, tag: bytes) -> bool:
        name, version, _, row = self._for(handle, algorithm, Usage.GENERATE_VERIFY_MAC)
        if len(tag) != materials.HASHES[row.digest].digest_size:
            return False
        # Compared there: a deactivated version makes no MACs any more.
        body = {
            "input": encoded(message),
            "algorithm": _hash_name(row),
            "hmac": _prefix(version) + encoded(tag),
        }
        return truth(self._do(name, f"verify/{name}", body), "valid")

    # --- steps

    def _for(
        self, handle: str, algorithm: str, usage: Usage
    ) -> tuple[str, int, KeySpec, Algorithm]:
        """Return name, version, spec and algorithm. Raises NoMaterial, Unsupported."""
        name, version = names.parsed(handle)
        key = self._engine.known(name, version)
        spec = usable(key)
        return name, version, spec, offers.algorithm(spec, algorithm, usage)

    def _do(self, name: str, path: str, body: Mapping[str, object]) -> Mapping[str, Any]:
        try:
            return self._engine.do("POST", path, body)
        except NoMaterial:
            self._engine.forget(name)
            raise

    def _seal(self, name: str, version: int, spec: KeySpec, plaintext: bytes, aad: bytes) -> bytes:
        if spec.asymmetric:
            most = spec.bits // 8 - 2 * OAEP_DIGEST - 2
            if len(plaintext) > most:
                raise TooLarge(f"RSA-OAEP with RSA-{spec.bits} takes at most {most} bytes.")
        body: dict[str, object] = {
            "plaintext": encoded(plaintext),
            "key_version": version,
            "type": NO_NEW_KEY,
        }
        if aad:
            body["associated_data"] = encoded(aad)
        try:
            data = self._do(name, f"encrypt/{name}", body)
        except Unsupported:
            # It was about to make a key: so there is none.
            self._engine.forget(name)
            raise NoMaterial("There is no such key at the store.") from None
        sealed = decoded(data, "ciphertext", _prefix(version))
        if whole(data, "key_version", version) != version:
            raise BackendError("The store encrypted with another version than was asked for.")
        overhead = 0 if spec.asymmetric else OVERHEAD[offers.EVERY[spec.name][0]]
        if len(sealed) != (spec.bits // 8 if spec.asymmetric else overhead + len(plaintext)):
            raise BackendError(
                "The store's answer makes no sense: ciphertext is of a wrong length."
            )
        return sealed

    def _open(self, name: str, version: int, spec: KeySpec, ciphertext: bytes, aad: bytes) -> bytes:
        if spec.asymmetric and len(ciphertext) != spec.bits // 8:
            raise CannotDecrypt
        body: dict[str, object] = {"ciphertext": _prefix(version) + encoded(ciphertext)}
        if aad:
            body["associated_data"] = encoded(aad)
        answer = self._engine.ask("POST", f"{self._engine.mount}/decrypt/{name}", body)
        if answer.ok:
            return decoded(answer.data, "plaintext")
        failure = answer.failure()
        if isinstance(failure, NoMaterial):
            self._engine.forget(name)
        # A wrong tag is 400, and wrong padding of RSA 500 as if the server were at fault.
        plain = type(failure) is BackendError and answer.status == 400
        if plain or failures.says(answer.errors, "failed to rsa decrypt"):
            raise CannotDecrypt
        raise failure


def usable(key: TransitKey) -> KeySpec:
    """Return the key's spec. Raises Unsupported for a key of a kind that the console doesn't use."""
    if key.spec is None or key.derived:
        raise Unsupported(f"The console does not use such keys: {key.kind}.")
    return key.spec


def _could_be_signature(spec: KeySpec, signature: bytes) -> bool:
    """Whether it has the form of one. That it is one anybody can see from the public key."""
    if spec.family is Family.RSA:
        return len(signature) == spec.bits // 8
    if spec.family is Family.EDWARDS:
        return len(signature) == ED25519_SIGNATURE
    try:
        decode_dss_signature(signature)
    except ValueError:
        return False
    return True


def _check_context(spec: KeySpec, aad: bytes) -> None:
    if spec.asymmetric and aad:
        raise Unsupported("Transit binds no label to RSA-OAEP: encrypt without a context.")


def _hash_name(row: Algorithm) -> str:
    return f"sha2-{ALGORITHMS[row.name].digest.removeprefix('sha')}"


def _prefix(version: int) -> str:
    return f"vault:v{version}:"
