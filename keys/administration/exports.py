"""Taking a key's material out: only where it was created exportable, always by votes, wrapped to a public key."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa

from audit.events import Outcome
from keys import approvals, gate, parameters, targets
from keys.actions import Action
from keys.administration.imports import LIVING
from keys.administration.intents import locked
from keys.administration.versions import find_version
from keys.algorithms import ALGORITHMS, SPECS
from keys.backends import materials
from keys.callers import Caller
from keys.errors import Invalid, KeyServiceError, StateForbids
from keys.gate.changes import Change
from keys.imports import results
from keys.models import Key, KeyVersion
from keys.primitives import wrapping
from keys.states import Condition, KeyState, VersionState
from keys.stores import backend_of

RSA_ALGORITHMS = ("RSA_AES_KEY_WRAP_SHA_256", "RSAES_OAEP_SHA_256")
X_WING_ALGORITHMS = ("HPKE_X_WING_HKDF_SHA_256_AES_256_GCM",)
LEAST_BITS = 3072
MOST_BITS = 16384
PUBLIC_KEY_LIMIT = 16 * 1024
_PEM = re.compile(r"\s*-----BEGIN PUBLIC KEY-----(.*)-----END PUBLIC KEY-----\s*", re.DOTALL)
# What may leave: material that is whole, and that nobody else is known to have.
_EXPORTED = (
    VersionState.PRE_ACTIVE,
    VersionState.ACTIVE,
    VersionState.SUSPENDED,
    VersionState.DEACTIVATED,
)


@dataclass(frozen=True, slots=True)
class Exported:
    """A version's material, wrapped to the recipient; nothing of it is kept here."""

    version: int
    algorithm: str
    wrapped: bytes
    check_value: str


def _address(change: Change[Key], arguments: dict[str, Any]) -> None:
    """Let officers vote on this recipient, however the key was written, and on this version."""
    _check_made_for_it(change.row)
    public_key, able = _recipient(arguments["public_key"])
    arguments["public_key"] = base64.b64encode(public_key).decode()
    algorithm = parameters.one_of(arguments["algorithm"], "algorithm", able)
    if algorithm == "RSAES_OAEP_SHA_256" and SPECS[change.row.spec].asymmetric:
        raise Invalid(f"A key pair is too long for it; use {RSA_ALGORITHMS[0]}.", field="algorithm")
    if arguments["number"] is None:
        primary = change.row.versions.filter(primary=True).first()
        if primary is None:
            raise StateForbids("The key has no primary version; name one.")
        arguments["number"] = primary.number


@gate.change(Action.EXPORT_KEY, on=targets.key, prepare=_address)
def export_key(
    change: Change[Key],
    *,
    public_key: str,
    number: int | None = None,
    algorithm: str = RSA_ALGORITHMS[0],
    reason: str = "",
) -> Exported:
    """Return a version's material (left out: the primary's) wrapped to `public_key`.

    `public_key`: PEM, or DER SubjectPublicKeyInfo in base64, of RSA with 3072 bits at least, or of
    X-Wing. Officers vote on that key; the requester then calls again, and the answer to that call is
    the only copy. Raises StateForbids where the key is not exportable, or its policy asks for no votes.
    """
    key = locked(change)
    _check_exportable(change, key)
    version = find_version(key, number)
    _check_version(version, change.now)
    recipient = base64.b64decode(public_key)
    facts = {
        "recipient_sha256": hashlib.sha256(recipient).hexdigest(),
        "algorithm": algorithm,
        "check_value": version.check_value,
    }
    change.facts |= facts
    change.outcome = Outcome.STARTED
    change.about = change.target.subject(version.number)
    caller = change.caller
    change.after(lambda: _take_out(caller, key, version, recipient, algorithm, facts))
    return Exported(version.number, algorithm, b"", version.check_value)


def _check_made_for_it(key: Key) -> None:
    if not key.exportable:
        raise StateForbids(
            f"The key {key.alias} was not created exportable; that can't be changed later."
        )


def _check_exportable(change: Change[Key], key: Key) -> None:
    _check_made_for_it(key)
    policy = key.classification
    if not policy.allows_export:
        raise StateForbids(f"{policy.title} allows no export any more.")
    if approvals.rule_for(change.action, change.target) is None:
        raise StateForbids(
            f"Exporting always needs officers' votes, and {policy.title} asks for none. An administrator "
            "can give the classification a quorum; then ask again."
        )
    if key.state not in LIVING:
        raise StateForbids(f"The key is {KeyState(key.state).label.lower()}.")


def _check_version(version: KeyVersion, now: datetime) -> None:
    if version.state not in _EXPORTED:
        raise StateForbids(
            f"Version {version.number} is {VersionState(version.state).label.lower()}."
        )
    if version.condition:
        told = Condition(version.condition).label.lower()
        raise StateForbids(f"Version {version.number} is not ready: {told}.")
    if version.material_expires_at and now >= version.material_expires_at:
        raise StateForbids(f"The material of version {version.number} has expired.")


def _take_out(
    caller: Caller,
    key: Key,
    version: KeyVersion,
    recipient: bytes,
    algorithm: str,
    facts: dict[str, str],
) -> Exported:
    """Wrap the material. It leaves only after the entry which says so is durable."""
    number = version.number
    try:
        wrapped = _wrapped(key, version, recipient, algorithm)
    except KeyServiceError as error:
        results.tell(caller, Action.EXPORT_KEY, key, number=number, facts=facts, error=error)
        raise
    results.tell(caller, Action.EXPORT_KEY, key, number=number, facts=facts)
    return Exported(number, algorithm, wrapped, version.check_value)


def _wrapped(key: Key, version: KeyVersion, recipient: bytes, algorithm: str) -> bytes:
    material = backend_of(key).export_material(version.handle)
    spec = SPECS["X_WING"] if algorithm in X_WING_ALGORITHMS else None
    public_key = materials.load_public_key(recipient, spec)
    return wrapping.wrap(public_key, ALGORITHMS[algorithm], material.reveal())


def _recipient(text: Any) -> tuple[bytes, tuple[str, ...]]:
    """Return the recipient's key in its one DER form, and how material can be wrapped to it. Raises Invalid."""
    encoded = _der(text)
    try:
        found = materials.load_public_key(encoded)
    except Invalid:
        x_wing = materials.load_public_key(encoded, SPECS["X_WING"])
        return materials.public_der(x_wing), X_WING_ALGORITHMS
    if not isinstance(found, rsa.RSAPublicKey):
        raise Invalid("The public key must be of RSA or X-Wing.", field="public_key")
    if not LEAST_BITS <= found.key_size <= MOST_BITS:
        raise Invalid(
            f"The RSA public key must have {LEAST_BITS} bits at least, not {found.key_size}.",
            field="public_key",
        )
    if found.public_numbers().e < 2**16:
        raise Invalid("The RSA public exponent must be above 65536.", field="public_key")
    return materials.public_der(found), RSA_ALGORITHMS


def _der(text: Any) -> bytes:
    if not isinstance(text, str) or not text or len(text) > PUBLIC_KEY_LIMIT:
        raise Invalid(
            "public_key must be a public key in PEM, or in DER as base64.", field="public_key"
        )
    armoured = _PEM.fullmatch(text)
    inner = armoured.group(1) if armoured else text
    try:
        return base64.b64decode("".join(inner.split()), validate=True)
    except (ValueError, binascii.Error):
        raise Invalid("public_key is neither PEM nor base64.", field="public_key") from None
