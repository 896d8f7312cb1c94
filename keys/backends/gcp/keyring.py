"""What is in the key ring: keys, versions, public keys; and what never changes of them, remembered."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import mldsa, mlkem
from google.cloud import kms_v1

from keys.algorithms import SPECS
from keys.backends import materials
from keys.backends.base import NoMaterial
from keys.backends.gcp import names
from keys.backends.gcp.checksums import crc32c
from keys.backends.gcp.configuration import Configuration
from keys.backends.gcp.connection import Connection
from keys.backends.gcp.forms import FORMS, Form
from keys.errors import BackendError, BackendUnavailable, Invalid, StateForbids, Unsupported
from keys.primitives.pairs import PublicKey, public_der
from keys.primitives.post_quantum import SlhDsaPublicKey
from keys.primitives.x_wing import XWingPublicKey

CACHE_SIZE = 10_000
PAGE = 100
LONGEST_LIST = 10_000  # versions of one key
# How long a version that was enabled at Google is taken to be, for what is done here with its public
# key. Google's own servers need longer to hear of a change.
ENABLED_SECONDS = 3.0


def _names(enumeration: Any) -> dict[int, str]:
    """Return an enumeration's names; values that a newer Google adds stay numbers."""
    return {int(one): str(one.name) for one in enumeration}


STATES = _names(kms_v1.CryptoKeyVersion.CryptoKeyVersionState)
ALGORITHM_NAMES = _names(kms_v1.CryptoKeyVersion.CryptoKeyVersionAlgorithm)
PURPOSES = _names(kms_v1.CryptoKey.CryptoKeyPurpose)
LEVEL_NAMES = _names(kms_v1.ProtectionLevel)

# States of versions that have no material: nothing to show, nothing to use.
GONE = frozenset(
    {
        "DESTROYED",
        "IMPORT_FAILED",
        "GENERATION_FAILED",
        "PENDING_EXTERNAL_DESTRUCTION",
        "EXTERNAL_DESTRUCTION_FAILED",
    }
)
PENDING = frozenset({"PENDING_GENERATION", "PENDING_IMPORT"})

_RAW_PUBLIC: dict[str, Any] = {
    "ML_DSA_44": mldsa.MLDSA44PublicKey.from_public_bytes,
    "ML_DSA_65": mldsa.MLDSA65PublicKey.from_public_bytes,
    "ML_DSA_87": mldsa.MLDSA87PublicKey.from_public_bytes,
    "ML_KEM_768": mlkem.MLKEM768PublicKey.from_public_bytes,
    "ML_KEM_1024": mlkem.MLKEM1024PublicKey.from_public_bytes,
    "SLH_DSA_SHA2_128S": lambda raw: SlhDsaPublicKey("128S", raw),
    "X_WING": XWingPublicKey.from_raw,
}


@dataclass(frozen=True, slots=True)
class Known:
    """What never changes of a version."""

    key: str
    form: Form
    level: str


@dataclass(frozen=True, slots=True)
class Seen:
    """One CryptoKeyVersion as it is now; `state` in Google's words."""

    name: str
    number: int
    state: str
    algorithm: str
    level: str
    created_at: datetime | None
    destroy_at: datetime | None
    imported: bool
    reimportable: bool


