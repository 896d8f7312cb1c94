"""New versions: made by Google, or brought from outside.

Google numbers versions itself. So before a version is asked for, the key's labels say for whom the
next number is (keys.backends.gcp.names); after a crash that tells whether it was made. Where it was
not, the number may go to a version of Google's own schedule, or of somebody else: what such a version
is known by is never taken for ours (Making._is_ours).
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from keys.algorithms import Usage
from keys.backends import materials
from keys.backends.base import Material, NoMaterial, Parent
from keys.backends.gcp import names
from keys.backends.gcp.forms import FORMS, Form, form_for
from keys.backends.gcp.importing import Importing
from keys.backends.gcp.keyring import ALGORITHM_NAMES, GONE, LEVEL_NAMES, PENDING, Keyring, Seen
from keys.backends.gcp.labels import Labels
from keys.backends.gcp.names import Mark
from keys.errors import (
    AlreadyExists,
    BackendError,
    BackendRefused,
    BackendUnavailable,
    Conflict,
    Invalid,
    KeyServiceError,
    StateForbids,
    Throttled,
    Unsupported,
)
from keys.secret import Secret, same

PATIENCE_SECONDS = 12.0
# What Google says before it does anything; of other errors nobody knows whether it did.
REFUSED = (BackendRefused, Throttled, StateForbids, Invalid, Unsupported)
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.05, 1.0


class Making:
    """Writes new keys and versions. Two threads must not ask for the same number of a key twice."""

    def __init__(self, keyring: Keyring, labels: Labels) -> None:
        self._keyring = keyring
        self._labels = labels
        self._call = keyring.connection.call
        self._importing = Importing(keyring)

    def generate(
        self, label: uuid.UUID, spec: str, usage: Usage | None, parent: Parent | None
    ) -> Material:
        level = self._keyring.configuration.level
        form = form_for(level, spec, usage, parent.algorithm if parent else "")
        name = names.key_of(self._keyring.ring, label, parent)
        with self._labels.lock(name):
            key = self._keyring.key(name)
            if key is None:
                key = self._new_key(name, form, label, parent)
            _check_fits(key, form, usage, level)
            mark, version = self._planned(key, label, parent)
            self._check_ours(key.name, mark, version)
            if version is None or version.state == "GENERATION_FAILED":
                version = self._next(key.name, label)
            elif version.state in GONE or version.state == "DESTROY_SCHEDULED":
                raise Conflict("The material under this label was destroyed.")
        return self._material(self._ready(version), mark.check if mark else "")

    def find(self, label: uuid.UUID, parent: Parent | None) -> Material | None:
        name = names.key_of(self._keyring.ring, label, parent)
        key = self._keyring.key(name)
        if key is None:
            return None
        mark, version = self._planned(key, label, parent)
        if version is None or version.state in GONE | PENDING | {"DESTROY_SCHEDULED"}:
            return None
        if not self._is_ours(name, mark, version):
            return None
        return self._material(version, mark.check if mark else "")

    def bring(
        self,
        label: uuid.UUID,
        spec: str,
        material: Secret,
        usage: Usage | None,
        parent: Parent | None,
    ) -> Material:
        level = self._keyring.configuration.level
        form = form_for(level, spec, usage, parent.algorithm if parent else "")
        raw, check = self._importing.prepared(form, material)
        name = names.key_of(self._keyring.ring, label, parent)
        with self._labels.lock(name):
            key = self._keyring.key(name)
            if key is None:
                key = self._new_key(name, form, label, parent, check=check)
            _check_fits(key, form, usage, level)
            mark, version = self._planned(key, label, parent)
            self._check_ours(name, mark, version)
            _check_same(mark, version, check)
            version = self._brought(name, label, form, raw, check, version)
        return self._material(self._ready(version), check)

    # --- steps

    def _new_key(
        self, name: str, form: Form, label: uuid.UUID, parent: Parent | None, check: str = ""
    ) -> Any:
        """Create the CryptoKey, with its first version where it isn't for an import."""
        configuration = self._keyring.configuration
        if name != f"{configuration.key_ring}/cryptoKeys/{names.key_id(label, parent)}":
            raise NoMaterial("The key that this version is for is not in the key ring.")
        owner = str(parent.key if parent else label)
        labels = names.marked({names.KEY_LABEL: owner}, Mark(1, label, check))
        wanted = {
            "purpose": form.purpose,
            "version_template": {
                "algorithm": form.google,
                "protection_level": configuration.level.upper(),
            },
            "labels": labels,
            "import_only": bool(check),
            "destroy_scheduled_duration": {"seconds": configuration.window * 86400},
        }
        request = {
            "parent": configuration.key_ring,
            "crypto_key_id": names.key_id(label, parent),
            "crypto_key": wanted,
            "skip_initial_version_creation": bool(check),
        }
        try:
            return self._call("create_crypto_key", request)
        except AlreadyExists:
            key = self._keyring.key(name)
        if key is None:
            raise BackendError("Google Cloud KMS does not show the key it has.")
        return key

    def _planned(
        self, key: Any, label: uuid.UUID, parent: Parent | None
    ) -> tuple[Mark | None, Seen | None]:
        """Return the mark that names this label, and its version where there is one."""
        mark = names.mark_for(key.labels, label)
        number = mark.number if mark else self._unmarked(key, parent)
        if not number:
            return mark, None
        return mark, self._keyring.version(names.version_name(key.name, number))

    def _unmarked(self, key: Any, parent: Parent | None) -> int:
        """Return 1 where a key of our own name lost its labels: its first version is the first label's."""
        first = parent is None or not parent.newest
        return 1 if first and not names.marks(key.labels) else 0

    def _is_ours(self, key: str, mark: Mark | None, version: Seen) -> bool:
        """Whether a version is what its mark was written for, and not somebody else's of that number.

        One that came in another way than was meant isn't. Nor is a version that Google encrypts with:
        its own schedule makes versions primary, and of the console's only those whose handle the
        console has already, so that nobody asks for them by their label any more. It is looked at
        after the version: Google may rotate meanwhile.
        """
        if mark is None or mark.number == 1:  # the first comes with the key itself
            return True
        if mark.check or version.imported:
            return bool(mark.check) and version.imported
        now = self._keyring.key(key)
        return now is not None and bool(now.primary.name != version.name)

    def _check_ours(self, key: str, mark: Mark | None, version: Seen | None) -> None:
        if version is not None and not self._is_ours(key, mark, version):
            raise Conflict(
                f"Version {version.number} at Google was not made by the console: its own rotation,"
                " or somebody else, came before. Look at the key's differences, then ask anew."
            )

    def _next(self, key: str, label: uuid.UUID) -> Seen:
        request = {"parent": key, "crypto_key_version": {}}
        return self._asked(key, label, "", lambda: self._call("create_crypto_key_version", request))

    def _asked(self, key: str, label: uuid.UUID, check: str, call: Callable[[], Any]) -> Seen:
        """Mark the next number, ask for the version, and make sure of the mark."""
        versions = self._keyring.versions(key)
        mark = Mark((versions[-1].number if versions else 0) + 1, label, check)
        self._mark(key, mark)
        try:
            made = call()
        except REFUSED:
            # Nothing was made: whose the number will be is open again. A mark that stays does little harm.
            with contextlib.suppress(KeyServiceError):
                self._labels.write(key, lambda labels: names.unmarked(labels, mark.number))
            raise
        return self._own(key, made, mark)

    def _mark(self, key: str, mark: Mark) -> None:
        def change(labels: Mapping[str, str]) -> Mapping[str, str]:
            return labels if mark in names.marks(labels) else names.marked(labels, mark)

        self._labels.write(key, change)

    def _own(self, key: str, made: Any, mark: Mark) -> Seen:
        """Return the version just made. The mark is put right where another version came between, or
        another process wrote labels that it had read before."""
        number = names.number_of(made.name)
        if made.name != names.version_name(key, number):
            raise BackendError("Google Cloud KMS answered with a version of another key.")
        self._mark(key, Mark(number, mark.label, mark.check))
        version = self._keyring.version(made.name)
        if version is None:
            raise BackendError("Google Cloud KMS does not show the version it made.")
        return version

    def _brought(
        self, key: str, label: uuid.UUID, form: Form, raw: Secret, check: str, version: Seen | None
    ) -> Seen:
        """Import what isn't there yet, or bring back what is waiting for its destruction."""
        if version is None:
            return self._asked(key, label, check, lambda: self._importing.send(key, form, raw))
        if version.state == "DESTROY_SCHEDULED":
            self._call("restore_crypto_key_version", {"name": version.name})
            set_state(self._call, version.name, "ENABLED")
        elif version.state in GONE:
            if version.state == "IMPORT_FAILED":
                self._mark(key, Mark(version.number, label, check))
            self._importing.send(key, form, raw, into=version.name)
        again = self._keyring.version(version.name)
        if again is None:
            raise BackendError("Google Cloud KMS does not show the version it has.")
        return again

    def _ready(self, version: Seen) -> Seen:
        """Wait for a version that Google is still making. Raises BackendUnavailable, BackendError."""
        deadline, pause = time.monotonic() + PATIENCE_SECONDS, FIRST_PAUSE_SECONDS
        while version.state in PENDING:
            if time.monotonic() >= deadline:
                raise BackendUnavailable("Google Cloud KMS is still at work on the key version.")
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            again = self._keyring.version(version.name)
            if again is None:
                raise BackendError("Google Cloud KMS lost the version it was making.")
            version = again
        if version.state == "IMPORT_FAILED":
            raise Invalid("Google Cloud KMS could not take the material.")
        if version.state in GONE:
            raise BackendError("Google Cloud KMS could not make the key version.")
        return version

    def _material(self, version: Seen, check: str) -> Material:
        public = self._keyring.public_bytes(version)
        if public is not None:
            return Material(version.name, materials.check_value_of_public_key(public), public)
        return Material(version.name, check)


def set_state(call: Any, name: str, state: str) -> None:
    """Enable or disable a version."""
    call(
        "update_crypto_key_version",
        {
            "crypto_key_version": {"name": name, "state": state},
            "update_mask": {"paths": ["state"]},
        },
    )


def _check_fits(key: Any, form: Form, usage: Usage | None, level: str) -> None:
    """Raise Conflict where a key is there for something else."""
    there = FORMS.get(ALGORITHM_NAMES.get(key.version_template.algorithm, ""))
    if there is None or there.spec != form.spec or (usage is not None and not there.serves(usage)):
        what = there.spec if there else "other"
        raise Conflict(f"There is a key for {what} material under this name already.")
    if level == "hsm" and LEVEL_NAMES.get(key.version_template.protection_level) == "SOFTWARE":
        raise Conflict("The key was made in software, and this key store is for hardware keys.")


def _check_same(mark: Mark | None, version: Seen | None, check: str) -> None:
    """Raise Conflict where a version that has, or had, material has other material than this."""
    if version is None or version.state == "IMPORT_FAILED":
        return
    if mark is None or not mark.check or not same(mark.check, check):
        raise Conflict("There is other material under this label already.")
