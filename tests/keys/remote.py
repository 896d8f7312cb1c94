"""A key store of kind `remote`: it keeps states of its own, as a cloud's does, in one file.

The material is software material; what the store knows of its keys is a JSON file, so that other
processes see it too. `Vendor` is its owner's own console: it changes things behind the back of ours,
and makes the store be away, ask for fewer calls, or answer nonsense.

    with remote.furnished(house) as vendor:   # the store `cloud`, the classes `cloud` and `voted`
        key = house.key("cloud", name="Payroll")
        vendor.disable(vendor.of(key))
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from keys.algorithms import SPECS, MessageType, Usage
from keys.backends import registry
from keys.backends.base import (
    Backend,
    Capabilities,
    Health,
    Material,
    NoMaterial,
    Parent,
    Protection,
)
from keys.backends.registry import Kind, Setting
from keys.backends.software.backend import SoftwareBackend
from keys.backends.views import KeyView, Page, VersionView
from keys.errors import (
    BackendError,
    BackendRefused,
    BackendUnavailable,
    Conflict,
    KeyServiceError,
    StateForbids,
    StillWaiting,
    Throttled,
    Unsupported,
)
from keys.secret import Secret
from keys.states import GONE, KeyState, VersionState

if TYPE_CHECKING:
    from keys.models import Key
    from tests.house import House

KIND = Kind(
    "remote",
    "Remote",
    "For tests.",
    Protection.SOFTWARE,
    f"{__name__}.RemoteBackend",
    settings=(Setting("file", "File", required=True),),
    remote=True,
    place=("file",),
    identity=("file",),
)
# What it can do; AES-256 is not the spec's own default, as with most clouds.
OFFERS = {
    "AES_256": ("AES_256_GCM",),
    "ECC_NIST_P256": ("ECDSA_SHA_256",),
    "HMAC_256": ("HMAC_SHA_256",),
}
# The store waits by itself with a destruction, in days.
WINDOW = (1, 30)
# A store's own words for a version; there is none for a compromised one.
SHOWN = {VersionState.COMPROMISED: VersionState.SUSPENDED}
OURS = "kms-console"

TROUBLES: dict[str, Callable[[], KeyServiceError]] = {
    "away": lambda: BackendUnavailable("The cable is out."),
    "throttled": lambda: Throttled("Too many calls.", retry_after=30),
    "refused": lambda: BackendRefused("The credential has expired."),
    "nonsense": lambda: BackendError("The answer makes no sense."),
}


class File:
    """What the store knows: {"keys": {name: {...}}, "trouble": {...}}, changed under a lock."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def changed(self) -> Iterator[dict[str, Any]]:
        with self.path.open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            content = json.loads(file.read() or '{"keys": {}, "trouble": {}, "calls": 0}')
            yield content
            file.seek(0)
            file.truncate()
            file.write(json.dumps(content))

    def read(self) -> dict[str, Any]:
        with self.changed() as content:
            return content


