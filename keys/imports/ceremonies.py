"""Ceremonies: officers bring one key's material together, each a component where it is split.

Components are sealed in the material database (stores.components), under their custodian's id,
until the ceremony ends in any way. A custodian's row says first what is coming (its check value),
then that it is there (`entered_at`). No component is ever shown or logged.
"""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta

from django.db import Error as DatabaseError

from audit.events import Outcome
from keys import clock, gate, stores, targets
from keys.actions import Action
from keys.algorithms import SPECS
from keys.backends import materials
from keys.backends.software.models import WrappedMaterial
from keys.callers import Caller, Kind, Role
from keys.errors import Conflict, Invalid, KeyServiceError, StateForbids
from keys.gate.changes import Change
from keys.models import Ceremony, Custodian, Key
from keys.models.imports import CeremonyState
from keys.secret import Secret, same
from keys.services import scheduler

VALID = timedelta(hours=24)
STARTED = Outcome.STARTED
LEAST, MOST = 2, 5
# How many officers must have compared the check value before the material is imported.
CONFIRMATIONS = 2


def combined(parts: list[Secret]) -> Secret:
    """Return the exclusive or of components of one length. Raises Invalid where lengths differ."""
    lengths = {len(part) for part in parts}
    if len(lengths) != 1:
        raise Invalid("The components have different lengths.")
    total = 0
    for part in parts:
        total ^= int.from_bytes(part.reveal(), "big")
    return Secret(total.to_bytes(lengths.pop(), "big"))


def bringing(ceremony: Ceremony) -> list[Custodian]:
    """Return the custodians who bring something: each where it is split, else the first."""
    parts = list(ceremony.custodians.order_by("number"))
    return parts if ceremony.split else parts[:1]


def all_in(ceremony: Ceremony) -> bool:
    return all(custodian.entered_at is not None for custodian in bringing(ceremony))


def check_open(ceremony: Ceremony, now: datetime) -> None:
    """Raise StateForbids where a ceremony is closed, or its time is over."""
    if ceremony.state != CeremonyState.OPEN:
        raise StateForbids(
            f"The ceremony is closed: {CeremonyState(ceremony.state).label.lower()}."
        )
    if now >= ceremony.expires_at:
        raise StateForbids("The ceremony's time is over; open another one.")


def check_complete(ceremony: Ceremony, now: datetime) -> None:
    """Raise StateForbids where not everything is in, or too few officers have confirmed it."""
    check_open(ceremony, now)
    if not ceremony.check_value:
        raise StateForbids("The ceremony is not complete: not every component is in.")
    confirmed = ceremony.custodians.filter(
        confirmed_at__isnull=False,
        officer__active=True,
        officer__kind=Kind.PERSON,
        officer__role=Role.OFFICER,
    ).count()
    if confirmed < CONFIRMATIONS:
        raise StateForbids(
            f"{confirmed} of {CONFIRMATIONS} officers have confirmed the ceremony's check value."
        )


def material_of(ceremony: Ceremony) -> Secret:
    """Return the whole material. Raises StateForbids where a component is missing, Invalid for all zeros."""
    backend, parts = stores.components(), []
    for custodian in bringing(ceremony):
        found = backend.find(custodian.id)
        if found is None or not same(found.check_value, custodian.check_value):
            raise StateForbids("A component is not there any more; open another ceremony.")
        parts.append(backend.export_material(found.handle))
    return combined(parts) if ceremony.split else parts[0]


def check_value_of(key: Key, material: Secret) -> str:
    return materials.check_value(SPECS[key.spec], material)


# --- components


def keep(caller: Caller, ceremony: Ceremony, custodian: Custodian, component: Secret) -> None:
    """Seal a custodian's component, then write that it is there, with an entry of how it went."""
    backend, spec = stores.components(), ceremony.key.spec
    try:
        found = backend.find(custodian.id)
        now = Custodian.objects.get(pk=custodian.pk)
        if now.entered_at is not None or not same(now.check_value, custodian.check_value):
            raise Conflict("Another component was entered at the same time; enter yours again.")
        if found is not None and not same(found.check_value, custodian.check_value):
            # What an earlier try left that never came to be entered.
            backend.destroy(found.handle)
        backend.import_material(custodian.id, spec, component, exportable=True)
        _tell_entered(caller, ceremony, custodian)
    except KeyServiceError as error:
        if not error.recorded:
            _tell_entered(caller, ceremony, custodian, error)
        if not Ceremony.objects.filter(pk=ceremony.pk, state=CeremonyState.OPEN).exists():
            remove_component(custodian.id)
        raise


def complete(caller: Caller, ceremony: Ceremony) -> Invalid | None:
    """Once everything is in, work out the whole material's check value, and forget the material.

    Returns what is wrong with the material, where it is no key: then the ceremony can't go on.
    """
    ceremony.refresh_from_db()
    if ceremony.check_value or ceremony.state != CeremonyState.OPEN or not all_in(ceremony):
        return None
    try:
        value = check_value_of(ceremony.key, material_of(ceremony))
    except Invalid as fault:
        return Invalid(f"The components together are no key. {fault.detail}", field="component")
    _known(scheduler(request_id=caller.request_id), str(ceremony.id), check_value=value)
    return None


