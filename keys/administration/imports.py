"""Bringing one's own key (BYOK): import parameters, import, deletion of imported material."""

from __future__ import annotations

import uuid
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Q

from keys import clock, counters, gate, jobs, names, parameters, targets
from keys.actions import Action
from keys.administration.intents import (
    intend,
    intend_removal,
    intend_return,
    locked,
    raised,
    settled,
)
from keys.administration.versions import find_version
from keys.errors import Conflict, Invalid, KeyServiceError, NotFound, StateForbids
from keys.gate.changes import Change
from keys.imports import ceremonies, results, tickets, unwrapping
from keys.models import Ceremony, ImportTicket, Job, Key, KeyVersion
from keys.models.job import OPEN_STATES, JobKind
from keys.models.key import Origin
from keys.secret import Secret, same
from keys.states import GONE, Condition, KeyState, VersionState

LIVING = (KeyState.ENABLED, KeyState.DISABLED)
SECRETS = ("material", "component", "wrapped", "token")


@dataclass(frozen=True, slots=True)
class ImportParameters:
    """What is needed to bring material for one key: once, until `expires_at`.

    `public_key`: DER SubjectPublicKeyInfo to wrap under, by one of `algorithms`. `token` goes back
    with the wrapped material.
    """

    ticket: uuid.UUID
    public_key: bytes
    token: Secret
    expires_at: datetime
    algorithms: tuple[str, ...] = tickets.ALGORITHMS


@gate.change(Action.IMPORT_PARAMETERS, on=targets.key)
def import_parameters(
    change: Change[Key], *, spec: str = tickets.SPECS[0], reason: str = ""
) -> ImportParameters:
    """Return a public key to wrap material under and a token: for one import into this key, within 24 hours.

    `spec`: RSA_4096 or RSA_3072. Raises StateForbids where the key takes no material.
    """
    parameters.one_of(spec, "spec", tickets.SPECS)
    key = locked(change)
    check_takes_material(key)
    tickets.check_few_open(key, change.now)
    token = tickets.new_token()
    ticket = ImportTicket.objects.create(
        key=key,
        spec=spec,
        digest=tickets.digest(token),
        created_by_id=change.caller.principal_id,
        created_at=change.now,
        expires_at=change.now + tickets.VALID,
    )
    change.facts |= {"ticket": str(ticket.id), "expires_at": ticket.expires_at.isoformat()}
    caller = change.caller

    def make() -> ImportParameters:
        try:
            made = tickets.make_wrapping_key(ticket)
        except KeyServiceError as error:
            results.tell(caller, Action.IMPORT_PARAMETERS, key, error=error, ticket=ticket)
            raise
        return ImportParameters(ticket.id, made.public_key or b"", token, ticket.expires_at)

    change.after(make)
    return ImportParameters(ticket.id, b"", token, ticket.expires_at)


def _bring(change: Change[Key], arguments: dict[str, Any]) -> None:
    """Unwrap what was brought, and let officers vote on its check value: on this material and no other.

    How it travelled is not what they agree to; the second call may bring it under another ticket.
    """
    check_secrets(arguments)
    check_imported(change.row)
    material = _material(change, arguments)
    value, claimed = ceremonies.check_value_of(change.row, material), arguments["check_value"]
    if claimed and not same(plain_check_value(claimed), value):
        raise Invalid("The material does not have that check value.", field="check_value")
    arguments |= {"material": material, "wrapped": None, "token": None, "check_value": value}
    arguments |= {"algorithm": "", "wrapping_key": ""}


@gate.change(Action.IMPORT_KEY, on=targets.key, prepare=_bring)
def import_key(
    change: Change[Key],
    *,
    wrapped: Secret | None = None,
    token: Secret | None = None,
    algorithm: str = "",
    wrapping_key: str = "",
    ceremony: str = "",
    material: Secret | None = None,
    check_value: str = "",
    originated_at: str | None = None,
    expires_at: str | None = None,
    number: int | None = None,
    reason: str = "",
) -> Key:
    """Import a key's material: raw bytes for secrets, PKCS#8 DER for key pairs.

    It comes `wrapped` under import_parameters() with their `token`, or (AES_KWP) under the console key
    `wrapping_key`, or from a `ceremony`; `material` in the clear is for the house's own use. A key that
    waits for its import takes it as its first version, an enabled one as its next: a rotation.
    `number` brings that version's own material back after it expired or was deleted, and no other.

    `originated_at` is when the material was made; its usage periods count from there. At `expires_at`
    it is removed. Where votes are needed, officers agree to its check value and dates; the requester
    then calls again with the same material, which is never kept or queued meanwhile.
    """
    assert material is not None  # as _bring() left it
    key = locked(change)
    origin = parameters.moment(originated_at, "originated_at")
    until = parameters.moment(expires_at, "expires_at")
    if origin and origin > change.now:
        raise Invalid("originated_at lies in the future.", field="originated_at")
    if until and until <= change.now:
        raise Invalid("expires_at lies in the past.", field="expires_at")
    check_nothing_under_way(key)
    held = _through(change, key, ceremony)
    change.facts |= _told(check_value, until, held)
    tickets.use_up(material, change.now)
    if number is None:
        _check_next(key, check_value)
        job = intend(change, key, JobKind.IMPORT, originated_at=origin, material_expires_at=until)
    else:
        if origin:
            raise Invalid("The version has its date already.", field="originated_at")
        version = _returning(key, number, check_value)
        job = intend_return(change, key, version, until)
    brought = material
    change.after(lambda: _store(key, job, brought, check_value, held))
    return key