class RemoteBackend(Backend):
    """Handles are "NAME/NUMBER"; the newest version that was made serves, unless the vendor chose."""

    kind: ClassVar[str] = "remote"
    needs_root_key: ClassVar[bool] = True
    protection: ClassVar[Protection] = Protection.SOFTWARE
    # As in tests.keys.stores: what happens at a place of this process; it may raise, or end it.
    stops: ClassVar[dict[str, Callable[[], None]]] = {}
    calls: ClassVar[list[str]] = []

    def __init__(
        self, store_id: uuid.UUID, settings: Mapping[str, Any], credential: Secret | None
    ) -> None:
        self._file = File(Path(settings["file"]))
        self._inner = SoftwareBackend(store_id, {}, None)

    @classmethod
    def check_settings(cls, settings: Mapping[str, Any]) -> None:
        """Anything is good enough."""

    def _at(self, place: str) -> None:
        self.calls.append(place)
        if stop := self.stops.get(place):
            stop()

    def _reach(self, what: str) -> None:
        """Raise what is the trouble with the store now."""
        self._at(f"before {what}")
        with self._file.changed() as content:
            content["calls"] += 1
            trouble = content["trouble"].get(what) or content["trouble"].get("")
            if not trouble:
                return
            trouble["times"] -= 1
            if not trouble["times"]:
                content["trouble"] = {}
            kind = trouble["kind"]
        raise TROUBLES[kind]()

    def capabilities(self) -> Capabilities:
        return Capabilities(
            OFFERS,
            imports=frozenset({"AES_256", "HMAC_256"}),
            destroys_at_once=False,
            suspends=True,
            window=WINDOW,
        )

    def health(self) -> Health:
        try:
            self._reach("health")
        except KeyServiceError as error:
            return Health(False, error.detail)
        return Health(True, "Ready.")

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
        self._reach("generate")
        made = self._inner.generate(label, spec, usage=usage)
        found = self._place(label, spec, usage, parent, made, imported=False)
        self._at("after generate")
        return found

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
        self._reach("import")
        made = self._inner.import_material(label, spec, material, usage=usage)
        return self._place(label, spec, usage, parent, made, imported=True)

    def find(self, label: uuid.UUID, parent: Parent | None = None) -> Material | None:
        self._reach("find")
        for name, key in self._file.read()["keys"].items():
            for version in key["versions"]:
                if version["label"] == label.hex and version["state"] not in GONE:
                    made = self._inner.find(label)
                    return made and replace(made, handle=f"{name}/{version['number']}")
        return None

    def _place(
        self,
        label: uuid.UUID,
        spec: str,
        usage: Usage | None,
        parent: Parent | None,
        made: Material,
        *,
        imported: bool,
    ) -> Material:
        name = (
            parent.newest.rpartition("/")[0]
            if parent and parent.newest
            else f"{OURS}-{parent.key if parent else label}"
        )
        with self._file.changed() as content:
            key = content["keys"].setdefault(
                name, new_key(spec, usage or Usage(SPECS[spec].usages[0]), imported=imported)
            )
            if key["spec"] != spec:
                raise Conflict("There is a key of another spec.")
            for version in key["versions"]:
                if version["label"] == label.hex:
                    if version["state"] in GONE:  # imported material comes back
                        version["state"] = "pre_active"
                    return replace(made, handle=f"{name}/{version['number']}")
            number = add_version(key, label, made.public_key, VersionState.PRE_ACTIVE)
        return replace(made, handle=f"{name}/{number}")

    def destroy(self, handle: str) -> None:
        self._reach("destroy")
        name, _, number = handle.rpartition("/")
        with self._file.changed() as content:
            key = content["keys"].get(name)
            version = key and _numbered(key, number)
            if not version or version["state"] in GONE:
                return
            version |= {"state": "destroyed", "destroy_at": None, "primary": False}
        self._inner.destroy(version["label"])

    def destroy_all(self, handles: Sequence[str]) -> None:
        """Begin the store's own window where it wasn't yet, and wait for its end."""
        self._reach("destroy")
        for name in {handle.rpartition("/")[0] for handle in handles}:
            with self._file.changed() as content:
                key = content["keys"].get(name)
                if key is None:
                    continue
                if key["state"] != KeyState.PENDING_DESTRUCTION:
                    until = datetime.now(UTC) + timedelta(days=WINDOW[0])
                    key |= {"state": "pending_destruction", "destroy_at": until.isoformat()}
                until = datetime.fromisoformat(key["destroy_at"])
                over = until <= datetime.now(UTC)
                if over:
                    del content["keys"][name]
            if not over:
                raise StillWaiting("The store waits by itself.", until=until)
            for version in key["versions"]:
                self._inner.destroy(version["label"])

    # --- the store's own view

    def discover(self, cursor: str = "", limit: int = 100) -> Page:
        self._reach("discover")
        keys = sorted(self._file.read()["keys"].items())
        rest = [(name, key) for name, key in keys if name > cursor]
        shown = rest[: min(limit, 10)]
        self._at("after discover")
        return Page(
            tuple(_view(name, key) for name, key in shown),
            shown[-1][0] if len(rest) > len(shown) else "",
            total=len(keys),
        )

    def inspect(self, reference: str) -> KeyView | None:
        self._reach("inspect")
        key = self._file.read()["keys"].get(reference)
        return None if key is None else _view(reference, key)

    def observe(self, wanted: KeyView) -> KeyView | None:
        self._reach("observe")
        keys = self._file.read()["keys"]
        name = _name_of(wanted)
        found = _view(name, keys[name]) if name in keys else None
        self._at("after observe")
        return found

    def expressed(self, wanted: KeyView) -> KeyView:
        versions = tuple(
            replace(version, state=SHOWN.get(version.state, version.state))
            for version in wanted.versions
        )
        return replace(wanted, reference=_name_of(wanted), versions=versions)

    def conform(self, wanted: KeyView) -> None:
        self._reach("conform")
        believed = self.expressed(wanted)
        with self._file.changed() as content:
            key = content["keys"].get(believed.reference)
            if key is None:
                raise NoMaterial
            key |= {
                "state": believed.state.value,
                "destroy_at": believed.destroy_at and believed.destroy_at.isoformat(),
                "rotation_days": believed.rotation_days,
            }
            key["tags"] |= dict(believed.tags)
            for version in believed.versions:
                row = _numbered(key, version.handle.rpartition("/")[2])
                if row is None or row["state"] in GONE:
                    continue
                row |= {"state": version.state.value, "primary": version.primary}
                row["destroy_at"] = version.destroy_at and version.destroy_at.isoformat()
            _one_primary(key, believed)
        self._at("after conform")

    # --- use

    def _ready(self, handle: str) -> str:
        self._reach("use")
        name, _, number = handle.rpartition("/")
        key = self._file.read()["keys"].get(name)
        version = key and _numbered(key, number)
        if not version or version["state"] in GONE:
            raise NoMaterial
        if key["state"] != KeyState.ENABLED or version["state"] == VersionState.SUSPENDED:
            raise StateForbids("The store itself refuses this.")
        return str(version["label"])

    def encrypt(self, handle: str, algorithm: str, plaintext: bytes, aad: bytes) -> bytes:
        return self._inner.encrypt(self._ready(handle), algorithm, plaintext, aad)

    def decrypt(self, handle: str, algorithm: str, ciphertext: bytes, aad: bytes) -> bytes:
        return self._inner.decrypt(self._ready(handle), algorithm, ciphertext, aad)

    def sign(
        self,
        handle: str,
        algorithm: str,
        message: bytes,
        *,
        message_type: MessageType = MessageType.MESSAGE,
    ) -> bytes:
        label = self._ready(handle)
        return self._inner.sign(label, algorithm, message, message_type=message_type)

    def verify(
        self,
        handle: str,
        algorithm: str,
        message: bytes,
        signature: bytes,
        *,
        message_type: MessageType = MessageType.MESSAGE,
    ) -> bool:
        label = self._ready(handle)
        return self._inner.verify(label, algorithm, message, signature, message_type=message_type)

    def mac(self, handle: str, algorithm: str, message: bytes) -> bytes:
        return self._inner.mac(self._ready(handle), algorithm, message)

    def verify_mac(self, handle: str, algorithm: str, message: bytes, tag: bytes) -> bool:
        return self._inner.verify_mac(self._ready(handle), algorithm, message, tag)

    def random(self, count: int) -> bytes:
        raise Unsupported("This store gives no random bytes.")


