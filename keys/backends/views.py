"""What a key looks like at its store, in the console's own words: discovered, believed, compared.

One shape serves three questions. What is there (`Backend.discover`, `inspect`, `observe`), what the
console believes (`keys.drift`), and what the store would say if it were in line with that belief
(`Backend.expressed`). Drift is the difference between the first and the last.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from keys.states import KeyState, VersionState


@dataclass(frozen=True, slots=True)
class VersionView:
    """One version. `state` is one of keys.states.VersionState, as far as the store can express it.

    `destroy_at`: the date on which the store itself destroys it, or None. `public_key` is DER
    SubjectPublicKeyInfo, None for secrets and where the store was not asked for it.
    """

    handle: str
    state: VersionState
    primary: bool = False
    destroy_at: datetime | None = None
    public_key: bytes | None = None
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class KeyView:
    """One key with its versions, oldest first.

    `reference` is the store's own name for it (an ARN, a resource name, a path), opaque outside its
    backend, at most 500 characters; `name` is what people call it there. `spec`, `usage` and
    `algorithm` are names of keys.algorithms, empty where the console knows no such thing; then
    `problem` says why the key can't be adopted, in one sentence. `rotation_days` is the period of
    the store's own automatic rotation, None where it has none switched on. `facts` are for a person
    to read; two of them have a meaning: `rotations_used` and `rotations_limit` make a budget meter.
    """

    reference: str
    name: str
    state: KeyState
    versions: tuple[VersionView, ...] = ()
    spec: str = ""
    usage: str = ""
    algorithm: str = ""
    imported: bool = False
    provider_managed: bool = False
    rotation_days: int | None = None
    destroy_at: datetime | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""

    def version(self, handle: str) -> VersionView | None:
        return next((view for view in self.versions if view.handle == handle), None)


@dataclass(frozen=True, slots=True)
class Page:
    """Some of a store's keys. `cursor` is where the next page begins, "" at the end; `total`: how
    many there are in all, where the store says so."""

    keys: tuple[KeyView, ...]
    cursor: str = ""
    total: int | None = None
