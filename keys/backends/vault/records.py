"""A transit key as the engine describes it, read strictly."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from keys.algorithms import KeySpec
from keys.backends import materials
from keys.backends.vault import offers
from keys.errors import BackendError

# More living versions than any key has: five years of rotating hourly.
VERSIONS = 50_000


@dataclass(frozen=True, slots=True)
class TransitKey:
    """GET <mount>/keys/<name>. Versions `lowest` to `latest` are there; older ones were trimmed.

    Below `min_decryption` a version can do nothing, and the engine doesn't show its public key;
    below `min_encryption` (at least 1) it can't protect new data. `soft_deleted` is None where the
    server has no such thing: HashiCorp Vault.
    """

    name: str
    kind: str
    spec: KeySpec | None
    latest: int
    lowest: int
    min_decryption: int
    min_encryption: int
    soft_deleted: bool | None
    imported: bool
    rotatable: bool
    derived: bool
    convergent: bool
    exportable: bool
    backup_allowed: bool
    deletion_allowed: bool
    rotation_seconds: int
    public: Mapping[int, bytes] = field(default_factory=dict)
    created: Mapping[int, datetime] = field(default_factory=dict)

    @property
    def versions(self) -> range:
        return range(self.lowest, self.latest + 1)


def transit_key(name: str, data: Mapping[str, Any]) -> TransitKey:
    """Return what the engine says of a key. Raises BackendError where that makes no sense."""
    kind, size = text(data, "type"), whole(data, "key_size", 0)
    imported = truth(data, "imported_key", False)
    public, created = _versions(data.get("keys") or {}, kind)
    latest, lowest = whole(data, "latest_version"), max(whole(data, "min_available_version", 0), 1)
    least = max(whole(data, "min_decryption_version"), 1)
    if not lowest <= least <= latest or latest - lowest >= VERSIONS:
        raise BackendError("The store's account of this key's versions makes no sense.")
    return TransitKey(
        name=name,
        kind=kind,
        spec=offers.spec_of(kind, size),
        latest=latest,
        lowest=lowest,
        min_decryption=least,
        # 0 sets no minimum of its own.
        min_encryption=max(whole(data, "min_encryption_version"), least),
        soft_deleted=truth(data, "soft_deleted", False) if "soft_deleted" in data else None,
        imported=imported,
        rotatable=not imported or truth(data, "imported_key_allow_rotation", False),
        derived=truth(data, "derived", False),
        convergent=truth(data, "convergent_encryption", False),
        exportable=truth(data, "exportable", False),
        backup_allowed=truth(data, "allow_plaintext_backup", False),
        deletion_allowed=truth(data, "deletion_allowed", False),
        rotation_seconds=whole(data, "auto_rotate_period", 0),
        public=public,
        created=created,
    )


def _versions(rows: Any, kind: str) -> tuple[dict[int, bytes], dict[int, datetime]]:
    """Return public keys (DER) and times. A row is a time in seconds, or an object for key pairs."""
    public: dict[int, bytes] = {}
    created: dict[int, datetime] = {}
    if not isinstance(rows, dict):
        raise _wrong("keys")
    for number, row in rows.items():
        if not isinstance(number, str) or not number.isdecimal() or len(number) > 9:
            raise _wrong("keys")
        pair = isinstance(row, dict)
        moment = _moment(row.get("creation_time") if pair else row)
        if moment is not None:
            created[int(number)] = moment
        if pair and row.get("public_key"):
            public[int(number)] = _public_key(row["public_key"], kind)
    return public, created


def _moment(value: Any) -> datetime | None:
    try:
        if isinstance(value, str):
            moment = datetime.fromisoformat(value)
            return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError):
        raise _wrong("creation_time") from None
    return None


def _public_key(written: Any, kind: str) -> bytes:
    """Return DER of a PEM SubjectPublicKeyInfo, or of Ed25519's bare 32 bytes in base64."""
    if not isinstance(written, str):
        raise _wrong("public_key")
    try:
        if kind == "ed25519" and not written.startswith("-----"):
            raw = base64.b64decode(written, validate=True)
            return materials.public_der(ed25519.Ed25519PublicKey.from_public_bytes(raw))
        return pem_to_der(written)
    except (ValueError, binascii.Error, UnsupportedAlgorithm):
        raise _wrong("public_key") from None


def pem_to_der(written: str) -> bytes:
    """Raises ValueError."""
    key = serialization.load_pem_public_key(written.encode())
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_bytes(serialization.Encoding.DER, form)


# --- members of an answer, each of its type


def text(data: Mapping[str, Any], name: str) -> str:
    value = data.get(name)
    if not isinstance(value, str):
        raise _wrong(name)
    return value


def whole(data: Mapping[str, Any], name: str, default: int | None = None) -> int:
    """Return a number that is not negative."""
    value = data.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**53:
        raise _wrong(name)
    return value


def truth(data: Mapping[str, Any], name: str, default: bool | None = None) -> bool:
    value = data.get(name, default)
    if not isinstance(value, bool):
        raise _wrong(name)
    return value


def decoded(data: Mapping[str, Any], name: str, prefix: str = "") -> bytes:
    """Return the bytes of a base64 member, behind `prefix`."""
    value = text(data, name)
    if not value.startswith(prefix):
        raise _wrong(name)
    try:
        return base64.b64decode(value.removeprefix(prefix), validate=True)
    except (ValueError, binascii.Error):
        raise _wrong(name) from None


def encoded(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _wrong(name: str) -> BackendError:
    return BackendError(f"The store's answer makes no sense: {name} is missing or of a wrong form.")
