"""Uses of one version. Every byte is checksummed on both ways (CRC32C)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, TypeVar

from keys.algorithms import ALGORITHMS, SPECS, Algorithm, MessageType, Usage
from keys.backends import materials
from keys.backends.gcp.checksums import crc32c
from keys.backends.gcp.forms import EXTERNAL_MU, RAW
from keys.backends.gcp.keyring import Keyring, Known, refusal
from keys.errors import BackendError, CannotDecrypt, Invalid, StateForbids, TooLarge, Unsupported
from keys.primitives import wrapping
from keys.primitives.pairs import MlDsaPublicKey

Answer = TypeVar("Answer")

SOFTWARE_LIMIT, HSM_LIMIT = 64 * 1024, 8 * 1024  # EncryptRequest: bytes
IV_BYTES, TAG_BYTES = 12, 16


class Acts:
    """What the versions of one key ring are used for."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring
        self._call = keyring.connection.call

    def known(self, handle: str, usage: Usage, algorithm: str) -> tuple[Known, Algorithm]:
        """Return a version that can do this, and the algorithm. Raises Unsupported, NoMaterial."""
        known = self._keyring.known(handle)
        if algorithm in known.form.algorithms and usage in ALGORITHMS[algorithm].usages:
            return known, ALGORITHMS[algorithm]
        raise Unsupported(
            f"This {known.form.spec} key was made at Google for {', '.join(known.form.algorithms)}; "
            f"it has no {algorithm} to {usage.label.lower()}."
        )

    # --- secret keys

    def encrypt(self, handle: str, algorithm: str, plaintext: bytes, aad: bytes) -> bytes:
        known, row = self.known(handle, Usage.ENCRYPT_DECRYPT, algorithm)
        if SPECS[known.form.spec].asymmetric:
            _check_no_label(aad)
            return wrapping.oaep_encrypt(self._serving(handle, known), row, plaintext, b"")
        _check_size(known, plaintext, aad)
        request = {
            "name": handle,
            "plaintext": plaintext,
            "plaintext_crc32c": crc32c(plaintext),
            "additional_authenticated_data": aad,
            "additional_authenticated_data_crc32c": crc32c(aad),
        }
        raw = known.form.purpose == RAW
        answer = self._used(handle, "raw_encrypt" if raw else "encrypt", request)
        arrived = (
            answer.verified_plaintext_crc32c
            and answer.verified_additional_authenticated_data_crc32c
        )
        _check(arrived and answer.name == handle)
        sealed = _whole(answer.ciphertext, answer.ciphertext_crc32c.value)
        if not raw:
            return sealed
        iv = _whole(answer.initialization_vector, answer.initialization_vector_crc32c.value)
        _check(len(iv) == IV_BYTES and answer.tag_length == TAG_BYTES)
        return iv + sealed

    def decrypt(self, handle: str, algorithm: str, ciphertext: bytes, aad: bytes) -> bytes:
        known, _ = self.known(handle, Usage.ENCRYPT_DECRYPT, algorithm)
        if SPECS[known.form.spec].asymmetric:
            _check_no_label(aad)
            return self._asymmetric_decrypt(handle, known, ciphertext)
        request: dict[str, Any] = {
            "additional_authenticated_data": aad,
            "additional_authenticated_data_crc32c": crc32c(aad),
        }
        if known.form.purpose == RAW:
            if len(ciphertext) < IV_BYTES + TAG_BYTES:
                raise CannotDecrypt
            iv, sealed = ciphertext[:IV_BYTES], ciphertext[IV_BYTES:]
            request |= {"name": handle, "tag_length": TAG_BYTES, "ciphertext": sealed}
            request |= {"initialization_vector": iv, "initialization_vector_crc32c": crc32c(iv)}
            method = "raw_decrypt"
        else:
            # Google finds the version by itself, and takes no name of one here.
            request |= {"name": known.key, "ciphertext": ciphertext}
            method = "decrypt"
        request["ciphertext_crc32c"] = crc32c(request["ciphertext"])
        if not request["ciphertext"]:
            raise CannotDecrypt
        answer = self._opened(handle, method, request)
        return _whole(answer.plaintext, answer.plaintext_crc32c.value)

    def mac(self, handle: str, algorithm: str, message: bytes) -> bytes:
        known, row = self.known(handle, Usage.GENERATE_VERIFY_MAC, algorithm)
        _check_size(known, message)
        answer = self._used(
            handle, "mac_sign", {"name": handle, "data": message, "data_crc32c": crc32c(message)}
        )
        _check(answer.verified_data_crc32c and answer.name == handle)
        tag = _whole(answer.mac, answer.mac_crc32c.value)
        _check(len(tag) == materials.HASHES[row.digest].digest_size)
        return tag

    def verify_mac(self, handle: str, algorithm: str, message: bytes, tag: bytes) -> bool:
        known, row = self.known(handle, Usage.GENERATE_VERIFY_MAC, algorithm)
        _check_size(known, message)
        if len(tag) != materials.HASHES[row.digest].digest_size:
            return False
        request = {"name": handle, "data": message, "data_crc32c": crc32c(message)}
        request |= {"mac": tag, "mac_crc32c": crc32c(tag)}
        answer = self._used(handle, "mac_verify", request)
        arrived = answer.verified_data_crc32c and answer.verified_mac_crc32c
        _check(arrived and answer.name == handle)
        _check(answer.verified_success_integrity == answer.success)
        return bool(answer.success)

    # --- pairs

    def sign(self, handle: str, algorithm: str, message: bytes, message_type: MessageType) -> bytes:
        known, row = self.known(handle, Usage.SIGN_VERIFY, algorithm)
        materials.check_message(row, message, message_type)
        field, data = self._to_sign(handle, known, row, message, message_type)
        if field:
            request: dict[str, Any] = {"digest": {field: data}, "digest_crc32c": crc32c(data)}
        else:
            _check_size(known, data)
            request = {"data": data, "data_crc32c": crc32c(data)}
        answer = self._used(handle, "asymmetric_sign", {"name": handle, **request})
        arrived = answer.verified_digest_crc32c if field else answer.verified_data_crc32c
        _check(arrived and answer.name == handle)
        return _whole(answer.signature, answer.signature_crc32c.value)

    def _to_sign(
        self, handle: str, known: Known, row: Algorithm, message: bytes, message_type: MessageType
    ) -> tuple[str, bytes]:
        """Return the field of google.cloud.kms.v1.Digest and its bytes; no field: the message itself."""
        if row.digest:
            if message_type is MessageType.DIGEST:
                return row.digest, message
            return row.digest, hashlib.new(row.digest, message).digest()
        if known.form.google.endswith(EXTERNAL_MU):
            if message_type is MessageType.EXTERNAL_MU:
                return "external_mu", message
            public = self._keyring.public_key(handle, known.form)[0]
            return "external_mu", mu_of(public, message)
        if message_type is MessageType.EXTERNAL_MU:
            raise Unsupported("This key was made at Google for whole messages only, not for mu.")
        return "", message

    def verify(
        self,
        handle: str,
        algorithm: str,
        message: bytes,
        signature: bytes,
        message_type: MessageType,
    ) -> bool:
        """Verified here, from the public key."""
        known, row = self.known(handle, Usage.SIGN_VERIFY, algorithm)
        public = self._keyring.public_key(handle, known.form)[0]
        return materials.verify_signature(public, row, message, signature, message_type)

    def wrap(self, handle: str, algorithm: str, target: bytes) -> bytes:
        known, row = self.known(handle, Usage.WRAP_UNWRAP, algorithm)
        return wrapping.wrap(self._serving(handle, known), row, target)

    def _serving(self, handle: str, known: Known) -> Any:
        """Return the public key to protect something with here, where Google would serve it, too."""
        self._keyring.check_enabled(handle)
        return self._keyring.public_key(handle, known.form)[0]

    def unwrap(self, handle: str, algorithm: str, wrapped: bytes) -> bytes:
        known, row = self.known(handle, Usage.WRAP_UNWRAP, algorithm)
        if row.name != "RSA_AES_KEY_WRAP_SHA_256":
            return self._asymmetric_decrypt(handle, known, wrapped)
        size = SPECS[known.form.spec].bits // 8
        passing = self._asymmetric_decrypt(handle, known, wrapped[:size])
        if len(passing) != wrapping.WRAPPING_KEY_BYTES:
            raise CannotDecrypt
        return wrapping.aes_unwrap(passing, wrapped[size:])

    def _asymmetric_decrypt(self, handle: str, known: Known, ciphertext: bytes) -> bytes:
        if len(ciphertext) * 8 != SPECS[known.form.spec].bits:
            raise CannotDecrypt
        request = {
            "name": handle,
            "ciphertext": ciphertext,
            "ciphertext_crc32c": crc32c(ciphertext),
        }
        answer = self._opened(handle, "asymmetric_decrypt", request)
        _check(answer.verified_ciphertext_crc32c)
        return _whole(answer.plaintext, answer.plaintext_crc32c.value)

    def decapsulate(self, handle: str, algorithm: str, ciphertext: bytes) -> bytes:
        known, _ = self.known(handle, Usage.KEY_ENCAPSULATION, algorithm)
        if len(ciphertext) != _CIPHERTEXT_BYTES[known.form.spec]:
            raise CannotDecrypt
        request = {
            "name": handle,
            "ciphertext": ciphertext,
            "ciphertext_crc32c": crc32c(ciphertext),
        }
        answer = self._opened(handle, "decapsulate", request)
        _check(answer.verified_ciphertext_crc32c and answer.name == handle)
        return _whole(answer.shared_secret, answer.shared_secret_crc32c)

    def random(self, count: int) -> bytes:
        """Google gives 8 to 1,024 bytes, from its hardware only."""
        request = {
            "location": self._keyring.configuration.location,
            "length_bytes": max(count, 8),
            "protection_level": "HSM",
        }
        answer = self._call("generate_random_bytes", request)
        data = _whole(answer.data, answer.data_crc32c.value)
        _check(len(data) == max(count, 8))
        return data[:count]

    # --- calls

    def _used(self, handle: str, method: str, request: dict[str, Any]) -> Any:
        """Call, and say what a refusal for the version's state means."""
        return self._asked(handle, lambda: self._call(method, request))

    def _opened(self, handle: str, method: str, request: dict[str, Any]) -> Any:
        """Call what opens a ciphertext: an argument that Google refuses is a bad ciphertext."""
        try:
            return self._used(handle, method, request)
        except Invalid:
            raise CannotDecrypt from None

    def _asked(self, handle: str, call: Callable[[], Answer]) -> Answer:
        try:
            return call()
        except StateForbids:
            state = self._keyring.state_now(handle)
        if state == "ENABLED":
            # Not this version's state then: the ciphertext is of another one, which may not be used.
            raise StateForbids("Google refuses the key version that this was protected with.")
        raise refusal(state)


