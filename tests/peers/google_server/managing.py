"""The calls that make, list and change keys."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa
from google.cloud import kms_v1

from tests.peers.google_server import keymaterial, shown
from tests.peers.google_server.answers import Refused, invalid, not_found, precondition
from tests.peers.google_server.shown import ALGORITHMS, LEVELS, METHODS, PURPOSES, STATES, named
from tests.peers.google_server.state import DAY, LIVING, Job, Key, Ring, State, Version

ID = re.compile(r"[a-zA-Z0-9_-]{1,63}")
LOCATION = re.compile(r"projects/[a-z0-9-]+/locations/[a-z0-9-]+")
LABEL_NAME, LABEL_VALUE = re.compile(r"[a-z][a-z0-9_-]{0,62}"), re.compile(r"[a-z0-9_-]{0,63}")
LABELS_LIMIT, PAGE_DEFAULT, PAGE_LIMIT = 64, 100, 1000
WRAPPING_BITS = {"RSA_OAEP_3072_SHA256_AES_256": 3072, "RSA_OAEP_4096_SHA256_AES_256": 4096}


class Managing:
    """One method for each call, named as in google.cloud.kms.v1.KeyManagementService."""

    def __init__(self, state: State) -> None:
        self.state = state
        self._purposes = keymaterial.purposes()
        self._wrapping: dict[str, rsa.RSAPrivateKey] = {}

    # --- key rings

    def CreateKeyRing(self, request: Any) -> Any:
        if not LOCATION.fullmatch(request.parent) or not ID.fullmatch(request.key_ring_id):
            raise invalid("The name of the key ring is not valid.")
        name = f"{request.parent}/keyRings/{request.key_ring_id}"
        if name in self.state.rings:
            raise Refused("ALREADY_EXISTS", f"KeyRing {name} already exists.")
        self.state.rings[name] = Ring(name, self.state.clock.now())
        return shown.ring(self.state.rings[name])

    def GetKeyRing(self, request: Any) -> Any:
        return shown.ring(self.state.ring(request.name))

    # --- keys

    def CreateCryptoKey(self, request: Any) -> Any:
        ring, wanted = self.state.ring(request.parent), request.crypto_key
        if not ID.fullmatch(request.crypto_key_id):
            raise invalid("The id of the key is not valid.")
        name = f"{ring.name}/cryptoKeys/{request.crypto_key_id}"
        key = self._new_key(name, wanted)
        if name in ring.keys:
            raise Refused("ALREADY_EXISTS", f"CryptoKey {name} already exists.")
        skip = request.skip_initial_version_creation
        if not skip and (key.import_only or key.level == "EXTERNAL"):
            raise invalid("skip_initial_version_creation is required for such a key.")
        self._schedule(key, wanted)
        if not skip:
            version = self.state.generated(key)
            if key.purpose == "ENCRYPT_DECRYPT":
                key.primary = version.number
        ring.keys[name] = key
        return shown.key(self.state, key)

    def _new_key(self, name: str, wanted: Any) -> Key:
        purpose = named(PURPOSES, wanted.purpose)
        algorithm = named(ALGORITHMS, wanted.version_template.algorithm)
        level = named(LEVELS, wanted.version_template.protection_level)
        if algorithm.endswith("UNSPECIFIED") and purpose == "ENCRYPT_DECRYPT":
            algorithm = "GOOGLE_SYMMETRIC_ENCRYPTION"
        if level.endswith("UNSPECIFIED"):
            level = "SOFTWARE"
        if self._purposes.get(algorithm) != purpose:
            raise invalid(f"{algorithm} is not an algorithm for the purpose {purpose}.")
        if (level == "EXTERNAL") != algorithm.startswith("EXTERNAL_"):
            raise invalid(f"{algorithm} is not available at the protection level {level}.")
        if algorithm == "EC_SIGN_SECP256K1_SHA256" and level != "HSM":
            raise invalid(f"{algorithm} is only available at the protection level HSM.")
        _check_labels(wanted.labels)
        window = wanted.destroy_scheduled_duration.seconds or 30 * DAY
        if not (0 if wanted.import_only else DAY) <= window <= 120 * DAY:
            raise invalid("destroy_scheduled_duration must be from 24 hours to 120 days.")
        return Key(
            name,
            purpose,
            algorithm,
            level,
            self.state.clock.now(),
            float(window),
            dict(wanted.labels),
            wanted.import_only,
        )

    def GetCryptoKey(self, request: Any) -> Any:
        return shown.key(self.state, self.state.key(request.name))

    def ListCryptoKeys(self, request: Any) -> Any:
        names = sorted(self.state.ring(request.parent).keys)
        page, token = _page(request, names)
        return kms_v1.ListCryptoKeysResponse.pb()(
            crypto_keys=[shown.key(self.state, self.state.key(name)) for name in page],
            next_page_token=token,
            total_size=len(names),
        )

    def UpdateCryptoKey(self, request: Any) -> Any:
        wanted, paths = request.crypto_key, set(request.update_mask.paths)
        key = self.state.key(wanted.name)
        if not paths or paths - {"labels", "rotation_period", "next_rotation_time"}:
            raise invalid(f"The update mask {sorted(paths)} is not valid.")
        if "labels" in paths:
            _check_labels(wanted.labels)
        if paths & {"rotation_period", "next_rotation_time"}:
            self._schedule(key, wanted, paths)
        if "labels" in paths:
            key.labels = dict(wanted.labels)
        return shown.key(self.state, key)

    def _schedule(self, key: Key, wanted: Any, paths: set[str] | None = None) -> None:
        """Take the rotation schedule of a message: both fields, or those that a mask names."""
        period, rotates = key.period, key.rotates
        if paths is None or "rotation_period" in paths:
            has_period = wanted.HasField("rotation_period")
            period = float(wanted.rotation_period.seconds) if has_period else None
        if paths is None or "next_rotation_time" in paths:
            at = wanted.next_rotation_time
            rotates = at.ToNanoseconds() / 1e9 if wanted.HasField("next_rotation_time") else None
        if (period is not None or rotates is not None) and key.purpose != "ENCRYPT_DECRYPT":
            raise invalid("Only keys for symmetric encryption rotate by a schedule.")
        if period is not None and (not DAY <= period <= 876_000 * 3600 or rotates is None):
            raise invalid("The rotation period is at least a day, and needs a next rotation time.")
        if rotates is not None and rotates != key.rotates and rotates <= self.state.clock.now():
            raise invalid("The next rotation time must be in the future.")
        key.period, key.rotates = period, rotates

    def UpdateCryptoKeyPrimaryVersion(self, request: Any) -> Any:
        key = self.state.key(request.name)
        State.check_purpose(key, "ENCRYPT_DECRYPT")
        name = f"{key.name}/cryptoKeyVersions/{request.crypto_key_version_id}"
        version = self.state.version(name)[1]
        if version.state != "ENABLED":
            raise precondition(f"{name} is not enabled, current state is: {version.state}.")
        key.primary = version.number
        return shown.key(self.state, key)

    # --- versions

    def CreateCryptoKeyVersion(self, request: Any) -> Any:
        key = self.state.key(request.parent)
        if key.import_only:
            raise precondition(f"{key.name} is for imported versions only.")
        if key.level == "EXTERNAL":
            return shown.version(self.state, self.state.new_version(key))
        return shown.version(self.state, self.state.generated(key))

    def GetCryptoKeyVersion(self, request: Any) -> Any:
        return shown.version(self.state, self.state.version(request.name)[1])

    def ListCryptoKeyVersions(self, request: Any) -> Any:
        key = self.state.key(request.parent)
        page, token = _page(request, [f"{one.number:010}" for one in key.versions])
        found = [key.versions[int(number) - 1] for number in page]
        return kms_v1.ListCryptoKeyVersionsResponse.pb()(
            crypto_key_versions=[shown.version(self.state, one) for one in found],
            next_page_token=token,
            total_size=len(key.versions),
        )

    def UpdateCryptoKeyVersion(self, request: Any) -> Any:
        if list(request.update_mask.paths) != ["state"]:
            raise invalid("Only the state of a version can be updated.")
        _, version = self.state.version(request.crypto_key_version.name)
        wanted = named(STATES, request.crypto_key_version.state)
        if wanted not in LIVING:
            raise invalid(f"A version can't be put into the state {wanted}.")
        if version.state not in LIVING:
            raise precondition(f"{version.name} is in the state {version.state}.")
        version.state = wanted
        return shown.version(self.state, version)

    def DestroyCryptoKeyVersion(self, request: Any) -> Any:
        key, version = self.state.version(request.name)
        if version.state not in LIVING:
            raise precondition(f"{version.name} is in the state {version.state}.")
        version.state = "DESTROY_SCHEDULED"
        version.destroy_at = self.state.clock.now() + key.window
        return shown.version(self.state, version)

    def RestoreCryptoKeyVersion(self, request: Any) -> Any:
        _, version = self.state.version(request.name)
        if version.state != "DESTROY_SCHEDULED":
            raise precondition(f"{version.name} is in the state {version.state}.")
        version.state, version.destroy_at = "DISABLED", None
        return shown.version(self.state, version)

    def GetPublicKey(self, request: Any) -> Any:
        key, version = self.state.version(request.name)
        if key.purpose not in ("ASYMMETRIC_SIGN", "ASYMMETRIC_DECRYPT", "KEY_ENCAPSULATION"):
            raise precondition(f"{key.name} has no public key.")
        self.state.usable(request.name, key.purpose)
        return shown.public_key(version, named(shown.FORMATS, request.public_key_format))

    # --- imports

    def CreateImportJob(self, request: Any) -> Any:
        ring = self.state.ring(request.parent)
        name = f"{ring.name}/importJobs/{request.import_job_id}"
        method = named(METHODS, request.import_job.import_method)
        level = named(LEVELS, request.import_job.protection_level)
        if not ID.fullmatch(request.import_job_id) or level not in ("SOFTWARE", "HSM"):
            raise invalid("The import job is not valid.")
        if method not in WRAPPING_BITS:
            raise Refused("UNIMPLEMENTED", f"This server has no {method}.")
        if name in ring.jobs:
            raise Refused("ALREADY_EXISTS", f"ImportJob {name} already exists.")
        if method not in self._wrapping:
            self._wrapping[method] = rsa.generate_private_key(65537, WRAPPING_BITS[method])
        now = self.state.clock.now()
        ring.jobs[name] = Job(name, method, level, now, self._wrapping[method])
        return shown.job(self.state, ring.jobs[name])

    def GetImportJob(self, request: Any) -> Any:
        return shown.job(self.state, self.state.job(request.name))

    def ImportCryptoKeyVersion(self, request: Any) -> Any:
        key, job = self.state.key(request.parent), self.state.job(request.import_job)
        if not job.name.startswith(key.name.partition("/cryptoKeys/")[0] + "/"):
            raise not_found(f"ImportJob {job.name}")
        if self.state.job_state(job) != "ACTIVE":
            raise precondition(f"{job.name} is not active.")
        if job.level != key.level:
            raise invalid("The import job and the key are at different protection levels.")
        algorithm = named(ALGORITHMS, request.algorithm)
        if self._purposes.get(algorithm) != key.purpose:
            raise invalid(f"{algorithm} is not an algorithm for the purpose {key.purpose}.")
        version = self._target(key, request.crypto_key_version, algorithm)
        try:
            wrapped = request.wrapped_key or request.rsa_aes_wrapped_key
            material = keymaterial.taken(algorithm, keymaterial.unwrapped(job.key, wrapped))
            mark = keymaterial.fingerprint(material)
            if version and version.mark and version.mark != mark:
                raise invalid("The key material is not what this version had.")
        except ValueError as error:
            version = version or self.state.new_version(key, algorithm)
            version.state, version.becomes = "PENDING_IMPORT", "IMPORT_FAILED"
            version.job, version.failure = job.name, str(error)
            return shown.version(self.state, version)
        version = version or self.state.new_version(key, algorithm)
        version.material, version.mark, version.job = material, mark, job.name
        version.imported, version.failure = self.state.clock.now(), ""
        version.destroyed = version.destroy_at = None
        version.state, version.becomes = "PENDING_IMPORT", "ENABLED"
        return shown.version(self.state, version)

    def _target(self, key: Key, name: str, algorithm: str) -> Version | None:
        """The version that an import goes into again; None for a new one."""
        if not name:
            return None
        owner, version = self.state.version(name)
        if owner is not key or not version.job or version.algorithm != algorithm:
            raise invalid(f"{name} can't be imported again from this.")
        if version.state not in ("DESTROYED", "IMPORT_FAILED"):
            raise precondition(f"{name} is in the state {version.state}.")
        return version


def _check_labels(labels: Any) -> None:
    if len(labels) > LABELS_LIMIT:
        raise invalid("A key has at most 64 labels.")
    for name, value in labels.items():
        if not LABEL_NAME.fullmatch(name) or not LABEL_VALUE.fullmatch(value):
            raise invalid("Labels are of lower-case letters, digits, hyphens and underscores.")


def _page(request: Any, names: list[str]) -> tuple[list[str], str]:
    """One page of sorted names and the token of the next: it names the parent and the last name given."""
    size = min(request.page_size or PAGE_DEFAULT, PAGE_LIMIT)
    after = ""
    if size < 0:
        raise invalid("The page size is negative.")
    if request.page_token:
        try:
            parent, after = json.loads(base64.urlsafe_b64decode(request.page_token))
        except ValueError:
            parent = None
        if parent != request.parent:
            raise invalid("The page token is not valid.")
    rest = [name for name in names if name > after]
    page = rest[:size]
    if len(rest) <= size:
        return page, ""
    token = base64.urlsafe_b64encode(json.dumps([request.parent, page[-1]]).encode())
    return page, token.decode()