@gate.change(Action.DELETE_MATERIAL, on=targets.key)
def delete_material(change: Change[Key], *, number: int, reason: str = "") -> KeyVersion:
    """Remove a version's imported material from its key store; the same material can be imported again.

    Every use of the version is refused from now on; its state stays what it is. Raises StateForbids,
    Conflict or NotFound.
    """
    key = locked(change)
    check_imported(key)
    if key.state not in LIVING:
        raise StateForbids(f"The key is {KeyState(key.state).label.lower()}.")
    version = find_version(key, number)
    check_has_material(version)
    job = intend_removal(change, key, version)

    def remove() -> KeyVersion:
        raised(jobs.run(job.id))
        return KeyVersion.objects.select_related("key").get(pk=version.pk)

    change.after(remove)
    return version


# --- what a key takes


def check_imported(key: Key) -> None:
    if key.origin != Origin.IMPORTED:
        raise StateForbids(
            f"The material of {key.alias} is made in its key store; only a key created for imports takes any."
        )


def check_takes_material(key: Key) -> None:
    """Raise StateForbids where a key takes neither its first material, nor its next, nor what it had."""
    check_imported(key)
    if key.state in (KeyState.PENDING_IMPORT, KeyState.ENABLED):
        return
    gone = key.versions.filter(condition=Condition.UNAVAILABLE).exists()
    if key.state != KeyState.DISABLED or not gone:
        raise StateForbids(
            f"The key takes no material now: it is {KeyState(key.state).label.lower()}."
        )


def check_nothing_under_way(key: Key) -> None:
    kinds = [JobKind.IMPORT, JobKind.REMOVE_MATERIAL]
    job = Job.objects.filter(key=key, kind__in=kinds, state__in=OPEN_STATES).first()
    if job is not None:
        what = "An import" if job.kind == JobKind.IMPORT else "A removal of material"
        raise Conflict(f"{what} of this key is under way.")


def check_has_material(version: KeyVersion) -> None:
    """Raise StateForbids or Conflict where there is no material that could be removed now."""
    if version.state in GONE:
        raise StateForbids(f"Version {version.number} is destroyed.")
    if version.condition:
        told = Condition(version.condition).label.lower()
        raise Conflict(f"Version {version.number} can't lose its material now: {told}.")


def plain_check_value(text: Any) -> str:
    """Return a check value as people type it: blanks and capitals don't count. Raises Invalid."""
    if not isinstance(text, str) or len(text) > 200:
        raise Invalid("The check value must be hexadecimal digits.", field="check_value")
    return "".join(text.split()).lower()


def check_secrets(arguments: dict[str, Any]) -> None:
    """Raise Invalid where a secret came as something else, which the entry would then show."""
    wrong = [
        name
        for name in SECRETS
        if arguments.get(name) is not None and not isinstance(arguments[name], Secret)
    ]
    for name in wrong:
        arguments[name] = None
    if wrong:
        raise Invalid(f"{wrong[0]} must be handed over as a secret.", field=wrong[0])


def _check_next(key: Key, check_value: str) -> None:
    """Raise where the key takes no new material, or had this already."""
    if key.state not in (KeyState.PENDING_IMPORT, KeyState.ENABLED):
        raise StateForbids(
            f"The key takes no new material now: it is {KeyState(key.state).label.lower()}."
        )
    _check_elsewhere(key, check_value)
    for version in key.versions.exclude(check_value=""):
        if same(version.check_value, check_value):
            raise Conflict(
                f"This is the material of version {version.number}. To bring it back after it expired or "
                "was deleted, name that version."
            )


