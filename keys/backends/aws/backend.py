"""The AWS KMS key store: keys of one account and region, made and used there.

Verifying needs only a public key and is done here. Everything else is a call of AWS KMS, each with
an entry in AWS CloudTrail of its own.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from keys.algorithms import KeySpec, MessageType, Usage
from keys.backends import materials
from keys.backends.aws import acts, importing, vocabulary
from keys.backends.aws.aligning import Aligner
from keys.backends.aws.configuration import access_key, read
from keys.backends.aws.connection import Connection, members
from keys.backends.aws.ending import Ender, alone
from keys.backends.aws.keyring import Keyring
from keys.backends.aws.making import Maker, Wanted
from keys.backends.aws.viewing import Viewer
from keys.backends.base import (
    Backend,
    Capabilities,
    Health,
    Material,
    NoMaterial,
    Parent,
    Protection,
)
from keys.backends.views import KeyView, Page
from keys.errors import KeyServiceError, Unsupported
from keys.secret import Secret

_CRYPT, _WRAP = (Usage.ENCRYPT_DECRYPT,), (Usage.WRAP_UNWRAP,)
_SIGN, _MAC = (Usage.SIGN_VERIFY,), (Usage.GENERATE_VERIFY_MAC,)
_NOTES = (
    "Symmetric keys are rotated in place, at most 25 times in a key's life; then, and for pairs, "
    "HMAC and imported keys, a rotation makes a new key behind the alias kms-console-<key id>.",
    "AWS disables and destroys whole keys: of versions that share one, the console alone refuses "
    "a suspended one.",
    "A plaintext, a message to be MACed and an Ed25519 message have 1 to 4096 bytes.",
    "A window of more than 30 days is the console's own; the key is disabled at AWS meanwhile.",
)


class AwsBackend(Backend):
    """One account and region. Settings and credential: see configuration.py."""

    kind: ClassVar[str] = "aws"
    protection: ClassVar[Protection] = Protection.HSM

    def __init__(
        self, store_id: uuid.UUID, settings: Mapping[str, Any], credential: Secret | None
    ) -> None:
        key = access_key(credential) if credential is not None else None
        self._connection = Connection(read(settings), key)
        self._keyring = Keyring(self._connection)
        self._maker = Maker(self._keyring)
        self._viewer = Viewer(self._keyring)
        self._ender = Ender(self._keyring)
        self._aligner = Aligner(self._keyring, self._viewer, self._ender)

    @classmethod
    def check_settings(cls, settings: Mapping[str, Any]) -> None:
        read(settings)

    def capabilities(self) -> Capabilities:
        return Capabilities(
            algorithms=vocabulary.OFFERS,
            imports=vocabulary.IMPORTS,
            destroys_at_once=False,
            suspends=True,
            window=vocabulary.WINDOW,
            notes=_NOTES,
        )

    def health(self) -> Health:
        facts = {"region": self._connection.configuration.region}
        if self._connection.configuration.endpoint:
            facts["endpoint"] = self._connection.configuration.endpoint
        try:
            answer = self._connection.kms("list_keys", Limit=1)
            arns = [str(row.get("KeyArn", "")) for row in members(answer, "Keys")]
        except KeyServiceError as error:
            return Health(False, error.detail, facts)
        if arns and arns[0].count(":") >= 5:
            facts["account"] = arns[0].split(":")[4]
        return Health(True, "Ready.", facts)

    def close(self) -> None:
        self._connection.close()

    # --- a version's life

    def generate(
        self,
        label: uuid.UUID,
        spec: str,
        *,
        usage: Usage | None = None,
        exportable: bool = False,
        parent: Parent | None = None,
    ) -> Material:
        _check_stays(exportable)
        row, purpose = vocabulary.offered(spec, usage)
        return self._maker.generated(_wanted(label, row, purpose, parent), parent)

    def find(self, label: uuid.UUID, parent: Parent | None = None) -> Material | None:
        return self._maker.found(label, parent)

    def import_material(
        self,
        label: uuid.UUID,
        spec: str,
        material: Secret,
        *,
        usage: Usage | None = None,
        exportable: bool = False,
        parent: Parent | None = None,
    ) -> Material:
        _check_stays(exportable)
        row, purpose = vocabulary.offered(spec, usage)
        if spec not in vocabulary.IMPORTS:
            raise Unsupported(f"AWS KMS takes no {row.label} material from elsewhere.")
        if row.asymmetric:
            pair = materials.imported_private_key(row, material)
            raw = materials.private_der(pair)
            check = materials.check_value_of_public_key(materials.public_der(pair))
        else:
            raw = materials.imported_secret(row, material)
            check = materials.check_value_of_secret(row, raw)
        wanted = _wanted(label, row, purpose, parent, check)
        return importing.imported(self._keyring, self._maker, wanted, raw)

    def destroy(self, handle: str) -> None:
        self._ender.destroy(*self._keyring.parsed(handle))

    def destroy_all(self, handles: Sequence[str]) -> None:
        self._ender.destroy_all([self._keyring.parsed(handle) for handle in handles])

    def check_destroyable(self, handle: str, among: Sequence[str]) -> None:
        arn, number = self._keyring.parsed(handle)
        others = (self._keyring.parsed(one) for one in among)
        if any(one == arn and other != number for one, other in others):
            raise alone()

    def remove(self, handle: str) -> None:
        self._ender.remove(*self._keyring.parsed(handle))

    def suspend(self, handle: str) -> None:
        self._aligner.enable(self._keyring.parsed(handle)[0], on=False)

    def resume(self, handle: str) -> None:
        self._aligner.enable(self._keyring.parsed(handle)[0], on=True)

    # --- AWS's own view

    def discover(self, cursor: str = "", limit: int = 100) -> Page:
        return self._viewer.page(cursor, limit)

    def inspect(self, reference: str) -> KeyView | None:
        try:
            arn, _ = self._keyring.parsed(f"{reference}#0")
        except NoMaterial:
            return None
        return self._viewer.one(arn, public_keys=True)

    def observe(self, wanted: KeyView) -> KeyView | None:
        return self._viewer.observed(wanted)

    def expressed(self, wanted: KeyView) -> KeyView:
        return self._viewer.expressed(wanted)

    def conform(self, wanted: KeyView) -> None:
        self._aligner.conform(wanted)

    # --- use

    def encrypt(self, handle: str, algorithm: str, plaintext: bytes, aad: bytes) -> bytes:
        arn, key = self._keyring.usable(handle)
        row = key.algorithm(algorithm, *_CRYPT)
        return acts.sealed(self._connection, arn, key, row, plaintext, aad)

    def decrypt(self, handle: str, algorithm: str, ciphertext: bytes, aad: bytes) -> bytes:
        arn, key = self._keyring.usable(handle)
        row = key.algorithm(algorithm, *_CRYPT)
        return acts.opened(self._connection, arn, key, row, ciphertext, aad)

    def sign(
        self,
        handle: str,
        algorithm: str,
        message: bytes,
        *,
        message_type: MessageType = MessageType.MESSAGE,
    ) -> bytes:
        arn, key = self._keyring.usable(handle)
        row = key.algorithm(algorithm, *_SIGN)
        return acts.signed(self._connection, arn, key, row, message, message_type)

    def verify(
        self,
        handle: str,
        algorithm: str,
        message: bytes,
        signature: bytes,
        *,
        message_type: MessageType = MessageType.MESSAGE,
    ) -> bool:
        _, key = self._keyring.usable(handle)
        row = key.algorithm(algorithm, *_SIGN)
        public = materials.load_public_key(key.public_key or b"", key.spec)
        return materials.verify_signature(public, row, message, signature, message_type)

    def mac(self, handle: str, algorithm: str, message: bytes) -> bytes:
        arn, key = self._keyring.usable(handle)
        return acts.maced(self._connection, arn, key.algorithm(algorithm, *_MAC), message)

    def verify_mac(self, handle: str, algorithm: str, message: bytes, tag: bytes) -> bool:
        arn, key = self._keyring.usable(handle)
        row = key.algorithm(algorithm, *_MAC)
        return acts.mac_holds(self._connection, arn, row, message, tag)

    def wrap(self, handle: str, algorithm: str, target: bytes) -> bytes:
        arn, key = self._keyring.usable(handle)
        return acts.sealed(
            self._connection, arn, key, key.algorithm(algorithm, *_WRAP), target, b""
        )

    def unwrap(self, handle: str, algorithm: str, wrapped: bytes) -> bytes:
        arn, key = self._keyring.usable(handle)
        row = key.algorithm(algorithm, *_WRAP)
        return acts.opened(self._connection, arn, key, row, wrapped, b"")

    def agree(self, handle: str, algorithm: str, peer: bytes) -> bytes:
        arn, key = self._keyring.usable(handle)
        row = key.algorithm(algorithm, Usage.KEY_AGREEMENT)
        return acts.agreed(self._connection, arn, key, row, peer)

    def decapsulate(self, handle: str, algorithm: str, ciphertext: bytes) -> bytes:
        arn, key = self._keyring.usable(handle)
        row = key.algorithm(algorithm, Usage.KEY_ENCAPSULATION)
        return acts.decapsulated(self._connection, arn, row, ciphertext)

    def derive(
        self, handle: str, algorithm: str, *, salt: bytes, info: bytes, length: int
    ) -> bytes:
        _, key = self._keyring.usable(handle)
        key.algorithm(algorithm, Usage.DERIVE_KEY)
        raise Unsupported("AWS KMS derives no keys from a key.")

    def random(self, count: int) -> bytes:
        return acts.random(self._connection, count)


def _wanted(
    label: uuid.UUID, row: KeySpec, purpose: Usage, parent: Parent | None, check: str = ""
) -> Wanted:
    first = parent is None or not parent.newest
    return Wanted(label, row, purpose, parent.key if parent else label, first, check)


def _check_stays(exportable: bool) -> None:
    if exportable:
        raise Unsupported("Nothing ever leaves AWS KMS; export needs a software key store.")