_CIPHERTEXT_BYTES = {"ML_KEM_768": 1088, "ML_KEM_1024": 1568, "X_WING": 1120}


def mu_of(public: Any, message: bytes) -> bytes:
    """Return ML-DSA's mu for an empty context (FIPS 204, algorithm 2 and algorithm 7, line 6)."""
    if not isinstance(public, MlDsaPublicKey):
        raise Unsupported("Only ML-DSA has a mu.")
    tr = hashlib.shake_256(public.public_bytes_raw()).digest(64)
    return hashlib.shake_256(tr + b"\x00\x00" + message).digest(64)


def _whole(data: bytes, checksum: int) -> bytes:
    """Return data that arrived as it was sent. Raises BackendError."""
    _check(checksum == crc32c(data))
    return data


def _check(held: bool) -> None:
    if not held:
        raise BackendError("What was sent to or came from Google Cloud KMS did not arrive whole.")


def _check_no_label(aad: bytes) -> None:
    if aad:
        raise Unsupported("Google Cloud KMS binds no label to RSA-OAEP; leave the context empty.")


def _check_size(known: Known, data: bytes, aad: bytes = b"") -> None:
    if known.level == "SOFTWARE":
        if max(len(data), len(aad)) > SOFTWARE_LIMIT:
            raise TooLarge(f"Google Cloud KMS takes at most {SOFTWARE_LIMIT} bytes.")
    elif len(data) + len(aad) > HSM_LIMIT:
        raise TooLarge(
            f"Hardware keys of Google Cloud KMS take at most {HSM_LIMIT} bytes, context included."
        )
