"""What every peer gives a test: how to reach it, an empty place in it, and what it lacks."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from keys.backends import registry
from keys.backends.base import Backend
from keys.secret import Secret


@dataclass(frozen=True, slots=True)
class Peer:
    """A running server of one kind of key store.

    `whose` names the server and who wrote it, for a person to read. `fresh` returns settings of a
    place in it that holds no key yet (a mount, a key ring, a vault, a region), so that tests don't
    see each other's keys. `gaps` names what this server does not do as its model does, from the
    words of GAPS; a test of it asks another peer.
    """

    kind: str
    whose: str
    fresh: Callable[[], Mapping[str, Any]]
    credential: bytes | None = None
    gaps: frozenset[str] = frozenset()

    def backend(
        self, settings: Mapping[str, Any] | None = None, *, credential: bytes | None = None
    ) -> Backend:
        """Return a backend of a place in this server: the one given, or a fresh one. Not bounded."""
        chosen = self.fresh() if settings is None else settings
        secret = credential if credential is not None else self.credential
        cls = registry.backend_class(self.kind)
        cls.check_settings(chosen)
        return cls(uuid.uuid4(), chosen, Secret(secret) if secret else None)


# What a peer may lack: `import` of material, `states` that are enforced, `rotation` on demand,
# `deletes`: a window of its own that ever ends within a test, `identity`: credentials that are checked,
# `sealing`: ciphertexts that can't be changed unnoticed, `rsa`: RSA encryption that is RSA, and PSS
# with the salt of FIPS 186-5, `digests`: signing a digest that is handed over, `agreement`: ECDH,
# `period`: the number of days of the store's own rotation, `specs`: every kind of key of its model.
GAPS = frozenset(
    {"import", "states", "rotation", "deletes", "identity"}
    | {"sealing", "rsa", "digests", "agreement", "period", "specs"}
)