def _check_elsewhere(key: Key, check_value: str) -> None:
    """Raise Conflict where another key has this material, and the two can't both have it.

    One secret has one purpose, one algorithm and one budget of messages, and what is compromised
    does not come back under another name. The other key is not named.
    """
    others = KeyVersion.objects.filter(check_value=check_value).exclude(key=key)
    others = others.exclude(state=VersionState.DESTROYED)
    alike = Q(key__algorithm=key.algorithm, key__usage=key.usage)
    if counters.limit_of(key.algorithm) is None:
        bad = [VersionState.COMPROMISED, VersionState.DESTROYED_COMPROMISED]
        others = others.filter(~alike | Q(state__in=bad))
    if others.exists():
        raise Conflict("The console holds this material already, under another key.")


def _returning(key: Key, number: int, check_value: str) -> KeyVersion:
    """Return the version whose own material comes back. Raises Invalid for any other material."""
    parameters.whole(number, "number", 1, 2**31 - 1)
    if key.state not in LIVING:
        raise StateForbids(f"The key is {KeyState(key.state).label.lower()}.")
    version = find_version(key, number)
    if version.condition != Condition.UNAVAILABLE:
        raise StateForbids(f"Version {version.number} does not wait for its material.")
    if not same(version.check_value, check_value):
        raise Invalid(
            f"Version {version.number} takes only the material that it had, whose check value is "
            f"{version.check_value}.",
            field="check_value",
        )
    return version


# --- where material comes from


def _material(change: Change[Key], arguments: dict[str, Any]) -> Secret:
    """Return the material in the clear, from the one source that was named."""
    key = change.row
    wrapped, plain = arguments["wrapped"], arguments["material"]
    ceremony = arguments["ceremony"]
    if sum((wrapped is not None, plain is not None, bool(ceremony))) != 1:
        raise Invalid(
            "The material is missing: bring it wrapped, or name a ceremony.", field="wrapped"
        )
    if ceremony:
        found = find_ceremony(key, ceremony)
        ceremonies.check_complete(found, clock.now())
        material = ceremonies.material_of(found)
        if not same(ceremonies.check_value_of(key, material), found.check_value):
            raise StateForbids("The components are not those that were confirmed.")
        arguments["ceremony"] = str(found.id)
        return material
    if plain is not None:
        return plain  # type: ignore[no-any-return]
    algorithm, wrapping_key = arguments["algorithm"], arguments["wrapping_key"]
    if algorithm == unwrapping.KWP:
        if not isinstance(wrapping_key, str) or not wrapping_key:
            raise Invalid(f"{unwrapping.KWP} needs a wrapping_key.", field="wrapping_key")
        return unwrapping.unwrap_with(change.caller, wrapping_key, key, wrapped)
    if wrapping_key:
        raise Invalid(f"A wrapping_key unwraps with {unwrapping.KWP}.", field="algorithm")
    return tickets.unwrap(key, arguments["token"], algorithm, wrapped)


def find_ceremony(key: Key, reference: Any) -> Ceremony:
    """Return a key's ceremony by id. Raises NotFound."""
    wanted = names.as_uuid(reference) if isinstance(reference, str) else None
    rows = Ceremony.objects.select_related("key")
    found = rows.filter(pk=wanted, key=key).first() if wanted else None
    if found is None:
        raise NotFound("This key has no such ceremony.")
    return found


def _through(change: Change[Key], key: Key, reference: str) -> Ceremony | None:
    """Return the ceremony that this import ends, held; refuse to pass by one that is under way."""
    under_way = ceremonies.open_for(key, change.now)
    if not reference:
        if under_way is not None:
            raise Conflict("A ceremony for this key is under way: end it, or close it first.")
        return None
    if under_way is None or str(under_way.id) != reference:
        raise StateForbids("The ceremony is not open any more.")
    held = Ceremony.objects.select_for_update(of=("self",)).select_related("key")
    found = held.get(pk=under_way.pk)
    ceremonies.check_complete(found, change.now)
    return found


def _told(check_value: str, until: datetime | None, ceremony: Ceremony | None) -> dict[str, str]:
    told = {"check_value": check_value}
    if until is not None:
        told["expires_at"] = until.isoformat()
    if ceremony is not None:
        told["ceremony"] = str(ceremony.id)
    return told


def _store(
    key: Key, job: Job, material: Secret, check_value: str, ceremony: Ceremony | None
) -> Key:
    """Bring the material to its store, and let go of what it came with."""
    try:
        done = settled(key, jobs.run_import(job.id, material, check_value))
    finally:
        # What can't be removed now, the next sweep removes.
        with suppress(KeyServiceError):
            tickets.clear(tickets.ticket_of(material))
    if ceremony is not None:
        ceremonies.remove_components(ceremony)
    return done
