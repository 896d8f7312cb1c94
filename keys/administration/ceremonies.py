"""Key ceremonies: officers bring a key's material together, each a component where it is split."""

from __future__ import annotations

from typing import Any

from audit.events import Subject
from keys import clock, gate, names, parameters, targets
from keys.actions import Action
from keys.administration.imports import (
    check_nothing_under_way,
    check_secrets,
    check_takes_material,
    plain_check_value,
)
from keys.administration.intents import locked
from keys.algorithms import SPECS
from keys.callers import Kind, Role
from keys.errors import Conflict, Denied, Invalid, StateForbids
from keys.gate.changes import Change
from keys.imports import ceremonies, tickets
from keys.models import Ceremony, Custodian, Job, Key, Principal
from keys.models.imports import CeremonyState
from keys.models.job import OPEN_STATES, JobKind
from keys.secret import Secret, same
from keys.services import SCHEDULER_ID


@gate.change(Action.OPEN_CEREMONY, on=targets.key)
def open_ceremony(
    change: Change[Key],
    *,
    custodians: list[str],
    split: bool,
    place: str = "",
    reason: str = "",
) -> Ceremony:
    """Open a ceremony for one import into a key, for 24 hours.

    `custodians`: names or ids of two to five active officers. `split`: each brings a component, and
    the material is the exclusive or of all; else the first brings the whole. Raises Invalid,
    StateForbids, or Conflict where one is open already.
    """
    key = locked(change)
    check_takes_material(key)
    check_nothing_under_way(key)
    parameters.yes_or_no(split, "split")
    if split and SPECS[key.spec].asymmetric:
        raise Invalid("Only a secret can be split into components, not a key pair.", field="split")
    officers = _officers(custodians)
    if Ceremony.objects.filter(key=key, state=CeremonyState.OPEN).exists():
        raise Conflict("A ceremony for this key is open already; close it first.")
    row = Ceremony.objects.create(
        key=key,
        split=split,
        place=names.prose(place, "place", 256),
        opened_by_id=change.caller.principal_id,
        created_at=change.now,
        expires_at=change.now + ceremonies.VALID,
    )
    for number, officer in enumerate(officers, 1):
        Custodian.objects.create(ceremony=row, officer=officer, number=number)
    change.about = Subject("ceremony", str(row.id), key.alias)
    change.facts |= {
        "key": str(key.id),
        "split": split,
        "custodians": [officer.name for officer in officers],
        "expires_at": row.expires_at.isoformat(),
    }
    return row


def _weigh(change: Change[Ceremony], arguments: dict[str, Any]) -> None:
    """Unwrap what a custodian brings, and work out its check value, before any transaction is open."""
    check_secrets(arguments)
    ceremonies.check_open(change.row, clock.now())
    _custodian(change)  # nobody else learns anything of what is brought
    key, component, wrapped = change.row.key, arguments["component"], arguments["wrapped"]
    if (component is None) == (wrapped is None):
        raise Invalid("The component is missing: give it once.", field="component")
    if wrapped is not None:
        component = tickets.unwrap(key, arguments["token"], arguments["algorithm"], wrapped)
    elif not change.row.split:
        raise Invalid(
            "The whole material is brought wrapped, under import parameters.", field="wrapped"
        )
    value, claimed = ceremonies.check_value_of(key, component), arguments["check_value"]
    if claimed and not same(plain_check_value(claimed), value):
        raise Invalid(
            "The component does not have that check value; it was mistyped.", field="check_value"
        )
    arguments |= {"component": component, "wrapped": None, "token": None, "check_value": value}


