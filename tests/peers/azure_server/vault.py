"""One vault or managed HSM: its keys, their versions and attributes, and Azure's rules for them."""

from __future__ import annotations

import base64
import os
import re
import threading
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

from tests.peers.azure_server import crypto
from tests.peers.azure_server.crypto import Refused, bad

DAY = 86_400
PAGE = 25
HSM_VERSIONS = 100
ALL_OPERATIONS = {
    "RSA": ["encrypt", "decrypt", "sign", "verify", "wrapKey", "unwrapKey"],
    "EC": ["sign", "verify"],
    "oct": ["encrypt", "decrypt", "wrapKey", "unwrapKey"],
}
# The operation in the address, and its name in key_ops. Those that a date does not forbid.
OPERATIONS = {
    "encrypt": ("encrypt", crypto.encrypt),
    "decrypt": ("decrypt", crypto.decrypt),
    "sign": ("sign", crypto.sign),
    "verify": ("verify", crypto.verify),
    "wrapkey": ("wrapKey", crypto.encrypt),
    "unwrapkey": ("unwrapKey", crypto.decrypt),
}
ALWAYS = ("decrypt", "unwrapkey", "verify")
_NAME = re.compile(r"[0-9a-zA-Z-]{1,127}")
_DURATION = re.compile(r"P(?:(\d+)Y)?(?:(\d+)M)?(?:(\d+)D)?(?:T.*)?")


@dataclass
class Rules:
    """How a vault was made. `lag`: how many looks a deletion or recovery takes to be seen. `denied`:
    the operations for which the caller has no permission. `page`: the most rows that a list gives at
    once. `hides_disabled`: a disabled key is not
    shown by get (Azure does so with secrets; of keys there are reports both ways)."""

    managed: bool = False
    retention: int = 90
    purge_protection: bool = False
    hides_disabled: bool = False
    lag: int = 0
    denied: tuple[str, ...] = ()
    ahead: int = 0
    page: int = PAGE


@dataclass
class Version:
    id: str
    kind: str
    material: Any
    operations: list[str]
    tags: dict[str, str]
    created: int
    updated: int
    enabled: bool = True
    nbf: int | None = None
    exp: int | None = None


@dataclass
class Key:
    name: str
    versions: list[Version] = field(default_factory=list)
    managed: bool = False  # it backs a certificate
    deleted: int | None = None
    unseen: int = 0
    policy: dict[str, Any] | None = None

    @property
    def newest(self) -> Version:
        return self.versions[-1]


