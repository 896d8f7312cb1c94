"""Key rings, keys and versions in memory, and what time does to them."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

from tests.peers.google_server import keymaterial
from tests.peers.google_server.answers import Clock, invalid, not_found, precondition

DAY = 86400.0
JOB_LIFE = 3 * DAY
# The states that a use, a key's removal and a window begin in.
LIVING = ("ENABLED", "DISABLED")


@dataclass
class Version:
    name: str
    number: int
    algorithm: str
    level: str
    state: str
    created: float
    material: Any = None
    generated: float | None = None
    destroy_at: float | None = None
    destroyed: float | None = None
    job: str = ""
    imported: float | None = None
    failure: str = ""
    mark: bytes = b""  # of material that was imported, to know it again
    # What the version becomes once it was looked at: Google works in the background.
    becomes: str = ""


@dataclass
class Key:
    name: str
    purpose: str
    algorithm: str
    level: str
    created: float
    window: float
    labels: dict[str, str] = field(default_factory=dict)
    import_only: bool = False
    primary: int = 0
    period: float | None = None
    rotates: float | None = None
    versions: list[Version] = field(default_factory=list)


@dataclass
class Job:
    name: str
    method: str
    level: str
    created: float
    key: Any
    looked_at: bool = False


@dataclass
class Ring:
    name: str
    created: float
    keys: dict[str, Key] = field(default_factory=dict)
    jobs: dict[str, Job] = field(default_factory=dict)


class State:
    """Everything, under one lock that callers hold while they read or write."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.lock = threading.RLock()
        self.rings: dict[str, Ring] = {}

    def ring(self, name: str) -> Ring:
        if name not in self.rings:
            raise not_found(f"KeyRing {name}")
        return self.rings[name]

    def key(self, name: str) -> Key:
        ring, _, _ = name.partition("/cryptoKeys/")
        key = self.ring(ring).keys.get(name)
        if key is None:
            raise not_found(f"CryptoKey {name}")
        self._pass_time(key)
        return key

    def version(self, name: str) -> tuple[Key, Version]:
        head, _, number = name.partition("/cryptoKeyVersions/")
        if not number:
            raise invalid(f"{name} is not the name of a CryptoKeyVersion.")
        key = self.key(head)
        found = next((one for one in key.versions if one.name == name), None)
        if found is None:
            raise not_found(f"CryptoKeyVersion {name}")
        return key, found

    def usable(self, name: str, purpose: str) -> tuple[Key, Version]:
        """A version that may be used now for what a call does."""
        key, version = self.version(name)
        self.check_purpose(key, purpose)
        if version.state != "ENABLED":
            raise precondition(f"{name} is not enabled, current state is: {version.state}.")
        if version.material is None:
            raise precondition(f"{name} is held by an external key manager, which does not answer.")
        return key, version

    @staticmethod
    def check_purpose(key: Key, purpose: str) -> None:
        if key.purpose != purpose:
            raise precondition(f"The purpose of {key.name} is {key.purpose}, not {purpose}.")

    def job(self, name: str) -> Job:
        ring, _, _ = name.partition("/importJobs/")
        job = self.ring(ring).jobs.get(name)
        if job is None:
            raise not_found(f"ImportJob {name}")
        return job

    def job_state(self, job: Job) -> str:
        if self.clock.now() >= job.created + JOB_LIFE:
            return "EXPIRED"
        return "ACTIVE" if job.looked_at else "PENDING_GENERATION"

    def new_version(self, key: Key, algorithm: str = "") -> Version:
        now = self.clock.now()
        number = len(key.versions) + 1
        version = Version(
            f"{key.name}/cryptoKeyVersions/{number}",
            number,
            algorithm or key.algorithm,
            key.level,
            "ENABLED",
            now,
        )
        key.versions.append(version)
        return version

    def generated(self, key: Key) -> Version:
        """A new version with material of this server's."""
        version = self.new_version(key)
        version.material = keymaterial.made(version.algorithm)
        version.generated = version.created
        if not keymaterial.secret_bytes(version.algorithm):
            version.state, version.becomes = "PENDING_GENERATION", "ENABLED"
        return version

    def looked_at(self, version: Version) -> str:
        """The state to show; what went on in the background is done by the next look."""
        shown = version.state
        if version.becomes:
            version.state, version.becomes = version.becomes, ""
        return shown

    def _pass_time(self, key: Key) -> None:
        """Destroy what is due, and rotate by the key's own schedule."""
        now = self.clock.now()
        for version in key.versions:
            if version.state == "DESTROY_SCHEDULED" and now >= (version.destroy_at or 0):
                version.state, version.material = "DESTROYED", None
                version.destroyed = version.destroy_at
        while key.period and key.rotates is not None and now >= key.rotates:
            key.rotates += key.period
            key.primary = self.generated(key).number