class Vendor:
    """The store's own console: what its owner does there, past ours."""

    def __init__(self, path: Path, store_id: uuid.UUID) -> None:
        self.file = File(path)
        self._inner = SoftwareBackend(store_id, {}, None)

    def of(self, key: Key) -> str:
        """Return the store's name for a key of the console."""
        handle: str = key.versions.exclude(handle="").order_by("number")[0].handle
        return handle.rpartition("/")[0]

    @property
    def keys(self) -> dict[str, Any]:
        found: dict[str, Any] = self.file.read()["keys"]
        return found

    @property
    def calls(self) -> int:
        """How often the store was asked for anything."""
        return int(self.file.read()["calls"])

    @contextmanager
    def editing(self, name: str) -> Iterator[dict[str, Any]]:
        """Change what the store knows of one key by hand."""
        with self.file.changed() as content:
            yield content["keys"][name]

    def create(self, name: str, spec: str = "AES_256", *, versions: int = 1, **more: Any) -> str:
        """Make a key that the console knows nothing of; returns its name, the store's reference."""
        key = new_key(spec, Usage(SPECS[spec].usages[0])) | more
        for number in range(versions):
            last = number == versions - 1
            self._add(key, VersionState.ACTIVE if last else VersionState.DEACTIVATED, primary=last)
        with self.file.changed() as content:
            content["keys"][name] = key
        return name

    def rotate(self, name: str) -> str:
        """Make a version that serves from now on; returns its handle."""
        with self.file.changed() as content:
            key = content["keys"][name]
            for version in key["versions"]:
                if version["primary"]:
                    version |= {"primary": False, "state": "deactivated"}
            number = self._add(key, VersionState.ACTIVE, primary=True)
        return f"{name}/{number}"

    def set_state(self, name: str, state: str, *, destroy_at: datetime | None = None) -> None:
        with self.editing(name) as key:
            key |= {"state": state, "destroy_at": destroy_at and destroy_at.isoformat()}

    def disable(self, name: str) -> None:
        self.set_state(name, "disabled")

    def enable(self, name: str) -> None:
        self.set_state(name, "enabled")

    def schedule_destruction(self, name: str, days: int = 7) -> None:
        at = datetime.now(UTC) + timedelta(days=days)
        self.set_state(name, "pending_destruction", destroy_at=at)

    def set_version(self, name: str, number: int, **columns: Any) -> None:
        """Change a version: state, destroy_at (ISO 8601), primary, public_key (hex)."""
        with self.editing(name) as key:
            version = _numbered(key, str(number))
            assert version is not None
            version |= columns

    def remove_version(self, name: str, number: int) -> None:
        """Let a version be gone without a trace."""
        with self.editing(name) as key:
            key["versions"] = [v for v in key["versions"] if v["number"] != number]

    def remove(self, name: str) -> None:
        """Let a key be gone without a trace."""
        with self.file.changed() as content:
            del content["keys"][name]

    def tag(self, name: str, **tags: str | None) -> None:
        """Set tags; None takes one away."""
        with self.editing(name) as key:
            merged = key["tags"] | tags
            key["tags"] = {tag: value for tag, value in merged.items() if value is not None}

    def in_trouble(self, kind: str, times: int = 1_000_000, what: str = "") -> None:
        """Let the next `times` calls (of one method: `what`) fail: a key of TROUBLES."""
        with self.file.changed() as content:
            content["trouble"] = {what: {"kind": kind, "times": times}}

    def well_again(self) -> None:
        with self.file.changed() as content:
            content["trouble"] = {}

    def let_days_pass(self, days: int) -> None:
        """Move the store's own dates into the past, as House.let_days_pass() does with ours.

        What the store is to destroy by then, it has destroyed.
        """
        with self.file.changed() as content:
            for key in content["keys"].values():
                for row in [key, *key["versions"]]:
                    if row["destroy_at"]:
                        at = datetime.fromisoformat(row["destroy_at"]) - timedelta(days=days)
                        row["destroy_at"] = at.isoformat()
                for row in key["versions"]:
                    if _over(row):
                        row |= {"state": "destroyed", "destroy_at": None, "primary": False}
            content["keys"] = {name: key for name, key in content["keys"].items() if not _over(key)}

    def _add(self, key: dict[str, Any], state: VersionState, *, primary: bool) -> int:
        label = uuid.uuid4()
        made = self._inner.generate(label, key["spec"])
        return add_version(key, label, made.public_key, state, primary=primary)


