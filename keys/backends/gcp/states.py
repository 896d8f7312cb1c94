"""Looking at keys, and bringing Google in line with what the console believes of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from keys.algorithms import ALGORITHMS
from keys.backends.base import NoMaterial
from keys.backends.gcp import forms, names, picture
from keys.backends.gcp.keyring import GONE, PENDING, Keyring, Seen
from keys.backends.gcp.labels import Labels
from keys.backends.gcp.making import set_state
from keys.backends.gcp.picture import DISABLED, ENABLED, SCHEDULED, Target
from keys.backends.views import KeyView, Page
from keys.errors import BackendUnavailable, Invalid, StateForbids, StillWaiting
from keys.states import KeyState

LARGEST_PAGE = 50  # each key costs one more call, for its versions
# The clocks of Google, of the console and of its database need not agree to the second.
TOLERANCE = timedelta(hours=1)
ASK_AGAIN = timedelta(minutes=5)


class States:
    """Views, states, destruction and its cancellation."""

    def __init__(self, keyring: Keyring, labels: Labels) -> None:
        self._keyring = keyring
        self._labels = labels
        self._call = keyring.connection.call

    # --- looking

    def discover(self, cursor: str, limit: int) -> Page:
        request: dict[str, Any] = {
            "parent": self._keyring.ring,
            "page_size": max(1, min(limit, LARGEST_PAGE)),
        }
        if cursor:
            request["page_token"] = cursor
        page = self._call("list_crypto_keys", request)
        return Page(
            keys=tuple(
                self._viewed(key, self._keyring.versions(key.name), public=False)
                for key in page.crypto_keys
            ),
            cursor=page.next_page_token,
            total=page.total_size or None,
        )

    def inspect(self, reference: str) -> KeyView | None:
        if not names.is_key(self._keyring.ring, reference):
            return None
        key = self._keyring.key(reference)
        if key is None:
            return None
        return self._viewed(key, self._keyring.versions(reference), public=True)

    def observe(self, wanted: KeyView) -> KeyView | None:
        name = self._key_of(wanted)
        key = self._keyring.key(name)
        versions = self._keyring.versions(name) if key is not None else []
        if key is None or all(version.state in GONE for version in versions):
            return None
        primaries = forms.has_primary(wanted.spec, wanted.usage)
        # What the console says where Google says nothing, and nothing where the console does (picture).
        primary = next((version.handle for version in wanted.versions if version.primary), "")
        if primary and primaries:
            primary = key.primary.name
        there = picture.targets_seen(versions, primary, self._publics(versions))
        there = [self._waiting(key, wanted, target) for target in there]
        handles = {version.handle for version in wanted.versions}
        ours = [target for target in there if target.handle in handles]
        state, destroy_at = picture.key_state(ours or there)
        view = self._viewed(key, versions, public=False)
        return replace(
            view,
            state=state,
            destroy_at=destroy_at,
            versions=picture.version_views(there, primaries, state),
        )

    def expressed(self, wanted: KeyView) -> KeyView:
        return picture.expressed(wanted, self._key_of(wanted) if wanted.versions else "")

    def _viewed(self, key: Any, versions: Sequence[Seen], *, public: bool) -> KeyView:
        """Return a key as a person or an adoption wants it: with a version that is to serve."""
        form, problem = picture.form_of(key, versions, self._keyring.configuration.level)
        primaries = form is not None and form.has_primary
        primary = key.primary.name if primaries else picture.serving(versions)
        publics = self._publics(versions) if public else {}
        there = picture.targets_seen(versions, primary, publics)
        state, destroy_at = picture.key_state(there)
        if not versions:
            state = KeyState.PENDING_IMPORT
        algorithm = form.algorithms[0] if form else ""
        return KeyView(
            reference=key.name,
            name=key.name.rpartition("/")[2],
            state=state,
            versions=picture.version_views(there, primaries, state),
            spec=form.spec if form else "",
            usage=ALGORITHMS[algorithm].usages[0] if form else "",
            algorithm=algorithm,
            imported=key.import_only or any(version.imported for version in versions),
            rotation_days=picture.rotation_days(key),
            destroy_at=destroy_at,
            tags=names.tags(key.labels),
            facts=picture.facts_of(key, versions),
            problem=problem,
        )

    def _publics(self, versions: Sequence[Seen]) -> dict[str, bytes]:
        found = {
            version.name: self._keyring.public_bytes(version)
            for version in versions
            if version.state not in GONE
        }
        return {name: public for name, public in found.items() if public is not None}

    def _waiting(self, key: Any, wanted: KeyView, actual: Target) -> Target:
        """Show a disabled version that must not be told to Google yet as what it is: waiting.

        Google's own window is shorter than what is left; _schedule() explains.
        """
        version = wanted.version(actual.handle)
        aim = picture.target_of(wanted, version) if version else None
        if aim is None or aim.destroy_at is None or actual.state != DISABLED:
            return actual
        if _too_early(key, aim.destroy_at):
            return replace(actual, state=SCHEDULED, destroy_at=aim.destroy_at)
        return actual

    def _key_of(self, wanted: KeyView) -> str:
        """Return the CryptoKey of a view. Raises NoMaterial, Invalid for versions of several keys."""
        found = {names.split(self._keyring.ring, one.handle)[0] for one in wanted.versions}
        if len(found) > 1:
            raise Invalid("The versions of one key are in several keys of the key ring.")
        if not found:
            raise NoMaterial("The console knows of no material of this key.")
        return found.pop()

    # --- bringing in line

    def conform(self, wanted: KeyView) -> None:
        """Raises NoMaterial, once the rest is in line, where a version's material is gone."""
        name = self._key_of(wanted)
        key = self._keyring.key(name)
        if key is None:
            raise NoMaterial("The key is not in the key ring any more.")
        there = {version.name: version for version in self._keyring.versions(name)}
        targets = picture.targets_of(wanted)
        gone = []
        self._keyring.doubt()
        if forms.has_primary(wanted.spec, wanted.usage):
            self._set_primary(key, targets, there)
        for target in targets:
            version = there.get(target.handle)
            if version is None or version.state in GONE:
                gone.append(target.handle)
            elif version.state in PENDING:
                raise BackendUnavailable("Google Cloud KMS is still at work on a key version.")
            else:
                self._bring(key, version, target)
        self._set_rest(key, wanted)
        if gone:
            numbers = ", ".join(str(names.number_of(handle)) for handle in gone)
            raise NoMaterial(f"Google holds no material of version {numbers} any more.")

    def _set_primary(self, key: Any, targets: Sequence[Target], there: dict[str, Seen]) -> None:
        chosen = next((target for target in targets if target.primary), None)
        if chosen is None or key.primary.name == chosen.handle or chosen.handle not in there:
            return
        version = there[chosen.handle]
        if version.state in GONE | PENDING:
            return
        # Google makes only an enabled version primary; _bring() puts it back where it isn't to be.
        if version.state == SCHEDULED:
            self._call("restore_crypto_key_version", {"name": version.name})
        if version.state != ENABLED:
            set_state(self._call, version.name, ENABLED)
            there[chosen.handle] = replace(version, state=ENABLED, destroy_at=None)
        self._disown(key, targets)
        self._call(
            "update_crypto_key_primary_version",
            {"name": key.name, "crypto_key_version_id": str(version.number)},
        )

    def _disown(self, key: Any, targets: Sequence[Target]) -> None:
        """Take back the mark of a primary version that the console doesn't know.

        Google's own schedule made it in place of one that was asked for. That it is primary tells it
        from the console's (Making.generate); it is not to be taken for one when it isn't any more.
        """
        stranger = key.primary.name
        if stranger and stranger not in {target.handle for target in targets}:
            number = names.number_of(stranger)
            self._labels.write(key.name, lambda labels: names.unmarked(labels, number))

    def _bring(self, key: Any, version: Seen, target: Target) -> None:
        if target.state == SCHEDULED:
            assert target.destroy_at is not None
            self._schedule(key, version, target.destroy_at)
            return
        state = version.state
        if state == SCHEDULED:
            self._call("restore_crypto_key_version", {"name": version.name})
            state = DISABLED
        if state != target.state:
            set_state(self._call, version.name, target.state)

    def _schedule(self, key: Any, version: Seen, at: datetime) -> None:
        """Start Google's own window, so that it ends at `at` or later: never before.

        How long it is was fixed when the key was made. Where it is shorter than what is left, the
        version is disabled meanwhile, and the console tells Google on the day (destroy()).
        """
        state = version.state
        if state == SCHEDULED:
            if version.destroy_at is None or version.destroy_at >= at - TOLERANCE:
                return
            self._call("restore_crypto_key_version", {"name": version.name})
            state = DISABLED
        if state != DISABLED:
            set_state(self._call, version.name, DISABLED)
        if not _too_early(key, at):
            self._call("destroy_crypto_key_version", {"name": version.name})

    def _set_rest(self, key: Any, wanted: KeyView) -> None:
        """Write the rotation period and the tags that differ."""
        changed: dict[str, Any] = {"name": key.name}
        paths: list[str] = []
        tags = names.tags(dict(wanted.tags))
        if any(key.labels.get(name) != value for name, value in tags.items()):
            self._labels.write(key.name, lambda labels: {**labels, **tags})
        days = picture.rotation_wanted(wanted)
        primaries = forms.has_primary(wanted.spec, wanted.usage)
        if primaries and days != picture.rotation_days(key):
            paths += ["rotation_period", "next_rotation_time"]
            if days is not None:
                changed["rotation_period"] = {"seconds": days * picture.DAY_SECONDS}
                changed["next_rotation_time"] = datetime.now(UTC) + timedelta(days=days)
        if paths:
            self._call(
                "update_crypto_key", {"crypto_key": changed, "update_mask": {"paths": paths}}
            )

    # --- one version

    def set_state(self, handle: str, state: str) -> None:
        """Enable or disable one version; one that waits for its destruction stays as it is."""
        names.split(self._keyring.ring, handle)
        self._keyring.doubt()
        version = self._keyring.version(handle)
        if version is None or version.state in GONE:
            raise NoMaterial
        if version.state in PENDING:
            raise BackendUnavailable("Google Cloud KMS is still at work on the key version.")
        if version.state == SCHEDULED:
            if state == ENABLED:
                raise StateForbids("The version waits for its destruction at Google.")
        elif version.state != state:
            set_state(self._call, handle, state)

    def destroy(self, handle: str) -> None:
        """Start Google's window. Raises StillWaiting until it is over."""
        names.split(self._keyring.ring, handle)
        version = self._keyring.version(handle)
        self._keyring.forget(handle)
        if version is None or version.state in GONE:
            return
        if version.state in PENDING:
            raise BackendUnavailable("Google Cloud KMS is still at work on the key version.")
        if version.state != SCHEDULED:
            if version.state != DISABLED:
                # An organisation's policy may ask for it (constraints/cloudkms.disableBeforeDestroy).
                set_state(self._call, handle, DISABLED)
            self._call("destroy_crypto_key_version", {"name": handle})
            version = self._keyring.version(handle)
            if version is None or version.state in GONE:
                return
        if version.destroy_at is None:
            raise BackendUnavailable("Google Cloud KMS did not begin the destruction.")
        # On the date itself Google may still be at it.
        until = max(version.destroy_at, datetime.now(UTC) + ASK_AGAIN)
        raise StillWaiting(
            f"Google destroys it on {version.destroy_at:%Y-%m-%d %H:%M} UTC.", until=until
        )

    def destroy_all(self, handles: Sequence[str]) -> None:
        """Start every version's window before waiting for any."""
        waiting: list[StillWaiting] = []
        for handle in handles:
            try:
                self.destroy(handle)
            except StillWaiting as error:
                waiting.append(error)
        if waiting:
            raise max(waiting, key=lambda error: error.until or datetime.min.replace(tzinfo=UTC))


def _too_early(key: Any, at: datetime) -> bool:
    """Whether Google's window, begun now, would end before the date that the console promised."""
    window = timedelta(seconds=picture.window_seconds(key))
    return datetime.now(UTC) + window < at - TOLERANCE