@gate.change(Action.ENTER_COMPONENT, on=targets.ceremony, prepare=_weigh)
def enter_component(
    change: Change[Ceremony],
    *,
    component: Secret | None = None,
    wrapped: Secret | None = None,
    token: Secret | None = None,
    algorithm: str = "",
    check_value: str = "",
    reason: str = "",
) -> Custodian:
    """Enter one's own component, once, in the clear or `wrapped` under import parameters.

    It is sealed until the ceremony ends. `check_value`, where given, must be the component's own. Where
    the ceremony is not split, the first custodian brings the whole material, wrapped. Raises Denied
    for who is no custodian, Invalid, Conflict, StateForbids.
    """
    assert component is not None  # as _weigh() left it
    row = ceremonies.locked(change)
    ceremonies.check_open(row, change.now)
    custodian = _custodian(change)
    if custodian.entered_at is not None:
        raise Conflict("You have entered your component already.")
    if not row.split and custodian.number != 1:
        raise Conflict("In this ceremony the first custodian brings the material; you confirm it.")
    tickets.use_up(component, change.now)
    Custodian.objects.filter(pk=custodian.pk, entered_at=None).update(check_value=check_value)
    custodian.check_value = check_value
    change.facts["custodian"] = custodian.number
    change.outcome = ceremonies.STARTED
    caller, sealed = change.caller, component

    def keep() -> Custodian:
        try:
            ceremonies.keep(caller, row, custodian, sealed)
        finally:
            tickets.clear(tickets.ticket_of(sealed))
        fault = ceremonies.complete(caller, row)
        if fault is not None:
            close_ceremony(caller, str(row.id), reason=fault.detail)
            raise fault
        custodian.refresh_from_db()
        return custodian

    change.after(keep)
    return custodian


@gate.change(Action.CONFIRM_CEREMONY, on=targets.ceremony)
def confirm_ceremony(change: Change[Ceremony], *, check_value: str, reason: str = "") -> Custodian:
    """Confirm that the whole material's check value is the one that the caller has on paper.

    Each custodian does so once; without a value on paper it is the one that they read out to each
    other. Raises Denied for who is no custodian, Invalid for another value, Conflict, StateForbids.
    """
    row = ceremonies.locked(change)
    ceremonies.check_open(row, change.now)
    custodian = _custodian(change)
    if not row.check_value:
        raise StateForbids("There is nothing to confirm yet: not every component is in.")
    if custodian.confirmed_at is not None:
        raise Conflict("You have confirmed it already.")
    if not same(plain_check_value(check_value), row.check_value):
        raise Invalid("That is not the ceremony's check value.", field="check_value")
    Custodian.objects.filter(pk=custodian.pk).update(confirmed_at=change.now)
    custodian.confirmed_at = change.now
    change.facts["custodian"] = custodian.number
    return custodian


@gate.change(Action.CLOSE_CEREMONY, on=targets.ceremony)
def close_ceremony(change: Change[Ceremony], *, reason: str = "") -> Ceremony:
    """Cancel a ceremony; every component is removed. The scheduler closes those whose time is over.

    Raises Conflict where it is closed, or its import is under way.
    """
    row = ceremonies.locked(change)
    if change.caller.principal_id == SCHEDULER_ID and change.now < row.expires_at:
        raise Conflict("The ceremony's time is not over.")
    if Job.objects.filter(key=row.key, kind=JobKind.IMPORT, state__in=OPEN_STATES).exists():
        raise Conflict("The material is being imported; it is too late to close the ceremony.")
    ceremonies.close(row, CeremonyState.CANCELLED, change.now)

    def remove() -> Ceremony:
        ceremonies.remove_components(row)
        return row

    change.after(remove)
    return row


def _custodian(change: Change[Ceremony]) -> Custodian:
    """Return the caller's own part. Raises Denied where there is none."""
    found = Custodian.objects.filter(
        ceremony=change.row, officer_id=change.caller.principal_id
    ).first()
    if found is None:
        raise Denied("You are not a custodian of this ceremony.")
    return found


def _officers(references: Any) -> list[Principal]:
    """Return the officers named, in order. Raises Invalid."""
    if not isinstance(references, list) or not all(isinstance(one, str) for one in references):
        raise Invalid("custodians must be a list of officers' names or ids.", field="custodians")
    if not ceremonies.LEAST <= len(references) <= ceremonies.MOST:
        raise Invalid(
            f"A ceremony has {ceremonies.LEAST} to {ceremonies.MOST} custodians.",
            field="custodians",
        )
    found = [targets.principal(one, {}).row for one in references]
    if len({officer.id for officer in found}) != len(found):
        raise Invalid("Each custodian is named once.", field="custodians")
    for officer in found:
        if (officer.kind, officer.role, officer.active) != (Kind.PERSON, Role.OFFICER, True):
            raise Invalid(f"{officer.name} is not an active officer.", field="custodians")
    return found
