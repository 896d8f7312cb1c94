"""A key of the console at a store that keeps states, and whether the two agree about it."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from keys.algorithms import SPECS, Usage
from keys.backends.base import Backend, Material, Parent
from keys.backends.views import KeyView, VersionView
from keys.states import KeyState, VersionState
from tests.backends.uses import algorithms, usages

DAY = timedelta(days=1)


@dataclass
class Kept:
    """What the console believes of one key, in the shape that keys.drift.beliefs makes of its rows."""

    store: Backend
    spec: str
    id: uuid.UUID = field(default_factory=uuid.uuid4)
    versions: list[VersionView] = field(default_factory=list)
    materials: list[Material] = field(default_factory=list)
    state: KeyState = KeyState.ENABLED
    destroy_at: datetime | None = None
    rotation_days: int | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    imported: bool = False

    @property
    def usage(self) -> Usage:
        return usages(self.store, self.spec)[0]

    @property
    def algorithm(self) -> str:
        return algorithms(self.store, self.spec, self.usage)[0]

    @property
    def name(self) -> str:
        return f"invoices-{self.id.hex[:8]}"

    @property
    def parent(self) -> Parent:
        newest = self.versions[-1].handle if self.versions else ""
        return Parent(self.id, self.name, self.algorithm, newest)

    @property
    def wanted(self) -> KeyView:
        return KeyView(
            reference="",
            name=self.name,
            state=self.state,
            versions=tuple(self.versions),
            spec=self.spec,
            usage=self.usage,
            algorithm=self.algorithm,
            imported=self.imported,
            rotation_days=self.rotation_days,
            destroy_at=self.destroy_at,
            tags=self.tags,
        )

    def generate(self, label: uuid.UUID, store: Backend | None = None) -> Material:
        """Ask for the next version under `label`, and believe nothing yet."""
        return (store or self.store).generate(
            label, self.spec, usage=self.usage, parent=self.parent
        )

    def rotate(self) -> Material:
        """Make the next version, active and primary; the one before is deactivated."""
        material = self.generate(uuid.uuid4())
        self.believe(material)
        return material

    def believe(self, material: Material) -> None:
        for number, version in enumerate(self.versions):
            if version.primary:
                self.versions[number] = replace(
                    version, primary=False, state=VersionState.DEACTIVATED
                )
        self.materials.append(material)
        self.versions.append(
            VersionView(material.handle, VersionState.ACTIVE, True, None, material.public_key)
        )

    def set(self, number: int, state: VersionState, destroy_at: datetime | None = None) -> None:
        self.versions[number] = replace(self.versions[number], state=state, destroy_at=destroy_at)

    def align(self) -> KeyView:
        """Bring the store in line, and return what it says now; fail where it isn't in line."""
        self.store.conform(self.wanted)
        return self.in_line()

    def in_line(self) -> KeyView:
        seen, told = self.store.observe(self.wanted), self.store.expressed(self.wanted)
        assert seen is not None
        assert seen.reference
        assert seen.state == told.state
        if told.state is not KeyState.PENDING_DESTRUCTION or told.destroy_at is not None:
            assert in_time(self.store, seen.destroy_at, told.destroy_at)
        assert seen.rotation_days == told.rotation_days
        for name in self.wanted.tags:
            assert seen.tags.get(name) == told.tags.get(name), name
        assert {version.handle for version in seen.versions} == {
            version.handle for version in told.versions
        }
        for expected in told.versions:
            found = seen.version(expected.handle)
            assert found is not None
            assert (found.state, found.primary) == (expected.state, expected.primary), expected
            assert in_time(self.store, found.destroy_at, expected.destroy_at)
        return seen


def kept(store: Backend, spec: str) -> Kept:
    """Make a key with its first version."""
    assert spec in SPECS
    key = Kept(store, spec)
    key.rotate()
    return key


def in_time(store: Backend, seen: datetime | None, told: datetime | None) -> bool:
    """Whether a destruction is when it should be, to the day: later only by the store's own window."""
    if seen is None or told is None:
        return seen is told
    window = store.capabilities().window
    return -DAY <= seen - told <= DAY * (window[1] if window else 1)


def plain(view: KeyView) -> KeyView:
    """A view without what is only for a person to read, or may be left out."""
    return replace(
        view,
        facts={},
        versions=tuple(replace(version, public_key=None) for version in view.versions),
    )