def _tell_entered(
    caller: Caller, ceremony: Ceremony, custodian: Custodian, error: KeyServiceError | None = None
) -> None:
    _entered(
        scheduler(request_id=caller.request_id),
        str(ceremony.id),
        custodian=str(custodian.id),
        check_value=custodian.check_value,
        code=error.code if error else "",
    )


@gate.change(Action.RUN_JOB, on=targets.ceremony)
def _entered(change: Change[Ceremony], *, custodian: str, check_value: str, code: str) -> None:
    """Write that a component is sealed, where the ceremony is still open."""
    row = Custodian.objects.select_related("officer").get(pk=custodian)
    change.record_as, change.about = Action.ENTER_COMPONENT, change.target.subject()
    change.facts |= {"custodian": row.number, "requested_by": str(row.officer_id)}
    if code:
        change.outcome, change.why = Outcome.FAILED, code
        return
    change.facts["check_value"] = check_value
    check_open(locked(change), change.now)
    waiting = Custodian.objects.filter(pk=row.pk, entered_at=None, check_value=check_value)
    if not waiting.update(entered_at=change.now):
        raise Conflict("The component was entered already.")


@gate.change(Action.RUN_JOB, on=targets.ceremony)
def _known(change: Change[Ceremony], *, check_value: str) -> None:
    """Write the whole material's check value, once."""
    change.record_as, change.about = Action.ENTER_COMPONENT, change.target.subject()
    change.facts["ceremony_check_value"] = check_value
    row = locked(change)
    check_open(row, change.now)
    if row.check_value and not same(row.check_value, check_value):
        raise Conflict("The ceremony has another check value.")
    Ceremony.objects.filter(pk=row.pk).update(check_value=check_value)


# --- the end


def locked(change: Change[Ceremony]) -> Ceremony:
    """Return the ceremony read anew, and held to the end of the transaction."""
    rows = Ceremony.objects.select_for_update(of=("self",)).select_related("key")
    return rows.get(pk=change.row.pk)


def open_for(key: Key, now: datetime) -> Ceremony | None:
    """Return a key's ceremony that is under way, if there is one."""
    return Ceremony.objects.filter(key=key, state=CeremonyState.OPEN, expires_at__gt=now).first()


def end_of(key: Key, check_value: str, now: datetime) -> None:
    """End a key's open ceremony with its import; one for other material is cancelled."""
    for ceremony in Ceremony.objects.filter(key=key, state=CeremonyState.OPEN):
        ours = bool(ceremony.check_value) and same(ceremony.check_value, check_value)
        close(ceremony, CeremonyState.DONE if ours else CeremonyState.CANCELLED, now)


def close(ceremony: Ceremony, state: CeremonyState, now: datetime) -> None:
    """Write a ceremony's end by compare-and-set. Raises Conflict where somebody was quicker."""
    changes = {"state": state, "closed_at": now}
    if not Ceremony.objects.filter(pk=ceremony.pk, state=CeremonyState.OPEN).update(**changes):
        raise Conflict("The ceremony is closed already.")
    for column, value in changes.items():
        setattr(ceremony, column, value)


def remove_components(ceremony: Ceremony) -> None:
    """Remove what was sealed for a ceremony that is over. A store's trouble is left to the next sweep."""
    for identity in ceremony.custodians.values_list("id", flat=True):
        remove_component(identity)


def remove_component(identity: uuid.UUID) -> None:
    backend = stores.components()
    try:
        found = backend.find(identity)
        if found is not None:
            backend.destroy(found.handle)
    except KeyServiceError:
        return


def leftover(limit: int) -> list[uuid.UUID]:
    """Return components whose ceremony is over: what a crash left of it."""
    kept = WrappedMaterial.objects.filter(store_id=stores.COMPONENTS).order_by("created_at")
    try:
        labels = list(kept.values_list("label", flat=True)[:limit])
    except DatabaseError:
        return []  # the material database is away: the next sweep looks again
    wanted = Custodian.objects.filter(pk__in=labels, ceremony__state=CeremonyState.OPEN)
    return sorted(set(labels) - set(wanted.values_list("id", flat=True)))


def over(limit: int) -> list[Ceremony]:
    """Return ceremonies that are still open though their time is over."""
    rows = Ceremony.objects.filter(state=CeremonyState.OPEN, expires_at__lte=clock.now())
    return list(rows.order_by("expires_at")[:limit])


def to_complete(limit: int) -> list[Ceremony]:
    """Return open ceremonies where everything is in and the check value was not written."""
    rows = Ceremony.objects.filter(state=CeremonyState.OPEN, check_value="")
    rows = rows.filter(expires_at__gt=clock.now()).select_related("key")
    return [row for row in rows.order_by("expires_at")[:limit] if all_in(row)]
