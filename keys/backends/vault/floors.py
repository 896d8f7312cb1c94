"""The two minimums that are transit's only states, and what of the console's states they can say.

From `min_encryption` on a version does everything; from `min_decryption` on it decrypts and
verifies; below that it does nothing. So states have to rise with the numbers: a suspended or
compromised version is refused by the engine itself only where no older one has to decrypt, and a
deactivated one only where no older one is active. The console enforces the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from keys.states import GONE, VersionState

# Versions that must do nothing at all; and those that must protect new data. Transit knows no
# version before its activation: the newest is at once the one that it encrypts with.
BLOCKED = frozenset({VersionState.SUSPENDED, VersionState.COMPROMISED, *GONE})
PROTECTING = frozenset({VersionState.ACTIVE, VersionState.PRE_ACTIVE})


@dataclass(frozen=True, slots=True)
class Floors:
    """Where both minimums may stand: any number from the first to the last of each pair.

    `blocked`: no version of the key may do anything, which no minimum can say.
    """

    decryption: tuple[int, int]
    encryption: tuple[int, int]
    blocked: bool

    def nearest(self, decryption: int, encryption: int) -> tuple[int, int]:
        """Return minimums that do, as near as can be to those that are set."""
        least = min(max(decryption, self.decryption[0]), self.decryption[1])
        return least, max(min(max(encryption, self.encryption[0]), self.encryption[1]), least)

    def state(self, version: int) -> VersionState:
        return state(version, self.decryption[1], self.encryption[1])


def wanted(states: Mapping[int, VersionState]) -> Floors:
    """Return where the minimums have to stand for versions of these states, at least one."""
    numbers = sorted(states)
    able = [number for number in numbers if states[number] not in BLOCKED]
    active = [number for number in numbers if states[number] in PROTECTING]
    # A minimum can't be above the newest version.
    decryption = _range(numbers, able[0] if able else numbers[-1])
    encryption = _range(numbers, active[0] if active else numbers[-1])
    return Floors(decryption, encryption, blocked=not able)


def _range(numbers: list[int], first: int) -> tuple[int, int]:
    below = [number for number in numbers if number < first]
    return (below[-1] + 1 if below else 1), first


def state(version: int, min_decryption: int, min_encryption: int) -> VersionState:
    """Return what two minimums make of a version."""
    if version < min_decryption:
        return VersionState.SUSPENDED
    return VersionState.DEACTIVATED if version < min_encryption else VersionState.ACTIVE