class Keyring:
    """One key ring. Reads only; keys.backends.gcp.making and states write."""

    def __init__(
        self,
        configuration: Configuration,
        connection: Connection,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.configuration = configuration
        self.connection = connection
        self._clock = clock
        self._lock = threading.Lock()
        self._enabled: OrderedDict[str, float] = OrderedDict()  # until when, of the clock
        self._known: OrderedDict[str, Known] = OrderedDict()
        self._publics: OrderedDict[str, tuple[PublicKey, bytes]] = OrderedDict()

    @property
    def ring(self) -> str:
        return self.configuration.key_ring

    def key(self, name: str) -> Any | None:
        """Return the CryptoKey (protobuf) as it is now, or None."""
        try:
            key = self.connection.call("get_crypto_key", {"name": name})
        except NoMaterial:
            return None
        if key.name != name:
            raise BackendError("Google Cloud KMS answered with another key.")
        return key

    def version(self, name: str) -> Seen | None:
        """Return one version as it is now, or None."""
        try:
            version = seen(self.connection.call("get_crypto_key_version", {"name": name}))
        except NoMaterial:
            return None
        if version.name != name:
            raise BackendError("Google Cloud KMS answered with another key version.")
        return version

    def versions(self, key: str) -> list[Seen]:
        """Return every version of a key, oldest first."""
        found: list[Seen] = []
        request: dict[str, Any] = {"parent": key, "page_size": PAGE}
        while True:
            page = self.connection.call("list_crypto_key_versions", request)
            found += (seen(version) for version in page.crypto_key_versions)
            if not page.next_page_token:
                return sorted(found, key=lambda version: version.number)
            if len(found) >= LONGEST_LIST or page.next_page_token == request.get("page_token"):
                raise BackendError("Google Cloud KMS lists the key's versions without end.")
            request["page_token"] = page.next_page_token

    def known(self, handle: str) -> Known:
        """Return what never changes of a version. Raises NoMaterial, Unsupported for a foreign kind."""
        known = self._known.get(handle)  # a plain read: the hot path takes no lock
        if known is not None:
            return known
        key, _ = names.split(self.ring, handle)
        version = self.version(handle)
        if version is None or version.state in GONE:
            raise NoMaterial
        form = FORMS.get(version.algorithm)
        if form is None:
            raise Unsupported(f"The console has no use for {version.algorithm} keys.")
        known = Known(key, form, version.level)
        self._remember(self._known, handle, known)
        return known

    def public_key(self, handle: str, form: Form) -> tuple[PublicKey, bytes]:
        """Return a pair's public key, loaded and as DER SubjectPublicKeyInfo.

        Raises StateForbids where the version isn't enabled and was never asked before.
        """
        kept = self._publics.get(handle)
        if kept is None:
            kept = self._fetched(handle, form)
            self._remember(self._publics, handle, kept)
        return kept

    def public_bytes(self, version: Seen) -> bytes | None:
        """Return the DER public key of a pair that Google shows one of now, else None."""
        form = FORMS.get(version.algorithm)
        if form is None or not SPECS[form.spec].asymmetric or version.state in PENDING:
            return None
        try:
            return self.public_key(version.name, form)[1]
        except (StateForbids, NoMaterial):
            return None

    def check_enabled(self, handle: str) -> None:
        """Check that a version is enabled at Google now, or was a moment ago.

        Raises NoMaterial, StateForbids, BackendUnavailable.
        """
        now = self._clock()
        if now < self._enabled.get(handle, now):
            return
        state = self.state_now(handle)
        if state != "ENABLED":
            raise refusal(state)
        self._remember(self._enabled, handle, now + ENABLED_SECONDS)

    def doubt(self) -> None:
        """Forget which versions are enabled: something was changed at Google from here."""
        with self._lock:
            self._enabled.clear()

    def forget(self, handle: str) -> None:
        with self._lock:
            self._enabled.pop(handle, None)
            self._known.pop(handle, None)
            self._publics.pop(handle, None)

    def state_now(self, handle: str) -> str:
        """Return a version's state in Google's words, DESTROYED where it isn't there."""
        version = self.version(handle)
        return version.state if version else "DESTROYED"

    def _fetched(self, handle: str, form: Form) -> tuple[PublicKey, bytes]:
        request: dict[str, Any] = {"name": handle}
        if form.raw_public:
            request["public_key_format"] = form.raw_public
        answer = self.connection.call("get_public_key", request)
        if form.raw_public:
            data, checksum = answer.public_key.data, answer.public_key.crc32c_checksum
        else:
            data, checksum = answer.pem.encode(), answer.pem_crc32c
        if answer.name != handle or checksum.value != crc32c(data):
            raise BackendError("The public key that Google Cloud KMS sent did not arrive whole.")
        return _loaded(form, data)

    def _remember(self, kept: OrderedDict[str, Any], handle: str, value: Any) -> None:
        with self._lock:
            kept[handle] = value
            while len(kept) > CACHE_SIZE:
                kept.popitem(last=False)


def refusal(state: str) -> NoMaterial | StateForbids | BackendUnavailable:
    """Return why a version in this state, which isn't ENABLED, does nothing."""
    if state in GONE or state == "DESTROY_SCHEDULED":
        return NoMaterial()
    if state in PENDING:
        return BackendUnavailable("Google Cloud KMS is still at work on the key version.")
    return StateForbids(f"The version is {state.lower().replace('_', ' ')} at Google.")


def seen(version: Any) -> Seen:
    """Return a CryptoKeyVersion of the protobuf as plain values. Raises BackendError."""
    number = names.number_of(version.name)
    if not number:
        raise BackendError("Google Cloud KMS names a key version as none is named.")
    state = STATES.get(version.state, f"STATE_{version.state}")
    return Seen(
        name=version.name,
        number=number,
        state=state,
        algorithm=ALGORITHM_NAMES.get(version.algorithm, f"ALGORITHM_{version.algorithm}"),
        level=LEVEL_NAMES.get(version.protection_level, f"LEVEL_{version.protection_level}"),
        created_at=moment(version, "create_time"),
        destroy_at=moment(version, "destroy_time") if state == "DESTROY_SCHEDULED" else None,
        imported=bool(version.import_job),
        reimportable=bool(version.reimport_eligible),
    )


def moment(message: Any, field: str) -> datetime | None:
    """Return a Timestamp field, None where it isn't set. Raises BackendError for a date of no calendar."""
    if not message.HasField(field):
        return None
    try:
        at: datetime = getattr(message, field).ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise BackendError("Google Cloud KMS sent a date that is none.") from None
    return at


def _loaded(form: Form, data: bytes) -> tuple[PublicKey, bytes]:
    spec = SPECS[form.spec]
    try:
        if form.raw_public:
            key = _RAW_PUBLIC[form.spec](data)
        else:
            der = serialization.load_pem_public_key(data).public_bytes(
                serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
            )
            key = materials.load_public_key(der, spec)
        encoded = public_der(key)
        return materials.load_public_key(encoded, spec), encoded
    except (ValueError, TypeError, Invalid):
        raise BackendError("Google Cloud KMS sent a public key that is none.") from None
