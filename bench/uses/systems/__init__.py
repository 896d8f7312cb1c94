"""The systems that are measured side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bench.uses.work import Requests


@dataclass(frozen=True, slots=True)
class System:
    """A running system: where it listens, what it is asked, and of which processes it consists.

    `parts` names its processes' roots: `server`, and `database` where it has one of its own.
    """

    name: str
    addresses: tuple[str, ...]
    requests: Requests
    parts: Mapping[str, tuple[int, ...]]

    @property
    def roots(self) -> list[int]:
        return [pid for pids in self.parts.values() for pid in pids]