class Vault:
    """Methods return (status, body) or raise Refused. `base` is the address that the caller used."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.keys: dict[str, Key] = {}
        self.lock = threading.RLock()

    def now(self) -> int:
        return int(time.time()) + self.rules.ahead

    # --- forms

    def bundle(self, base: str, key: Key, version: Version) -> dict[str, Any]:
        jwk = {
            "kid": f"{base}/keys/{key.name}/{version.id}",
            "kty": version.kind,
            "key_ops": version.operations,
            **crypto.public_members(version.material),
        }
        found = {"key": jwk, "attributes": self.attributes(version), "tags": version.tags}
        return found | ({"managed": True} if key.managed else {})

    def attributes(self, version: Version) -> dict[str, Any]:
        level = "CustomizedRecoverable" if self.rules.retention < 90 else "Recoverable"
        found = {
            "enabled": version.enabled,
            "created": version.created,
            "updated": version.updated,
            "recoveryLevel": level + ("" if self.rules.purge_protection else "+Purgeable"),
            "recoverableDays": self.rules.retention,
            "exportable": False,
        }
        dates = {"nbf": version.nbf, "exp": version.exp}
        return found | {name: value for name, value in dates.items() if value is not None}

    def item(self, base: str, key: Key, version: Version, *, whole: bool = False) -> dict[str, Any]:
        found = {
            "kid": f"{base}/keys/{key.name}" + (f"/{version.id}" if whole else ""),
            "attributes": self.attributes(version),
            "tags": version.tags,
        }
        return found | ({"managed": True} if key.managed else {})

    def deletion(self, base: str, key: Key) -> dict[str, Any]:
        assert key.deleted is not None
        return {
            "recoveryId": f"{base}/deletedkeys/{key.name}",
            "deletedDate": key.deleted,
            "scheduledPurgeDate": key.deleted + self.rules.retention * DAY,
        }

    # --- finding

    def allow(self, permission: str) -> None:
        if permission in self.rules.denied:
            raise Refused(
                403, "Forbidden", f"The caller is not authorized to perform {permission}.",
                "ForbiddenByRbac",
            )  # fmt: skip

    def living(self, name: str) -> Key:
        self.expire()
        key = self.keys.get(name)
        if key is None or key.deleted is not None or key.unseen:
            if key is not None and key.deleted is None:
                key.unseen -= 1
            raise Refused(
                404, "KeyNotFound",
                f"A key with (name/id) {name} was not found in this key vault.",
            )  # fmt: skip
        return key

    def gone(self, name: str) -> Key:
        self.expire()
        key = self.keys.get(name)
        if key is None or key.deleted is None or key.unseen:
            if key is not None and key.deleted is not None:
                key.unseen -= 1
            raise Refused(404, "KeyNotFound", f"Deleted key not found: {name}")
        return key

    def version(self, name: str, version: str) -> tuple[Key, Version]:
        key = self.living(name)
        if not version:
            return key, key.newest
        for one in key.versions:
            if one.id == version:
                return key, one
        raise Refused(
            404, "KeyNotFound",
            f"A key with (name/id) {name}/{version} was not found in this key vault.",
        )  # fmt: skip

    def expire(self) -> None:
        """Purge what was deleted long enough ago."""
        for name, key in list(self.keys.items()):
            if key.deleted is not None and key.deleted + self.rules.retention * DAY <= self.now():
                del self.keys[name]

    # --- keys

    def create(self, base: str, name: str, body: dict[str, Any]) -> tuple[int, Any]:
        self.allow("create")
        kind = body.get("kty")
        if not isinstance(kind, str) or kind.removesuffix("-HSM") not in ALL_OPERATIONS:
            raise bad("Property  has invalid value: kty")
        symmetric = kind.startswith("oct")
        if self.rules.managed and not kind.endswith("-HSM"):
            raise bad("A managed HSM holds HSM keys only.")
        if symmetric and not self.rules.managed:
            raise bad("Symmetric keys are kept in managed HSMs only.")
        self.check_name(name)
        material = crypto.generate(kind, body.get("key_size"), body.get("crv"))
        return self.added(base, name, kind, material, body, body.get("key_ops"))

    def import_key(self, base: str, name: str, body: dict[str, Any]) -> tuple[int, Any]:
        self.allow("import")
        jwk = body.get("key")
        if not isinstance(jwk, dict):
            raise bad("The request body must specify key.")
        self.check_name(name)
        kind = str(jwk.get("kty")).removesuffix("-HSM")
        hardware = bool(body.get("Hsm")) or str(jwk.get("kty")).endswith("-HSM")
        if self.rules.managed and not hardware:
            raise bad("A managed HSM holds HSM keys only.")
        material = crypto.imported(jwk)
        return self.added(
            base, name, f"{kind}-HSM" if hardware else kind, material, body, jwk.get("key_ops")
        )

    def check_name(self, name: str) -> None:
        self.expire()
        if not _NAME.fullmatch(name):
            raise bad("The request URI contains an invalid name.")
        key = self.keys.get(name)
        if key is not None and key.deleted is not None:
            raise Refused(
                409, "Conflict",
                f"Key {name} is currently in a deleted but recoverable state, and its name cannot "
                "be reused; in this state, the key can only be recovered or purged.",
                "ObjectIsDeletedButRecoverable",
            )  # fmt: skip

    def added(
        self, base: str, name: str, kind: str, material: Any, body: dict[str, Any], operations: Any
    ) -> tuple[int, Any]:
        key = self.keys.setdefault(name, Key(name))
        if self.rules.managed and len(key.versions) >= HSM_VERSIONS:
            raise Refused(403, "Forbidden", "The key has the most versions that it can have.")
        able = ALL_OPERATIONS[kind.removesuffix("-HSM")]
        chosen = able if operations is None else operations
        if not isinstance(chosen, list) or not set(chosen) <= set(able):
            raise bad("Property  has invalid value: key_ops")
        now = self.now()
        version = Version(uuid.uuid4().hex, kind, material, list(chosen), {}, now, now)
        lifetime = _days((key.policy or {}).get("attributes", {}).get("expiryTime"))
        if lifetime:
            version.exp = now + lifetime * DAY
        self.apply(version, body)
        key.versions.append(version)
        return 200, self.bundle(base, key, version)

    def apply(self, version: Version, body: dict[str, Any]) -> None:
        """Change what a body names: attributes as a whole where they are given, tags likewise."""
        attributes = body.get("attributes") or {}
        begins, ends = attributes.get("nbf", version.nbf), attributes.get("exp", version.exp)
        if begins is not None and ends is not None and begins >= ends:
            raise bad("The nbf of a key must be before its exp.")
        tags = body.get("tags")
        if tags is not None and (
            len(tags) > 15
            or any(len(name) > 256 or len(value) > 256 for name, value in tags.items())
        ):
            raise bad("A key has at most 15 tags of 256 characters.")
        version.nbf, version.exp = begins, ends
        version.enabled = attributes.get("enabled", version.enabled)
        version.tags = dict(tags) if tags is not None else version.tags
        if body.get("key_ops") is not None and "kty" not in body:
            version.operations = list(body["key_ops"])

    def get(self, base: str, name: str, version: str) -> tuple[int, Any]:
        self.allow("get")
        key, found = self.version(name, version)
        if self.rules.hides_disabled and not found.enabled:
            raise Refused(
                403, "Forbidden", "Operation get is not allowed on a disabled key.", "KeyDisabled"
            )
        return 200, self.bundle(base, key, found)

    def update(self, base: str, name: str, version: str, body: dict[str, Any]) -> tuple[int, Any]:
        self.allow("update")
        key, found = self.version(name, version)
        if key.managed:
            raise Refused(403, "Forbidden", "The key is managed by a certificate.")
        self.apply(found, body)
        found.updated = self.now()
        return 200, self.bundle(base, key, found)

    def delete(self, base: str, name: str) -> tuple[int, Any]:
        self.allow("delete")
        key = self.living(name)
        key.deleted, key.unseen = self.now(), self.rules.lag
        return 200, self.bundle(base, key, key.newest) | self.deletion(base, key)

    # --- deleted keys

    def get_deleted(self, base: str, name: str) -> tuple[int, Any]:
        self.allow("get")
        key = self.gone(name)
        return 200, self.bundle(base, key, key.newest) | self.deletion(base, key)

    def recover(self, base: str, name: str) -> tuple[int, Any]:
        self.allow("recover")
        key = self.gone(name)
        key.deleted, key.unseen = None, self.rules.lag
        return 200, self.bundle(base, key, key.newest)

    def purge(self, name: str) -> tuple[int, Any]:
        self.allow("purge")
        self.gone(name)
        if self.rules.purge_protection:
            raise Refused(
                403, "Forbidden", "Operation purge is not allowed: purge protection is enabled.",
                "ForbiddenByPolicy",
            )  # fmt: skip
        del self.keys[name]
        return 204, None

    # --- lists

    def page(
        self, address: str, rows: list[Any], query: dict[str, str], version: str
    ) -> tuple[int, Any]:
        """Return a page and the address of the next one."""
        try:
            most = int(query.get("maxresults", PAGE))
            start = int(base64.urlsafe_b64decode(query.get("$skiptoken", "") or "MA=="))
        except ValueError:
            raise bad("Invalid maxresults or $skiptoken.") from None
        if not 1 <= most <= PAGE:
            raise bad(f"maxresults must be between 1 and {PAGE}.")
        most = min(most, self.rules.page)
        end, link = start + most, None
        if end < len(rows):
            mark = base64.urlsafe_b64encode(str(end).encode()).decode().replace("=", "%3D")
            link = f"{address}?api-version={version}&$skiptoken={mark}&maxresults={most}"
        return 200, {"value": rows[start:end], "nextLink": link}

    def listed(self, base: str, query: dict[str, str], *, deleted: bool) -> tuple[int, Any]:
        self.allow("list")
        self.expire()
        keys = [self.keys[name] for name in sorted(self.keys)]
        rows = []
        for key in keys:
            if (key.deleted is not None) is deleted and not key.unseen:
                more = self.deletion(base, key) if deleted else {}
                rows.append(self.item(base, key, key.newest) | more)
        path = "deletedkeys" if deleted else "keys"
        return self.page(f"{base}/{path}", rows, query, query["api-version"])

    def versions(self, base: str, name: str, query: dict[str, str]) -> tuple[int, Any]:
        """By the order of their ids, which is none of time."""
        self.allow("list")
        key = self.living(name)
        ordered = sorted(key.versions, key=lambda one: one.id)
        rows = [self.item(base, key, one, whole=True) for one in ordered]
        return self.page(f"{base}/keys/{name}/versions", rows, query, query["api-version"])

    # --- rotation

    def policy(self, base: str, name: str) -> tuple[int, Any]:
        self.allow("getrotationpolicy")
        key = self.living(name)
        found = key.policy or {
            "lifetimeActions": [
                {"trigger": {"timeBeforeExpiry": "P30D"}, "action": {"type": "Notify"}}
            ],
            "attributes": {"expiryTime": None},
        }
        return 200, {"id": f"{base}/keys/{name}/rotationpolicy", **found}

    def set_policy(self, base: str, name: str, body: dict[str, Any]) -> tuple[int, Any]:
        self.allow("setrotationpolicy")
        key = self.living(name)
        lifetime = _days((body.get("attributes") or {}).get("expiryTime"))
        for action in body.get("lifetimeActions") or []:
            after = _days((action.get("trigger") or {}).get("timeAfterCreate"))
            kind = action.get("action", {}).get("type", "").lower()
            if kind == "rotate" and after is not None and after < 7:
                raise bad("The rotation must be at least 7 days after creation.")
        if lifetime is not None and lifetime < 28:
            raise bad("The expiry time must be at least 28 days.")
        now = self.now()
        key.policy = {
            "lifetimeActions": body.get("lifetimeActions") or [],
            "attributes": {**(body.get("attributes") or {}), "created": now, "updated": now},
        }
        return self.policy(base, name)

    def rotate(self, base: str, name: str) -> tuple[int, Any]:
        """Make the next version like the newest one, tags and all (assumed)."""
        self.allow("rotate")
        key = self.living(name)
        old = key.newest
        size = getattr(old.material, "key_size", None) or 8 * len(old.material)
        is_curve = old.kind.startswith("EC")
        curve = crypto.curve_of(old.material) if is_curve else None
        material = crypto.generate(old.kind, None if is_curve else size, curve)
        return self.added(base, name, old.kind, material, {"tags": old.tags}, old.operations)

    # --- uses

    def use(self, base: str, name: str, version: str, operation: str, body: Any) -> tuple[int, Any]:
        permission, act = OPERATIONS[operation]
        self.allow(permission)
        key, found = self.version(name, version)
        if not found.enabled:
            raise Refused(
                403, "Forbidden", f"Operation {permission} is not allowed on a disabled key.",
                "KeyDisabled",
            )  # fmt: skip
        # The reference names the rule and the status of these two; their words are assumed.
        if operation not in ALWAYS:
            if found.nbf is not None and self.now() < found.nbf:
                raise Refused(403, "Forbidden", "The key is not yet valid.", "KeyNotYetValid")
            if found.exp is not None and self.now() >= found.exp:
                raise Refused(403, "Forbidden", "The key has expired.", "KeyExpired")
        if permission not in found.operations:
            raise Refused(
                403, "Forbidden", f"Operation {permission} is not permitted on this key.",
                "KeyOperationForbidden",
            )  # fmt: skip
        answer = act(found.material, str(body.get("alg")), body)
        return 200, {"kid": f"{base}/keys/{key.name}/{found.id}", **answer}

    def random(self, body: dict[str, Any]) -> tuple[int, Any]:
        count = body.get("count")
        if not self.rules.managed:
            raise Refused(404, "NotFound", "A vault has no such operation.")
        if not isinstance(count, int) or not 1 <= count <= 128:
            raise bad("count must be between 1 and 128.")
        return 200, {"value": crypto.b64(os.urandom(count))}


def _days(duration: Any) -> int | None:
    found = _DURATION.fullmatch(duration) if isinstance(duration, str) else None
    if found is None:
        return None
    years, months, days = (int(part or 0) for part in found.groups())
    return 365 * years + 30 * months + days
