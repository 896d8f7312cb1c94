"""Making, finding and removing versions of a console key's one transit key.

Transit numbers its versions itself and takes no label. So what an earlier try did is seen by
comparing its newest version with the newest that the console knows: one more is ours.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Sequence

from keys.algorithms import Family, KeySpec
from keys.backends.base import Material, NoMaterial, Parent
from keys.backends.vault import bringing, names, offers
from keys.backends.vault.acts import Acts
from keys.backends.vault.bringing import Bringer, Brought
from keys.backends.vault.engine import Engine
from keys.backends.vault.records import TransitKey
from keys.errors import BackendError, Conflict, Unsupported
from keys.secret import Secret

_OLDEST_FIRST = "Transit removes the oldest versions first, and the newest only with the whole key"


class Maker:
    """Versions at one mount."""

    def __init__(self, engine: Engine, acts: Acts) -> None:
        self._engine = engine
        self._bringer = Bringer(engine, acts)
        # Threads of this process don't rotate twice for one label.
        self._lock = threading.Lock()

    def find(self, label: uuid.UUID, parent: Parent | None) -> Material | None:
        name, newest = names.place(label, parent)
        key = self._engine.read(name)
        if key is None or key.latest <= newest:
            return None
        return self._bringer.described(key, _ours(key, parent))

    def generate(self, label: uuid.UUID, spec: KeySpec, parent: Parent | None) -> Material:
        name, newest = names.place(label, parent)
        with self._lock:
            key = self._engine.read(name)
            if key is None:
                _check_first(newest)
                body: dict[str, object] = {"type": offers.TYPES[spec.name]}
                if spec.family is Family.HMAC:
                    body["key_size"] = spec.bits // 8
                self._engine.do("POST", f"keys/{name}", body)
                key = self._engine.there(name)
                _check_spec(key, spec)
            else:
                _check_spec(key, spec)
                _check_known(key, newest)
                if key.latest == newest:
                    key = self._rotated(key)
        return self._bringer.described(key, _ours(key, parent))

    def _rotated(self, key: TransitKey) -> TransitKey:
        if not key.rotatable:
            raise Unsupported(
                "The key was imported, and the store may not rotate it: import the next version."
            )
        self._engine.do("POST", f"keys/{key.name}/rotate", {})
        rotated = self._engine.there(key.name)
        if rotated.latest <= key.latest:
            raise BackendError("The store says that it rotated the key, and shows no new version.")
        return rotated

    def bring(
        self, label: uuid.UUID, spec: KeySpec, material: Secret, parent: Parent | None
    ) -> Material:
        brought = bringing.checked(spec, material)
        name, newest = names.place(label, parent)
        with self._lock:
            key = self._engine.read(name)
            if key is not None:
                _check_spec(key, spec)
                _check_known(key, newest)
            fresh = key is None or key.latest == newest
            if fresh:
                key = self._imported(name, newest, key, brought)
        assert key is not None
        version = _ours(key, parent)
        if not self._bringer.holds(key, version, brought):
            if fresh:
                raise BackendError("The store holds other material than was brought.")
            raise Conflict("There is other material under this label already.")
        return self._bringer.described(key, version)

    def _imported(
        self, name: str, newest: int, key: TransitKey | None, brought: Brought
    ) -> TransitKey:
        if key is None:
            _check_first(newest)
        elif not key.imported:
            raise Unsupported(
                "Transit takes another version only for a key that was imported; this one it made."
            )
        self._bringer.bring(name, brought, first=key is None)
        brought_key = self._engine.there(name)
        if brought_key.latest <= newest:
            raise BackendError("The store says that it took the material, and shows no version.")
        return brought_key

    # --- removing

    def destroy(self, handle: str) -> None:
        name, version = names.parsed(handle)
        key = self._engine.read(name)
        if key is None or version < key.lowest or version > key.latest:
            return
        if version == key.lowest == key.latest:
            self._delete(key, {version})
        elif version == key.lowest:
            self._trim(key, version + 1)
        else:
            raise Unsupported(f"{_OLDEST_FIRST}: {key.lowest} to {version - 1} are older.")

    def destroy_all(self, handles: Sequence[str]) -> None:
        """Delete the keys whose versions all are meant; of others, trim what is meant.

        Raises Unsupported where a version that is not meant would go, too.
        """
        meant: dict[str, set[int]] = {}
        for handle in handles:
            name, version = names.parsed(handle)
            meant.setdefault(name, set()).add(version)
        for name, versions in meant.items():
            key = self._engine.read(name)
            if key is None:
                continue
            strangers = set(key.versions) - versions
            newest = max(versions)
            if not strangers:
                self._delete(key, versions)
            elif min(strangers) <= newest:
                raise _strangers(strangers)
            else:
                # Somebody else's newer versions stay.
                self._trim(key, newest + 1)

    def remove(self, handle: str) -> None:
        name, version = names.parsed(handle)
        key = self._engine.read(name)
        if key is None or version < key.lowest:
            return
        if key.latest != 1 or version != 1:
            # Transit would give the material another number when it is brought again.
            raise Unsupported(
                "Transit can take back only the first version of a key, while it is the only one."
            )
        self._delete(key, {version})

    def _delete(self, key: TransitKey, meant: set[int]) -> None:
        """Delete a key whose versions all are `meant`. Raises Unsupported for others."""
        if not key.deletion_allowed:
            self._engine.do("POST", f"keys/{key.name}/config", {"deletion_allowed": True})
        # Looked at as late as can be: somebody may have rotated it meanwhile.
        now = self._engine.read(key.name)
        strangers = set(now.versions) - meant if now is not None else set()
        if strangers:
            if not key.deletion_allowed:
                self._engine.do("POST", f"keys/{key.name}/config", {"deletion_allowed": False})
            raise _strangers(strangers)
        try:
            self._engine.do("DELETE", f"keys/{key.name}")
        except (BackendError, NoMaterial):
            # Perhaps it is gone already, by another's hand.
            if self._engine.read(key.name) is not None:
                raise
        self._engine.forget(key.name)

    def _trim(self, key: TransitKey, lowest: int) -> None:
        """Remove the versions below `lowest`. Both minimums have to be there before."""
        if lowest <= key.lowest:
            return
        minimums = {
            "min_decryption_version": max(key.min_decryption, lowest),
            "min_encryption_version": max(key.min_encryption, lowest),
        }
        self._engine.do("POST", f"keys/{key.name}/config", minimums)
        self._engine.do("POST", f"keys/{key.name}/trim", {"min_available_version": lowest})
        self._engine.forget(key.name)


def check_destroyable(handle: str, among: Sequence[str]) -> None:
    """Raise Unsupported where older versions have to go before. Reaches for nothing."""
    name, version = names.parsed(handle)
    numbers = [number for of, number in map(names.parsed, among) if of == name]
    older = sorted(number for number in numbers if number < version)
    if older:
        those = ", ".join(str(number) for number in older)
        raise Unsupported(f"{_OLDEST_FIRST}: destroy transit's {those} before.")


def _strangers(numbers: set[int]) -> Unsupported:
    told = ", ".join(str(number) for number in sorted(numbers)[:9])
    return Unsupported(
        f"{_OLDEST_FIRST}; the key has versions that the console doesn't know: {told}."
    )


def _ours(key: TransitKey, parent: Parent | None) -> int:
    """The version that a label without a parent stands for is the first; else the newest."""
    return key.latest if parent is not None else key.lowest


def _check_first(newest: int) -> None:
    if newest:
        raise NoMaterial("There is no such key at the store any more.")


def _check_spec(key: TransitKey, spec: KeySpec) -> None:
    if key.spec is not spec or key.derived:
        raise Conflict(f"There is a key of transit's type {key.kind} under this name already.")


def _check_known(key: TransitKey, newest: int) -> None:
    if key.latest < newest:
        raise BackendError(
            "The key at the store has fewer versions than the console knows: it was restored or "
            "made anew there."
        )
