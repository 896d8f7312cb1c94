"""What calls return. Secrets are kept out of what is printed of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, TypeVar

from kms_console_client.errors import KmsError

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What every answer names: the key's id, the version's number, the algorithm."""

    key_id: str
    version: int
    algorithm: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Encrypted(Served):
    """Keep `ciphertext`; it names its key and version itself."""

    ciphertext: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Decrypted(Served):
    plaintext: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataKey(Served):
    """Use `plaintext` and forget it; keep `ciphertext` beside the data."""

    plaintext: bytes = field(repr=False)
    ciphertext: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed(Served):
    """`signature`: DER for ECDSA. Keep `version` with it: `verify` asks for it after a rotation."""

    signature: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified(Served):
    """True where the signature or the MAC is valid: `if client.verify(...)` does what it says."""

    valid: bool

    def __bool__(self) -> bool:
        return self.valid


@dataclass(frozen=True, slots=True, kw_only=True)
class Maced(Served):
    """Keep `version` with the MAC: `verify_mac` asks for it after a rotation."""

    mac: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicKey(Served):
    """`public_key` is DER SubjectPublicKeyInfo (RFC 5280), of the key spec `spec`."""

    spec: str
    public_key: bytes


@dataclass(frozen=True, slots=True)
class Batch(Generic[T]):
    """Each item's end in order: its answer, or the error that it ended with.

    `entry` is the audit entry that holds `items_root`, the Merkle root over the items, in hex.
    """

    entry: str
    items_root: str
    results: tuple[T | KmsError, ...]

    def values(self) -> list[T]:
        """Return all answers. Raises the first item's error where one failed."""
        found: list[T] = []
        for result in self.results:
            if isinstance(result, KmsError):
                raise result
            found.append(result)
        return found