# --- rows of the file


def new_key(spec: str, usage: Usage, *, imported: bool = False) -> dict[str, Any]:
    return {
        "spec": spec,
        "usage": usage.value,
        "algorithm": OFFERS[spec][0],
        "state": "enabled",
        "destroy_at": None,
        "rotation_days": None,
        "tags": {},
        "imported": imported,
        "provider_managed": False,
        "problem": "",
        "facts": {},
        "versions": [],
        "made": 0,
    }


def add_version(
    key: dict[str, Any],
    label: uuid.UUID,
    public_key: bytes | None,
    state: VersionState,
    *,
    primary: bool = False,
) -> int:
    key["made"] += 1
    row = {
        "number": key["made"],
        "label": label.hex,
        "state": state.value,
        "primary": primary,
        "destroy_at": None,
        "public_key": public_key.hex() if public_key else None,
        "created_at": datetime.now(UTC).isoformat(),
    }
    key["versions"].append(row)
    return int(key["made"])


def _numbered(key: dict[str, Any], number: str) -> dict[str, Any] | None:
    return next((row for row in key["versions"] if str(row["number"]) == number), None)


def _over(row: Mapping[str, Any]) -> bool:
    at = _moment(row["destroy_at"])
    return at is not None and at <= datetime.now(UTC)


