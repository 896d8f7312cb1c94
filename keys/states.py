"""The states of keys and versions: closed vocabularies and the tables of what may follow what.

Sources: NIST SP 800-57 part 1 rev. 5, section 7 (version states); KMIP 2.1 (Destroyed Compromised);
AWS KMS key states (the named key). keys/lifecycle.py is the only code that writes them.
"""

from __future__ import annotations

from django.db import models


class VersionState(models.TextChoices):
    PRE_ACTIVE = "pre_active", "Pre-active"
    ACTIVE = "active", "Active"
    SUSPENDED = "suspended", "Suspended"
    DEACTIVATED = "deactivated", "Deactivated"
    COMPROMISED = "compromised", "Compromised"
    DESTROYED = "destroyed", "Destroyed"
    DESTROYED_COMPROMISED = "destroyed_compromised", "Destroyed, compromised"


class Condition(models.TextChoices):
    """How the material is doing; apart from the state."""

    CREATING = "creating", "Being created"
    PENDING_DESTRUCTION = "pending_destruction", "Waiting for destruction"
    UNAVAILABLE = "unavailable", "Material unavailable"


class KeyState(models.TextChoices):
    PENDING_IMPORT = "pending_import", "Waiting for import"
    ENABLED = "enabled", "Enabled"
    DISABLED = "disabled", "Disabled"
    PENDING_DESTRUCTION = "pending_destruction", "Waiting for destruction"
    DESTROYED = "destroyed", "Destroyed"


_V, _K = VersionState, KeyState

# 13 legal edges of 42 ordered pairs.
VERSION_EDGES: dict[VersionState, frozenset[VersionState]] = {
    _V.PRE_ACTIVE: frozenset({_V.ACTIVE, _V.COMPROMISED, _V.DESTROYED}),
    _V.ACTIVE: frozenset({_V.SUSPENDED, _V.DEACTIVATED, _V.COMPROMISED}),
    _V.SUSPENDED: frozenset({_V.ACTIVE, _V.DEACTIVATED, _V.COMPROMISED}),
    _V.DEACTIVATED: frozenset({_V.COMPROMISED, _V.DESTROYED}),
    _V.COMPROMISED: frozenset({_V.DESTROYED_COMPROMISED}),
    _V.DESTROYED: frozenset({_V.DESTROYED_COMPROMISED}),
    _V.DESTROYED_COMPROMISED: frozenset(),
}

KEY_EDGES: dict[KeyState, frozenset[KeyState]] = {
    _K.PENDING_IMPORT: frozenset({_K.ENABLED, _K.PENDING_DESTRUCTION}),
    _K.ENABLED: frozenset({_K.DISABLED, _K.PENDING_DESTRUCTION}),
    _K.DISABLED: frozenset({_K.ENABLED, _K.PENDING_DESTRUCTION}),
    # Cancelling returns a key to disabled, never straight to enabled; one without material waits for it again.
    _K.PENDING_DESTRUCTION: frozenset({_K.DISABLED, _K.PENDING_IMPORT, _K.DESTROYED}),
    _K.DESTROYED: frozenset(),
}

# States that no longer hold material.
GONE = frozenset({_V.DESTROYED, _V.DESTROYED_COMPROMISED})
# States a primary version can be in.
SERVING = frozenset({_V.ACTIVE, _V.SUSPENDED})


class Direction(models.TextChoices):
    """The two kinds of use (SP 800-57: originator usage and recipient usage)."""

    PROTECT = "protect", "Protect new data"
    PROCESS = "process", "Process protected data"
