"""A house with one key for every spec, purpose and (for secrets) algorithm that a store offers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from keys.algorithms import ALGORITHMS, SPECS, Algorithm, KeySpec, Usage
from keys.backends.software.backend import offers
from keys.callers import Caller
from keys.models import Key
from tests.honesty import reader
from tests.house import House

# One RSA size is enough here: making a key of 4096 bits takes seconds.
LARGE = ("RSA_3072", "RSA_4096")
Offers = Mapping[str, tuple[str, ...]]


@dataclass
class Shop:
    """The house, its keys by what they do, and an application that may do everything with them."""

    house: House
    # Where its keys are: a classification, and its key store's own choice where that isn't the first.
    place: dict[str, str] = field(default_factory=dict)
    able: Offers | None = None
    _keys: dict[tuple[str, str], Key] = field(default_factory=dict)

    @property
    def caller(self) -> Caller:
        return self.house.billing

    def key(self, algorithm: str, usage: str, spec: str = "") -> Key:
        """Return the key that does `algorithm` for `usage`; made and granted at the first call."""
        row = SPECS[spec] if spec else spec_for(algorithm, self.able)
        chosen = algorithm
        if row.asymmetric and usage in (Usage.ENCRYPT_DECRYPT, Usage.SIGN_VERIFY):
            # A pair does all algorithms of its purpose.
            able = self.able[row.name] if self.able else row.algorithms
            chosen = row.algorithms_for(usage, able)[0]
        which = (f"{row.name} {chosen}", usage)
        if which not in self._keys:
            self._keys[which] = self.fresh(chosen, usage, row.name)
        return self._keys[which]

    def fresh(self, algorithm: str, usage: str, spec: str = "", **more: Any) -> Key:
        name, more = spec or spec_for(algorithm, self.able).name, self.place | more
        key = self.house.key(spec=name, usage=str(usage), algorithm=algorithm, **more)
        self.house.grant("billing", key, *OPERATIONS[Usage(usage)])
        return key


OPERATIONS: dict[Usage, tuple[str, ...]] = {
    Usage.ENCRYPT_DECRYPT: (
        "encrypt",
        "decrypt",
        "re_encrypt_from",
        "re_encrypt_to",
        "generate_data_key",
        "generate_data_key_without_plaintext",
        "generate_data_key_pair",
        "generate_data_key_pair_without_plaintext",
    ),
    Usage.SIGN_VERIFY: ("sign", "verify", "public_key", "certificate_request"),
    Usage.GENERATE_VERIFY_MAC: ("mac", "verify_mac"),
    Usage.WRAP_UNWRAP: ("wrap_key", "unwrap_key"),
    Usage.KEY_AGREEMENT: ("derive_shared_secret",),
    Usage.KEY_ENCAPSULATION: ("encapsulate", "decapsulate"),
    Usage.DERIVE_KEY: ("derive_key",),
}


def offered(usage: Usage, able: Offers | None = None) -> list[Algorithm]:
    """Return the algorithms for a purpose that a store can do, the software store unless `able` says."""
    names = {name for names in (able or offers()).values() for name in names}
    return [row for row in ALGORITHMS.values() if usage in row.usages and row.name in names]


def specs_for(algorithm: str, able: Offers | None = None) -> list[KeySpec]:
    """Return the specs that have an algorithm there, less the large RSA ones."""
    return [
        SPECS[name]
        for name, names in (able or offers()).items()
        if algorithm in names and name not in LARGE
    ]


def spec_for(algorithm: str, able: Offers | None = None) -> KeySpec:
    return specs_for(algorithm, able)[0]


ENCRYPTING = [row.name for row in ALGORITHMS.values() if Usage.ENCRYPT_DECRYPT in row.usages]
SECRET_ENCRYPTING = [name for name in ENCRYPTING if name in reader.NONCES]


@pytest.fixture
def shop(house: House) -> Iterator[Shop]:
    yield Shop(house)