def _one_primary(key: dict[str, Any], believed: KeyView) -> None:
    """A version that the console doesn't know serves no more where a known one is to serve."""
    known = {version.handle.rpartition("/")[2] for version in believed.versions}
    if not any(version.primary for version in believed.versions):
        return
    for row in key["versions"]:
        if str(row["number"]) not in known:
            row["primary"] = False


def _name_of(wanted: KeyView) -> str:
    return wanted.versions[0].handle.rpartition("/")[0] if wanted.versions else ""


def _view(name: str, key: Mapping[str, Any]) -> KeyView:
    return KeyView(
        reference=name,
        name=name,
        state=KeyState(key["state"]),
        versions=tuple(_version(name, row) for row in key["versions"]),
        spec=key["spec"],
        usage=key["usage"],
        algorithm=key["algorithm"],
        imported=key["imported"],
        provider_managed=key["provider_managed"],
        rotation_days=key["rotation_days"],
        destroy_at=_moment(key["destroy_at"]),
        tags=key["tags"],
        facts=key["facts"],
        problem=key["problem"],
    )


def _version(name: str, row: Mapping[str, Any]) -> VersionView:
    return VersionView(
        handle=f"{name}/{row['number']}",
        state=VersionState(row["state"]),
        primary=row["primary"],
        destroy_at=_moment(row["destroy_at"]),
        public_key=bytes.fromhex(row["public_key"]) if row["public_key"] else None,
        created_at=_moment(row["created_at"]),
    )


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


# --- furnishing a test


def register(stops: dict[str, Callable[[], None]] | None = None) -> None:
    """Make the kind known to this process, with these stops."""
    kinds: Any = registry.KINDS
    kinds["remote"] = KIND
    RemoteBackend.stops.clear()
    RemoteBackend.stops.update(stops or {})
    RemoteBackend.calls.clear()


def unregister() -> None:
    kinds: Any = registry.KINDS
    kinds.pop("remote", None)
    RemoteBackend.stops.clear()


@contextmanager
def furnished(house: House) -> Iterator[Vendor]:
    """Add the key store `cloud` and two classifications that allow it: `cloud`, and `voted` (2 of 3)."""
    from keys import administration
    from keys.services import operator

    register()
    path = house.folder / "remote.json"
    try:
        store = administration.create_key_store(
            operator(), name="cloud", kind="remote", title="Cloud", settings={"file": str(path)}
        )
        common: dict[str, Any] = {"allowed_specs": sorted(OFFERS), "key_stores": ["cloud"]}
        administration.create_classification(operator(), name="cloud", title="Cloud", **common)
        administration.create_classification(
            operator(), name="voted", title="Voted", quorum_m=2, quorum_n=3, **common
        )
        yield Vendor(path, store.id)
    finally:
        unregister()


KILLED = """
import json, os, signal, sys
from tests.databases import connected_to
from tests.keys import remote

def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)

url, material_url, code, about, point = json.loads(sys.stdin.readline())
remote.register({point: die})
with connected_to(url, material_url):
    exec(code, {"about": about, "point": point, "die": die})
"""


def killed(house: House, folder: Path, code: str, about: str, point: str) -> None:
    """Run code in a process of its own that is killed (SIGKILL) at a point of the store, or by `die()`."""
    from django.conf import settings
    from django.db import connections

    from tests.processes import Process

    connections.close_all()
    command = [sys.executable, "-c", "import django; django.setup()\n" + KILLED]
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "kms_console.settings",
        "SECRET_KEY": settings.SECRET_KEY,
        "KMS_DATA": str(folder),
        "KMS_ROOT_KEY_PATH": str(settings.ROOT_KEY_FILE),
    }
    process = Process(command, environment, folder / "output", stdin=subprocess.PIPE)
    try:
        places = [house.database.url, house.database.material_url]
        process.tell(json.dumps([*places, code, about, point]) + "\n")
        assert process.wait() == -9, process.text
    finally:
        process.kill()
