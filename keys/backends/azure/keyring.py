"""Keys and versions at Azure: found by label, made once, known by handle."""

from __future__ import annotations

import threading
import uuid
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from azure.keyvault.keys import KeyProperties, KeyVaultKey

from keys.algorithms import SPECS, Algorithm, Family, KeySpec, Usage
from keys.backends import materials
from keys.backends.azure import forms, offers
from keys.backends.azure.configuration import Configuration
from keys.backends.azure.connection import Connection
from keys.backends.azure.failures import asked
from keys.backends.azure.naming import (
    CHECK_TAG,
    OURS,
    SPEC_TAG,
    VERSION_TAG,
    Handle,
    handle_of,
    name_for,
    others_tags,
    tags_for,
)
from keys.backends.base import Material, Parent
from keys.errors import BackendError, Conflict, StateForbids, Unsupported

KNOWN_LIMIT = 4096
# Making the next version of a key looks first whether it is there; one at a time a key.
_LOCKS = tuple(threading.Lock() for _ in range(64))


@dataclass(frozen=True, slots=True)
class Known:
    """What never changes of a version, and what it may be used for. `spec` None: none of the console's."""

    spec: KeySpec | None
    public_key: bytes | None
    operations: frozenset[str]
    kind: str


class Keyring:
    """The keys of one vault, as far as this process has met them."""

    def __init__(self, connection: Connection, configuration: Configuration) -> None:
        self.connection = connection
        self.managed = configuration.managed
        self._hardware = configuration.hardware
        self._known: OrderedDict[Handle, Known] = OrderedDict()
        self._lock = threading.Lock()

    # --- what is known of a version

    def known(self, handle: Handle) -> Known:
        """Return what is known of a version, asking Azure once. Raises NoMaterial."""
        with self._lock:
            found = self._known.get(handle)
            if found is not None:
                self._known.move_to_end(handle)
                return found
        client = self.connection.client
        key = asked(lambda: client.get_key(handle.name, handle.version))
        if handle_of(key.id) != handle:
            raise BackendError("Azure answered with another key than was asked.")
        return self.remember(key)

    def remember(self, key: KeyVaultKey) -> Known:
        handle = handle_of(key.id)
        jwk: Any = key.key  # its members are not declared
        spec, public = asked(lambda: forms.public_of(jwk))
        kind = forms.text(jwk.kty)
        if kind.startswith("oct"):
            spec = _secret_spec(key.properties.tags)
        operations = frozenset(forms.text(one) for one in jwk.key_ops or ())
        found = Known(spec, public, operations, kind)
        with self._lock:
            self._known[handle] = found
            while len(self._known) > KNOWN_LIMIT:
                self._known.popitem(last=False)
        return found

    def forget(self, name: str) -> None:
        with self._lock:
            for handle in [one for one in self._known if one.name == name]:
                del self._known[handle]

    def usable(
        self, handle: Handle, algorithm: str, usage: Usage, operation: str
    ) -> tuple[Known, KeySpec, Algorithm]:
        """Return a version for a use of it. Raises Unsupported where it is for something else."""
        known = self.known(handle)
        if known.spec is None:
            raise Unsupported("The console knows no such keys.")
        row = materials.algorithm_for(offers.algorithms(self.managed), known.spec, algorithm)
        if usage not in row.usages or operation not in known.operations:
            able = ", ".join(sorted(known.operations)) or "nothing"
            raise Unsupported(f"This key at Azure is for {able}, with an algorithm for it.")
        return known, known.spec, row

    # --- by label

    def labelled(self, name: str, label: uuid.UUID) -> KeyProperties | None:
        """Return the version made under a label: of several, the oldest."""
        rows = self.connection.versions(name)
        return next((row for row in rows if _label(row) == str(label)), None)

    def find(self, label: uuid.UUID, parent: Parent | None) -> Material | None:
        found = self.labelled(name_for(label, parent), label)
        return None if found is None else self._described(found)

    def generate(
        self, label: uuid.UUID, spec: str, usage: Usage | None, parent: Parent | None
    ) -> Material:
        row, purpose = offers.offered_spec(self.managed, spec, usage)
        name = name_for(label, parent)
        with _LOCKS[hash(name) % len(_LOCKS)]:
            versions = self.connection.versions(name)
            found = next((one for one in versions if _label(one) == str(label)), None)
            if found is None:
                return self._made(label, row, purpose, parent, name, versions)
        self._check_same(found, row, usage)
        return self._described(found)

    def _made(
        self,
        label: uuid.UUID,
        spec: KeySpec,
        purpose: Usage,
        parent: Parent | None,
        name: str,
        versions: Sequence[KeyProperties],
    ) -> Material:
        kind, operations, tags = self._next(spec, purpose, name, versions)
        tags |= tags_for(label, parent)
        if not spec.asymmetric:
            tags[SPEC_TAG] = spec.name
        client = self.connection.client
        key = asked(
            lambda: client.create_key(
                name,
                kind,
                size=None if spec.family is Family.EC else spec.bits,
                curve=forms.curve_name(spec) if spec.family is Family.EC else None,
                key_operations=list(operations),
                tags=tags,
            )
        )
        return self._checked(key, spec)

    def import_pair(
        self,
        label: uuid.UUID,
        spec: KeySpec,
        usage: Usage | None,
        purpose: Usage,
        pair: materials.PrivateKey,
        parent: Parent | None,
    ) -> Material:
        wanted = materials.check_value_of_public_key(materials.public_der(pair))
        name = name_for(label, parent)
        with _LOCKS[hash(name) % len(_LOCKS)]:
            versions = self.connection.versions(name)
            found = next((one for one in versions if _label(one) == str(label)), None)
            if found is None:
                kind, operations, tags = self._next(spec, purpose, name, versions)
                tags |= tags_for(label, parent) | {CHECK_TAG: wanted}
                jwk = forms.private_web_key(pair, spec, list(operations))
                client = self.connection.client
                key = asked(
                    lambda: client.import_key(
                        name, jwk, hardware_protected=kind.endswith("-HSM"), tags=tags
                    )
                )
                return self._checked(key, spec, wanted)
        self._check_same(found, spec, usage)
        described = self._described(found)
        if described.check_value != wanted:
            raise Conflict("There is other material under this label already.")
        return described

    def _next(
        self,
        spec: KeySpec,
        purpose: Usage,
        name: str,
        versions: Sequence[KeyProperties],
    ) -> tuple[str, Sequence[str], dict[str, str]]:
        """Return type, operations and tags of a key's next version.

        Other people's tags go on to it, since Azure takes a key's newest version for the key; of an
        adopted key also its type and operations, which others may rely on.
        """
        if self.managed and len(versions) >= offers.HSM_VERSIONS:
            raise Unsupported(
                f"A managed HSM holds at most {offers.HSM_VERSIONS} versions of a key; "
                "this one has them. Make a new key."
            )
        kind, operations = offers.key_type(spec, self._hardware), offers.OPERATIONS[purpose]
        if not versions:
            return kind, operations, {}
        newest = versions[-1]
        if not name.startswith(f"{OURS}-"):
            try:
                before = self.known(handle_of(newest.id))
            except StateForbids:  # disabled, and this vault shows nothing of it
                return kind, operations, others_tags(newest.tags)
            if before.spec is spec:
                kind, operations = before.kind, tuple(sorted(before.operations))
        return kind, operations, others_tags(newest.tags)

    def _checked(self, key: KeyVaultKey, spec: KeySpec, check_value: str = "") -> Material:
        """Return what Azure made or took, after a look whether it is what was asked for."""
        known = self.remember(key)
        made = _material(handle_of(key.id), known)
        if known.spec is not spec or (check_value and made.check_value != check_value):
            raise BackendError("Azure made another key than was asked for.")
        return made

    def _check_same(self, found: KeyProperties, spec: KeySpec, usage: Usage | None) -> None:
        known = self.known(handle_of(found.id))
        if known.spec is not spec:
            raise Conflict("There is material of another spec under this label already.")
        if usage is not None and not known.operations.issuperset(offers.OPERATIONS[usage]):
            raise Conflict("There is material for another purpose under this label already.")

    def _described(self, found: KeyProperties) -> Material:
        handle = handle_of(found.id)
        return _material(handle, self.known(handle))


def _material(handle: Handle, known: Known) -> Material:
    public = known.public_key
    # Of a secret nothing can be told: Azure computes nothing that a check value could be made of.
    check = "" if public is None else materials.check_value_of_public_key(public)
    return Material(str(handle), check, public)


def _label(row: KeyProperties) -> str:
    return (row.tags or {}).get(VERSION_TAG, "")


def _secret_spec(tags: Mapping[str, str] | None) -> KeySpec | None:
    found = SPECS.get((tags or {}).get(SPEC_TAG, ""))
    return found if found is not None and found.family is Family.AES else None
