"""The calls that use a key."""

from __future__ import annotations

import hmac
import os
from typing import Any

from google.cloud import kms_v1

from tests.peers.google_server import keymaterial
from tests.peers.google_server.answers import check, crc32c, invalid, precondition
from tests.peers.google_server.shown import LEVELS, named
from tests.peers.google_server.state import Key, State, Version

LIMITS = {"SOFTWARE": 65536, "HSM": 8192}
FORMAT = b"\x0a\x24"
HEADER_BYTES = len(FORMAT) + 4
AAD = "additional_authenticated_data"


class Using:
    """One method for each call, named as in google.cloud.kms.v1.KeyManagementService."""

    def __init__(self, state: State) -> None:
        self.state = state

    # --- secret keys

    def Encrypt(self, request: Any) -> Any:
        name = request.name
        if "/cryptoKeyVersions/" not in name:
            key = self.state.key(name)
            State.check_purpose(key, "ENCRYPT_DECRYPT")
            if not key.primary:
                raise precondition(f"{name} has no primary version.")
            name = key.versions[key.primary - 1].name
        key, version = self.state.usable(name, "ENCRYPT_DECRYPT")
        arrived, aad_arrived = _arrived(request, "plaintext"), _arrived(request, AAD)
        _check_size(version, request.plaintext, request.additional_authenticated_data)
        header = FORMAT + version.number.to_bytes(4, "big")
        aad = request.additional_authenticated_data
        sealed = keymaterial.sealed(version.material, header, request.plaintext, aad)
        return kms_v1.EncryptResponse.pb()(
            name=version.name,
            ciphertext=sealed,
            ciphertext_crc32c={"value": crc32c(sealed)},
            verified_plaintext_crc32c=arrived,
            verified_additional_authenticated_data_crc32c=aad_arrived,
            protection_level=LEVELS[version.level].value,
        )

    def Decrypt(self, request: Any) -> Any:
        key = self.state.key(request.name)
        State.check_purpose(key, "ENCRYPT_DECRYPT")
        _arrived(request, "ciphertext"), _arrived(request, AAD)
        header = request.ciphertext[:HEADER_BYTES]
        number = int.from_bytes(header[len(FORMAT) :], "big")
        known = 1 <= number <= len(key.versions) and header.startswith(FORMAT)
        if len(header) < HEADER_BYTES or not known:
            raise invalid("Decryption failed: the ciphertext is invalid.")
        _, version = self.state.usable(key.versions[number - 1].name, "ENCRYPT_DECRYPT")
        aad = request.additional_authenticated_data
        plaintext = keymaterial.opened(version.material, header, request.ciphertext, aad)
        return kms_v1.DecryptResponse.pb()(
            plaintext=plaintext,
            plaintext_crc32c={"value": crc32c(plaintext)},
            used_primary=number == key.primary,
            protection_level=LEVELS[version.level].value,
        )

    def RawEncrypt(self, request: Any) -> Any:
        _, version = self._gcm(request.name)
        if request.initialization_vector:
            raise invalid("The initialization vector of AES-GCM is made here.")
        arrived, aad_arrived = _arrived(request, "plaintext"), _arrived(request, AAD)
        aad = request.additional_authenticated_data
        _check_size(version, request.plaintext, aad)
        whole = keymaterial.sealed(version.material, b"", request.plaintext, aad)
        iv, sealed = whole[:12], whole[12:]
        return kms_v1.RawEncryptResponse.pb()(
            name=version.name,
            ciphertext=sealed,
            ciphertext_crc32c={"value": crc32c(sealed)},
            initialization_vector=iv,
            initialization_vector_crc32c={"value": crc32c(iv)},
            tag_length=16,
            verified_plaintext_crc32c=arrived,
            verified_additional_authenticated_data_crc32c=aad_arrived,
            protection_level=LEVELS[version.level].value,
        )

    def RawDecrypt(self, request: Any) -> Any:
        _, version = self._gcm(request.name)
        held = [_arrived(request, name) for name in ("ciphertext", AAD, "initialization_vector")]
        if request.tag_length not in (0, 16) or len(request.initialization_vector) != 12:
            raise invalid("The tag length or the initialization vector is not valid.")
        whole = request.initialization_vector + request.ciphertext
        aad = request.additional_authenticated_data
        plaintext = keymaterial.opened(version.material, b"", whole, aad)
        return kms_v1.RawDecryptResponse.pb()(
            plaintext=plaintext,
            plaintext_crc32c={"value": crc32c(plaintext)},
            verified_ciphertext_crc32c=held[0],
            verified_additional_authenticated_data_crc32c=held[1],
            verified_initialization_vector_crc32c=held[2],
            protection_level=LEVELS[version.level].value,
        )

    def _gcm(self, name: str) -> tuple[Key, Version]:
        return self.state.usable(name, "RAW_ENCRYPT_DECRYPT")

    def MacSign(self, request: Any) -> Any:
        _, version = self.state.usable(request.name, "MAC")
        arrived = _arrived(request, "data")
        _check_size(version, request.data)
        tag = keymaterial.mac(version.algorithm, version.material, request.data)
        return kms_v1.MacSignResponse.pb()(
            name=version.name,
            mac=tag,
            mac_crc32c={"value": crc32c(tag)},
            verified_data_crc32c=arrived,
            protection_level=LEVELS[version.level].value,
        )

    def MacVerify(self, request: Any) -> Any:
        _, version = self.state.usable(request.name, "MAC")
        arrived, mac_arrived = _arrived(request, "data"), _arrived(request, "mac")
        _check_size(version, request.data)
        tag = keymaterial.mac(version.algorithm, version.material, request.data)
        if len(request.mac) != len(tag):
            raise invalid("The length of the MAC is not valid.")
        success = hmac.compare_digest(tag, request.mac)
        return kms_v1.MacVerifyResponse.pb()(
            name=version.name,
            success=success,
            verified_data_crc32c=arrived,
            verified_mac_crc32c=mac_arrived,
            verified_success_integrity=success,
            protection_level=LEVELS[version.level].value,
        )

    # --- pairs

    def AsymmetricSign(self, request: Any) -> Any:
        _, version = self.state.usable(request.name, "ASYMMETRIC_SIGN")
        digests = {
            field.name: value
            for field, value in request.digest.ListFields()
            if field.name != "name"
        }
        whole = next(iter(digests.values()), b"")
        arrived = check(request, "digest_crc32c", whole)
        data_arrived = _arrived(request, "data")
        if digests and request.data:
            raise invalid("A digest and data can't both be signed.")
        data = None if digests else request.data
        signature = keymaterial.signed(version.algorithm, version.material, digests, data)
        return kms_v1.AsymmetricSignResponse.pb()(
            name=version.name,
            signature=signature,
            signature_crc32c={"value": crc32c(signature)},
            verified_digest_crc32c=arrived,
            verified_data_crc32c=data_arrived,
            protection_level=LEVELS[version.level].value,
        )

    def AsymmetricDecrypt(self, request: Any) -> Any:
        _, version = self.state.usable(request.name, "ASYMMETRIC_DECRYPT")
        arrived = _arrived(request, "ciphertext")
        digest = version.algorithm.rpartition("_")[2]
        plaintext = keymaterial.rsa_opened(version.material, digest, request.ciphertext)
        return kms_v1.AsymmetricDecryptResponse.pb()(
            plaintext=plaintext,
            plaintext_crc32c={"value": crc32c(plaintext)},
            verified_ciphertext_crc32c=arrived,
            protection_level=LEVELS[version.level].value,
        )

    def Decapsulate(self, request: Any) -> Any:
        _, version = self.state.usable(request.name, "KEY_ENCAPSULATION")
        arrived = _arrived(request, "ciphertext")
        secret = keymaterial.decapsulated(version.algorithm, version.material, request.ciphertext)
        return kms_v1.DecapsulateResponse.pb()(
            name=version.name,
            shared_secret=secret,
            shared_secret_crc32c=crc32c(secret),
            verified_ciphertext_crc32c=arrived,
            protection_level=LEVELS[version.level].value,
        )

    # --- the rest

    def GenerateRandomBytes(self, request: Any) -> Any:
        if named(LEVELS, request.protection_level) != "HSM":
            raise invalid("Random bytes come at the protection level HSM only.")
        if not 8 <= request.length_bytes <= 1024:
            raise invalid("From 8 to 1024 random bytes can be asked for.")
        data = os.urandom(request.length_bytes)
        return kms_v1.GenerateRandomBytesResponse.pb()(
            data=data, data_crc32c={"value": crc32c(data)}
        )


def _arrived(request: Any, field: str) -> bool:
    return check(request, f"{field}_crc32c", getattr(request, field))


def _check_size(version: Version, data: bytes, aad: bytes = b"") -> None:
    limit = LIMITS.get(version.level, 65536)
    over = len(data) + len(aad) if version.level == "HSM" else max(len(data), len(aad))
    if over > limit:
        raise invalid(f"The data is longer than {limit} bytes.")
