"""State as protobuf messages, and enumerations by name."""

from __future__ import annotations

from typing import Any

from google.cloud import kms_v1
from google.protobuf.timestamp_pb2 import Timestamp

from tests.peers.google_server import keymaterial
from tests.peers.google_server.answers import crc32c, invalid
from tests.peers.google_server.state import Job, Key, Ring, State, Version

ALGORITHMS = kms_v1.CryptoKeyVersion.CryptoKeyVersionAlgorithm
STATES = kms_v1.CryptoKeyVersion.CryptoKeyVersionState
PURPOSES = kms_v1.CryptoKey.CryptoKeyPurpose
LEVELS = kms_v1.ProtectionLevel
METHODS = kms_v1.ImportJob.ImportMethod
JOB_STATES = kms_v1.ImportJob.ImportJobState
FORMATS = kms_v1.PublicKey.PublicKeyFormat


def named(enumeration: Any, value: int) -> str:
    """An enumeration's name of a number that came. Refuses a number that it hasn't."""
    try:
        return str(enumeration(value).name)
    except ValueError:
        raise invalid(f"{value} is not a value of {enumeration.__name__}.") from None


def stamp(at: float | None) -> Timestamp | None:
    if at is None:
        return None
    message = Timestamp()
    message.FromNanoseconds(int(at * 1_000_000) * 1000)
    return message


def ring(one: Ring) -> Any:
    return kms_v1.KeyRing.pb()(name=one.name, create_time=stamp(one.created))


def version(state: State, one: Version) -> Any:
    shown = state.looked_at(one)
    return kms_v1.CryptoKeyVersion.pb()(
        name=one.name,
        state=STATES[shown].value,
        protection_level=LEVELS[one.level].value,
        algorithm=ALGORITHMS[one.algorithm].value,
        create_time=stamp(one.created),
        generate_time=stamp(one.generated) if shown != "PENDING_GENERATION" else None,
        destroy_time=stamp(one.destroy_at) if shown == "DESTROY_SCHEDULED" else None,
        destroy_event_time=stamp(one.destroyed) if shown == "DESTROYED" else None,
        import_job=one.job,
        import_time=stamp(one.imported),
        import_failure_reason=one.failure,
        reimport_eligible=bool(one.job) and shown in ("DESTROYED", "IMPORT_FAILED"),
    )


def key(state: State, one: Key) -> Any:
    message = kms_v1.CryptoKey.pb()(
        name=one.name,
        purpose=PURPOSES[one.purpose].value,
        create_time=stamp(one.created),
        version_template={
            "protection_level": LEVELS[one.level].value,
            "algorithm": ALGORITHMS[one.algorithm].value,
        },
        labels=one.labels,
        import_only=one.import_only,
        destroy_scheduled_duration={"seconds": int(one.window)},
    )
    if one.primary:
        message.primary.CopyFrom(version(state, one.versions[one.primary - 1]))
    if one.period is not None:
        message.rotation_period.FromSeconds(int(one.period))
    if one.rotates is not None:
        message.next_rotation_time.CopyFrom(stamp(one.rotates))
    return message


def job(state: State, one: Job) -> Any:
    now = state.job_state(one)
    one.looked_at = True
    message = kms_v1.ImportJob.pb()(
        name=one.name,
        import_method=METHODS[one.method].value,
        protection_level=LEVELS[one.level].value,
        create_time=stamp(one.created),
        expire_time=stamp(one.created + 3 * 86400),
        state=JOB_STATES[now].value,
    )
    if now == "ACTIVE":
        message.public_key.pem = keymaterial.public_pem(one.key)
    return message


def public_key(one: Version, wanted: str) -> Any:
    """A public key in the format asked for; PEM where none is, which post-quantum keys don't have."""
    message = kms_v1.PublicKey.pb()(
        name=one.name,
        algorithm=ALGORITHMS[one.algorithm].value,
        protection_level=LEVELS[one.level].value,
    )
    if not keymaterial.post_quantum(one.algorithm):
        if wanted not in ("PUBLIC_KEY_FORMAT_UNSPECIFIED", "PEM"):
            raise invalid(f"The format {wanted} is not for {one.algorithm}.")
        pem = keymaterial.public_pem(one.material)
        message.pem = pem
        message.pem_crc32c.value = crc32c(pem.encode())
        return message
    own = "XWING_RAW_BYTES" if one.algorithm == "KEM_XWING" else "NIST_PQC"
    if wanted != own:
        raise invalid(f"The format of {one.algorithm} keys is {own}.")
    raw = keymaterial.public_raw(one.algorithm, one.material)
    message.public_key_format = FORMATS[own].value
    message.public_key.data = raw
    message.public_key.crc32c_checksum.value = crc32c(raw)
    return message
